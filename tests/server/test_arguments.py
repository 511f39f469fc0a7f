"""Every argument of generate_image as it goes over the wire, in a new picture and in an edit."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from tests.conftest import Connect, Emulated
from tests.support.fakes import FakeModel, photo
from tests.support.lanes import cases

FLASH, PRO, LITE = "gemini-nano-banana-2.1", "gemini-3-pro-image", "gemini-3.1-flash-lite-image"
PROMPT = "  A heron,\n at 7 o'clock: 50% grey & 'blue' "
SEARCH: list[dict[str, Any]] = [{"googleSearch": {}}]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arguments of a call, and where the request then differs from the plainest one."""

    give: dict[str, Any]
    model: str = FLASH
    after: tuple[dict[str, Any], ...] = ()
    image: dict[str, Any] = field(default_factory=lambda: {"imageSize": "1K"})
    config: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)


OPTIONS = {
    "nothing_else": Case(give={}),
    "negative_prompt": Case(
        give={"negative_prompt": "people, text"}, after=({"text": "Keep these out of the picture: people, text"},)
    ),
    "system_instruction": Case(
        give={"system_instruction": "Always in ink."},
        top={"systemInstruction": {"parts": [{"text": "Always in ink."}], "role": "user"}},
    ),
    "tier_flash": Case(give={"model_tier": "flash"}),
    "tier_nb2": Case(give={"model_tier": "nb2"}),
    "tier_lite": Case(give={"model_tier": "lite"}, model=LITE),
    "tier_pro": Case(give={"model_tier": "pro"}, model=PRO, image={"imageSize": "2K"}, top={"tools": SEARCH}),
    "resolution_1k": Case(give={"resolution": "1k"}),
    "resolution_2k": Case(give={"resolution": "2k"}, image={"imageSize": "2K"}),
    "resolution_4k": Case(give={"resolution": "4k", "model_tier": "flash"}, image={"imageSize": "4K"}),
    "resolution_high_of_flash": Case(give={"resolution": "high"}),
    "thinking_minimal": Case(
        give={"thinking_level": "minimal"}, config={"thinkingConfig": {"thinking_level": "MINIMAL"}}
    ),
    "thinking_medium": Case(give={"thinking_level": "medium"}, config={"thinkingConfig": {"thinking_level": "MEDIUM"}}),
    "thinking_high": Case(give={"thinking_level": "high"}, config={"thinkingConfig": {"thinking_level": "HIGH"}}),
    "grounding_on": Case(give={"enable_grounding": True}, top={"tools": SEARCH}),
    "grounding_off": Case(give={"enable_grounding": False}),
    "grounding_off_for_pro": Case(
        give={"enable_grounding": False, "model_tier": "pro"}, model=PRO, image={"imageSize": "2K"}
    ),
    "aspect_ratio": Case(give={"aspect_ratio": "21:9"}, image={"aspectRatio": "21:9", "imageSize": "1K"}),
    "panorama": Case(give={"aspect_ratio": "8:1"}, image={"aspectRatio": "8:1", "imageSize": "1K"}),
}


def inline(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    kind = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}[path.suffix]
    return {"inlineData": {"mime_type": kind, "data": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}}


def expected(case: Case, *pictures: dict[str, Any]) -> dict[str, Any]:
    parts = [{"text": PROMPT}, *pictures, *case.after]
    config = {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": case.image} | case.config
    return {"contents": [{"parts": parts, "role": "user"}], "generationConfig": config} | case.top


@pytest.mark.slow
@cases("mode", ["generate", "edit"])
async def test_an_argument_is_sent_and_nothing_that_was_not_asked_for(
    emulated: Emulated, tmp_path: Path, subtests: pytest.Subtests, mode: str
) -> None:
    source = photo(tmp_path / "source.png")
    given, pictures = ({"input_image_path_1": str(source)}, [inline(source)]) if mode == "edit" else ({}, [])
    for name, case in OPTIONS.items():
        with subtests.test(name):
            result = await emulated.call(prompt=PROMPT, **given, **case.give)
            assert (emulated.models[-1], emulated.drawn[-1]) == (case.model, expected(case, *pictures))
            assert result.structured_content["mode"] == mode
    assert len(emulated.drawn) == len(OPTIONS)


@pytest.mark.parametrize("edit", [False, True])
async def test_a_picture_goes_where_output_path_says(emulated: Emulated, tmp_path: Path, edit: bool) -> None:
    given = {"input_image_path_1": str(photo(tmp_path / "source.png"))} if edit else {}
    file, folder = tmp_path / "new" / "heron.jpg", tmp_path / "other"
    first = await emulated.call(prompt=PROMPT, output_path=str(file), **given)
    second = await emulated.call(prompt=PROMPT, output_path=f"{folder}/", **given)
    assert first.structured_content["file_paths"] == [str(file)] and file.is_file()
    assert [Path(path) for path in second.structured_content["file_paths"]] == list(folder.iterdir())
    assert emulated.drawn[0] == emulated.drawn[1]


async def test_a_file_that_is_there_already_is_left_alone(emulated: Emulated, tmp_path: Path) -> None:
    taken = tmp_path / "heron.png"
    taken.write_bytes(b"mine")
    result = await emulated.call(prompt=PROMPT, output_path=str(taken))
    again = await emulated.call(prompt=f"{PROMPT} again", output_path=str(tmp_path / "heron.jpg"))
    assert taken.read_bytes() == b"mine"
    assert result.structured_content["file_paths"] == [str(tmp_path / "heron-2.png")]
    assert again.structured_content["file_paths"] == [str(tmp_path / "heron.jpg")]
    assert "not touched" in result.content[0].text


async def test_n_pictures_are_n_requests_and_a_file_name_is_numbered(emulated: Emulated, tmp_path: Path) -> None:
    result = await emulated.call(prompt=PROMPT, n=3, output_path=str(tmp_path / "heron.jpg"))
    assert emulated.drawn == [expected(Case(give={}))] * 3
    assert result.structured_content["file_paths"] == [str(tmp_path / f"heron-{number}.jpg") for number in (1, 2, 3)]
    assert len({Path(path).read_bytes() for path in result.structured_content["file_paths"]}) == 3


async def test_the_three_paths_come_before_input_images_and_all_keep_their_order(
    emulated: Emulated, tmp_path: Path
) -> None:
    paths = [photo(tmp_path / f"{number}.png", color=(number, 9, 9)) for number in range(1, 7)]
    await emulated.call(
        prompt=PROMPT,
        model_tier="flash",
        input_images=[str(path) for path in paths[3:]],
        input_image_path_2=str(paths[1]),
        input_image_path_3=str(paths[2]),
        input_image_path_1=str(paths[0]),
    )
    assert emulated.drawn == [expected(Case(give={}), *(inline(path) for path in paths))]


async def test_a_file_id_comes_first_and_paths_become_references_to_it(emulated: Emulated, tmp_path: Path) -> None:
    base, reference = photo(tmp_path / "base.png", (640, 480)), photo(tmp_path / "other.webp", (300, 900))
    uploaded = (await emulated.client.call_tool("upload_file", {"path": str(base)})).structured_content
    result = await emulated.call(prompt=PROMPT, input_images=[str(reference)], file_id=uploaded["name"])
    file = {"fileData": {"file_uri": uploaded["uri"], "mime_type": "image/png"}}
    # A model follows the last picture when it is given no ratio, which here would be the reference.
    case = Case(give={}, image={"aspectRatio": "4:3", "imageSize": "1K"})
    assert emulated.drawn == [expected(case, file, inline(reference))]
    assert result.structured_content["mode"] == "edit"
    assert result.structured_content["source_file_id"] == uploaded["name"]


async def test_our_own_ids_are_taken_as_inputs(emulated: Emulated) -> None:
    first = (await emulated.call(prompt="a heron")).structured_content["images"][0]
    await emulated.call(prompt=PROMPT, input_images=[first["id"]])
    assert emulated.drawn[1] == expected(Case(give={}), inline(Path(first["path"])))


async def test_files_api_ids_are_taken_among_the_inputs(emulated: Emulated, tmp_path: Path) -> None:
    first = (await emulated.call(prompt="a heron")).structured_content
    reference = photo(tmp_path / "other.png")
    await emulated.call(prompt=PROMPT, input_images=[str(reference), first["files_api_ids"][0]])
    (_, uploaded) = emulated.drawn[1]["contents"][0]["parts"][1:]
    assert emulated.drawn[1]["contents"][0]["parts"][1] == inline(reference)
    assert uploaded["fileData"]["file_uri"].endswith(first["files_api_ids"][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "count", "is_edit", "ratio"),
    [
        ("auto", 0, False, None),
        ("auto", 1, True, None),
        ("auto", 2, False, None),
        ("generate", 1, False, None),
        ("edit", 1, True, None),
        ("edit", 2, True, "3:2"),
    ],
)
async def test_the_mode_decides_whether_the_shape_of_the_source_is_kept(
    emulated: Emulated, tmp_path: Path, mode: str, count: int, is_edit: bool, ratio: str | None
) -> None:
    inputs = [str(photo(tmp_path / f"{number}.png", (600, 400 + 300 * number))) for number in range(count)]
    result = await emulated.call(prompt="a heron", mode=mode, input_images=inputs)
    assert emulated.drawn[0]["generationConfig"]["imageConfig"].get("aspectRatio") == ratio
    assert result.structured_content["mode"] == ("edit" if is_edit else "generate")
    assert result.structured_content["aspect_ratio_sent"] == ratio


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("generate_image", {"fit": "pad"}, "fit .*width x height"),
        ("generate_image", {"quality": 3}, "quality is for output_format jpeg, webp or avif"),
        ("generate_image", {"quality": 3, "output_format": "png"}, "quality is for"),
        ("edit_region", {"quality": 3}, "quality is for"),
        ("extend_image", {"quality": 3, "output_format": "png"}, "quality is for"),
        ("remove_background", {"quality": 3}, "quality"),
        ("convert_image", {"fit": "pad"}, "fit says"),
        ("convert_image", {"quality": 3, "output_format": "png"}, "quality is for output_format"),
        ("maintenance", {"operation": "check_quota", "keep_count": 3}, "keep_count"),
        ("maintenance", {"operation": "restore", "max_age_hours": 2.0}, "max_age_hours"),
        ("maintenance", {"operation": "recover", "keep_count": 3}, "keep_count"),
        ("maintenance", {"operation": "cleanup_expired", "max_age_hours": 2.0}, "max_age_hours"),
    ],
)
async def test_an_argument_that_would_do_nothing_is_refused(
    tool: str, arguments: dict[str, Any], words: str, emulated: Emulated, tmp_path: Path
) -> None:
    if tool == "generate_image":
        arguments = {"prompt": "a cat"} | arguments
    elif tool != "maintenance":
        arguments = {"image": str(photo(tmp_path / "sea.png"))} | arguments
    if tool in ("edit_region", "extend_image"):
        arguments |= {"instruction": "a boat"} | ({"box": [1, 1, 90, 90]} if tool == "edit_region" else {"right": 90})
    with pytest.raises(ToolError, match=words):
        await emulated.client.call_tool(tool, arguments)
    assert emulated.drawn == []


SPELT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a number as text": ({"n": "2"}, {"n": 2}),
    "a number with spaces": ({"n": " 2 "}, {"n": 2}),
    "a whole float": ({"n": 2.0, "width": 640.0}, {"n": 2, "width": 640}),
    "a whole float as text": ({"n": "2.0"}, {"n": 2}),
    "a boolean as text": ({"enable_grounding": "True"}, {"enable_grounding": True}),
    "a size in capitals": ({"resolution": "2K"}, {"resolution": "2k"}),
    "a tier in capitals": ({"model_tier": " PRO"}, {"model_tier": "pro"}),
    "a tier by its name": ({"model_tier": "Nano Banana Pro"}, {"model_tier": "pro"}),
    "jpg": ({"output_format": "jpg", "quality": "70"}, {"output_format": "jpeg", "quality": 70}),
    "a media type": ({"output_format": "image/PNG"}, {"output_format": "png"}),
    "a ratio by an x": ({"aspect_ratio": "16x9"}, {"aspect_ratio": "16:9"}),
    "a ratio by a word": ({"aspect_ratio": "Square"}, {"aspect_ratio": "1:1"}),
    "a list as text": ({"input_images": '["{photo}"]'}, {"input_images": ["{photo}"]}),
    "roles as text": (
        {"input_images": ["{photo}"], "input_roles": '["STYLE"]', "mode": "generate"},
        {"input_images": ["{photo}"], "input_roles": ["style"], "mode": "generate"},
    ),
    "an object as text": ({"safety": '{"harassment": "off"}'}, {"safety": {"harassment": "off"}}),
    "Google's own words": (
        {"safety": {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"}},
        {"safety": {"harassment": "block_none"}},
    ),
    "empty texts": ({"input_image_path_1": "", "output_path": "", "width": "", "fit": "", "aspect_ratio": ""}, {}),
    "nulls": ({"n": None, "width": None, "output_format": None, "safety": None, "mode": None, "seed": "null"}, {}),
    "the word null": (
        {"input_image_path_2": "null", "file_id": "Null", "output_path": " null ", "continue_from": "null"},
        {},
    ),
    "an empty list and object": ({"input_images": [], "input_roles": "[]", "safety": {}}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPELT)
async def test_an_argument_in_another_spelling_is_the_same_call(name: str, emulated: Emulated, tmp_path: Path) -> None:
    source = photo(tmp_path / "source.png")

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(item) for item in value]
        return value.replace("{photo}", str(source)) if isinstance(value, str) else value

    spelt, plain = ({key: filled(value) for key, value in given.items()} for given in SPELT[name])
    first = await emulated.call(prompt=PROMPT, idempotency_key="one", **spelt)
    sent = len(emulated.drawn)
    again = await emulated.call(prompt=PROMPT, idempotency_key="one", **plain)
    assert again.structured_content["file_paths"] == first.structured_content["file_paths"]
    assert len(emulated.drawn) == sent > 0


@pytest.mark.slow
@pytest.mark.parametrize("words", ["2", " true ", "null", "", "[1, 2]", '{"a": 1}', "PRO", "''"])
async def test_free_text_stays_as_it_was_written(words: str, emulated: Emulated) -> None:
    await emulated.call(prompt=f"{words}!", negative_prompt=words, system_instruction=words or "null")
    sent = emulated.drawn[0]
    assert sent["contents"][0]["parts"][0] == {"text": f"{words}!"}
    assert sent["systemInstruction"]["parts"] == [{"text": words or "null"}]


@pytest.mark.slow
@pytest.mark.parametrize("given", [[], "", "[]", None, "null"])
async def test_an_empty_list_of_ids_restores_nothing(given: Any, connect: Connect, model: FakeModel) -> None:
    async with connect() as client:
        await client.call_tool("generate_image", {"prompt": "a cat"})
        cleanup = {"operation": "cleanup_local", "dry_run": False, "max_age_hours": 0, "keep_count": 0}
        assert (await client.call_tool("maintenance", cleanup)).structured_content["actions"]
        restore = {"operation": "restore", "dry_run": False}
        with pytest.raises(ToolError, match=r"image_ids must be a list of img_\.\.\. ids"):
            await client.call_tool("maintenance", restore | {"image_ids": given})
        assert (await client.call_tool("maintenance", restore)).structured_content["actions"]


@pytest.mark.parametrize("name", ["dry_run", "max_age_hours", "keep_count"])
@pytest.mark.parametrize("given", [None, "", "null"])
async def test_an_empty_limit_is_refused(name: str, given: Any, connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(ToolError, match=rf"{name} must be .*, not "):
            await client.call_tool("maintenance", {"operation": "cleanup_local", name: given})
