"""The prompts: each tells calls that are valid as they stand, carried out here one after the other on the emulator."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, PromptReference
from PIL import Image, ImageDraw

from nanobanana_mcp.server.prompts import NEEDS, calls_of
from tests.conftest import Connect, Emulated, Era

GIVEN: dict[str, dict[str, str]] = {
    "photo": {"subject": 'a heron at dawn, "grey" \\ and\nalone'},
    "poster": {"title": 'Night "Train"', "details": "On 3 May, blue and silver."},
    "logo": {"name": "Otter & Sons"},
    "icon_set": {"things": "home, search; settings", "style": "thin lines"},
    "pattern": {"motif": "herons and reeds"},
    "diagram": {"content": '"Order" to "Payment" to "Delivery"', "kind": "flow chart"},
    "story": {"plot": "An otter finds a bell.", "pictures": "3"},
    "restore": {"picture": "{photo}"},
    "product_on_white": {"picture": "{photo}", "wishes": "for a shop"},
    "consistent_character": {"who": "a lighthouse keeper of 60", "scenes": "at the market"},
}


def filled(name: str, source: Path) -> dict[str, str]:
    return {argument: value.replace("{photo}", str(source)) for argument, value in GIVEN[name].items()}


async def told(client: Client[Any], name: str, arguments: dict[str, str]) -> str:
    (message,) = (await client.get_prompt(name, arguments)).messages
    assert message.role == "user"
    return str(message.content.text)


async def test_every_prompt_is_listed_with_its_arguments_in_words(client: Client[Any]) -> None:
    prompts = {prompt.name: prompt for prompt in await client.list_prompts()}
    assert set(prompts) == set(GIVEN)
    for name, prompt in prompts.items():
        assert prompt.title and prompt.description
        assert prompt.description.endswith(".")
        assert [argument.required for argument in prompt.arguments or ()] == [True, False][
            : len(prompt.arguments or ())
        ]
        assert all(argument.description for argument in prompt.arguments or ()), name


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
async def test_the_calls_that_a_prompt_tells_can_be_made_as_they_stand(
    name: str, emulated: Emulated, tmp_path: Path
) -> None:
    emulated.emulator.control.cheap = False
    source = tmp_path / "source.png"
    with Image.new("RGB", (1200, 900), (180, 200, 210)) as drawing:
        ImageDraw.Draw(drawing).ellipse((400, 200, 800, 700), fill=(160, 60, 40), outline=(30, 30, 30), width=12)
        drawing.save(source)
    schemas = {tool.name: tool.input_schema for tool in await emulated.client.list_tools()}
    text = await told(emulated.client, name, filled(name, source))
    assert NEEDS[name] == {tool for tool, _ in calls_of(text)} <= set(schemas)
    last = str(source)
    for tool, arguments in calls_of(text):
        assert set(arguments) <= set(schemas[tool]["properties"])
        meant = {key: _with(value, last) for key, value in arguments.items()}
        result = await emulated.client.call_tool(tool, meant)
        if tool != "convert_image":
            assert result.structured_content["returned"] == arguments.get("n", 1)
            last = result.structured_content["images"][0]["id"]


def _with(value: Any, image_id: str) -> Any:
    """An argument with a picture's id where the text names one that is yet to be made."""
    if isinstance(value, list):
        return [_with(one, image_id) for one in value]
    return image_id if isinstance(value, str) and re.fullmatch(r"<id of [^>]*>", value) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
async def test_a_prompt_has_every_word_that_it_was_given_and_no_tool_or_argument_that_is_not_there(
    name: str, client: Client[Any], tmp_path: Path
) -> None:
    arguments = filled(name, tmp_path / "source.png")
    text = await told(client, name, arguments)
    for value in arguments.values():
        assert set(re.findall(r"\w+", value)) <= set(re.findall(r"\w+", text))
    tools = {tool.name: tool.input_schema["properties"] for tool in await client.list_tools()}
    known = set(tools).union(*tools.values())
    values = {word for tool in tools.values() for one in tool.values() for word in one.get("enum", ())}
    named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text.replace(name, "")))
    assert named <= known | values, named - known
    assert "the path of every file" in text and len(text) < 4000


async def test_claude_code_hands_over_one_word_an_argument_and_its_model_is_told_so(connect: Connect, era: Era) -> None:
    for name, is_said in (("claude-code", True), ("cursor", False)):
        async with connect(mode=era, name=name) as client:
            text = await told(client, "photo", {"subject": "a"})
            assert text.startswith("Claude Code hands over one word for each argument") == is_said


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("paint", {}, "'paint' is not a prompt of this server. The prompts are consistent_character, diagram"),
        ("photo", {}, "photo needs subject: What the photograph shows."),
        ("photo", {"subject": " "}, "photo needs subject"),
        ("photo", {"subject": "a cat", "size": "1k"}, "photo has no argument 'size': it takes subject"),
    ],
)
async def test_a_prompt_that_cannot_be_told_says_why(
    client: Client[Any], name: str, arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(MCPError, match=words) as caught:
        await client.get_prompt(name, arguments)
    assert caught.value.error.code == INVALID_PARAMS


@pytest.mark.parametrize("hide", [False, True])
async def test_a_prompt_is_offered_only_with_all_of_its_tools(
    connect: Connect, tmp_path: Path, era: Era, hide: bool
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nhide: [remove_background, convert_image, extend_image, maintenance, upload_file]\n")
    changes: dict[str, Any] = {"policy": policy} if hide else {"tools": "core"}
    async with connect(mode=era, **changes) as client:
        assert {prompt.name for prompt in await client.list_prompts()} == set(GIVEN) - {
            "logo",
            "icon_set",
            "product_on_white",
        }
        with pytest.raises(
            MCPError, match="logo needs convert_image, remove_background, which this server does not offer"
        ):
            await client.get_prompt("logo", {"name": "Otter"})


async def test_a_story_of_any_number_of_pictures_says_the_number_that_was_asked_for(client: Client[Any]) -> None:
    assert "in 12 pictures" in await told(client, "story", {"plot": "a", "pictures": "12"})
    assert "(a dozen), or 4" in await told(client, "story", {"plot": "a", "pictures": "a dozen"})


async def test_the_picture_of_a_prompt_is_completed(emulated: Emulated) -> None:
    made = (await emulated.call(prompt="a cat")).structured_content["images"][0]["id"]
    reference = PromptReference(type="ref/prompt", name="restore")
    assert (await emulated.client.complete(reference, {"name": "picture", "value": "img"})).values == [made]
    assert (await emulated.client.complete(reference, {"name": "wishes", "value": ""})).values == []
