"""A storm of kills and power cuts over all tools: `make storm`, and a short one in the tests.

Two servers at a time work on one library and one emulated Gemini and are killed with SIGKILL in the middle of whatever
they do: drawing, editing, extending, cutting out, converting, making sets, uploading, tidying up, restoring. The same
tool use is sometimes sent again to the next server. Every few kills a new start recovers, and everything that must hold
is checked (see `checker`). A power cut is the shutdown call of ext4 on a disk of its own: what was not flushed is gone.
"""

import argparse
import fcntl
import itertools
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nanobanana_mcp.emulator.control import Behaviour, Edit, Plate
from tests.support.checker import check
from tests.support.processes import Server, recovered
from tests.support.rooms import tree
from tests.support.scenes import as_bytes, cutout, photo
from tests.support.world import World, world

FREE = {f"NANOBANANA_MAX_{limit}": "off" for limit in ("USD_PER_HOUR", "USD_PER_DAY", "CALLS_PER_MINUTE")}
LOOK_EVERY = 20
"""Kills between two looks at everything."""
AT_ONCE = 2
SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of Linux's fs/ext4/ext4.h."""
WITHOUT_FLUSH = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: neither data nor the journal reach the disk any more."""

SIZE = (480, 360)


def subject() -> Image.Image:
    """A picture of something to cut out, with its alpha."""
    alpha, colour = cutout(*SIZE, seed=1)
    return Image.fromarray(np.dstack([np.clip(colour, 0, 255), alpha * 255]).round().astype(np.uint8))


THEMES: dict[str, Behaviour | None] = {
    "draw": None,
    "region": Edit(),
    "extend": Edit(shift=(0.01, -0.01), where=(0.9, 0.9, 1.0, 1.0)),
    "cutout": Plate(subject=as_bytes(subject())),
    "tidy": None,
}


@dataclass(kw_only=True)
class Told:
    """The answers that the clients of a storm saw: `well` counts calls by tool and outcome, `ids` are pictures that
    were told of, `charged` is how many pictures each repeated tool use asked for.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)


class Storm:
    """Kills servers of one world; the same seed asks for the same calls, though not at the same moments."""

    def __init__(self, world: World, seed: int, *, longest_s: float = 2.5) -> None:
        """`longest_s` is how long a pair of servers may work before it is killed, at most, in seconds."""
        self.world = world
        self.told = Told()
        self._chance = random.Random(seed)
        self._longest_s = longest_s
        self._uses = itertools.count(1)
        self._again: list[tuple[str, str, dict[str, Any]]] = []
        self._scene = world.project / "scene.jpg"
        scene, cut = photo(*SIZE, seed=9), subject()
        scene.paste(cut, mask=cut)
        scene.save(self._scene, quality=92)
        world.users = tree(world.project)
        world.emulator.control.latency_s = 0.05

    def kills(self, wanted: int) -> int:
        """Kill so many servers, or one more; how many it were."""
        killed = since = 0
        while killed < wanted:
            done = self.round()
            killed, since = killed + done, since + done
            if since >= LOOK_EVERY:
                self.look()
                since = 0
        self.look()
        return killed

    def round(self, strike: Callable[[], None] = lambda: None) -> int:
        """Start servers, give them work, strike (by default only kill them); how many were killed."""
        theme = self._chance.choice(list(THEMES))
        control = self.world.emulator.control
        control.standing, control.cheap = THEMES[theme], theme in ("draw", "tidy")
        servers = [Server(self.world, **FREE) for _ in range(AT_ONCE)]
        try:
            for server in servers:
                server.greet()
            begun = [(server, *self._begin(server, theme)) for server in servers for _ in range(2)]
            time.sleep(self._chance.uniform(0.0, self._longest_s))  # the moment of a kill is what a storm draws
            strike()
        finally:
            for server in servers:
                server.kill()
        for server, number, tool in begun:
            self._note(server, number, tool)
        return len(servers)

    def look(self) -> None:
        """Recover and check everything; what was told to a client must be there."""
        self.world.emulator.control.standing = None
        recovered(self.world)
        check(self.world)
        kept = {image_id for (image_id,) in self.world.rows("SELECT id FROM images")}
        assert self.told.ids <= kept, f"told and not kept: {sorted(self.told.ids - kept)}"
        rows = self.world.rows(
            "SELECT idempotency_key, count(*) FROM requests JOIN calls ON request_id = requests.id"
            " WHERE idempotency_key LIKE '%storm-%' GROUP BY requests.id"
        )
        for key, calls in rows:
            most = self.told.asked[re.findall(r"storm-\d+", key)[0]]
            assert calls <= most, f"{key} was drawn {calls} times, {most} were asked for"

    def _begin(self, server: Server, theme: str) -> tuple[int, str]:
        if self._again and self._chance.random() < 0.25:
            use, tool, arguments = self._again.pop(self._chance.randrange(len(self._again)))
        else:
            use, (tool, arguments, most) = f"storm-{next(self._uses)}", self._work(theme)
            self.told.asked[use] = most
            self._again.append((use, tool, arguments))
            del self._again[:-6]
        return server.begin(tool, use, **arguments), tool

    def _work(self, theme: str) -> tuple[str, dict[str, Any], int]:
        """A tool, its arguments, and how many calls to the model it may make."""
        chance, scene, prompt = self._chance, str(self._scene), f"banana {next(self._uses)}"
        picture = chance.choice([scene, *self._some_ids()])
        match theme:
            case "region":
                return "edit_region", {"image": picture, "instruction": prompt, "box": [0.2, 0.2, 0.8, 0.8]}, 2
            case "extend":
                return "extend_image", {"image": scene, "left": 120, "right": 60}, 4
            case "cutout":
                return "remove_background", {"image": scene}, 3
            case "tidy":
                return *chance.choice(self._free_work(picture)), 0
        sized = {"width": 300, "height": 200, "output_format": "webp"} if chance.random() < 0.3 else {}
        n = chance.choice((1, 1, 2, 3))
        drawn = {"prompt": prompt, "n": n} | sized
        return "generate_image", drawn | ({"input_images": [picture]} if chance.random() < 0.4 else {}), n

    def _free_work(self, picture: str) -> list[tuple[str, dict[str, Any]]]:
        """Calls that need no model: conversions, uploads, tidying up."""
        real, here = {"dry_run": False}, {"output_path": f"{self.world.output}{os.sep}"}
        return [
            ("convert_image", {"image": picture, "width": 120, "output_format": "webp"} | here),
            ("convert_image", {"image": picture, "assets": "favicon"} | here),
            ("upload_file", {"path": picture}),
            ("maintenance", {"operation": "cleanup_local", "max_age_hours": 0, "keep_count": 3} | real),
            ("maintenance", {"operation": "cleanup_local", "max_age_hours": 0, "keep_count": 3} | real),
            ("maintenance", {"operation": "restore"} | real),
            ("maintenance", {"operation": "restore"} | real),
            ("maintenance", {"operation": "database_hygiene"} | real),
            ("maintenance", {"operation": "full_cleanup"} | real),
            ("maintenance", {"operation": "recover"} | real),
            ("output_stats", {}),
        ]

    def _some_ids(self) -> list[str]:
        """A few pictures of ours that are in their place."""
        made = "SELECT count(*) FROM sqlite_master WHERE name = 'images'"
        if not self.world.database.exists() or self.world.rows(made) != [(1,)]:
            return []  # the server that was to make the library was killed first
        rows = self.world.rows("SELECT id FROM images WHERE origin IN ('generated', 'edited') AND trash_path IS NULL")
        return [image_id for (image_id,) in self._chance.sample(rows, min(2, len(rows)))]

    def _note(self, server: Server, number: int, tool: str) -> None:
        """Remember what a client had been told before its server died."""
        if not server.has_answered(number):
            self.told.outcomes[f"{tool}: killed"] += 1
            return
        well, words = server.outcome(number)
        self.told.outcomes[f"{tool}: {'done' if well else 'refused'}"] += 1
        if well:
            self.told.ids.update(re.findall(r"\bimg_[0-9a-hjkmnp-tv-z]+", words))


def cuts(folder: Path, seed: int, wanted: int) -> Counter[str]:
    """Cut the power so many times under servers at work on a small ext4 disk; what their clients saw.

    Raises OSError where no disk can be mounted (it takes root and loop devices).
    """
    outcomes: Counter[str] = Counter()
    disk, place = folder / "disk.img", folder / "disk"
    with disk.open("wb") as file:
        file.truncate(600 << 20)
    place.mkdir()
    _run("mkfs.ext4", "-q", "-F", str(disk))
    _run("mount", "-o", "loop", str(disk), str(place))
    try:
        with world(place) as made:
            storm = Storm(made, seed)
            os.sync()  # the user's own files are older than the studio
            for _ in range(wanted):
                storm.round(lambda: _cut(place))
                _run("umount", "--lazy", str(place))
                _run("mount", "-o", "loop", str(disk), str(place))
                storm.look()
            outcomes = storm.told.outcomes
    finally:
        _run("umount", "--lazy", str(place))
    return outcomes


def _cut(place: Path) -> None:
    """Cuts off the disk at `place`: later writes do not get there, nor any that were not flushed."""
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    finally:
        os.close(handle)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def rebuilt(storm: Storm, wanted: int) -> None:
    """Kill `nanobanana rebuild` so many times, let it end once, and find every picture again."""
    place = storm.world
    before = {image_id for (image_id,) in place.rows("SELECT id FROM images WHERE origin IN ('generated', 'edited')")}
    command = [sys.executable, "-m", "nanobanana_mcp", "rebuild", "--yes"]
    for turn in range(wanted + 1):
        process = subprocess.Popen(
            command, env=place.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if turn < wanted:
            time.sleep(random.Random(turn).uniform(0.2, 1.5))
            process.kill()
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    after = {image_id for (image_id,) in place.rows("SELECT id FROM images WHERE origin IN ('generated', 'edited')")}
    assert before <= after, f"not in the rebuilt library: {sorted(before - after)}"


def main() -> int:
    """Run the storm that the command line asks for and print what it did; a broken promise is a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--power-cuts", type=int, default=10)
    parser.add_argument(
        "--rebuilds", type=int, default=5, help="how many rebuilds of the library are killed at the end"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="storm-") as name:
        with world(Path(name)) as made:
            storm = Storm(made, asked.seed)
            killed = storm.kills(asked.kills)
            pictures = made.rows("SELECT count(*) FROM images WHERE origin <> 'imported'")[0][0]
            unknown = made.states().count("unknown")
            charges = len(made.emulator.charges)
            rebuilt(storm, asked.rebuilds)
        print(
            f"{killed} kills (seed {asked.seed}): {charges} answers charged, {pictures} files kept, {unknown} unknown"
        )
        print("; ".join(f"{what} {count}" for what, count in sorted(storm.told.outcomes.items())))
    with tempfile.TemporaryDirectory(prefix="cuts-") as name:
        try:
            outcomes = cuts(Path(name), asked.seed, asked.power_cuts)
        except OSError as error:
            print(f"No power cuts: {error}")
        else:
            print(f"{asked.power_cuts} power cuts: " + "; ".join(f"{k} {v}" for k, v in sorted(outcomes.items())))
    print(f"Nothing lost, nothing doubled, in {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
