"""Walks four journeys through the house and counts what they pass: functions, files, rooms, and steps from room to room.

    python -m benchmarks.journeys

A step is a pair of functions of ours of which one calls the other, in this process, threads included; it crosses when
the two are in different rooms, and goes up when the room that is called stands on a higher floor. What is between them
in other libraries does not count, and neither does the emulator. Needs no key and measures no time.
"""

import asyncio
import contextlib
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

from fastmcp import Client
from PIL import Image

import nanobanana_mcp
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.server.app import build_server, open_from
from nanobanana_mcp.server.session import LazyStudio
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio

PACKAGE = Path(nanobanana_mcp.__file__).parent
FLOOR = {
    "domain": 1,
    "settings.py": 2,
    "gemini": 2,
    "pixels": 2,
    "storage": 2,
    "library": 2,
    "jobs": 3,
    "studio": 4,
    "server": 5,
}
"""As tests/test_house.py has it; what is not here stands above."""


@dataclass
class Walk:
    """The functions that were entered, and the calls from one to another, while `on` is set."""

    steps: set[tuple[CodeType, CodeType]] = field(default_factory=set)
    passed: set[CodeType] = field(default_factory=set)

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or _file(frame.f_code) is None:
            return
        self.passed.add(frame.f_code)
        caller = frame.f_back
        while caller is not None and _file(caller.f_code) is None:
            caller = caller.f_back
        if caller is not None:
            self.steps.add((caller.f_code, frame.f_code))

    def told(self) -> tuple[int, int, int, int, int]:
        files = {_file(code) for code in self.passed}
        rooms = {_room(code) for code in self.passed}
        crossing = [(_room(one), _room(other)) for one, other in self.steps if _room(one) != _room(other)]
        up = sum(FLOOR.get(other, 6) > FLOOR.get(one, 6) for one, other in crossing)
        return len(self.passed), len(files), len(rooms), len(crossing), up


class Watch:
    """Sees every call in this process from the start on, since threads that run already cannot be watched before
    Python 3.12, and gives it to the walk that is under way.
    """

    def __init__(self) -> None:
        self.walk: Walk | None = None
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.walk is not None:
            self.walk.note(frame, event, argument)


def _file(code: CodeType) -> str | None:
    """The file's path within the package, None for what is not ours or is the emulator's."""
    path = Path(code.co_filename)
    if not path.is_relative_to(PACKAGE):
        return None
    inner = path.relative_to(PACKAGE)
    return None if inner.parts[0] == "emulator" else str(inner)


def _room(code: CodeType) -> str:
    return Path(_file(code) or "").parts[0]


class Died(BaseException):
    """Stands for the end of the process at this place."""


async def walks(folder: Path, watch: Watch) -> dict[str, Walk]:
    """One generate_image, one edit_region, one cleanup, and the recovery of a call that died before its picture was kept."""
    settings = Settings(
        backend="emulator",
        NANOBANANA_OUTPUT_DIR=folder / "pictures",
        database_url=f"sqlite:///{folder / 'state' / 'library.db'}",
    )
    source = folder / "a.png"
    Image.effect_noise((100, 75), 90).resize((800, 600), Image.Resampling.BICUBIC).convert("RGB").save(source)
    lazy = LazyStudio(open_from(settings))
    found: dict[str, Walk] = {}
    async with Client(build_server(settings, lazy)) as client:
        await client.call_tool("output_stats", {})
        await client.call_tool("generate_image", {"prompt": "warm"})
        for name, tool, arguments in (
            ("generate_image", "generate_image", {"prompt": "a banana"}),
            ("edit_region", "edit_region", {"image": str(source), "instruction": "a hat", "box": [0.3, 0.3, 0.6, 0.6]}),
            ("cleanup", "maintenance", {"operation": "cleanup_local", "max_age_hours": 0, "keep_count": 0}),
            ("recovery", "maintenance", {"operation": "recover", "dry_run": False}),
        ):
            if name == "recovery":
                await _die(await lazy.studio())
            watch.walk = found[name] = Walk()
            await client.call_tool(tool, arguments)
            watch.walk = None
    return found


async def _die(studio: Studio) -> None:
    """Leave a call whose answer is on the disk and whose picture is not."""

    def died(*_: object, **__: object) -> None:
        raise Died

    with mock.patch.object(Journal, "saved", died), contextlib.suppress(Died):
        await studio.create(ImageRequest(prompt="a banana that was cut short"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(walks(Path(folder), Watch()))
    print("| journey | functions | files | rooms | crossings | of them up |\n|---|---|---|---|---|---|")
    for name, walk in found.items():
        print(f"| {name} | {' | '.join(map(str, walk.told()))} |")


if __name__ == "__main__":
    main()
