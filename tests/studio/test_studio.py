"""The studio: n pictures at once, some of them failing, and where each picture came from."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.catalog import BY_ID
from nanobanana_mcp.domain.errors import RateLimited, Refused, ServiceError, SetupError, Unavailable, UnknownOutcome
from nanobanana_mcp.domain.requests import ImageRequest, OutputSpec
from nanobanana_mcp.emulator.control import Drop, Foreign, HttpError
from nanobanana_mcp.jobs import runner
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.spool import Spool
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Emulated
from tests.support.fakes import FakeModel, jpeg, photo, refusal, reply
from tests.support.rooms import rows


async def test_the_good_ones_of_n_are_returned_with_the_reasons_of_the_others(studio: Studio, model: FakeModel) -> None:
    model.answers += [reply(jpeg(comment="one")), refusal("IMAGE_SAFETY"), reply(jpeg(comment="three"))]
    created = await studio.create(ImageRequest(prompt="a cat", n=3))
    assert len(created.images) == 2
    (failure,) = created.failures
    assert failure.reason == "IMAGE_SAFETY" and failure.index in (1, 2, 3)
    assert "safety filter" in failure.message
    assert created.cost_usd == pytest.approx(2 * created.images[0].cost_usd + failure.cost_usd)  # type: ignore[operator]


async def test_all_failing_is_an_error_that_says_each_reason_once(studio: Studio, model: FakeModel) -> None:
    model.answers += [refusal("IMAGE_SAFETY"), refusal("NO_IMAGE"), refusal("IMAGE_SAFETY")]
    with pytest.raises(ServiceError) as caught:
        await studio.create(ImageRequest(prompt="a cat", n=3))
    message = str(caught.value)
    assert message.startswith("None of the 3 pictures was made.")
    assert message.count("IMAGE_SAFETY") == 1 and message.count("NO_IMAGE") == 1
    assert not list(studio.places.output.rglob("*.jpg"))


async def test_the_only_picture_failing_is_its_own_error(studio: Studio, model: FakeModel) -> None:
    model.answers.append(refusal("BLOCKLIST"))
    with pytest.raises(Refused) as caught:
        await studio.create(ImageRequest(prompt="a cat"))
    assert caught.value.reason == "BLOCKLIST"


async def test_pictures_come_in_the_order_of_their_calls_however_they_finish(studio: Studio, model: FakeModel) -> None:
    turns = [asyncio.Event() for _ in range(6)]
    turns[-1].set()

    def backwards(number: int) -> Callable[[], Awaitable[bytes]]:
        async def draw() -> bytes:
            await turns[number + 1].wait()
            turns[number].set()
            return reply(jpeg(comment=f"number {number}"))

        return draw

    model.answers += [backwards(number) for number in range(5)]
    async with asyncio.timeout(10):
        created = await studio.create(
            ImageRequest(prompt="a cat", n=5, output_path=str(studio.places.output / "x.jpg"))
        )
    assert [Path(str(image.record.path)).name for image in created.images] == [f"x-{n}.jpg" for n in range(1, 6)]


async def test_n_requests_are_under_way_at_once(studio: Studio, model: FakeModel) -> None:
    together = asyncio.Barrier(8)

    async def meet() -> bytes:
        await together.wait()
        return reply(jpeg())

    model.standing = meet
    async with asyncio.timeout(10):
        assert len((await studio.create(ImageRequest(prompt="a cat", n=8))).images) == 8


async def test_no_more_requests_are_under_way_than_allowed(
    make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    studio = make_studio(max_concurrency=2)
    both, gate = asyncio.Event(), asyncio.Event()

    async def held() -> bytes:
        if len(model.requests) == 2:
            both.set()
        await gate.wait()
        return reply(jpeg())

    model.standing = held
    requests = [ImageRequest(prompt=prompt, n=3) for prompt in ("a cat", "a dog")]
    drawing = asyncio.gather(*(studio.create(request) for request in requests))
    async with asyncio.timeout(10):
        await both.wait()
        for _ in range(30):
            await studio.stats()  # long enough for a third to come, were it let through
        let_through = len(model.requests)
        gate.set()
        assert [len(created.images) for created in await drawing] == [3, 3]
    await studio.close()
    assert let_through == 2


async def test_a_busy_gemini_is_asked_again_after_its_own_delay_and_the_answer_says_so(
    make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    studio = make_studio(sleep=sleep)
    model.answers += [RateLimited("Slowly.", retry_after=7), Unavailable("Overloaded.")]
    created = await studio.create(ImageRequest(prompt="a cat"))
    await studio.close()
    assert len(model.requests) == 3 and waits[0] == 7
    assert len(created.images) == 1 and created.cost_usd == pytest.approx(created.images[0].cost_usd)
    assert any("asked to wait" in warning for warning in created.warnings)


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("No quota at all.", retryable=False),
        RateLimited("In an hour.", retry_after=3600),
        UnknownOutcome("The answer was lost."),
        SetupError("A wrong key."),
    ],
)
async def test_what_a_second_try_does_not_cure_or_might_pay_twice_is_tried_once(
    studio: Studio, model: FakeModel, error: Exception
) -> None:
    model.standing = error
    with pytest.raises(type(error), match=str(error)):
        await studio.create(ImageRequest(prompt="a cat"))
    assert len(model.requests) == 1


async def test_trying_again_has_an_end(studio: Studio, model: FakeModel) -> None:
    model.standing = Unavailable("Overloaded.")
    with pytest.raises(Unavailable):
        await studio.create(ImageRequest(prompt="a cat"))
    assert 1 < len(model.requests) <= 5


@pytest.mark.parametrize("when", ["after_charge", "mid_body"])
async def test_an_answer_that_was_lost_is_not_paid_for_twice(emulated: Emulated, when: Any) -> None:
    emulated.emulator.control.queue.append(Drop(when=when))
    with pytest.raises(ToolError, match="may have been charged"):
        await emulated.call(prompt="a cat")
    assert len(emulated.drawn) == len(emulated.emulator.charges) == 1
    stats = await emulated.studio.stats()
    assert len(stats.unknown_outcomes) == 1 and stats.spending.day_usd > 0


async def test_errors_of_a_real_connection_are_said_in_words(emulated: Emulated) -> None:
    emulated.emulator.control.queue += [
        HttpError(code=429, status="RESOURCE_EXHAUSTED", details="quota_zero"),
        Foreign(),
        HttpError(code=503, status="UNAVAILABLE"),
        None,
    ]
    with pytest.raises(ToolError, match="billing"):
        await emulated.call(prompt="a cat")
    with pytest.raises(ToolError, match="gateway lost"):
        await emulated.call(prompt="a dog")
    assert (await emulated.call(prompt="a heron")).structured_content["returned"] == 1
    assert len(emulated.drawn) == 4 and len(emulated.emulator.charges) == 1


@pytest.mark.parametrize(("tier", "dead"), [("flash", "gemini-3.1-flash-image"), ("lite", "gemini-2.5-flash-image")])
async def test_a_model_that_was_shut_down_says_what_to_set_instead(emulated: Emulated, tier: Any, dead: str) -> None:
    emulated.studio.models[tier] = replace(BY_ID[dead], tier=tier)
    words = rf"{dead} no longer answers.*gemini-nano-banana-2.1: set NANOBANANA_{tier.upper()}_MODEL"
    with pytest.raises(ToolError, match=words):
        await emulated.call(prompt="a cat", model_tier=tier)
    assert emulated.emulator.charges == []


async def test_a_picture_that_was_paid_for_is_kept_when_nobody_waits_any_more(studio: Studio, model: FakeModel) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly() -> bytes:
        begun.set()
        await gate.wait()
        return reply(jpeg())

    model.answers.append(slowly)
    waiting = asyncio.create_task(studio.create(ImageRequest(prompt="a cat")))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert studio.library.recent(1, studio.backend) == []
    gate.set()
    await studio.close()
    ((path,),) = rows(studio.library.database.path, "SELECT path FROM images")
    assert Path(path).read_bytes() == jpeg()


async def test_an_own_picture_is_recognised_after_a_rename_and_as_a_copy(
    studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    first = (await studio.create(ImageRequest(prompt="a cat"))).images[0].record
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(str(first.path)).read_bytes())
    renamed = Path(str(first.path)).rename(tmp_path / "renamed.jpg")
    for path in (copy, renamed):
        created = await studio.create(ImageRequest(prompt=f"a hat, from {path.name}", inputs=(str(path),)))
        (parent,) = created.images[0].record.parents
        assert (parent.image_id, parent.role) == (first.id, "base")
    stats = await studio.stats()
    assert stats.total.pictures == 3


async def test_a_callers_photo_gets_one_row_and_is_neither_copied_nor_touched(
    studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    path = photo(tmp_path / "mine" / "holiday.jpg")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    before, stat = path.read_bytes(), path.stat()
    first = await studio.create(ImageRequest(prompt="a hat", inputs=(str(path),)))
    second = await studio.create(ImageRequest(prompt="a scarf", inputs=(str(path),)))
    ids = {parent.image_id for created in (first, second) for parent in created.images[0].record.parents}
    (image_id,) = ids
    record = studio.library.get(image_id)
    assert record is not None
    assert (record.origin, record.path, record.bytes) == ("imported", str(path), len(before))
    assert path.read_bytes() == before
    assert (path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_mode) == (
        stat.st_mtime_ns,
        stat.st_ino,
        stat.st_mode,
    )
    assert list(path.parent.iterdir()) == [path]
    assert before not in [found.read_bytes() for found in studio.places.output.rglob("*") if found.is_file()]


async def test_many_parents_have_roles_and_an_order(studio: Studio, tmp_path: Path) -> None:
    base = (await studio.create(ImageRequest(prompt="a cat"))).images[0]
    assert base.upload is not None
    references = [str(photo(tmp_path / f"{number}.png", color=(number, 0, 0))) for number in range(4)]
    inputs = (base.record.id, *references)
    edited = await studio.create(ImageRequest(prompt="a hat", inputs=inputs, mode="edit"))
    drawn = await studio.create(ImageRequest(prompt="a collage", inputs=inputs))
    by_file = await studio.create(ImageRequest(prompt="a scarf", inputs=tuple(references), file_id=base.upload.name))
    for created, role in ((edited, "base"), (drawn, "reference"), (by_file, "base")):
        record = studio.library.get(created.images[0].record.id)
        assert record is not None and len(record.parents) == 5
        assert (record.parents[0].image_id, record.parents[0].role) == (base.record.id, role)
        assert {parent.role for parent in record.parents[1:]} == {"reference"}
        paths = [studio.library.get(parent.image_id) for parent in record.parents[1:]]
        assert [found.path for found in paths if found is not None] == references


async def test_lineage_outlives_the_files_api(emulated: Emulated) -> None:
    first = (await emulated.call(prompt="a cat")).structured_content
    second = (await emulated.call(prompt="a hat", file_id=first["files_api_ids"][0])).structured_content
    emulated.clock.ahead_s = 60 * 3600
    third = (await emulated.call(prompt="a scarf", file_id=second["files_api_ids"][0])).structured_content
    chain = [step.record.id for step in emulated.studio.library.ancestors(third["images"][0]["id"])]
    assert chain == [second["images"][0]["id"], first["images"][0]["id"]]
    assert third["parent_relationships"] == [
        {"image": third["images"][0]["id"], "parents": [f"{second['images'][0]['id']} (base)"]}
    ]


async def test_the_same_picture_twice_among_the_inputs_is_sent_twice(
    studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    path = str(photo(tmp_path / "heron.png"))
    created = await studio.create(ImageRequest(prompt="a mirror", inputs=(path, path)))
    assert len(model.requests[0].inputs) == 2
    assert {parent.image_id for parent in created.images[0].record.parents} == {created.inputs[0].id}


async def test_requests_at_once_for_one_new_photo_agree_on_its_row(
    studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    path = str(photo(tmp_path / "heron.png"))
    requests = [ImageRequest(prompt=f"a hat {number}", inputs=(path,)) for number in range(4)]
    answers = await asyncio.gather(*(studio.create(request) for request in requests))
    assert len({parent.image_id for created in answers for parent in created.images[0].record.parents}) == 1


@pytest.mark.parametrize("missing", ["upload", "generate"])
async def test_without_a_key_a_paid_call_says_what_to_set_and_writes_nothing(
    make_studio: Callable[..., Studio], model: FakeModel, tmp_path: Path, missing: str
) -> None:
    studio = make_studio(setup_problem=lambda: "There is no Gemini key. Set GEMINI_API_KEY.")
    path = str(photo(tmp_path / "heron.png"))
    with pytest.raises(SetupError, match="Set GEMINI_API_KEY"):
        if missing == "upload":
            await studio.upload(path)
        else:
            await studio.create(ImageRequest(prompt="a cat", inputs=(path,)))
    assert (await studio.stats()).total.pictures == 0
    await studio.close()
    assert model.requests == [] and model.uploads == [] and not studio.places.output.exists()


async def test_a_full_disk_is_noticed_before_anything_is_paid_for(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.jobs.planner.ROOM", 1 << 62)
    with pytest.raises(SetupError, match="MB left"):
        await studio.create(ImageRequest(prompt="a cat"))
    assert model.requests == []


async def test_the_studio_closes_the_model_and_does_not_wait_for_ever(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.studio.studio.DRAIN_S", 0.05)
    begun = asyncio.Event()

    async def never() -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    model.answers.append(never)
    waiting = asyncio.create_task(studio.create(ImageRequest(prompt="a cat")))
    await begun.wait()
    async with asyncio.timeout(60):
        await studio.close()
    assert model.closed == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_two_calls_of_the_same_words_at_once_get_one_picture_and_are_told_so(
    studio: Studio, model: FakeModel
) -> None:
    request = ImageRequest(prompt="a cat")
    answers = await asyncio.gather(studio.create(request), studio.create(request))
    assert len({created.images[0].record.id for created in answers}) == len(model.requests) == 1
    told = [warning for created in answers for warning in created.warnings if "idempotency_key" in warning]
    assert len(told) == 1 and " n" in told[0]


async def test_an_answer_of_another_model_than_was_asked_is_said(studio: Studio, model: FakeModel) -> None:
    model.answers += [reply(jpeg(comment="1"), model_id="gemini-something-else"), reply(jpeg(comment="2"))]
    created = await studio.create(ImageRequest(prompt="a cat"))
    assert any("gemini-something-else" in warning for warning in created.warnings)
    assert (await studio.create(ImageRequest(prompt="a dog"))).warnings == ()


@pytest.mark.slow
async def test_room_is_wanted_for_every_picture_before_the_first_is_paid_for(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []
    monkeypatch.setattr("nanobanana_mcp.studio.studio.check_room", lambda room, *_folders: wanted.append(room))
    await studio.create(ImageRequest(prompt="a cat", resolution="1k"))
    one = max(wanted)
    await studio.create(ImageRequest(prompt="a dog", resolution="4k", n=4))
    assert max(wanted) - one > 200_000_000
    wanted.clear()
    await studio.create(ImageRequest(prompt="a fox", resolution="1k", exact=OutputSpec(width=6000, height=6000)))
    assert max(wanted) - one == 4 * 6000 * 6000


async def test_the_same_words_after_an_answer_are_a_new_wish_however_slow_the_library_is(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, may_note = Journal.mark_delivered, threading.Event()

    def slowly(self: Journal, request_id: str) -> None:
        assert may_note.wait(60)
        real(self, request_id)

    monkeypatch.setattr(Journal, "mark_delivered", slowly)
    first = await studio.create(ImageRequest(prompt="a cat"))
    await studio.mark_delivered(first.request_id)
    asked = asyncio.create_task(studio.create(ImageRequest(prompt="a cat")))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asked.done()
    may_note.set()
    assert (await asked).images[0].record.id != first.images[0].record.id


class _Counted(bytes):
    """A raw answer that knows how many of its kind are in memory."""

    alive = most = 0

    def __new__(cls, data: bytes) -> "_Counted":
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        return super().__new__(cls, data)

    def __del__(self) -> None:
        _Counted.alive -= 1


async def test_large_answers_that_wait_for_their_turn_wait_on_the_disk_and_not_in_memory(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LARGE_ANSWER", 100)
    _Counted.alive = _Counted.most = 0
    all_came, keep = threading.Event(), PictureStore.keep

    async def answer() -> bytes:
        if len(model.requests) == 12:
            all_came.set()
        return _Counted(reply(jpeg(comment=str(len(model.requests)))))

    def slowly(*parts: Any, **more: Any) -> Any:
        assert all_came.wait(60)
        return keep(*parts, **more)

    monkeypatch.setattr(PictureStore, "keep", slowly)
    model.standing = answer
    studio = make_studio(max_concurrency=2)
    created = await studio.create(ImageRequest(prompt="a cat", n=12))
    await studio.close()
    assert len({image.record.sha256 for image in created.images}) == 12 and not created.failures
    assert _Counted.most <= 2 + 2 * runner.DECODERS


async def test_a_large_answer_that_vanished_while_it_waited_is_told_with_its_price(
    make_studio: Callable[..., Studio], model: FakeModel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LARGE_ANSWER", 100)
    monkeypatch.setattr(Spool, "read", lambda *_: None)
    studio = make_studio(max_concurrency=2)
    created = await studio.create(ImageRequest(prompt="a cat", n=6))
    await studio.close()
    assert created.images and created.failures
    for failure in created.failures:
        assert "is gone" in failure.message and failure.cost_usd
        assert failure.cost_usd
    states = [state for (state,) in rows(settings.database_path, "SELECT state FROM calls")]
    assert states.count("unknown") == len(created.failures)
