"""convert_image, pixel by pixel: no dark rings, the light of what shrinks, grey and palette, too little memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from PIL import Image, ImageDraw, JpegImagePlugin

from nanobanana_mcp.pixels.outputs import render as rendering
from tests.conftest import Emulated
from tests.support.easel import of_kind, saved, seen, use
from tests.support.lanes import cases
from tests.support.scenes import photo


def _opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def _sign() -> Image.Image:
    """Light letters on grey."""
    image = Image.new("RGB", (1200, 800), (90, 90, 100))
    for row in range(6):
        ImageDraw.Draw(image).text((30, 20 + row * 125), "Open today 0123", fill=(250, 250, 240), font_size=100)
    return image


@cases("width", [800, 500, 211])
async def test_letters_get_no_dark_outlines_when_they_are_made_smaller(
    emulated: Emulated, tmp_path: Path, width: int
) -> None:
    facts = await use(emulated, "convert_image", image=str(saved(tmp_path, _sign(), "s.png")), width=width)
    small = seen(facts["file_paths"][0]).astype(int)
    assert (small[..., 0] < 86).mean() < 0.001 and small[..., 0].max() > 240


@cases("size", [(50, 100), (50, 300), (50, 50), (100, 50)])
async def test_a_side_that_shrinks_keeps_its_light_whatever_the_other_does(
    emulated: Emulated, tmp_path: Path, size: tuple[int, int]
) -> None:
    stripes = Image.fromarray(np.tile(np.array([[0, 255], [255, 0]], np.uint8), (50, 50))).convert("RGB")
    facts = await use(
        emulated,
        "convert_image",
        image=str(saved(tmp_path, stripes, "s.png")),
        width=size[0],
        height=size[1],
        fit="stretch",
    )
    found = seen(facts["file_paths"][0])
    assert found.shape[:2] == size[::-1]
    assert abs(float(found[size[1] // 4 : -size[1] // 4, 10:-10].mean()) - 188) <= 3  # half the light


@cases(
    ("kind", "wish", "mode"),
    [
        ("grey.png", {"width": 100}, "L"),
        ("grey.jpg", {"width": 100}, "L"),
        ("grey.png", {"rotate": 90}, "L"),
        ("16.png", {"width": 100}, "L"),
        ("p.png", {"rotate": 90}, "P"),
        ("p.png", {"crop": [0.1, 0.1, 0.6, 0.6]}, "P"),
        ("grey.png", {"width": 100, "height": 100, "fit": "pad", "background": "red"}, "RGB"),
        ("rgb.png", {"width": 100}, "RGB"),
    ],
)
async def test_grey_and_palette_stay_what_they_are_as_long_as_the_colours_are(
    emulated: Emulated, tmp_path: Path, kind: str, wish: dict[str, Any], mode: str
) -> None:
    image = of_kind(kind, photo(320, 240, seed=6))
    source = saved(tmp_path, image, kind)
    facts = await use(emulated, "convert_image", image=str(source), **wish)
    made = _opened(facts["file_paths"][0])
    assert made.mode == mode
    if wish == {"rotate": 90}:
        assert (np.asarray(made.convert("RGB")) == np.rot90(seen(source), -1)).all()


async def test_a_drawing_of_few_colours_is_still_one_of_a_palette_when_it_is_made_smaller(
    emulated: Emulated, tmp_path: Path
) -> None:
    drawing_of = Image.new("RGB", (600, 400), "white")
    pen = ImageDraw.Draw(drawing_of)
    pen.ellipse((50, 50, 350, 350), fill="red")
    pen.text((300, 100), "Logo", fill="navy", font_size=120)
    source = saved(tmp_path, drawing_of.quantize(16, dither=Image.Dither.NONE), "logo.png")
    facts = await use(emulated, "convert_image", image=str(source), width=300)
    made = _opened(facts["file_paths"][0])
    assert made.mode == "P" and len(made.getcolors() or []) <= 256
    assert made.convert("RGB").getpixel((100, 100)) == (254, 0, 0) or made.convert("RGB").getpixel((100, 100)) == (
        255,
        0,
        0,
    )
    photograph = saved(tmp_path, photo(320, 240, seed=6).quantize(256), "p.png")
    facts = await use(emulated, "convert_image", image=str(photograph), width=200)
    assert _opened(facts["file_paths"][0]).mode == "RGB"
    assert any("full colour" in note for note in facts["notes"])


async def test_too_little_memory_is_said_in_words_and_leaves_no_file(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(rendering, "scaled", crowded)
    source = saved(tmp_path, photo(320, 240, seed=6).convert("RGB"), "s.png")
    with pytest.raises(ToolError, match="not enough memory free here to work on 320x240 pixels"):
        await use(emulated, "convert_image", image=str(source), width=100, output_path=str(tmp_path / "made.png"))
    assert not (tmp_path / "made.png").exists()


@cases(
    ("tool", "wish"),
    [
        ("convert_image", {"width": 100}),
        ("edit_region", {"instruction": "Make it snow.", "box": [0.3, 0.3, 0.6, 0.6]}),
        ("view_image", {}),
    ],
)
async def test_too_little_memory_to_decode_a_picture_is_not_told_as_damage_and_nothing_is_sent(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, wish: dict[str, Any]
) -> None:
    def crowded(_: object) -> None:
        raise MemoryError

    source = saved(tmp_path, photo(320, 240, seed=6).convert("RGB"), "s.jpg")
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", crowded)
    with pytest.raises(ToolError, match=r"not enough memory free here to decode 320x240 pixels of JPEG.*Close") as told:
        await use(emulated, tool, image=str(source), **wish)
    assert "s.jpg" in str(told.value) and "damaged" not in str(told.value)
    assert not emulated.drawn


async def test_a_jpeg_without_its_end_mark_is_converted_with_a_note(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6).convert("RGB"), "s.jpg")
    source.write_bytes(source.read_bytes()[:-2])
    facts = await use(emulated, "convert_image", image=str(source), width=100)
    assert seen(facts["file_paths"][0]).shape == (75, 100, 3)
    assert any("without its end mark" in note for note in facts["notes"])
