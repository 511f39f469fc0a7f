"""The drift of an answer is measured and taken back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from nanobanana_mcp.pixels.edits.alignment import SURE, Drift, aligned
from nanobanana_mcp.pixels.edits.bends import lies_within
from nanobanana_mcp.pixels.edits.colours import applied
from tests.support.lanes import cases
from tests.support.scenes import bent_by, photo, redrawn

SIZES = {"landscape": ((700, 540), (960, 720)), "wide": ((1376, 768), (1376, 768)), "small": ((400, 500), (928, 1152))}


def _changed(size: tuple[int, int], part: float) -> np.ndarray:
    width, height = size
    weight = np.zeros((height, width), np.uint8)
    left, top = int(width * (1 - part) / 2), int(height * (1 - part) / 2)
    weight[top : height - top, left : width - left] = 255
    return weight


def _with_other_content(source: Image.Image, weight: np.ndarray, seed: int) -> Image.Image:
    other = np.asarray(photo(*source.size, seed=seed))
    return Image.fromarray(np.where(weight[..., None] > 0, other, np.asarray(source)))


def _furthest(drift: Drift, shift: tuple[float, float], scale: float, size: tuple[int, int]) -> float:
    """The error at the worst corner, in px."""
    corners = [(x, y) for x in (-size[0] / 2, size[0] / 2) for y in (-size[1] / 2, size[1] / 2)]
    grown = drift.scale - scale
    return max(
        float(np.hypot(x * grown + drift.shift_x - shift[0], y * grown + drift.shift_y - shift[1])) for x, y in corners
    )


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=7)
@given(
    kind=st.sampled_from(sorted(SIZES)),
    seed=st.integers(1, 40),
    across=st.floats(-0.03, 0.03),
    down=st.floats(-0.03, 0.03),
    scale=st.floats(0.98, 1.02),
    part=st.sampled_from([0.3, 0.6, 0.8]),
)
def test_a_drift_of_three_percent_is_found_to_half_a_pixel_whatever_changed_inside(
    kind: str, seed: int, across: float, down: float, scale: float, part: float
) -> None:
    size, answered = SIZES[kind]
    source = photo(*size, seed=seed)
    weight = _changed(size, part)
    shift = (across * size[0], down * size[1])
    answer = redrawn(
        _with_other_content(source, weight, seed + 500),
        shift=shift,
        scale=scale,
        gain=(1.08, 0.95, 1.02),
        offset=(-6, 4, 9),
        size=answered,
    )
    drift = aligned(source, answer, changed=weight).drift
    assert _furthest(drift, shift, scale, size) < 0.5
    assert drift.confidence > SURE
    assert drift.residual < 3


@pytest.mark.slow
@cases(("shift", "scale"), [((45.0, -30.0), 1.03), ((-42.0, 38.0), 0.97)])
def test_a_drift_of_five_percent_is_still_found(shift: tuple[float, float], scale: float) -> None:
    source = photo(seed=12)
    drift = aligned(source, redrawn(source, shift=shift, scale=scale), changed=_changed(source.size, 0.5)).drift
    assert _furthest(drift, shift, scale, source.size) < 0.5


@pytest.mark.slow
def test_the_colours_of_an_answer_are_brought_back() -> None:
    source = photo(seed=3)
    answer = redrawn(source, gain=(1.1, 0.9, 1.0), offset=(-8, 6, 10), quality=90)
    drift = aligned(source, answer).drift
    given, wanted = np.array([[[60, 120, 180]]], np.float32), (60, 120, 180)
    recoloured = given * np.array([1.1, 0.9, 1.0], np.float32) + np.array([-8, 6, 10], np.float32)
    assert applied(recoloured, drift.colours)[0, 0] == pytest.approx(wanted, abs=2)


def test_paper_that_came_back_grey_is_white_again() -> None:
    page = Image.new("RGB", (800, 600), "white")
    draw = ImageDraw.Draw(page)
    for row in range(20):
        draw.text((40, 20 + 28 * row), f"{row} " + "The quick brown fox jumps over the dog " * 2, fill=(20, 20, 20))
    weight = _changed(page.size, 0.3)
    answer = redrawn(page, shift=(4, -3), gain=(0.95, 0.96, 0.93), offset=(2, 2, 2), quality=90)
    brought = np.asarray(aligned(page, answer, changed=weight).image)
    assert np.abs(brought[:12].astype(int) - 255).mean() < 1.5


def test_colours_are_brought_back_where_geometry_is_unsure() -> None:
    sky = Image.fromarray(
        np.broadcast_to(np.linspace(120, 200, 500).astype(np.uint8)[:, None, None], (500, 700, 3)).copy()
    )
    answer = Image.fromarray((np.asarray(sky, np.float32) * (0.9, 0.95, 1.0) + (3, 8, 12)).astype(np.uint8))
    result = aligned(sky, answer, changed=_changed(sky.size, 0.4))
    assert not result.drift.known
    assert np.abs(np.asarray(result.image, int) - np.asarray(sky, int)).mean() < 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [31, 32])
def test_a_turned_stretched_and_bent_answer_is_put_back_within_half_a_pixel(seed: int) -> None:
    source, weight = photo(900, 700, seed=seed), _changed((900, 700), 0.4)
    bent = bent_by(source, degrees=0.4, stretched=1.01, px=2.0)
    drift = aligned(source, bent.image, changed=weight).drift
    x, y = np.meshgrid(np.linspace(0.3, 0.7, 20), np.linspace(0.3, 0.7, 20))
    found = bent.shows(*drift.warp.lies_at(x, y))
    assert np.hypot((found[0] - x) * 900, (found[1] - y) * 700).mean() < 0.5


def test_what_is_left_of_a_drift_is_measured_and_a_waver_too_fine_to_take_back_is_seen() -> None:
    source, weight = photo(900, 700, seed=31), _changed((900, 700), 0.4)
    moved = redrawn(source, shift=(9.5, -6.2), scale=1.01)
    down = np.arange(700)[:, None] + np.round(3 * np.sin(np.arange(900) / 6))[None, :].astype(int)
    wavering = Image.fromarray(np.asarray(moved)[np.clip(down, 0, 699), np.arange(900)[None, :]])
    left, wavered = (
        lies_within(source, aligned(source, answer, changed=weight).image, weight == 0) for answer in (moved, wavering)
    )
    assert left is not None and left < 0.25
    assert wavered is not None and wavered > 3 * left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zoom", "shift"), [(0.86, (0.0, 0.0)), (1.28, (0.0, 0.0)), (1.0, (0.13, -0.1)), (1.15, (0.05, 0.04))]
)
def test_the_same_scene_framed_in_another_way_is_put_back(zoom: float, shift: tuple[float, float]) -> None:
    source = photo(seed=14)
    moved = (shift[0] * source.width, shift[1] * source.height)
    drift = aligned(source, redrawn(source, shift=moved, scale=zoom), changed=_changed(source.size, 0.4)).drift
    assert drift.known
    assert _furthest(drift, moved, zoom, source.size) < 1


def test_the_aligned_answer_lies_on_the_source() -> None:
    source = photo(seed=4)
    answer = redrawn(source, shift=(14.3, -9.7), scale=1.012, offset=(10, 10, -10), size=(1200, 896))
    result = aligned(source, answer).image
    middle = (50, 50, 850, 650)
    before = np.asarray(answer.resize(source.size).crop(middle), int) - np.asarray(source.crop(middle), int)
    after = np.asarray(result.crop(middle), int) - np.asarray(source.crop(middle), int)
    assert result.size == source.size
    assert np.abs(after).mean() < 4 < 10 < np.abs(before).mean()


@pytest.mark.slow
def test_changes_outside_the_mask_do_not_pull_the_alignment() -> None:
    source = photo(seed=6)
    moved = _with_other_content(source, _changed(source.size, 0.5), 77)
    answer = redrawn(moved, shift=(11, -8), scale=0.99)
    drift = aligned(source, answer).drift  # nobody said that the middle changed
    assert _furthest(drift, (11, -8), 0.99, source.size) < 0.5


@pytest.mark.slow
@cases("seed", [21, 22, 23])
def test_an_unrelated_picture_is_not_believed(seed: int) -> None:
    drift = aligned(photo(seed=seed), photo(1024, 768, seed=seed + 300)).drift
    assert drift.confidence < 0.2
    assert (drift.shift_x, drift.shift_y, drift.scale) == (0, 0, 1)
    assert drift.residual > 20


def test_a_flat_picture_says_that_it_cannot_tell() -> None:
    grey = Image.new("RGB", (600, 500), (120, 130, 140))
    result = aligned(grey, redrawn(grey, offset=(3, 3, 3)))
    assert result.drift.confidence == 0
    assert result.image.size == grey.size


def test_stripes_that_hide_a_shift_along_them_are_not_believed() -> None:
    columns = np.tile(np.repeat(np.array([60, 190], np.uint8), 40), 10)[:700]
    stripes = Image.fromarray(np.broadcast_to(columns, (500, 700)).copy()).convert("RGB")
    assert aligned(stripes, redrawn(stripes, shift=(0, 6))).drift.confidence < SURE


def test_too_little_outside_says_that_it_cannot_tell() -> None:
    source = photo(seed=8)
    assert aligned(source, redrawn(source), changed=_changed(source.size, 0.997)).drift.confidence == 0
    everything = np.full((700, 900), 255, np.uint8)
    assert aligned(source, redrawn(source), changed=everything).drift.confidence == 0


@pytest.mark.slow
def test_the_alpha_of_an_answer_moves_with_it() -> None:
    source = photo(seed=9)
    answer = redrawn(source, shift=(10, 0))
    alpha = Image.new("L", answer.size)
    alpha.paste(255, (210, 200, 410, 400))
    answer.putalpha(alpha)
    result = aligned(source, answer).image
    assert result.mode == "RGBA"
    assert result.getchannel("A").point(lambda value: 255 * (value > 127)).getbbox() == (200, 200, 400, 400)
