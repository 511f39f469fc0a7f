"""A person is asked before a call that is dear or clears pictures away; without a person, an argument says it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from mcp.types import ElicitResult

from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.server.session import LazyStudio
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Era
from tests.support.fakes import FakeModel, photo

DEAR = {"prompt": "a heron", "model_tier": "pro", "n": 8}
CLEAR = {"operation": "cleanup_local", "max_age_hours": 0, "keep_count": 0, "dry_run": False}
YES = ElicitResult(action="accept", content={"agreed": True})
NO = ElicitResult(action="decline")
UNTICKED = ElicitResult(action="accept", content={"agreed": False})
NOBODY = ElicitResult(action="cancel")


class Person:
    """Answers every question the same way and keeps them; `answer` None is a client that cannot ask."""

    def __init__(self, answer: ElicitResult | None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def __call__(self, message: str, _type: Any, params: Any, _context: Any) -> Any:
        self.asked.append(message)
        (field,) = params.requested_schema["properties"].values()
        assert field["type"] == "boolean" and field["title"].startswith("Yes")
        return self.answer


@pytest.fixture
def at_client(settings: Settings, make_studio: Callable[..., Studio], era: Era) -> Callable[..., Client[Any]]:
    def open_client(person: Person, **changes: Any) -> Client[Any]:
        server = build_server(
            settings.model_copy(update=changes), LazyStudio(lambda: make_studio(limits=settings.limits))
        )
        return Client(server, mode=era, elicitation_handler=person if person.answer else None)

    return open_client


@pytest.mark.slow
async def test_a_dear_call_is_made_once_after_the_person_said_yes(
    at_client: Callable[..., Client[Any]], model: FakeModel
) -> None:
    person = Person(YES)
    async with at_client(person) as client:
        result = await client.call_tool("generate_image", DEAR)
    assert result.structured_content["returned"] == len(model.requests) == 8
    (question,) = person.asked
    assert (
        question.startswith("This asks Nano Banana Pro for 8 pictures and may cost up to $1.") and "Go on?" in question
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NO, "was asked and said no; nothing was done"),
        (UNTICKED, "was asked and said no"),
        (NOBODY, r"Nobody answered .* agrees to spend up to \$(1\.\d\d), call again with max_cost_usd \1\."),
        (
            None,
            r"for 8 pictures and may cost up to \$1\.\d\d; nothing was sent. Ask the person first. .*max_cost_usd 1\.",
        ),
    ],
)
async def test_without_a_yes_a_dear_call_sends_nothing_and_uses_up_no_limit(
    at_client: Callable[..., Client[Any]], model: FakeModel, tmp_path: Path, answer: ElicitResult | None, words: str
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {generate_image: {rules: [{rate_limit: 1/day}]}}\n")
    person = Person(answer)
    async with at_client(person, policy=policy) as client:
        with pytest.raises(ToolError, match=words):
            await client.call_tool("generate_image", DEAR)
        assert model.requests == [] and len(person.asked) == (answer is not None)
        person.answer = YES
        await client.call_tool("generate_image", DEAR if answer is not None else {"prompt": "a heron"})
        with pytest.raises(ToolError, match="olicy"):
            await client.call_tool("generate_image", {"prompt": "a heron"})


@pytest.mark.slow
@pytest.mark.parametrize("era", ["legacy"])  # later clients end the call by themselves
async def test_a_client_that_fails_to_ask_about_the_price_sends_nothing_and_is_told_the_way_out(
    settings: Settings, make_studio: Callable[..., Studio], model: FakeModel, era: Era
) -> None:
    async def broken(*_given: Any) -> ElicitResult:
        raise RuntimeError("no window here")

    server = build_server(settings, LazyStudio(lambda: make_studio(limits=settings.limits)))
    async with Client(server, mode=era, elicitation_handler=broken) as client:
        with pytest.raises(
            ToolError, match=r"could not ask whether to go on .* nothing was done. .*call again with max_cost_usd"
        ):
            await client.call_tool("generate_image", DEAR)
        with pytest.raises(ToolError, match=r"could not ask .* command line"):
            await client.call_tool("generate_image", {"prompt": "a heron"})
            await client.call_tool("maintenance", CLEAR)
    assert len(model.requests) == 1


@pytest.mark.slow
async def test_max_cost_usd_is_the_yes_of_a_client_that_cannot_ask_and_is_never_exceeded(
    at_client: Callable[..., Client[Any]], model: FakeModel, tmp_path: Path
) -> None:
    person = Person(None)
    source = str(photo(tmp_path / "sea.png"))
    async with at_client(person) as client:
        for tool, arguments in (
            ("generate_image", {"prompt": "a heron"}),
            ("generate_image", {"prompt": "a heron", "dry_run": True}),
            ("edit_region", {"image": source, "instruction": "a boat", "box": [10, 10, 90, 90]}),
            ("extend_image", {"image": source, "right": 100}),
        ):
            with pytest.raises(ToolError, match=r"may cost \$0\.\d+, more than max_cost_usd 0\.001; nothing was sent"):
                await client.call_tool(tool, arguments | {"max_cost_usd": 0.001})
        with pytest.raises(ToolError, match="max_cost_usd must be an amount of USD, not null"):
            await client.call_tool("generate_image", {"prompt": "a heron", "max_cost_usd": None})
        with pytest.raises(ToolError, match="max_cost_usd: must be more than 0"):
            await client.call_tool("generate_image", {"prompt": "a heron", "max_cost_usd": 0})
        assert model.requests == []
        await client.call_tool("generate_image", DEAR | {"max_cost_usd": "1.9"})
        assert len(model.requests) == 8


@pytest.mark.slow
async def test_what_costs_little_is_free_or_was_paid_for_is_not_asked_about(
    at_client: Callable[..., Client[Any]], model: FakeModel
) -> None:
    person = Person(NO)
    async with at_client(person) as client:
        await client.call_tool("generate_image", {"prompt": "a heron", "n": 4})
        await client.call_tool("generate_image", DEAR | {"dry_run": True})
        paid = DEAR | {"idempotency_key": "one"}
        await client.call_tool("generate_image", paid | {"max_cost_usd": 1.9})
        await client.call_tool("generate_image", paid)
        with pytest.raises(ToolError, match="NANOBANANA_MAX_USD_PER_CALL"):
            await client.call_tool("generate_image", DEAR | {"n": 20})  # the limit has the word before the person
    async with at_client(person, ask_above_usd=None) as client:
        await client.call_tool("generate_image", DEAR | {"prompt": "another heron"})
    assert person.asked == [] and len(model.requests) == 4 + 8 + 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [(YES, None), (NO, "said no"), (NOBODY, "Nobody answered .* on the command line"), (None, None)],
)
async def test_pictures_go_to_the_trash_after_a_yes_or_where_nobody_can_be_asked_by_dry_run_false(
    at_client: Callable[..., Client[Any]], model: FakeModel, answer: ElicitResult | None, words: str | None
) -> None:
    person = Person(answer)
    async with at_client(person) as client:
        made = (await client.call_tool("generate_image", {"prompt": "a heron", "n": 2})).structured_content[
            "file_paths"
        ]
        await client.call_tool("maintenance", CLEAR | {"dry_run": True})
        if words is None:
            assert len((await client.call_tool("maintenance", CLEAR)).structured_content["actions"]) == 2
        else:
            with pytest.raises(ToolError, match=words):
                await client.call_tool("maintenance", CLEAR)
        assert [Path(path).exists() for path in made] == [words is not None] * 2
        asked = len(person.asked)
        person.answer = NO
        await client.call_tool("maintenance", {"operation": "restore", "dry_run": False})
        await client.call_tool("maintenance", {"operation": "database_hygiene", "dry_run": False})
        assert len(person.asked) == asked == (answer is not None)
        assert all(Path(path).exists() for path in made)
    if person.asked:
        assert person.asked[0].startswith("Move 2 pictures, ") and "'restore' brings them back" in person.asked[0]


async def test_the_command_line_calls_without_a_client_and_asks_by_itself(
    settings: Settings, make_studio: Callable[..., Studio], model: FakeModel
) -> None:
    server = build_server(settings.model_copy(update={"structured": "always"}), LazyStudio(make_studio))
    try:
        result = await server.call_tool("generate_image", DEAR)
    finally:
        await server.shared.lazy.close()
    assert result.structured_content is not None and len(model.requests) == 8
