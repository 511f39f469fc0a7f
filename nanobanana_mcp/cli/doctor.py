"""The verb doctor: prints each finding with what to do about it, and exits by the worst."""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nanobanana_mcp.cli.install.clients import ClientKind, Surroundings
from nanobanana_mcp.cli.install.install import here, look
from nanobanana_mcp.cli.keyfile import KEYS
from nanobanana_mcp.storage.others import LeftAlone
from nanobanana_mcp.studio.checkup import Finding, check_up

MARKS = {"good": "ok", "note": "note", "warning": "warning", "problem": "PROBLEM"}
GOOD, SETUP, GEMINI = 0, 2, 3


def doctor(
    *,
    offline: Annotated[bool, Parameter(help="Ask nobody: neither Gemini nor PyPI.", negative=())] = False,
    json: Annotated[bool, Parameter(help="Print JSON.", negative=())] = False,
) -> int:
    """Say what will go wrong before it does, and what to do about it.

    Looks at the settings, the key, the way to Gemini, each model and its end, the
    policy, the disk, the library and the clients. It costs nothing: Gemini is only
    asked for the descriptions of its models. Ends with 0 when nothing is wrong
    (warnings included), with 2 when the setup is at fault, with 3 when Gemini is.

    For example:
      nanobanana doctor
      nanobanana doctor --offline --json
    """
    found = asyncio.run(check_up(offline=offline))
    found += clients(Surroundings.of_this_machine())
    sys.stdout.write(_as_json(found) if json else _as_words(found))
    return exit_code(found)


def exit_code(found: Sequence[Finding]) -> int:
    """The exit code of the worst finding: what the user can put right comes before what only Gemini can."""
    problems = [one for one in found if one.level == "problem"]
    if not problems:
        return GOOD
    return GEMINI if all(one.theirs for one in problems) else SETUP


def clients(around: Surroundings) -> list[Finding]:
    """Say of each client on this machine whether it has our entry, and what it drops."""
    kinds = here(around)
    if not kinds:
        return [Finding(area="clients", level="note", says="No known client was found on this machine.")]
    return [finding for kind in kinds for finding in _client(kind, around)]


def _client(kind: ClientKind, around: Surroundings) -> Iterator[Finding]:
    area = kind.name
    try:
        entry = look(kind, around).before
    except LeftAlone as reason:
        yield Finding(area=area, level="warning", says=f"{reason}.", remedy="See to it, or enter the server by hand.")
        return
    if entry is None:
        remedy = f"nanobanana install {kind.name} shows how it would be entered."
        yield Finding(area=area, level="note", says=f"{kind.title} does not have the server.", remedy=remedy)
        return
    again = f"nanobanana install {kind.name} --yes"
    command = str(entry.get("command", ""))
    if not (Path(command).is_file() if Path(command).is_absolute() else shutil.which(command)):
        says = f"{kind.title} starts {command[:200]}, which is not there."
        yield Finding(area=area, level="problem", says=says, remedy=again)
    else:
        yield Finding(area=area, level="good", says=f"{kind.title} has the server. {kind.drops}")
    environment: dict[str, Any] = entry.get("env") or {}
    if any(name in environment for name in KEYS):
        yield Finding(
            area=area,
            level="warning",
            says=f"The key stands in {kind.file(around)}, where other programs read it.",
            remedy="Run 'nanobanana setup' to keep it in the studio's own file, and take it out there.",
        )


def _as_json(found: Sequence[Finding]) -> str:
    return json.dumps([one.as_json() for one in found], indent=2, ensure_ascii=False) + "\n"


def _as_words(found: Sequence[Finding]) -> str:
    lines = []
    for one in found:
        lines.append(f"{MARKS[one.level]:<8} {one.area}: {one.says}")
        if one.remedy is not None:
            lines.append(f"{'':<8} -> {one.remedy}")
    return "\n".join(lines) + "\n"
