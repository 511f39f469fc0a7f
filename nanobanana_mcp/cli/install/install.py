"""Compares what a client has with what it would have, and makes the change.

A key never goes into a client's file, which other programs and people read: it stands in the studio's own settings
file.
"""

import difflib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nanobanana_mcp.cli.install.clients import CLIENTS, ClientKind, Surroundings
from nanobanana_mcp.cli.install.problem import NotEditable, entry_of
from nanobanana_mcp.cli.install.program import is_ours, server_command
from nanobanana_mcp.cli.keyfile import KEYS
from nanobanana_mcp.settings import config_folder, variables
from nanobanana_mcp.storage.others import LeftAlone, change_other, copy_of_other, read_other

NAME = "nanobanana"
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_TOOL_S = 60


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Compares what one client has with what it would have. `before` and `after` are its entry, None for none."""

    kind: ClientKind
    path: Path
    name: str
    before: Any
    after: dict[str, Any] | None
    tool: str | None = None
    """The client's own program, where that makes the change."""

    @property
    def changes(self) -> bool:
        return bool(self.before != self.after)


def look(
    kind: ClientKind,
    around: Surroundings,
    *,
    name: str = NAME,
    remove: bool = False,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Outlook:
    """Compare what a client has with what it would have. Raises LeftAlone when its file cannot be changed without harm."""
    path = kind.file(around)
    before = _entry(kind, path, read_other(path), name)
    if before is not None and not is_ours(before):
        raise LeftAlone(
            f"{path} has a server called {name} that is not this one; choose another name with --name"
            if not remove
            else f"{path} has a server called {name} that is not this one, so it stays; take it out yourself"
        )
    after = None if remove else _merged(before, kind.entry(list(command or server_command()), environment or {}))
    found = Outlook(kind=kind, path=path, name=name, before=before, after=after)
    tool = shutil.which("claude", path=around.environment.get("PATH", "")) if kind.name == "claude-code" else None
    if tool is None or any(_SECRET.search(key) for one in (before, after) for key in (one or {}).get("env", {})):
        return found  # a key that somebody put there would be seen in the list of processes
    return replace(found, tool=tool)


def apply(outlook: Outlook, around: Surroundings) -> Path | None:
    """Makes the change and returns the copy of what was there before, None where there was no file. Raises LeftAlone."""
    if outlook.tool is not None:
        return _by_claude(outlook, around)

    def change(data: bytes) -> bytes:
        text = _text(outlook.path, data)
        if _entry(outlook.kind, outlook.path, data, outlook.name) != outlook.before:
            raise LeftAlone(f"{outlook.path} was changed meanwhile; look at it again")
        try:
            changed: str = outlook.kind.form.with_entry(text, outlook.kind.group, outlook.name, outlook.after)
        except NotEditable as reason:
            raise LeftAlone(f"{outlook.path}: {reason}") from None
        return changed.encode()

    return change_other(outlook.path, change, lock=config_folder() / "install.lock")


def shown(outlook: Outlook) -> str:
    """The change for people: the entry as it is and as it would be, without anything that may be a secret."""
    before, after = (_lines(outlook, entry) for entry in (outlook.before, outlook.after))
    lines = [line for line in difflib.ndiff(before, after) if not line.startswith("?")]
    return "\n".join(line.rstrip() for line in lines)


def commands(outlook: Outlook) -> list[list[str]]:
    """The commands that make the change through Claude Code's own program."""
    assert outlook.tool is not None
    steps = []
    if outlook.before is not None:
        steps.append([outlook.tool, "mcp", "remove", "--scope", "user", outlook.name])
    if outlook.after is not None:
        words = json.dumps(outlook.after, ensure_ascii=False)
        steps.append([outlook.tool, "mcp", "add-json", "--scope", "user", outlook.name, words])
    return steps


def snippet(
    kind: ClientKind, *, name: str = NAME, environment: Mapping[str, str] | None = None, command: Sequence[str] | None
) -> str:
    """Make the snippet to paste into a client's file that is left alone."""
    entry = kind.entry(list(command or server_command()), environment or {})
    text: str = kind.form.with_entry("", kind.group, name, entry)
    return text.rstrip()


def checked_environment(pairs: Sequence[str]) -> dict[str, str]:
    """The variables that an entry is to have, from NAME=VALUE. Raises ValueError in words."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise ValueError(f"--env takes NAME=VALUE, and {key[:40]!r} is not that")
        if key.upper() in KEYS:
            raise ValueError(
                f"{key} does not go into a client's file, where others read it; 'nanobanana setup' puts it into the "
                "studio's own, which every client's server reads"
            )
        if key.upper() not in variables() and key.startswith("NANOBANANA_") and key != "NANOBANANA_ENV_FILE":
            raise ValueError(f"{key} is no setting of this program; docs/settings.md lists them")
        found[key] = value
    return found


def here(around: Surroundings) -> list[ClientKind]:
    """The clients of which there is a sign on this machine."""
    return [kind for kind in CLIENTS.values() if kind.is_here(around)]


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise LeftAlone(f"{path} is not in UTF-8") from None


def _entry(kind: ClientKind, path: Path, data: bytes, name: str) -> Any:
    try:
        return entry_of(kind.form.parsed(_text(path, data)), kind.group, name)
    except NotEditable as reason:
        raise LeftAlone(f"{path}: {reason}") from None


def _merged(before: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as it is to be: what starts the server is new, and what a user set beside that stays."""
    if before is None:
        return entry
    environment = before.get("env") if isinstance(before.get("env"), dict) else {}
    merged: dict[str, Any] = entry | before | {"command": entry["command"], "args": entry["args"]}
    if environment or "env" in entry:
        merged["env"] = environment | entry.get("env", {})
    return merged


def _lines(outlook: Outlook, entry: dict[str, Any] | None) -> list[str]:
    if entry is None:
        return []
    shown_entry = dict(entry)
    if isinstance(entry.get("env"), dict):
        shown_entry["env"] = {key: "..." if _SECRET.search(key) else value for key, value in entry["env"].items()}
    text: str = outlook.kind.form.with_entry("", outlook.kind.group, outlook.name, shown_entry)
    return text.splitlines()


def _by_claude(outlook: Outlook, around: Surroundings) -> Path | None:
    """Let Claude Code's own program make the change: it may be running, and would write its file over ours."""
    copy = copy_of_other(outlook.path)
    for number, step in enumerate(commands(outlook)):
        problem = _problem_with(step, around)
        if problem is not None:
            if number:  # the old entry is out, and goes in again
                by_file = replace(outlook, tool=None, before=None, after=outlook.before)
                apply(by_file, around)
            raise LeftAlone(f"'claude mcp {step[2]}' did not do it ({problem})")
    return copy


def _problem_with(step: list[str], around: Surroundings) -> str | None:
    """Runs a program of a client, without a shell, and says what went wrong; None when nothing did."""
    try:
        done = subprocess.run(  # noqa: S603 -- the program that the PATH has, with arguments of our own
            step, env=dict(around.environment), stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return None if done.returncode == 0 else said[-1][:200] if said else "without a word"
