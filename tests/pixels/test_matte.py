"""Alpha from plates and from a key colour."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.matte import Matte, key, matte
from tests.support.lanes import cases
from tests.support.scenes import cutout, on_background, redrawn

WHITE, BLACK, BLUE = (255, 255, 255), (0, 0, 0), (40, 90, 200)


def _alpha(found: Matte) -> np.ndarray:
    return np.asarray(found.image, np.float32)[..., 3] / 255


def _upon(found: Matte, colour: tuple[int, int, int]) -> np.ndarray:
    behind = Image.new("RGBA", found.image.size, (*colour, 255))
    return np.asarray(Image.alpha_composite(behind, found.image), np.float32)[..., :3]


@pytest.mark.slow
@cases("quality", [None, 90])
@cases("seed", [1, 2])
def test_two_plates_give_hair_glass_and_shadow_their_alpha_back(quality: int | None, seed: int) -> None:
    alpha, colour = cutout(seed=seed)
    plates = [on_background(alpha, colour, background, quality=quality) for background in (WHITE, BLACK)]
    found = matte(*plates)
    soft = (alpha > 0.02) & (alpha < 0.98)
    assert np.abs(_alpha(found) - alpha).mean() < 0.02
    assert np.abs(_alpha(found) - alpha)[soft].mean() < 0.02
    assert np.abs(_upon(found, BLUE) - np.asarray(on_background(alpha, colour, BLUE), np.float32)).mean() < 3
    assert found.quality.matching
    assert found.quality.transparent + found.quality.semi + found.quality.opaque == pytest.approx(1)


@pytest.mark.slow
def test_the_tips_of_hairs_survive_the_cleaning_and_the_background_is_empty() -> None:
    alpha, colour = cutout(seed=3)
    found = _alpha(matte(*(on_background(alpha, colour, background, quality=90) for background in (WHITE, BLACK))))
    faint = (alpha > 0.1) & (alpha < 0.3)
    assert found[faint].mean() > 0.8 * alpha[faint].mean()
    beyond = np.asarray(Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(21))) == 0
    assert beyond.mean() > 0.1
    assert (found[beyond] == 0).all()


@pytest.mark.slow
def test_plates_whose_white_and_black_are_a_little_off_are_measured() -> None:
    alpha, colour = cutout(seed=4)
    found = matte(on_background(alpha, colour, (247, 249, 246)), on_background(alpha, colour, (8, 6, 9)))
    assert np.abs(_alpha(found) - alpha).mean() < 0.01


@pytest.mark.slow
def test_a_black_plate_that_has_drifted_is_aligned_first() -> None:
    alpha, colour = cutout(seed=5)
    black = redrawn(on_background(alpha, colour, BLACK), shift=(7, -5), scale=1.01, quality=90)
    found = matte(on_background(alpha, colour, WHITE, quality=90), black)
    assert np.abs(_alpha(found) - alpha).mean() < 0.02
    assert found.quality.matching


def test_a_flat_logo_is_aligned_by_its_outline() -> None:
    logo = Image.new("L", (1200, 900))
    ImageDraw.Draw(logo).text((150, 250), "Nano", fill=255, font_size=400)
    alpha = np.asarray(logo.resize((400, 300), Image.Resampling.BOX), np.float32) / 255
    colour = np.broadcast_to(np.array([200, 40, 60], np.float32), (300, 400, 3))
    black = redrawn(on_background(alpha, colour, BLACK), shift=(5, 3), quality=95)
    found = matte(on_background(alpha, colour, WHITE, quality=95), black)
    assert np.abs(_alpha(found) - alpha).mean() < 0.02


@pytest.mark.slow
def test_plates_of_two_different_objects_are_reported_as_not_matching() -> None:
    plates = [
        on_background(*cutout(seed=seed), background, quality=90) for seed, background in ((1, WHITE), (8, BLACK))
    ]
    assert not matte(*plates).quality.matching


def test_two_plates_on_the_same_background_are_refused() -> None:
    plate = on_background(*cutout(seed=1), WHITE)
    with pytest.raises(RequestError, match="on plain black"):
        matte(plate, plate)


def test_transparent_pixels_beside_the_object_carry_its_colour_and_no_halo() -> None:
    square = np.zeros((80, 80), np.float32)
    square[20:60, 20:60] = 1
    colour = np.broadcast_to(np.array([220, 30, 30], np.float32), (80, 80, 3))
    image = matte(on_background(square, colour, WHITE), on_background(square, colour, BLACK)).image
    assert image.getpixel((40, 40)) == (220, 30, 30, 255)
    assert np.abs(np.subtract(image.getpixel((18, 40)), (220, 30, 30, 0))).max() <= 2
    small = image.resize((27, 27), Image.Resampling.BILINEAR)
    edges = np.asarray(small, int)
    visible = edges[edges[..., 3] > 60]
    assert np.abs(visible[:, :3] - (220, 30, 30)).max() <= 6


@cases("colour", [(0, 255, 0), (255, 0, 255)])
def test_a_key_colour_is_taken_away_with_its_spill(colour: tuple[int, int, int]) -> None:
    alpha, drawn = cutout(seed=1)
    brown = np.array([190, 140, 110], np.float32) * np.clip(drawn.mean(axis=2, keepdims=True) / 128, 0.2, 1.3)
    there = tuple(int(value * 0.9 + 10) for value in colour)
    found = key(on_background(alpha, brown, there), colour)
    assert np.abs(_alpha(found) - alpha).mean() < 0.03
    assert np.abs(_upon(found, BLUE) - np.asarray(on_background(alpha, brown, BLUE), np.float32)).mean() < 3
    left = np.asarray(found.image, int)[(_alpha(found) > 0.05)]
    high = np.array(colour) > 128
    assert (left[:, :3][:, high].min(axis=1) - left[:, :3][:, ~high].max(axis=1)).max() < 12


def test_a_grey_key_colour_is_refused() -> None:
    with pytest.raises(RequestError, match="too grey"):
        key(Image.new("RGB", (50, 50)), (128, 130, 128))
