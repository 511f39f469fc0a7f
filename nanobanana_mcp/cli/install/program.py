"""The command by which a client starts this very program again."""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nanobanana_mcp import __version__

DISTRIBUTION = "nanobanana-studio"
COMMANDS = frozenset(("nanobanana", "nanobanana-mcp", DISTRIBUTION))
_PASSING = ("archive-v0", "environments-v2", "builds-v0")
"""Folders of uv's cache: what is in them is gone when the cache is cleaned."""


def server_command() -> list[str]:
    """The command of this program: an absolute path first, since programs that are started from a desktop have
    another PATH than a shell.

    Under uvx it is uvx with the same version from the same source, as the environment that runs now may be gone tomorrow.
    """
    interpreter = Path(sys.executable)
    if any(part in _PASSING for part in interpreter.parts):
        return [shutil.which("uvx") or "uvx", *source()]
    script = interpreter.with_name("nanobanana.exe" if sys.platform == "win32" else "nanobanana")
    return [str(script)] if script.is_file() else [str(interpreter), "-m", "nanobanana_mcp"]


def source() -> list[str]:
    """The arguments that make uvx fetch what runs now: from where it was installed, and in its version."""
    try:
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    if text is None:
        return [f"{DISTRIBUTION}=={__version__}"]
    told: dict[str, Any] = json.loads(text)
    url = str(told["url"])
    if "vcs_info" in told:
        url = f"{told['vcs_info']['vcs']}+{url}@{told['vcs_info']['commit_id']}"
    elif "dir_info" in told:
        url = unquote(urlsplit(url).path)
    return ["--from", url, DISTRIBUTION]


def is_ours(entry: object) -> bool:
    """Tells whether an entry of a client starts this program, wherever it is installed."""
    if not isinstance(entry, dict):
        return False
    arguments = entry.get("args")
    words = [entry.get("command"), *(arguments if isinstance(arguments, list) else [])]
    told = [word for word in words if isinstance(word, str)]
    if "nanobanana_mcp" in told or any(word.split("==")[0].split("@")[0] == DISTRIBUTION for word in told):
        return True
    last = str(entry.get("command")).replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".exe")
    return last in COMMANDS or ("run" in told and bool(COMMANDS & set(told)))
