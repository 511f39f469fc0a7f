"""find_images and view_image through the server: what is found and seen is told in words and in pictures, small and free."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from mcp.types import ImageContent, ResourceLink, TextContent
from PIL import Image, ImageDraw, ImageFont

from nanobanana_mcp.settings import Settings
from tests.conftest import Connect
from tests.support.rooms import png

pytestmark = pytest.mark.usefixtures("settings")


async def _made(client: Client[Any], *prompts: str) -> list[dict[str, Any]]:
    made = []
    for prompt in prompts:
        answer = await client.call_tool("generate_image", {"prompt": prompt})
        assert answer.structured_content is not None
        made.append(answer.structured_content["images"][0])
    return made


def _seen(answer: Any) -> list[Image.Image]:
    """The pictures of an answer; it must be below what clients cut off at."""
    size = sum(len(json.dumps(block.model_dump(mode="json"))) for block in answer.content)
    assert size + len(json.dumps(answer.structured_content)) < 1_000_000
    return [
        Image.open(io.BytesIO(base64.b64decode(block.data)))
        for block in answer.content
        if isinstance(block, ImageContent)
    ]


def _noise(size: tuple[int, int], seed: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


async def test_found_pictures_are_told_with_ids_paths_cost_and_one_small_sheet(client: Client[Any]) -> None:
    (first, _, third) = await _made(client, "a red panda", "a whale", "a blue panda")
    answer = await client.call_tool("find_images", {"query": "panda"})
    assert [type(block) for block in answer.content] == [TextContent, ImageContent, ResourceLink, ResourceLink]
    found = answer.structured_content
    assert found is not None and [one["id"] for one in found["images"]] == [third["id"], first["id"]]
    assert found["total"] == 2 and found["cursor"] is None
    text = answer.content[0].text
    for one in found["images"]:
        assert one["id"] in text and one["path"] in text and f"{one['cost_usd']:.4f}" in text
    (sheet,) = _seen(answer)
    assert max(sheet.size) < 700


async def test_nothing_found_says_so_without_a_picture(client: Client[Any]) -> None:
    answer = await client.call_tool("find_images", {"query": "zebra"})
    assert [type(block) for block in answer.content] == [TextContent]
    assert "Nothing was found" in answer.content[0].text


async def test_the_next_page_is_had_by_what_the_text_says_alone(caller: Client[Any]) -> None:
    await _made(caller, "panda one", "panda two", "panda three")
    text = (await caller.call_tool("find_images", {"query": "panda", "limit": 2})).content[0].text
    cursor = text.split("cursor ")[-1].split()[0]
    second = await caller.call_tool("find_images", {"query": "panda", "limit": 2, "cursor": cursor})
    assert "panda one" in second.content[0].text and "panda two" not in second.content[0].text
    with pytest.raises(ToolError, match="another search"):
        await caller.call_tool("find_images", {"query": "whale", "cursor": cursor})


async def test_a_copy_of_a_file_is_recognised_by_bytes_by_pixels_and_by_looks_as_what_it_is(
    client: Client[Any], tmp_path: Path
) -> None:
    Path(tmp_path / "mine").mkdir()
    gradient = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
    ImageDraw.Draw(gradient).ellipse((50, 60, 300, 400), fill="red")
    gradient.save(tmp_path / "mine" / "source.png")
    made = await client.call_tool("convert_image", {"image": str(tmp_path / "mine" / "source.png"), "width": 320})
    assert made.structured_content is not None
    ours = made.structured_content["images"][0]
    shutil.copy(ours["path"], tmp_path / "copy.png")
    with Image.open(ours["path"]) as image:
        image.save(tmp_path / "anew.png", compress_level=1)
        image.resize((200, 150)).save(tmp_path / "smaller.jpg", quality=80)
    (tmp_path / "other.png").write_bytes(png(5, (640, 480)))
    told = {
        "copy.png": "the same bytes",
        "anew.png": "the same pixels, saved anew",
        "smaller.jpg": "looks alike",
    }
    for name, why in told.items():
        found = (await client.call_tool("find_images", {"copy_of": str(tmp_path / name)})).structured_content
        assert found is not None and ours["id"] in {one["id"] for one in found["images"]}, name
        assert all(one["recognised_by"].startswith(why) for one in found["images"]), name
    found = (await client.call_tool("find_images", {"copy_of": str(tmp_path / "other.png")})).structured_content
    assert found is not None and found["images"] == [] and "No picture of the library" in found["notes"][0]
    with pytest.raises(ToolError, match="give it alone"):
        await client.call_tool("find_images", {"copy_of": str(tmp_path / "copy.png"), "query": "x"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"since": "yesterday"}, "is no date"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "not before until"),
        ({"made_from": "img_0000000000000000"}, "has no picture"),
        ({"query": "((("}, "no word"),
        ({"limit": 0}, "limit"),
        ({"min_rating": 7}, "min_rating"),
        ({"copy_of": "/nowhere/at/all.png"}, "all.png"),
        ({"cursor": "w.1.2"}, "another search"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_search_that_cannot_be_meant_says_what_is_wrong(
    client: Client[Any], wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ToolError, match=says):
        await client.call_tool("find_images", wrong)


async def test_a_day_as_until_includes_that_day(client: Client[Any]) -> None:
    (made,) = await _made(client, "a panda")
    found = (await client.call_tool("find_images", {})).structured_content
    assert found is not None
    day = found["images"][0]["created_at"][:10]
    for wanted in ({"since": day}, {"until": day}, {"since": day, "until": day}):
        found = (await client.call_tool("find_images", wanted)).structured_content
        assert found is not None and [one["id"] for one in found["images"]] == [made["id"]]


async def test_a_box_is_shown_pixel_for_pixel_so_that_small_letters_can_be_read(
    client: Client[Any], tmp_path: Path
) -> None:
    poster = Image.new("RGB", (3840, 2160), "white")
    ImageDraw.Draw(poster).text((3000, 2000), "30 px high", "black", ImageFont.load_default(30))
    poster.save(tmp_path / "poster.png")
    boxes = ([2980, 1990, 3240, 2050], [2980 / 3840, 1990 / 2160, 3240 / 3840, 2050 / 2160])
    for box in boxes:
        answer = await client.call_tool("view_image", {"image": str(tmp_path / "poster.png"), "box": box})
        (seen,) = _seen(answer)
        assert seen.size == (260, 60) and "at 1:1" in answer.content[0].text
        wanted = np.asarray(poster.crop((2980, 1990, 3240, 2050)).convert("L"), np.int16)
        assert np.abs(np.asarray(seen.convert("L"), np.int16) - wanted).max() < 40


@pytest.mark.slow
async def test_a_look_stays_small_whatever_is_looked_at_and_says_when_it_is_reduced(
    client: Client[Any], tmp_path: Path
) -> None:
    _noise((2400, 1800)).save(tmp_path / "noise.png")
    _noise((2400, 1800), 2).save(tmp_path / "other.png")
    answer = await client.call_tool("view_image", {"image": str(tmp_path / "noise.png"), "max_px": 2048})
    (seen,) = _seen(answer)
    assert max(seen.size) <= 2048 and "% of its size" in answer.content[0].text
    pair = await client.call_tool(
        "view_image",
        {"image": str(tmp_path / "noise.png"), "compare_with": str(tmp_path / "other.png"), "max_px": 2048},
    )
    assert len(_seen(pair)) == 2


async def test_two_pictures_stand_side_by_side_with_what_changed_and_where(client: Client[Any], tmp_path: Path) -> None:
    before = Image.linear_gradient("L").resize((800, 600)).convert("RGB")
    after = before.copy()
    ImageDraw.Draw(after).rectangle((100, 50, 179, 109), fill=(255, 0, 0))
    before.save(tmp_path / "before.png")
    after.save(tmp_path / "after.png")
    asked = {"image": str(tmp_path / "after.png"), "compare_with": str(tmp_path / "before.png")}
    answer = await client.call_tool("view_image", asked)
    pair, marked = _seen(answer)
    assert answer.structured_content is not None
    found = answer.structured_content["difference"]
    assert found["changed_share"] == pytest.approx(80 * 60 / (800 * 600), rel=0.01)
    assert [one["box"] for one in found["places"]] == [[100, 50, 180, 110]]
    assert pair.width > 1.9 * marked.width or pair.height > 1.9 * marked.height
    scale = marked.width / 800
    red, green, _ = marked.convert("RGB").getpixel((round(140 * scale), round(80 * scale)))  # type: ignore[misc]
    assert red - green > 100
    outside = await client.call_tool("view_image", {**asked, "box": [300, 200, 700, 500]})
    assert outside.structured_content is not None
    difference = outside.structured_content["difference"]
    assert difference["differing_share"] == 0 and difference["changed_share_outside_box"] > 0
    assert "Every pixel there is the same" in outside.content[0].text


async def test_pictures_of_other_sizes_are_compared_when_their_shape_is_the_same_and_it_is_said(
    client: Client[Any], tmp_path: Path
) -> None:
    big = Image.linear_gradient("L").resize((800, 600)).convert("RGB")
    big.save(tmp_path / "big.png")
    big.resize((400, 300)).save(tmp_path / "small.png")
    big.resize((400, 400)).save(tmp_path / "square.png")
    asked = {"image": str(tmp_path / "big.png")}
    answer = await client.call_tool("view_image", {**asked, "compare_with": str(tmp_path / "small.png")})
    assert "was scaled to 800x600" in answer.content[0].text
    with pytest.raises(ToolError, match="another shape"):
        await client.call_tool("view_image", {**asked, "compare_with": str(tmp_path / "square.png")})


async def test_what_is_transparent_shows_as_such_and_its_hidden_colour_is_no_difference(
    client: Client[Any], tmp_path: Path
) -> None:
    for name, hidden in (("one.png", (255, 0, 0, 0)), ("two.png", (0, 255, 0, 0))):
        image = Image.new("RGBA", (200, 200), hidden)
        image.paste((10, 20, 30, 255), (50, 50, 150, 150))
        image.save(tmp_path / name)
    asked = {"image": str(tmp_path / "one.png"), "compare_with": str(tmp_path / "two.png")}
    answer = await client.call_tool("view_image", asked)
    assert answer.structured_content is not None
    assert answer.structured_content["difference"]["differing_share"] == 0
    Image.new("RGBA", (200, 200), (128, 128, 128, 255)).save(tmp_path / "grey.png")
    Image.new("RGBA", (200, 200), (128, 128, 128, 0)).save(tmp_path / "none.png")
    asked = {"image": str(tmp_path / "grey.png"), "compare_with": str(tmp_path / "none.png")}
    answer = await client.call_tool("view_image", asked)
    assert answer.structured_content is not None
    assert answer.structured_content["difference"]["changed_share"] == 1
    (seen,) = _seen(await client.call_tool("view_image", {"image": str(tmp_path / "one.png")}))
    assert len(set(seen.convert("L").crop((0, 0, 40, 40)).tobytes())) > 1


async def test_a_picture_whose_file_is_gone_is_shown_small_and_that_is_said(client: Client[Any]) -> None:
    (made,) = await _made(client, "a panda")
    Path(made["path"]).unlink()
    answer = await client.call_tool("view_image", {"image": made["id"]})
    assert "This is its thumbnail" in answer.content[0].text and len(_seen(answer)) == 1
    with pytest.raises(ToolError, match="is no longer at"):
        await client.call_tool("view_image", {"image": made["id"], "box": [0, 0, 0.5, 0.5]})
    found = await client.call_tool("find_images", {})
    assert "its file is gone" in found.content[0].text and len(_seen(found)) == 1
    assert found.structured_content is not None and found.structured_content["images"][0]["state"] == "missing"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"box": [0, 0, 5000, 10]}, "reaches outside"),
        ({"box": [0.5, 0.5, 0.2, 0.9]}, "empty or reversed"),
        ({"box": [0, 0, 1]}, "box"),
        ({"box": [0.5, 0.5, 300, 300]}, "mixes"),
        ({"max_px": 10}, "max_px"),
        ({"compare_with": "img_0000000000000000"}, "has no picture"),
        ({"image": "img_0000000000000000"}, "has no picture"),
        ({"image": "/etc/passwd"}, "passwd"),
        ({"image": "https://example.com/a.png"}, "is an address"),
    ],
)
async def test_a_look_that_cannot_be_had_says_what_is_wrong(
    client: Client[Any], wrong: dict[str, Any], says: str
) -> None:
    (made,) = await _made(client, "a panda")
    with pytest.raises(ToolError, match=says):
        await client.call_tool("view_image", {"image": made["id"], **wrong})


async def test_looking_costs_nothing_writes_no_record_and_asks_nobody(client: Client[Any], tmp_path: Path) -> None:
    Image.linear_gradient("L").save(tmp_path / "mine.png")
    await client.call_tool("view_image", {"image": str(tmp_path / "mine.png")})
    found = (await client.call_tool("find_images", {"kind": "all"})).structured_content
    assert found is not None and found["images"] == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("find_images", {}), ("find_images", {"query": "panda"}), ("view_image", {"image": "{id}"})],
)
async def test_a_policy_that_closes_output_stats_closes_what_tells_of_the_same_pictures(
    connect: Connect, settings: Settings, tmp_path: Path, tool: str, arguments: dict[str, Any]
) -> None:
    async with connect() as client:
        (made,) = await _made(client, "a panda")
    policy = tmp_path / "policy.yaml"
    policy.write_text("tools: {output_stats: {rules: [{action: deny}]}}\n")
    Image.linear_gradient("L").save(tmp_path / "mine.png")
    async with connect(policy=policy) as client:
        given = {name: value.replace("{id}", made["id"]) for name, value in arguments.items()}
        with pytest.raises(ToolError, match="output_stats"):
            await client.call_tool(tool, given)
        await client.call_tool("view_image", {"image": str(tmp_path / "mine.png")})
