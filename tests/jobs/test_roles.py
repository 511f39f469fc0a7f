"""Roles, seed and safety go over the wire, and the arguments of other servers get an answer that names ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from tests.conftest import Emulated
from tests.support.easel import saved, use
from tests.support.scenes import photo

ROLES = ["subject", "character", "style", "layout", "product", "other"]


def _inputs(folder: Path, count: int) -> list[str]:
    return [str(saved(folder, photo(60 + number, 40, seed=number), f"{number}.png")) for number in range(count)]


async def test_each_role_is_worded_by_its_pictures_number_in_the_order_they_are_sent(
    emulated: Emulated, tmp_path: Path
) -> None:
    inputs = _inputs(tmp_path, 6)
    await use(emulated, "generate_image", prompt="all of it", input_images=inputs, input_roles=ROLES)
    words, roles, *images = emulated.drawn[0]["contents"][0]["parts"]
    assert words == {"text": "all of it"}
    sentences = roles["text"].split(". ")
    assert [sentence.split()[1] for sentence in sentences] == ["1", "2", "3", "4", "5", "6"]
    told = ("the subject", "a character", "only the style", "only the layout", "a product", "as the prompt says")
    assert all(word in sentence for word, sentence in zip(told, sentences, strict=True))
    sizes = [image["inlineData"]["data"]["bytes"] for image in images]
    assert sizes == [Path(path).stat().st_size for path in inputs]


async def test_fewer_roles_than_inputs_are_for_the_first_ones(emulated: Emulated, tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, 3)
    await use(emulated, "generate_image", prompt="both", input_images=inputs, input_roles=["product"])
    parts = emulated.drawn[0]["contents"][0]["parts"]
    assert parts[1]["text"].startswith("Image 1 shows a product") and "Image 2" not in parts[1]["text"]
    assert len(parts) == 5


async def test_without_roles_nothing_is_said_of_them(emulated: Emulated, tmp_path: Path) -> None:
    await use(emulated, "generate_image", prompt="both", input_images=_inputs(tmp_path, 2))
    assert [part.get("text") for part in emulated.drawn[0]["contents"][0]["parts"]] == ["both", None, None]


async def test_fourteen_inputs_with_their_roles_are_taken(emulated: Emulated, tmp_path: Path) -> None:
    roles = ["character"] * 13 + ["style"]
    await use(emulated, "generate_image", prompt="a crowd", input_images=_inputs(tmp_path, 14), input_roles=roles)
    parts = emulated.drawn[0]["contents"][0]["parts"]
    assert "Image 14 gives only the style" in parts[1]["text"] and len(parts) == 16


@pytest.mark.parametrize(
    ("inputs", "roles", "words"),
    [
        (1, ["subject", "style"], "2 roles for 1 input"),
        (0, ["subject"], "1 role for 0 input"),
        (15, [], "at most 14"),
        (1, ["muse"], "input_roles"),
        (14, ["style"] * 15, "input_roles"),
    ],
)
async def test_roles_that_do_not_fit_the_inputs_are_refused(
    emulated: Emulated, tmp_path: Path, inputs: int, roles: list[str], words: str
) -> None:
    with pytest.raises(ToolError, match=words):
        await use(emulated, "generate_image", prompt="a", input_images=_inputs(tmp_path, inputs), input_roles=roles)
    assert emulated.emulator.requests == []


async def test_a_seed_is_sent_and_recorded(emulated: Emulated) -> None:
    facts = await use(emulated, "generate_image", prompt="a heron", seed=42)
    assert emulated.drawn[0]["generationConfig"]["seed"] == 42
    record = emulated.studio.places.records / f"{facts['images'][0]['id']}.json"
    assert json.loads(record.read_text())["request"]["request"]["seed"] == 42
    await use(emulated, "generate_image", prompt="a heron")
    assert "seed" not in emulated.drawn[1]["generationConfig"]


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "lucky"])
async def test_a_seed_that_is_none_is_refused(emulated: Emulated, seed: Any) -> None:
    with pytest.raises(ToolError, match="seed"):
        await use(emulated, "generate_image", prompt="a heron", seed=seed)


async def test_safety_is_sent_in_googles_words_and_only_when_asked_for(emulated: Emulated) -> None:
    safety = {
        "harassment": "block_none",
        "hate_speech": "block_only_high",
        "sexually_explicit": "block_low_and_above",
        "dangerous_content": "off",
    }
    await use(emulated, "generate_image", prompt="a heron", safety=safety)
    assert emulated.drawn[0]["safetySettings"] == [
        {"category": f"HARM_CATEGORY_{category.upper()}", "threshold": threshold.upper()}
        for category, threshold in safety.items()
    ]
    await use(emulated, "generate_image", prompt="a heron")
    assert "safetySettings" not in emulated.drawn[1]


@pytest.mark.parametrize("safety", [{"spoilers": "off"}, {"harassment": "whatever"}, "off"])
async def test_safety_that_is_none_is_refused(emulated: Emulated, safety: Any) -> None:
    with pytest.raises(ToolError, match="safety"):
        await use(emulated, "generate_image", prompt="a heron", safety=safety)
    assert emulated.emulator.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "argument", "value", "instead"),
    [
        ("generate_image", "steps", 30, "thinking_level"),
        ("generate_image", "cfg_scale", 7.5, "say it in words"),
        ("generate_image", "scheduler", "ddim", "nothing of the kind"),
        ("generate_image", "sampler", "euler", "nothing of the kind"),
        ("generate_image", "lora", "x.safetensors", "input_images"),
        ("generate_image", "strength", 0.6, "say it in words"),
        ("generate_image", "size", "1024x1024", "resolution"),
        ("generate_image", "num_images", 4, "use n"),
        ("generate_image", "image", "a.png", "use input_images"),
        ("generate_image", "save_path", "a.png", "output_path"),
        ("generate_image", "no_such_thing", 1, "leave it out"),
        ("edit_region", "prompt", "a hat", "instruction"),
        ("edit_region", "strength", 0.6, "say it in words"),
        ("extend_image", "steps", 30, "model_tier"),
        ("remove_background", "model", "pro", "model_tier"),
        ("remove_background", "prompt", "the cat", "use subject$"),
        ("edit_region", "lora", "x.safetensors", "generate_image takes example pictures"),
        ("edit_region", "negative_prompt", "rain", "use instruction$"),
        ("extend_image", "margin", 9, "left, top, right and bottom"),
        ("generate_image", "mask", "m.png", "edit_region has mask"),
        ("generate_image", "aspectRatio", "1:1", "use aspect_ratio$"),
        ("generate_image", "promt", "a cat", "use prompt, if that was meant"),
    ],
)
async def test_an_argument_of_another_server_is_answered_with_what_to_use_here(
    emulated: Emulated, tmp_path: Path, tool: str, argument: str, value: Any, instead: str
) -> None:
    source = saved(tmp_path, photo(60, 40), "s.png")
    own: dict[str, Any] = {"prompt": "a heron"} if tool == "generate_image" else {"image": str(source)}
    own |= {"instruction": "a hat", "box": [1, 1, 9, 9]} if tool == "edit_region" else {}
    with pytest.raises(ToolError, match=f"{argument} is not an argument of this tool: .*({instead})"):
        await use(emulated, tool, **own, **{argument: value})
    assert emulated.emulator.requests == []


@pytest.mark.parametrize(
    "tool", ["generate_image", "edit_region", "extend_image", "remove_background", "convert_image"]
)
async def test_the_tools_take_nothing_that_gemini_has_not(emulated: Emulated, tool: str) -> None:
    (found,) = (one for one in await emulated.client.list_tools() if one.name == tool)
    names = set(found.input_schema["properties"])
    assert not names & {"steps", "cfg_scale", "guidance_scale", "scheduler", "sampler", "lora", "strength", "size"}
    assert found.description and ("$" in found.description or "Free" in found.description)
