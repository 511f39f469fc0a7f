"""Bad input: each mistake gets one sentence that names it and the way out, before anything is spent or written."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.settings import Settings
from tests.conftest import Connect
from tests.support.fakes import FakeModel, photo

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"input_image_path_1": "nowhere.png"}, r"There is no image 'nowhere.png'.*Give an absolute path"),
    "missing_id": ({"input_images": ["img_0000000000000000"]}, r"no picture img_0000000000000000.*output_stats"),
    "empty_file": ({"input_image_path_1": "empty.png"}, r"empty.png is empty"),
    "huge": ({"input_image_path_1": "huge.png"}, r"huge.png has 70 MB; at most 64 MiB.*smaller"),
    "not_an_image": ({"input_image_path_1": "letter.png"}, r"letter.png: .*not"),
    "cut_off": ({"input_image_path_1": "half.png"}, r"half.png: "),
    "directory": ({"input_image_path_1": "folder"}, r"folder is a folder; name an image file"),
    "unreadable": ({"input_image_path_1": "locked.png"}, r"locked.png.*may not be read.*permissions"),
    "dots": ({"input_image_path_1": "../../nowhere/../x.png"}, r"There is no image '../../nowhere/../x.png'"),
    "folder_called_files": ({"input_images": ["files/cat.png"]}, r"not a Files API id.*\./files/cat\.png"),
    "url": ({"input_image_path_1": "https://example.org/a.png"}, r"is an address; give the path.*download it"),
    "file_url_of_another": ({"input_image_path_1": "file://host/a.png"}, r"is an address; give the path"),
    "data_url": ({"input_image_path_1": "data:image/png;base64,AAAA"}, r"A data: address was given .*give its path"),
    "file_url": ({"input_image_path_1": "file:///nowhere/a.png"}, r"There is no image '/nowhere/a.png'"),
    "control": ({"input_image_path_1": "a\x00.png"}, r"control characters"),
    "blank_path": ({"input_image_path_1": " "}, r"empty path.*leave the argument out"),
    "second_of_two": ({"input_images": ["good.png", "nowhere.png"]}, r"no image 'nowhere.png'"),
    "ratio_of_tier": ({"model_tier": "pro", "aspect_ratio": "8:1"}, r"aspect ratio 8:1.*model_tier 'flash' can"),
    "unknown_ratio": ({"aspect_ratio": "7:5"}, r"aspect_ratio: .*'16:9'"),
    "n_of_0": ({"n": 0}, r"n: must be at least 1"),
    "n_of_21": ({"n": 21}, r"n: must be at most 20"),
    "n_as_words": ({"n": "two"}, r"n must be a whole number, not text"),
    "n_as_power": ({"n": "1e1"}, r"n must be a whole number, not text"),
    "n_as_fraction": ({"n": 2.5}, r"n must be a whole number, not a number with a fraction"),
    "n_as_fraction_in_text": ({"n": "2.5"}, r"n must be a whole number, not text"),
    "n_as_truth": ({"n": True}, r"n must be a whole number, not true"),
    "grounding_as_words": ({"enable_grounding": "yes"}, r"enable_grounding must be true or false, not text"),
    "grounding_as_number": ({"enable_grounding": 1}, r"enable_grounding must be true or false"),
    "list_as_text": ({"input_images": "good.png"}, r"input_images must be a list \(\[\.\.\.\]\), not text"),
    "half_an_emoji": ({"prompt": "a \ud83d cat"}, r"prompt has half of a character in it.*nothing was done"),
    "half_an_emoji_in_a_list": ({"input_images": '["a\\ud83d.png"]'}, r"input_images has half of a character"),
    "half_an_emoji_in_an_object": ({"safety": '{"\\udc00": "off"}'}, r"safety has half of a character"),
    "list_cut_off": ({"input_images": '["good.png"'}, r"input_images must be a list"),
    "list_deep": ({"input_images": "[" * 5000}, r"input_images must be a list"),
    "list_as_object": ({"input_images": {"a": "good.png"}}, r"input_images must be a list"),
    "list_of_numbers": ({"input_images": "[1]"}, r"input_images.0 must be text, not a number"),
    "object_twice": ({"safety": '{"harassment": "off", "harassment": "block_none"}'}, r"safety must be an obj"),
    "object_as_list": ({"safety": ["off"]}, r"safety must be an object"),
    "number_as_prompt": ({"prompt": 7}, r"prompt must be text, not a number"),
    "dry_run_null": ({"dry_run": None}, r"dry_run must be true or false, not null"),
    "dry_run_empty": ({"dry_run": ""}, r"dry_run must be true or false, not an empty text"),
    "dry_run_word_null": ({"dry_run": "null"}, r"dry_run must be true or false, not text"),
    "empty_key": ({"idempotency_key": ""}, r"idempotency_key: must not be empty"),
    "unknown_argument": ({"frobnicate": 1}, r"frobnicate is not an argument of this tool.*leave it out"),
    "argument_of_other_servers": ({"cfg_scale": 7}, r"cfg_scale is not an argument of this tool.*say it in words"),
    "unknown_tier": ({"model_tier": "ultra"}, r"model_tier: .*'flash'"),
    "unknown_size": ({"resolution": "8k"}, r"resolution: .*'4k'"),
    "empty_prompt": ({"prompt": ""}, r"prompt: must not be empty"),
    "blank_prompt": ({"prompt": " \n"}, r"prompt is empty; say what"),
    "no_prompt": ({"prompt": None}, r"prompt must be text, not null"),
    "long_prompt": ({"prompt": "x" * 8193}, r"prompt: .*at most 8192"),
    "long_negative": ({"negative_prompt": "x" * 1025}, r"negative_prompt: .*at most 1024"),
    "long_instruction": ({"system_instruction": "x" * 513}, r"system_instruction: .*at most 512"),
    "15_inputs": ({"input_images": ["good.png"] * 15}, r"input_images: .*at most 14"),
    "15_inputs_together": ({"input_image_path_1": "good.png", "input_images": ["good.png"] * 14}, r"15 .*at most 14"),
    "edit_of_nothing": ({"mode": "edit"}, r"needs a picture to edit: give .*or use mode 'generate'"),
    "output_in_a_file": ({"output_path": "good.png/x.jpg"}, r"output_path .*is a file"),
    "output_hidden": ({"output_path": ".hidden/x.jpg"}, r"output_path .*hidden"),
    "output_url": ({"output_path": "https://example.org/x.jpg"}, r"is an address"),
}  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """The folder that relative paths are relative to, with one good picture and one of each bad kind."""
    whole = photo(tmp_path / "good.png", (300, 200)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "letter.png").write_text("Dear heron, this is no picture.")
    (tmp_path / "folder").mkdir()
    photo(tmp_path / "locked.png").chmod(0)
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(70_000_000)
    return tmp_path


@pytest.mark.slow
async def test_bad_input_gets_a_sentence_before_anything_is_sent_or_written(
    connect: Connect, settings: Settings, model: FakeModel, room: Path, subtests: pytest.Subtests
) -> None:
    before = sorted(path.name for path in room.iterdir())
    async with connect() as client:
        for name, (arguments, words) in BAD.items():
            if name == "unreadable" and os.geteuid() == 0:
                continue  # root may read everything
            with subtests.test(name):
                with pytest.raises(ToolError) as caught:
                    await client.call_tool("generate_image", {"prompt": "a cat"} | arguments)
                message = str(caught.value)
                assert re.search(words, message, re.DOTALL), message
                assert not re.search("pydantic|Traceback|Errno", message) and len(message) < 700
        stats = (await client.call_tool("output_stats", {})).structured_content
        assert stats["spend_usd"] == stats["pictures"] == 0
    assert model.requests == [] and model.uploads == []
    assert sorted(path.name for path in room.iterdir()) == sorted([*before, settings.database_path.parent.name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.png", "There is no image"),
        ("letter.png", "letter.png: "),
        ("folder", "is a folder"),
        ("", "path"),
    ],
)
async def test_uploading_what_is_no_picture_is_refused_as_well(
    connect: Connect, model: FakeModel, room: Path, name: str, words: str
) -> None:
    async with connect() as client:
        with pytest.raises(ToolError, match=words):
            await client.call_tool("upload_file", {"path": name})
    assert model.uploads == []
