"""Disks that fill and folders that vanish, before a picture is paid for and after."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import FakeModel, jpeg, reply
from faults.checker import check
from faults.processes import Server, recovered, wait_until
from faults.world import World, world

from nanobanana_mcp.domain import ImageRequest
from nanobanana_mcp.errors import SetupError, StudioError
from nanobanana_mcp.storage import writing
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio import Studio


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
    monkeypatch.setattr(
        writing.shutil, "disk_usage", lambda path: usage._replace(free=10**6 if full in str(path) else 10**12)
    )
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
