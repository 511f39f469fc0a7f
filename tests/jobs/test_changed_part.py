"""edit_region pastes what the model changed, and all of it: the rest of the region stays the source's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nanobanana_mcp.domain.catalog import RATIOS
from nanobanana_mcp.domain.shapes import answer_pixels
from nanobanana_mcp.emulator.control import Picture
from nanobanana_mcp.pixels.edits.patch import prepare
from tests.conftest import Emulated
from tests.support.easel import Pixels, beyond, drawing, same, saved, seen, use
from tests.support.scenes import as_bytes, noise, photo, redrawn

SIZE, BOX = (900, 700), (240, 160, 660, 520)
HAT = (270, 190, 430, 330)
"""The box of the thing that the model paints in the upper left of the region."""


async def _edited(
    emulated: Emulated, source: Path, wanted: Image.Image, **options: Any
) -> tuple[Pixels, dict[str, Any]]:
    """The picture as it is delivered when the model draws what is `wanted` with a drift of its own, and the answer."""
    ratios = {ratio: answer_pixels(ratio, "1K") for ratio in RATIOS}
    patch = prepare(source.read_bytes(), box=BOX, mask=None, grow=16, feather=16, context=0.5, ratios=ratios)
    drifted = redrawn(wanted.crop(patch.box), shift=(3, -2), scale=1.004, gain=(0.97, 1, 1.02), size=(1024, 1024))
    drawing(emulated, Picture(as_bytes(drifted, "JPEG", quality=92), "image/jpeg"))
    facts = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=list(BOX), **options)
    return seen(facts["file_paths"][0]), facts


def _with_hat(picture: Image.Image) -> Image.Image:
    wanted = picture.copy()
    wanted.paste(photo(HAT[2] - HAT[0], HAT[3] - HAT[1], seed=61).point(lambda value: 255 - value), HAT[:2])
    return wanted


def _off(one: Pixels, other: Image.Image, box: tuple[int, int, int, int], blur: int = 4) -> float:
    """The largest difference of smoothed pixels within a box, 8-bit levels."""
    smooth = [
        np.asarray(image.crop(box).filter(ImageFilter.BoxBlur(blur)), float) for image in (Image.fromarray(one), other)
    ]
    return float(np.abs(smooth[0] - smooth[1])[blur:-blur, blur:-blur].mean(axis=-1).max())


def _sky() -> Image.Image:
    """A smooth sky with a little grain over rough ground."""
    sky = np.linspace(150, 205, SIZE[1])[:, None, None] * np.array([0.75, 0.9, 1.15])
    grain = np.random.default_rng(4).normal(0, 1.5, (SIZE[1], SIZE[0], 1))
    pixels = np.clip(sky + grain + np.zeros((1, SIZE[0], 3)), 0, 255)
    ground = 40 + 150 * noise(SIZE[0], 130, seed=3)
    pixels[-130:] = ground[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.slow
async def test_what_the_edit_left_alone_in_the_box_stays_the_sources_bit_for_bit(
    emulated: Emulated, tmp_path: Path
) -> None:
    picture = photo(*SIZE, seed=8)
    source = saved(tmp_path, picture, "harbour.png")
    made, facts = await _edited(emulated, source, _with_hat(picture))
    old, report = seen(source), facts["images"][0]["report"]
    assert (made[:, 500:] == old[:, 500:]).all(), "the right third of the box"
    left, top, right, bottom = report["pasted_box"]
    same(old, made, beyond(SIZE, (left, top, right, bottom), 0))
    assert _off(made, _with_hat(picture), HAT) < 16
    assert report["verdict"] == "good" and report["left_share"] > 0.3
    again = await use(
        emulated, "edit_region", image=facts["images"][0]["id"], instruction="a hat", rejoin=True, feather=4
    )
    assert (seen(again["file_paths"][0])[:, 500:] == old[:, 500:]).all()
    assert again["images"][0]["report"]["left_share"] > 0.3 and again["cost_usd"] == 0


async def test_a_small_thing_in_a_large_box_leaves_most_of_the_box_alone(emulated: Emulated, tmp_path: Path) -> None:
    picture = photo(*SIZE, seed=8)
    wanted = picture.copy()
    ImageDraw.Draw(wanted).ellipse((300, 260, 400, 360), fill=(200, 30, 30))
    made, facts = await _edited(emulated, saved(tmp_path, picture, "harbour.png"), wanted)
    report = facts["images"][0]["report"]
    assert report["changed_share"] < 0.1 and report["left_share"] > 0.5
    assert _off(made, wanted, (290, 250, 410, 370)) < 16
    assert (made[:, 520:] == np.asarray(picture)[:, 520:]).all(), "the right third of the box"


@pytest.mark.slow
@pytest.mark.parametrize("hat", [False, True], ids=["alone", "beside a plain change"])
async def test_a_faint_thing_in_plain_sky_is_gone_where_it_was_taken_out(
    emulated: Emulated, tmp_path: Path, hat: bool
) -> None:
    clean = _sky()
    wanted = _with_hat(clean) if hat else clean
    picture = clean.copy()
    bird = Image.new("L", SIZE)
    ImageDraw.Draw(bird).ellipse((560, 420, 620, 446), fill=30)
    picture.paste((20, 20, 20), (0, 0), bird.filter(ImageFilter.GaussianBlur(2)))
    source = saved(tmp_path, picture, "sky.png")
    made, facts = await _edited(emulated, source, wanted)
    where = (540, 400, 640, 466)
    assert _off(seen(source), wanted, where) > 8
    assert _off(made, wanted, where) < 3
    assert not hat or facts["images"][0]["report"]["left_share"] > 0.15


@pytest.mark.slow
async def test_where_everything_in_the_box_was_recoloured_all_of_it_is_there(
    emulated: Emulated, tmp_path: Path
) -> None:
    picture = photo(*SIZE, seed=8)
    wanted = picture.copy()
    inner = (BOX[0] + 20, BOX[1] + 20, BOX[2] - 20, BOX[3] - 20)
    tinted = np.clip(np.asarray(picture.crop(inner)) * np.array([1.15, 0.95, 0.75]) + (8, 0, -8), 0, 255)
    wanted.paste(Image.fromarray(tinted.astype(np.uint8)), inner[:2])
    made, facts = await _edited(emulated, saved(tmp_path, picture, "harbour.png"), wanted)
    old = np.asarray(picture)
    left, top, right, bottom = inner
    assert (made[top:bottom, left:right] != old[top:bottom, left:right]).any(axis=-1).mean() > 0.97
    assert _off(made, wanted, inner, blur=8) < 12 and "left_share" not in facts["images"][0]["report"]


@pytest.mark.slow
async def test_the_soft_shadow_of_what_is_new_is_not_cut_off(emulated: Emulated, tmp_path: Path) -> None:
    picture = _sky()
    shadow = Image.new("L", SIZE)
    ImageDraw.Draw(shadow).ellipse((300, 300, 540, 390), fill=60)
    wanted = picture.copy()
    wanted.paste((0, 0, 0), (0, 0), shadow.filter(ImageFilter.GaussianBlur(18)))
    wanted = _with_hat(wanted)
    made, facts = await _edited(emulated, saved(tmp_path, picture, "sky.png"), wanted)
    assert _off(made, wanted, (BOX[0], HAT[3] + 6, BOX[2], BOX[3])) < 3
    assert facts["images"][0]["report"]["verdict"] == "good" and facts["images"][0]["report"]["left_share"] > 0.15
