"""The verb install: prints what would change in a client's configuration, and changes it when told to."""

import os
import shlex
import sys
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from nanobanana_mcp.cli.install.clients import CLIENTS, ClientKind, ClientName, Surroundings
from nanobanana_mcp.cli.install.install import (
    NAME,
    Outlook,
    apply,
    checked_environment,
    commands,
    here,
    look,
    shown,
    snippet,
)
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.settings import load_settings
from nanobanana_mcp.storage.others import LeftAlone

DONE, NOT_UNDERSTOOD, LEFT_ALONE = 0, 1, 2


def install(
    client: Annotated[ClientName | None, Parameter(help="Which client; without one, says which are here.")] = None,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Make the change.", negative=())] = False,
    remove: Annotated[bool, Parameter(help="Take the server out again.", negative=())] = False,
    name: Annotated[str, Parameter(help="What the server is called in the client.")] = NAME,
    env: Annotated[
        list[str] | None, Parameter(help="NAME=VALUE, a variable for the server; never a key.", negative=())
    ] = None,
) -> int:
    """Enter the server into the configuration of a client, or take it out.

    Shows what would change, and changes it with --yes. Everything else in the
    file stays, and a private copy of it is kept beside. No key goes in: 'nanobanana
    setup' keeps that in a file of its own, which the server reads whichever client
    starts it.

    For example:
      nanobanana install
      nanobanana install claude-code --yes
      nanobanana install cursor --env NANOBANANA_TOOLS=core
      nanobanana install cursor --remove --yes
    """
    around = Surroundings.of_this_machine()
    if client is None:
        return show_clients(around)
    try:
        environment = checked_environment(env or [])
    except ValueError as error:
        _complain(f"{error}.")
        return NOT_UNDERSTOOD
    return install_into(CLIENTS[client], around, yes=yes, remove=remove, name=name, environment=environment)


def install_into(
    kind: ClientKind,
    around: Surroundings,
    *,
    yes: bool,
    ask: Callable[[], bool] | None = None,
    remove: bool = False,
    name: str = NAME,
    environment: dict[str, str] | None = None,
) -> int:
    """Enters the server into one client, or takes it out, wholly or not at all, and returns the exit code.

    Without `yes` it calls `ask` once the change was shown; without either nothing is changed.
    """
    environment = dict(environment or {})
    if around.environment.get("NANOBANANA_ENV_FILE"):  # else the server would read another settings file
        environment.setdefault("NANOBANANA_ENV_FILE", around.environment["NANOBANANA_ENV_FILE"])
    try:
        outlook = look(kind, around, name=name, remove=remove, environment=environment)
        if not outlook.changes:
            _say(f"{kind.title}: {outlook.path} has {'no ' if remove else ''}{name}{'' if remove else ' already'}.")
            return DONE
        _show(outlook)
        sys.stdout.flush()
        if not yes and (ask is None or not ask()):
            _say("Nothing was changed; --yes does it." if ask is None else "Nothing was changed.")
            return DONE
        copy = apply(outlook, around)
    except LeftAlone as reason:
        _complain(f"{kind.title}: {reason}. Nothing was changed.")
        if not remove:
            words = snippet(kind, name=name, environment=environment, command=None)
            _complain(f"To do it by hand, enter this in {kind.file(around)}:\n{words}")
        return LEFT_ALONE
    _say(f"Done. {kind.afterwards}" if not remove else "Done.")
    if copy is not None:
        _say(f"What was there before is kept in {copy}.")
    if not remove:
        for words in _left_to_do(environment):
            _complain(words)
    return DONE


def _show(outlook: Outlook) -> None:
    if outlook.tool is not None:
        for step in commands(outlook):
            _say(f"{outlook.kind.title}, by its own program: {shlex.join(['claude', *step[1:]])}")
    else:
        _say(f"{outlook.kind.title}: {outlook.path}, and nothing else in it:")
    _say(shown(outlook))


def show_clients(around: Surroundings) -> int:
    """Say of every client that is known whether it is here and has the server."""
    there = here(around)
    for kind in CLIENTS.values():
        try:
            has = look(kind, around).before is not None
            state = f"has {NAME}" if has else "is here" if kind in there else "was not found"
        except LeftAlone as reason:
            state = f"is left alone: {reason}"
        _say(f"{kind.name:<15} {state}")
    _complain("nanobanana install CLIENT shows what it would change, and with --yes changes it.")
    return DONE


def _left_to_do(environment: dict[str, str]) -> list[str]:
    """Name what keeps the server from drawing although it is installed: a key that only this shell has, or none."""
    if environment.get("NANOBANANA_BACKEND") == "emulator":
        return []
    kept = {name: os.environ.pop(name) for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY") if name in os.environ}
    try:
        settings = load_settings()
        if settings.gemini_api_key is not None or settings.effective_backend != "gemini":
            return []
        return [
            "It needs a key yet: 'nanobanana setup' asks for one"
            + (" (this shell's is not passed on)." if kept else ".")
        ]
    except SetupError as error:
        return [str(error)]
    finally:
        os.environ.update(kept)


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")


def _complain(words: str) -> None:
    sys.stderr.write(f"{words}\n")
