"""The verb setup: asks for the key, tries it for free, keeps it for this user alone, and installs into the clients here."""

import asyncio
import getpass
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from nanobanana_mcp.cli.install.clients import CLIENTS, ClientKind, ClientName, Surroundings
from nanobanana_mcp.cli.install.install import here
from nanobanana_mcp.cli.install.verb import install_into
from nanobanana_mcp.cli.keyfile import KEYS, has_key, store_key
from nanobanana_mcp.domain.errors import ServiceError, SetupError, StudioError
from nanobanana_mcp.domain.keys import problem_with
from nanobanana_mcp.settings import env_file, load_settings
from nanobanana_mcp.studio.checkup import look_at_key

WHERE = "https://aistudio.google.com/apikey"
DONE, REFUSED, SETUP, GEMINI = 0, 1, 2, 3


class Stop(Exception):
    """Ends setup, with words for the person and an exit code."""

    def __init__(self, words: str, code: int = SETUP) -> None:
        super().__init__(words)
        self.code = code


def setup(
    *,
    key_stdin: Annotated[bool, Parameter(help="Read the key from stdin, for scripts.", negative=())] = False,
    key_env: Annotated[str | None, Parameter(help="Read the key from this variable of the environment.")] = None,
    keep_key: Annotated[bool, Parameter(help="Leave the key as it is.", negative=())] = False,
    delete_key: Annotated[bool, Parameter(help="Take the key out of the file.", negative=())] = False,
    unchecked: Annotated[bool, Parameter(help="Do not try the key with Gemini first.", negative=())] = False,
    client: Annotated[
        list[ClientName] | None, Parameter(help="Install into this client; may be repeated.", negative=())
    ] = None,
    all_clients: Annotated[bool, Parameter(help="Install into every client that is here.", negative=())] = False,
    no_clients: Annotated[bool, Parameter(help="Install into none.", negative=())] = False,
) -> int:
    """Ask for the Gemini key, try it for free, keep it, and install into your clients.

    The key goes into the studio's own settings file, which only you can read,
    and which the server reads whichever client starts it. It is asked for without
    being shown. No flag takes it: what stands on a command line is seen by every
    program on the machine, and stays in the shell's history.

    For example:
      nanobanana setup
      nanobanana setup --key-stdin --all-clients < key.txt
      nanobanana setup --key-env MY_KEY --client claude-code
      nanobanana setup --delete-key
    """
    ways = [key_stdin, key_env is not None, keep_key, delete_key]
    try:
        if sum(ways) > 1:
            raise Stop("--key-stdin, --key-env, --keep-key and --delete-key exclude one another.", REFUSED)
        if sum([bool(client), all_clients, no_clients]) > 1:
            raise Stop("--client, --all-clients and --no-clients exclude one another.", REFUSED)
        if delete_key:
            return _delete()
        if not keep_key:
            _take_key(_given(key_stdin=key_stdin, key_env=key_env), unchecked=unchecked)
        return _install(client, everywhere=all_clients, nowhere=no_clients)
    except Stop as reason:
        _say(f"nanobanana setup: {reason}")
        return reason.code
    except SetupError as error:
        _say(f"nanobanana setup: {error}")
        return SETUP


def _given(*, key_stdin: bool, key_env: str | None) -> str | None:
    """The key that a script hands over, None when a person is to be asked."""
    if key_stdin:
        return sys.stdin.readline().strip()
    if key_env is not None:
        key = os.environ.get(key_env, "").strip()
        if not key:
            raise Stop(f"the variable {key_env[:80]} is not set, or is empty. Nothing was changed.")
        return key
    return None


def _take_key(given: str | None, *, unchecked: bool) -> None:
    """Get a key that Gemini takes, and keep it. Raises Stop, and then nothing was changed."""
    key = given
    if key is None:
        if not _somebody_is_here():
            raise Stop(
                "there is nobody to ask; use --key-stdin, --key-env NAME or --keep-key. Nothing was changed.", REFUSED
            )
        if has_key() and not _agreed(f"There is a key in {env_file()}. Change it?", usually=False):
            return
        key = _asked()
    problem = problem_with(key, "What was given")
    if problem is not None:
        raise Stop(f"{problem}. Get one at {WHERE}. Nothing was changed.", REFUSED)
    if not unchecked:
        _try(key, ask=given is None)
    if store_key(key):
        _say(f"The key is kept in {env_file()}, for you alone.")
    else:
        _say(f"That key is in {env_file()} already.")
    for name in KEYS:
        if os.environ.get(name) and os.environ[name].strip() != key:
            _say(f"{name} in this shell's environment is another key and comes first where it is passed on; unset it.")


def _try(key: str, *, ask: bool) -> None:
    """Ask Gemini whether it takes the key. Raises Stop when it does not, or when nobody knows and nobody says so."""
    error = asyncio.run(look_at_key(load_settings().with_key(key)))
    if error is None:
        _say("Gemini accepts the key (asking was free).")
        return
    if isinstance(error, ServiceError):
        _say(f"The key could not be tried: {_free(error)}")
        if ask and _agreed("Keep it all the same?", usually=False):
            return
        raise Stop("nothing was changed. Try again later, or with --unchecked.", GEMINI)
    raise Stop(f"{_free(error)} Nothing was changed.")


def _free(error: StudioError) -> str:
    """The words of an error without the warning of a charge: the question whether a key is good is free."""
    return str(error).replace(" The request was sent, so it may have been charged.", "")


def _asked() -> str:
    """The key, typed or pasted without being shown."""
    try:
        key = getpass.getpass(f"Gemini key (from {WHERE}; it is not shown): ").strip()
    except EOFError:  # Ctrl-D
        key = ""
    if not key:
        raise Stop("no key was given. Nothing was changed.", REFUSED)
    return key


def _delete() -> int:
    if store_key(None):
        _say(f"The key is out of {env_file()}.")
    else:
        _say(f"There was no key in {env_file()}.")
    left = [name for name in KEYS if os.environ.get(name)]
    if left:
        _say(f"{' and '.join(left)} in the environment of this shell is not changed by this.")
    _say("A key that others may have seen has to be deleted where it was made, too: " + WHERE)
    return DONE


def _install(named: list[ClientName] | None, *, everywhere: bool, nowhere: bool) -> int:
    """Installs into the clients that are named, or into those here that somebody agrees to, and returns the worst exit
    code.
    """
    around = Surroundings.of_this_machine()
    there = here(around)
    if named:
        return max([install_into(CLIENTS[name], around, yes=True) for name in named])
    if nowhere:
        return DONE
    if not there:
        _say("No client that is known was found here; 'nanobanana install CLIENT' enters it into one by name.")
        return DONE
    if everywhere:
        return max([install_into(kind, around, yes=True) for kind in there])
    if not _somebody_is_here():
        _say(f"Found: {', '.join(kind.name for kind in there)}. --all-clients or --client NAME installs into them.")
        return DONE
    return max([_offer(kind, around) for kind in there])


def _offer(kind: ClientKind, around: Surroundings) -> int:
    """Show what would change in one client, and do it when somebody agrees."""
    return install_into(kind, around, yes=False, ask=lambda: _agreed(f"Install into {kind.title}?", usually=True))


def _somebody_is_here() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(question: str, *, usually: bool) -> bool:
    sys.stderr.write(f"{question} [{'Y/n' if usually else 'y/N'}] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:  # the end of input is no agreement
        return False
    return answer.strip().lower() in (("y", "yes", "") if usually else ("y", "yes"))


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
