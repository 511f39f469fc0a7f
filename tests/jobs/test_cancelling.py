"""Callers that go away and rows that cannot be written: what is not sent any more, and what is kept and told all the same."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.errors import RateLimited, SetupError, StudioError
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.fakes import FakeModel, jpeg, reply
from tests.support.rooms import rows


class Easel:
    """Holds the model's answers back until `gate` is set; `begun` is set when so many requests are under way."""

    def __init__(self, model: FakeModel, *, count: int) -> None:
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self._model, self._count = model, count
        model.standing = self._draw

    async def _draw(self) -> bytes:
        number = len(self._model.requests)
        if number == self._count:
            self.begun.set()
        await self.gate.wait()
        return reply(jpeg(comment=f"number {number}"))


def _calls(studio: Studio) -> list[tuple[Any, ...]]:
    query = "SELECT state, reason, cost_usd IS NOT NULL AND cost_usd > 0 FROM calls ORDER BY position"
    return rows(studio.library.database.path, query)


async def _all_ended(studio: Studio) -> None:
    """Wait until no call is open any more, without ending the studio, which would stop them by itself."""
    while {state for state, *_ in _calls(studio)} & {"reserved", "sent", "spooled"}:
        await asyncio.sleep(0.01)


async def _gone(waiting: "asyncio.Task[Any]") -> None:
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.slow
@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_of_twenty_pictures_only_those_that_were_asked_for_already_are_paid(
    end: str, make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    studio, easel = make_studio(max_concurrency=2), Easel(model, count=2)
    waiting = asyncio.create_task(studio.create(ImageRequest(prompt="a cat", n=20)))
    async with asyncio.timeout(10):
        await easel.begun.wait()
        if end == "cancelled":
            await _gone(waiting)
            easel.gate.set()
            await _all_ended(studio)
            await studio.close()
        else:
            closing = asyncio.create_task(studio.close())
            await asyncio.sleep(0)
            easel.gate.set()
            await closing
            assert len((await waiting).images) == 2
    assert len(model.requests) == 2
    states = _calls(studio)
    assert [(reason, charged) for _, reason, charged in states if charged] == [(None, 1)] * 2
    assert [state for state in states if not state[2]] == [("failed", "CANCELLED", 0)] * 18
    assert len(list(studio.places.output.glob("*.jpg"))) == 2


async def test_a_retry_that_waits_is_not_made_for_a_caller_that_left(
    make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        asleep.set()
        await wake.wait()

    studio = make_studio(sleep=sleep)
    model.answers.append(RateLimited("Slowly.", retry_after=30))
    waiting = asyncio.create_task(studio.create(ImageRequest(prompt="a cat")))
    async with asyncio.timeout(10):
        await asleep.wait()
        await _gone(waiting)
        wake.set()
        await _all_ended(studio)
    await studio.close()
    assert len(model.requests) == 1
    assert [(state, charged) for state, _, charged in _calls(studio)] == [("failed", 0)]


async def test_a_cutout_of_several_answers_asks_for_no_more_of_them_when_the_studio_closes(emulated: Emulated) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()
    real, asked = emulated.gemini.generate, []

    async def generate(*given: Any, **named: Any) -> bytes:
        asked.append(given)
        begun.set()
        await gate.wait()
        return await real(*given, **named)

    emulated.gemini.generate = generate  # type: ignore[method-assign]
    arguments = {"prompt": "a boat", "background": "transparent"}
    waiting = asyncio.create_task(emulated.client.call_tool("generate_image", arguments, raise_on_error=False))
    async with asyncio.timeout(20):
        await begun.wait()
        closing = asyncio.create_task(emulated.studio.close())
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(waiting, closing)
    assert len(asked) == 1


@pytest.mark.slow
async def test_one_of_two_callers_of_the_same_request_may_leave(studio: Studio, model: FakeModel) -> None:
    easel = Easel(model, count=1)
    request = ImageRequest(prompt="a cat", n=12)
    first = asyncio.create_task(studio.create(request, key="key:cat"))
    async with asyncio.timeout(10):
        await easel.begun.wait()
        joined = asyncio.Event()

        async def heard(_done: float, _total: float, words: str) -> None:
            if "made before" in words:
                joined.set()

        second = asyncio.create_task(studio.create(request, key="key:cat", progress=heard))
        await joined.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        await _gone(first)
        easel.gate.set()
        assert len((await second).images) == 12
    assert len(model.requests) == 12


async def test_when_the_last_of_several_callers_has_left_nothing_more_is_sent(
    make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    studio, easel = make_studio(max_concurrency=1), Easel(model, count=1)
    request = ImageRequest(prompt="a cat", n=5)
    first = asyncio.create_task(studio.create(request, key="key:cat"))
    async with asyncio.timeout(10):
        await easel.begun.wait()
        joined = asyncio.Event()

        async def heard(_done: float, _total: float, words: str) -> None:
            if "made before" in words:
                joined.set()

        second = asyncio.create_task(studio.create(request, key="key:cat", progress=heard))
        await joined.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        await _gone(first)
        await _gone(second)
        easel.gate.set()
        await asyncio.gather(*studio._active._tasks.values(), return_exceptions=True)
    sent = len(model.requests)
    await studio.close()
    assert sent == 1


async def test_a_request_that_comes_while_the_studio_closes_sends_nothing(studio: Studio, model: FakeModel) -> None:
    easel = Easel(model, count=1)
    first = asyncio.create_task(studio.create(ImageRequest(prompt="a cat")))
    async with asyncio.timeout(10):
        await easel.begun.wait()
        closing = asyncio.create_task(studio.close())
        await asyncio.sleep(0)
        late = asyncio.create_task(studio.create(ImageRequest(prompt="a dog")))
        await asyncio.sleep(0.05)
        easel.gate.set()
        assert len((await first).images) == 1
        await closing
        with pytest.raises(StudioError, match="server is shutting down"):
            await late
    assert [request.prompt for request in model.requests] == ["a cat"]


async def test_calls_that_the_journal_does_not_take_are_not_made(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(_self: Journal, *_call_ids: str) -> None:
        raise SetupError("The library is locked.")

    monkeypatch.setattr(Journal, "mark_sent", sent)
    with pytest.raises(StudioError, match="locked"):
        await studio.create(ImageRequest(prompt="a cat", n=3))
    assert model.requests == []
    assert {state for state, *_ in _calls(studio)} == {"failed"}
    assert studio.journal.spending("gemini").hour_usd == 0


async def test_one_call_that_the_journal_does_not_take_leaves_the_others_their_pictures(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio(max_concurrency=1)
    real = Journal.mark_sent
    taken: list[str] = []

    def sent(self: Journal, *call_ids: str) -> None:
        taken.extend(call_ids)
        if len(taken) == 2:
            raise SetupError("The library is locked.")
        real(self, *call_ids)

    monkeypatch.setattr(Journal, "mark_sent", sent)
    created = await studio.create(ImageRequest(prompt="a cat", n=3))
    assert len(created.images) == len(model.requests) == 2
    (failure,) = created.failures
    assert "locked" in failure.message
    assert {state for state, *_ in _calls(studio)} <= {"saved", "failed"}, "a call that was not sent reserves nothing"
    await studio.close()


async def test_an_answer_whose_delivery_cannot_be_noted_is_given_all_the_same(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Journal, _request_id: str) -> None:
        raise SetupError("The disk that holds the library is full.")

    async with connect() as client:
        monkeypatch.setattr(Journal, "mark_delivered", full)
        result = await client.call_tool("generate_image", {"prompt": "a cat"})
    facts = result.structured_content
    assert facts["returned"] == 1 and Path(facts["images"][0]["path"]).is_file()
    assert facts["images"][0]["id"] in result.content[0].text
