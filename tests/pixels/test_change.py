"""An edit that changed something, however small, is told from a redraw of the same."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.control import Picture
from nanobanana_mcp.pixels.edits.change import became
from nanobanana_mcp.pixels.edits.patch import join, prepare
from tests.conftest import Emulated
from tests.support.easel import drawing, saved, use
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, photo, redrawn

DRIFTS: list[dict[str, Any]] = [
    {},
    {"shift": (6, -4), "scale": 1.01},
    {"gain": (0.94, 1.0, 1.04), "offset": (6, 0, -4)},
    {"quality": 70},
]


@pytest.mark.slow
@cases("seed", [2, 5, 11])
@cases("drift", DRIFTS, ids=str)
def test_a_region_that_was_only_redrawn_is_told_from_one_with_a_small_new_thing(
    seed: int, drift: dict[str, Any]
) -> None:
    data = as_bytes(photo(900, 700, seed=seed), "JPEG", quality=92)
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    patch = prepare(data, box=[300, 200, 560, 460], mask=None, grow=12, feather=8, context=1.0, ratios=ratios)
    with Image.open(io.BytesIO(patch.crop)) as opened:
        crop = opened.convert("RGB")
    with_ring = crop.copy()
    middle = ((300 + 560) / 2 - patch.box[0], (200 + 460) / 2 - patch.box[1])
    scale = crop.width / (patch.box[2] - patch.box[0])
    x, y, radius = middle[0] * scale, middle[1] * scale, 14 * scale
    colour = tuple(255 - int(channel) for channel in np.asarray(crop)[int(y), int(x)])
    ImageDraw.Draw(with_ring).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    for picture, changed in ((crop, False), (with_ring, True)):
        joined = join(data, as_bytes(redrawn(picture, size=(1024, 1024), **drift), "JPEG", quality=88), patch)
        assert joined.changed is changed and (joined.data is not None) is changed


@pytest.mark.slow
async def test_an_edit_that_comes_back_as_it_was_is_not_called_done_without_a_word(
    emulated: Emulated, tmp_path: Any
) -> None:
    picture = photo(1024, 1024, seed=4)
    source = str(saved(tmp_path, picture, "harbour.png"))
    drawing(emulated, Picture(as_bytes(redrawn(picture, quality=90), "JPEG"), "image/jpeg"), None)
    same = await use(emulated, "generate_image", prompt="make it night", input_images=[source])
    other = await use(emulated, "generate_image", prompt="make it day", input_images=[source])
    assert any("Nothing visibly changed" in warning for warning in same["warnings"])
    assert not any("Nothing visibly changed" in warning for warning in other["warnings"])


@pytest.mark.slow
async def test_an_edit_that_loses_transparency_says_so(emulated: Emulated, tmp_path: Any) -> None:
    logo = photo(600, 600, seed=4).convert("RGBA")
    logo.putalpha(Image.linear_gradient("L").resize(logo.size))
    drawing(emulated, None)
    facts = await use(emulated, "generate_image", prompt="in blue", input_images=[str(saved(tmp_path, logo, "a.png"))])
    assert any("the answer has none" in warning for warning in facts["warnings"])


def test_a_picture_of_another_shape_is_another_picture() -> None:
    whole = photo(600, 400, seed=3)
    (told,) = became(as_bytes(whole), as_bytes(whole.resize((450, 300)), "JPEG", quality=95))
    assert "Nothing visibly changed" in told
    assert became(as_bytes(whole), as_bytes(whole.crop((0, 0, 400, 400)))) == []
