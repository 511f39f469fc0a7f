"""Disks that fill and folders that vanish, before a picture is paid for and after."""

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nanobanana_mcp.domain.errors import Refused, SetupError, StudioError
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.spool import Spool
from nanobanana_mcp.studio.studio import Studio
from tests.support.checker import check
from tests.support.fakes import FakeModel, jpeg, reply
from tests.support.processes import Server, recovered, wait_until
from tests.support.world import World, world


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("full", "setting"), [("pictures", "NANOBANANA_OUTPUT_DIR"), ("state", "NANOBANANA_DATABASE_URL")]
)
async def test_a_full_disk_is_noticed_before_anything_is_paid(
    studio: Studio, model: FakeModel, places: Places, monkeypatch: pytest.MonkeyPatch, full: str, setting: str
) -> None:
    usage = shutil.disk_usage("/")
    places.output.mkdir(parents=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6 if full in str(path) else 10**12))
    with pytest.raises(SetupError, match=f"1 MB left.*{setting}"):
        await studio.create(ImageRequest(prompt="a banana"))
    assert model.requests == []
    assert studio.journal.spending("gemini").hour_usd == 0


async def test_a_folder_that_vanishes_while_a_picture_is_drawn_does_not_lose_it(
    make_studio: Callable[..., Studio], model: FakeModel, places: Places
) -> None:
    async def gone() -> bytes:
        shutil.rmtree(places.output)
        places.output.write_text("in the way")
        return reply(jpeg())

    studio = make_studio()
    places.output.mkdir(parents=True)
    model.answers.append(gone)
    created = await studio.create(ImageRequest(prompt="a banana"))
    path = Path(str(created.images[0].record.path))
    assert path.is_relative_to(places.state / "rescued")
    assert path.read_bytes() == jpeg()
    assert any(str(path) in warning for warning in created.warnings)
    places.output.unlink()
    await studio.close()


async def test_recover_in_the_same_server_finishes_what_no_disk_took(
    studio: Studio, model: FakeModel, places: Places
) -> None:
    async def gone() -> bytes:
        shutil.rmtree(places.output, ignore_errors=True)
        for folder in (places.output, places.state / "rescued"):
            folder.write_text("in the way")
        return reply(jpeg())

    model.answers.append(gone)
    with pytest.raises(StudioError, match="operation 'recover'"):
        await studio.create(ImageRequest(prompt="a banana"))
    for folder in (places.output, places.state / "rescued"):
        folder.unlink()
    report = await studio.maintain("recover", dry_run=False)
    assert any("kept as" in finding for finding in report.findings), report.findings
    assert len(studio.library.recent(10, studio.backend)) == 1
    assert len(model.requests) == 1


def fill(path: Path) -> None:
    """Take all the room there is on a disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")
def test_one_disk_for_everything_that_fills_after_paying_does_not_lose_the_picture(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=256m tmpfs {disk}") != 0:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with world(disk) as at:
            with Server(at, TMPDIR=str(disk)).greet() as server:
                assert server.call("generate_image", prompt="one")[0]
                at.emulator.control.paused = True
                number = server.begin("generate_image", prompt="two", n=2)
                wait_until(lambda: len(at.emulator.requests) == 3, "the requests reached Gemini")
                fill(disk / ".filling")
                at.emulator.control.paused = False
                well, words = server.outcome(number)
                assert well or "operation 'recover'" in words, words
                assert "lost" not in words
                (disk / ".filling").unlink()
                server.hang_up()
                server.ended()
            recovered(at)
            assert len(at.emulator.charges) == 3 and len(at.rows("SELECT id FROM images")) == 3
            check(at)
    finally:
        os.system(f"umount -l {disk}")


def test_the_room_for_an_answer_is_had_before_it_is_asked_for_and_given_back(
    make_studio: Callable[..., Studio], model: FakeModel, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    async def look() -> bytes:
        held.extend(path.stat().st_blocks * 512 for path in places.spool.glob(".*.room.tmp"))
        return reply(jpeg())

    async def refuse() -> bytes:
        raise Refused("No.", reason="SAFETY")

    async def run() -> None:
        studio = make_studio()
        model.answers += [look, refuse]
        await studio.create(ImageRequest(prompt="a banana"))
        with pytest.raises(StudioError):
            await studio.create(ImageRequest(prompt="another"))
        if hasattr(os, "posix_fallocate"):

            def full(*_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(os, "posix_fallocate", full)
            with pytest.raises(StudioError, match="nothing was sent"):
                await studio.create(ImageRequest(prompt="a third"))
        await studio.close()

    asyncio.run(run())
    assert not hasattr(os, "posix_fallocate") or held[0] >= 6_000_000
    assert len(model.requests) == 2
    assert list(places.spool.iterdir()) == []


async def test_a_third_place_that_others_could_look_into_is_not_used(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for folder in (places.spool, places.own / "spool"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("in the way")
    path = Spool(places).put("0123456789abcdef", b"{}")
    assert path.is_relative_to(tmp_path / "temporary")
    assert path.stat().st_mode & 0o077 == 0 and path.parent.parent.stat().st_mode & 0o077 == 0
    assert Spool(places).read("0123456789abcdef") == b"{}"
    path.parent.parent.chmod(0o755)
    assert Spool(places).read("0123456789abcdef") is None
    with pytest.raises(OSError, match=r"exists|[Nn]ot a directory"):
        Spool(places).put("0123456789abcdee", b"{}")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_fills_after_paying_does_not_lose_the_picture(at: World) -> None:
    at.output.mkdir()
    if os.system(f"mount -t tmpfs -o size=256m tmpfs {at.output}") != 0:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with Server(at).greet() as server:
            assert server.call("generate_image", prompt="one")[0]
            at.emulator.control.paused = True
            number = server.begin("generate_image", prompt="two")
            wait_until(lambda: len(at.emulator.requests) == 2, "the request reached Gemini")
            fill(at.output / ".filling")
            at.emulator.control.paused = False
            well, words = server.outcome(number)
            assert well, words
            assert "No space left" in words
            assert str(at.places.state / "rescued") in words
            well, words = server.call("generate_image", prompt="three")
            assert not well
            assert "Free some space" in words
            assert len(at.emulator.charges) == 2
            (at.output / ".filling").unlink(missing_ok=True)
            server.hang_up()
            server.ended()
        recovered(at)
        check(at)
    finally:
        os.system(f"umount -l {at.output}")
