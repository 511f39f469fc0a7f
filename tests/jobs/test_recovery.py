"""Requests that were left open are finished once and never undone, and can be asked for again without hanging."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.errors import ServiceError, SetupError, StudioError
from nanobanana_mcp.domain.ids import new_id, new_image_id
from nanobanana_mcp.domain.requests import ImageRequest, OutputSpec
from nanobanana_mcp.jobs import recovery
from nanobanana_mcp.jobs import store as keeping
from nanobanana_mcp.jobs.origins import PaidCall, Reading
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.storage import writing
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import ProcessLock
from nanobanana_mcp.storage.spool import Spool
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support.fakes import Died, FakeModel, jpeg, photo, refusal, reply
from tests.support.rooms import rows


def _rows(studio: Studio, query: str) -> list[tuple[Any, ...]]:
    return rows(studio.library.database.path, query)


async def _broken_off(studio: Studio, model: FakeModel, *prompts: str) -> list[str]:
    """Requests that were sent and that this process did not bring to an end; the ids of their calls."""
    model.answers += [Died() for _ in prompts]
    for prompt in prompts:
        with pytest.raises(Died):
            await studio.create(ImageRequest(prompt=prompt))
    return [call_id for (call_id,) in _rows(studio, "SELECT id FROM calls ORDER BY reserved_at, id")]


async def test_recovery_undoes_nothing_that_ends_while_it_looks(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def draw() -> bytes:
        begun.set()
        await gate.wait()
        return reply(jpeg())

    model.answers.append(draw)
    looked, go_on, real = threading.Event(), threading.Event(), Journal.unfinished

    def unfinished(self: Journal) -> Any:
        found = real(self)
        looked.set()
        assert go_on.wait(10)
        return found

    query = "SELECT state, cost_usd, image_id FROM calls"
    waiting = asyncio.create_task(studio.create(ImageRequest(prompt="a cat")))
    async with asyncio.timeout(20):
        await begun.wait()
        monkeypatch.setattr(Journal, "unfinished", unfinished)
        recovering = asyncio.create_task(studio.recover())
        assert await asyncio.to_thread(looked.wait, 10)
        gate.set()
        created = await waiting
        await studio.mark_delivered(created.request_id)
        await asyncio.wait(studio._noting)
        before = _rows(studio, query), _rows(studio, "SELECT usd FROM days")
        go_on.set()
        assert await recovering == []
    assert before[0][0][0] == "done"
    assert (_rows(studio, query), _rows(studio, "SELECT usd FROM days")) == before


async def test_a_request_that_found_no_disk_comes_home_when_it_is_repeated_with_room(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: Any, **_named: Any) -> None:
        raise OSError(28, "No space left on device")

    request = ImageRequest(prompt="a cat")
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "write_new", full)
        patch.setattr(writing, "write_new", full)
        with pytest.raises(StudioError):
            await studio.create(request, key="key:cat")
        async with asyncio.timeout(20):
            with pytest.raises(StudioError, match="made before"):
                await studio.create(request, key="key:cat")
    async with asyncio.timeout(20):
        created = await studio.create(request, key="key:cat")
    assert Path(str(created.images[0].record.path)).read_bytes() == jpeg_of(model)
    assert len(model.requests) == 1
    assert len(_rows(studio, "SELECT id FROM calls")) == 1


def _stumble(monkeypatch: pytest.MonkeyPatch, error: BaseException, *over: str) -> None:
    """Makes any work on the answers of these calls end in an error that nobody foresaw."""
    real = PictureStore.keep

    def keep(store: PictureStore, reading: Reading, paid: PaidCall, **named: Any) -> Any:
        if paid.call.id in over:
            raise error
        return real(store, reading, paid, **named)

    monkeypatch.setattr(PictureStore, "keep", keep)


async def _left_with_answers(studio: Studio, model: FakeModel, *prompts: str) -> list[str]:
    """Calls that were left open with their raw answers on the disk; their ids, oldest first."""
    found = await _broken_off(studio, model, *prompts)
    for number, call_id in enumerate(found):
        Spool(studio.places).put(call_id, reply(jpeg(comment=f"{number}")))
    return found


STUMBLES = [
    OverflowError("a" * 100_000),
    ValueError("b"),
    UnicodeEncodeError("ascii", "é" * 9000, 0, 1, "no"),
    KeyError(),
]


@pytest.mark.slow
@pytest.mark.parametrize("error", STUMBLES, ids=lambda error: type(error).__name__)
async def test_a_call_that_stumbles_keeps_no_other_from_coming_home_and_is_told(
    error: Exception,
    studio: Studio,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, *good = await _left_with_answers(studio, model, "a cat", "a dog", "a cow")
    _stumble(monkeypatch, error, bad)
    found = {one.call_id: one for one in await studio.recover()}
    assert [found[call_id].record is not None for call_id in good] == [True, True]
    assert type(error).__name__ in found[bad].outcome and len(found[bad].outcome) < 200
    assert sum(len(line) for line in caplog.messages) < 5000
    assert any("in _settle" in line for line in caplog.messages) or len(str(error)) > 4000, "the log has the traceback"
    assert bad in Spool(studio.places).calls(), "Its raw answer stays"


@pytest.mark.slow
@pytest.mark.parametrize("error", [ValueError("odd"), Died()], ids=["stumbles", "ends the process"])
async def test_a_call_that_cannot_be_finished_is_set_aside_and_can_be_tried_again(
    error: BaseException, studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad,) = await _left_with_answers(studio, model, "a cat")
    with monkeypatch.context() as patch:
        _stumble(patch, error, bad)
        for _ in range(recovery.TRIES):
            with suppress(Died):
                await studio.recover()
        await studio.recover()  # after as many deaths it is not begun
        assert await studio.recover() == [], "it is not met for ever"
    ((state, message),) = _rows(studio, "SELECT state, message FROM calls")
    assert state == "unknown"
    assert f"{studio.places.spool / bad}.json" in message
    (told,) = (await studio.stats()).unknown_outcomes
    assert told.id == bad
    (foreseen,) = (await studio.maintain("recover")).findings
    assert "would be tried again" in foreseen
    (said,) = (await studio.maintain("recover", dry_run=False)).findings
    assert "kept as" in said
    ((state, image_id, cost),) = _rows(studio, "SELECT state, image_id, cost_usd FROM calls")
    assert (state, image_id) == ("saved", f"img_{bad}")
    assert _rows(studio, "SELECT usd FROM days") == [(pytest.approx(cost),)], "the estimate has given way to the price"
    assert list(studio.places.spool.iterdir()) == []
    assert (await studio.maintain("recover", dry_run=False)).findings == ()


async def test_an_answer_without_a_row_that_stumbles_keeps_no_other_from_coming_home(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = sorted((new_id(), new_id()))
    for call_id in (bad, good):
        Spool(studio.places).put(call_id, reply(jpeg(comment=call_id)))
    real = PictureStore.adopt

    def adopt(store: PictureStore, call_id: str) -> Any:
        if call_id == bad:
            raise OverflowError
        return real(store, call_id)

    monkeypatch.setattr(PictureStore, "adopt", adopt)
    assert [one.call_id for one in await studio.recover()] == [good]


def jpeg_of(model: FakeModel) -> bytes:
    """The picture that the fake drew for its only request."""
    assert len(model.requests) == 1
    return jpeg(comment="number 1")


async def test_a_request_of_another_window_is_not_waited_for_without_end(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.jobs.repeats.LONGEST_S", 10.0)
    studio = make_studio()
    other, slept = ProcessLock(studio.places), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    studio._sleep = sleep
    with pytest.raises(ServiceError):  # its row names a window that goes on living
        model.answers.append(refusal("NO_IMAGE"))
        await studio.create(ImageRequest(prompt="a cat"), key="key:cat")
    with studio.library.database.write() as connection:
        connection.exec_driver_sql("UPDATE requests SET process = ?", (other.name,))
        connection.exec_driver_sql("UPDATE calls SET state = 'sent', cost_usd = NULL, settled_at = NULL")
    async with asyncio.timeout(20):
        with pytest.raises(ServiceError, match="Another window"):
            await studio.create(ImageRequest(prompt="a cat"), key="key:cat")
    assert 10 <= sum(slept) <= 11
    assert len(model.requests) == 1
    other.close()
    await studio.close()


async def test_a_row_of_another_version_keeps_nobody_elses_picture_from_coming_home(
    studio: Studio, model: FakeModel
) -> None:
    foreign, ours = await _broken_off(studio, model, "a cat", "a dog")
    for number, call_id in enumerate((foreign, ours)):
        Spool(studio.places).put(call_id, reply(jpeg(comment=f"{number}")))
    with studio.library.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE requests SET plan = json_remove(plan, '$.request') "
            "WHERE id = (SELECT request_id FROM calls WHERE id = ?)",
            (foreign,),
        )
    found = {one.call_id: one for one in await studio.recover()}
    assert found[ours].record is not None
    assert found[foreign].record is None and "another version" in found[foreign].outcome
    assert foreign in Spool(studio.places).calls(), "Its raw answer stays"
    await studio.recover()


async def test_an_answer_of_another_version_is_reported_and_its_request_answered(
    studio: Studio, model: FakeModel
) -> None:
    (call_id,) = await _broken_off(studio, model, "a cat")
    Spool(studio.places).put(call_id, reply(jpeg()))
    with studio.library.database.write() as connection:
        connection.exec_driver_sql("UPDATE requests SET plan = '{}'")
    async with asyncio.timeout(20):
        with pytest.raises(StudioError, match="another version"):
            await studio.create(ImageRequest(prompt="a cat"))
    assert len(model.requests) == 1


async def test_a_price_nobody_knows_counts_as_the_estimate_when_gemini_refuses(
    studio: Studio, model: FakeModel
) -> None:
    flash = studio.models["flash"]
    studio.models["flash"] = type(flash)(**(vars(flash) | {"id": "brand-new", "image_usd": None}))
    model.answers.append(refusal("IMAGE_SAFETY"))
    with pytest.raises(StudioError):
        await studio.create(ImageRequest(prompt="a cat", model_tier="flash"))
    ((state, cost, estimate),) = _rows(studio, "SELECT state, cost_usd, estimate_usd FROM calls")
    assert (state, cost) == ("failed", None) and estimate > 0
    assert _rows(studio, "SELECT usd FROM days") == [(pytest.approx(estimate),)]
    assert (await studio.stats()).spending.day_usd == pytest.approx(estimate)


async def test_a_library_that_is_locked_at_the_start_lets_the_next_recovery_do_it(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call_id,) = await _broken_off(studio, model, "a cat")
    Spool(studio.places).put(call_id, reply(jpeg()))

    def locked(*_given: Any, **_named: Any) -> None:
        raise SetupError("The library is locked.")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "mark_saved", locked)
        (one,) = await studio.recover()
        assert one.record is None and "locked" in one.outcome
    (one,) = await studio.recover()
    assert one.record is not None and Path(str(one.record.path)).is_file()


async def test_two_recoveries_at_once_keep_one_picture(
    make_studio: Callable[..., Studio], places: Places, model: FakeModel
) -> None:
    first = make_studio()
    (call_id,) = await _broken_off(first, model, "a cat")
    Spool(places).put(call_id, reply(jpeg()))
    second = make_studio()
    await first.close()
    third = make_studio()
    found = [one for each in await asyncio.gather(second.recover(), third.recover()) for one in each]
    assert [one.record is not None for one in found] == [True]
    assert len(list(places.output.glob("*.jpg"))) == 1
    for studio in (second, third):
        await studio.close()


async def test_a_photo_whose_record_cannot_be_written_at_a_second_attempt_is_refused_in_words(
    studio: Studio, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ImageRequest(prompt="a hat", inputs=(str(photo(tmp_path / "heron.png")),))

    def full(*_given: Any, **_named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nanobanana_mcp.storage.sidecars.Sidecars.write_record", full)
        for _ in range(2):
            with pytest.raises(SetupError, match="nothing was sent"):
                await studio.create(request)
    assert model.requests == []
    assert _rows(studio, "SELECT DISTINCT state, cost_usd FROM calls") == [("failed", 0.0)]
    created = await studio.create(request)
    assert (studio.places.records / f"{created.inputs[0].id}.json").is_file()


async def test_a_start_that_cannot_look_at_what_was_left_goes_on_and_says_so(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def locked(*_given: Any) -> None:
        raise SetupError("The library is locked.")

    with caplog.at_level(logging.WARNING):
        async with connect() as client:
            with monkeypatch.context() as patch:
                patch.setattr(Journal, "unfinished", locked)
                assert (await client.call_tool("output_stats", {})).structured_content["pictures"] == 0
                async with asyncio.timeout(10):
                    while not any("locked" in line for line in caplog.messages):
                        await asyncio.sleep(0.01)
            result = await client.call_tool("generate_image", {"prompt": "a cat"})
    assert result.structured_content["returned"] == 1
    assert not any("never retrieved" in line for line in caplog.messages)


@pytest.mark.parametrize("outside", [False, True], ids=["in the output folder", "in a folder of the caller's"])
async def test_what_a_killed_write_left_beside_pictures_is_swept_and_nothing_else(
    make_studio: Callable[..., Studio], places: Places, connect: Connect, tmp_path: Path, outside: bool
) -> None:
    folder = tmp_path / "site" if outside else places.output / "e5k2-web"
    folder.mkdir(parents=True)
    if outside:
        async with connect() as client:
            wish = {"image": str(photo(tmp_path / "a.jpg")), "width": 50, "output_path": str(folder / "a.png")}
            await client.call_tool("convert_image", wish)
    ours, theirs = folder / f".{new_image_id()}.tmp", folder / ".img_mine.tmp"
    for path in (ours, theirs):
        path.write_bytes(b"half")
        os.utime(path, (1_700_000_000, 1_700_000_000))
    ProcessLock(places)._lock.release()  # what the kernel does when a process is killed
    studio = make_studio()
    await studio.recover()
    assert not ours.exists() and theirs.exists()
    await studio.close()
    assert list((places.state / "processes").iterdir()) == []


@pytest.mark.parametrize("there", [True, False], ids=["the master is there", "the master is gone"])
async def test_a_wish_that_was_cut_short_behind_its_master_gets_its_exact_file_or_a_note_when_it_is_repeated(
    there: bool, studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_given: Any, **_named: Any) -> None:
        raise Died

    request = ImageRequest(prompt="a cat", exact=OutputSpec(width=300, height=200, output_format="png"))
    with monkeypatch.context() as patch:
        patch.setattr("nanobanana_mcp.jobs.store.PictureStore.add_exact", died)
        with pytest.raises(Died):
            await studio.create(request, key="key:cat")
    ((master,),) = _rows(studio, "SELECT path FROM images")
    if not there:
        Path(master).unlink()
    created = await studio.create(request, key="key:cat")
    (image,) = created.images
    assert len(model.requests) == 1
    if there:
        assert (image.record.width, image.record.height, image.record.mime_type) == (300, 200, "image/png")
        assert image.master is not None and image.master.path == master
    else:
        assert image.record.path == master
        assert any("exact file was not made" in line for line in created.warnings)


@pytest.mark.slow
async def test_an_exact_file_that_a_kill_kept_from_its_row_is_recorded_by_the_next_start_and_not_doubled(
    make_studio: Callable[..., Studio], model: FakeModel, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: object) -> None:
        raise Died

    studio = make_studio()
    with monkeypatch.context() as patch:
        patch.setattr("nanobanana_mcp.jobs.store.Library.add", died)
        with pytest.raises((Died, StudioError)):
            await studio.create(
                ImageRequest(prompt="a cat", exact=OutputSpec(width=300, height=200, output_format="png")), key="one"
            )
    await studio.close()
    before = sorted(path.name for path in places.output.iterdir() if path.is_file())
    assert len(before) == 2
    again = make_studio()
    assert any("exact file" in one.outcome for one in await again.recover())
    assert await again.recover() == []
    assert sorted(path.name for path in places.output.iterdir() if path.is_file()) == before
    report = await again.maintain("database_hygiene", dry_run=True)
    assert not any("not made by" in finding for finding in report.findings)
    assert len((await again.stats(10)).untracked) == 0
    assert len(model.requests) == 1
    await again.close()
