"""Checks what must hold after every fault: nothing paid for is lost, nothing torn, nothing doubled, nothing told."""

import hashlib
import io
import sqlite3
from contextlib import closing
from pathlib import Path

from PIL import Image

from tests.support.rooms import tree
from tests.support.world import KEY, World

KEPT = ("saved", "done")
SETTLED = (*KEPT, "failed", "unknown")


def check(world: World, *, torn: bool = False, charges: int | None = None) -> None:
    """Assert every invariant of a world in which no process is at work any more and the last start has recovered.

    `torn` says that Gemini itself delivered bytes that do not decode; `charges` replaces the emulator's own count.
    """
    _database_is_whole(world)
    _pictures_are_whole(world, torn=torn)
    _nothing_is_left_over(world)
    _ledger_agrees(world, len(world.emulator.charges) if charges is None else charges)
    _key_is_nowhere(world)
    assert tree(world.project) == world.users, "a file of the user's has changed"


def _database_is_whole(world: World) -> None:
    with closing(sqlite3.connect(world.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def _pictures_are_whole(world: World, *, torn: bool) -> None:
    kept = world.rows("SELECT id, origin, COALESCE(trash_path, path), sha256, mime_type FROM images")
    paths = [path for _, _, path, _, _ in kept if path is not None]
    assert len(paths) == len(set(paths)), "two pictures under one name"
    for image_id, origin, path, sha256, mime_type in kept:
        if origin == "imported":
            continue
        data = Path(path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256, f"{image_id} is not what was delivered"
        if mime_type.startswith("image/") and not torn:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    found = {str(file) for file in world.output.iterdir() if file.is_file()} if world.output.is_dir() else set()
    assert found <= set(paths), f"files that no row names: {sorted(found - set(paths))}"


def _nothing_is_left_over(world: World) -> None:
    if world.database.exists():
        world.rows(
            "SELECT id FROM images LIMIT 1"
        )  # whoever reads next rolls back what a killed process left half written
    for folder in (world.output, world.database.parent):
        left = [str(file) for file in folder.rglob("*") if file.name.endswith((".tmp", ".partial", "-journal"))]
        left = [name for name in left if not name.endswith("-journal") or Path(name).stat().st_size]
        assert left == [], f"temporary files were left: {left}"
    unread = {path.stem for path in (world.places.spool, world.places.own / "spool") for path in path.glob("*.json")}
    reported = {call for (call,) in world.rows("SELECT id FROM calls WHERE state = 'unknown'")}
    assert unread <= reported, "a raw answer is on the disk and nobody says so"


def _ledger_agrees(world: World, charges: int) -> None:
    calls = world.rows("SELECT state, cost_usd, image_id FROM calls")
    assert {state for state, _, _ in calls} <= set(SETTLED), f"calls were left open: {calls}"
    kept = [image_id for state, _, image_id in calls if state in KEPT]
    assert len(set(kept)) == len(kept), "one picture for two calls"
    pictures = {
        image_id
        for (image_id,) in world.rows(
            "SELECT id FROM images WHERE origin NOT IN ('imported', 'derived') AND id NOT IN"
            " (SELECT image_id FROM image_sources WHERE role = 'part')"  # these are put together from several answers
        )
    }
    without_call, without_picture = sorted(pictures - set(kept)), sorted(set(kept) - pictures)
    assert not without_call, f"pictures without their call: {without_call}"
    assert not without_picture, f"calls without their picture: {without_picture}"
    paid = sum(state in KEPT or (state == "failed" and bool(cost)) for state, cost, _ in calls)
    unknown = sum(state == "unknown" for state, _, _ in calls)
    assert paid <= charges <= paid + unknown, f"{charges} charges, {paid} in the ledger and {unknown} unknown"
    if not unknown and charges == len(world.emulator.charges):
        usd = sum(cost or 0 for _, cost, _ in calls)
        assert abs(usd - sum(charge.usd for charge in world.emulator.charges)) < 1e-4 * (1 + len(calls))


def _key_is_nowhere(world: World) -> None:
    canary = KEY.encode()
    for folder in (world.output, world.database.parent, world.root / "home"):
        for file in folder.rglob("*"):
            assert canary not in str(file).encode()
            assert not file.is_file() or canary not in file.read_bytes(), f"the key is in {file}"
    assert all(canary not in said for said in world.said), "a process has told the key"
