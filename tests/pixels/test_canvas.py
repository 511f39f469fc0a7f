"""A wider canvas: its plan covers it, the picture in it stays what it was, the join does not show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.canvas import (
    Canvas,
    canvas_of_ratio,
    canvas_of_size,
    canvas_with_margins,
    padded,
    painted,
    planned,
    started,
)
from nanobanana_mcp.pixels.edits.extend import set_in
from nanobanana_mcp.pixels.edits.masks import overlap
from nanobanana_mcp.pixels.edits.region import verdict
from tests.support.scenes import as_bytes, photo, redrawn

RATIOS = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "4:1": (2064, 512),
    "1:4": (512, 2064),
}


def test_a_canvas_comes_from_margins_a_ratio_or_a_size() -> None:
    assert canvas_with_margins((100, 50), left=10, bottom=5) == Canvas(size=(110, 55), place=(10, 0, 110, 50))
    assert canvas_of_ratio((900, 700), (16, 9)) == Canvas(size=(1244, 700), place=(172, 0, 1072, 700))
    assert canvas_of_ratio((900, 700), (9, 16), anchor=(0.5, 1)).place == (0, 900, 900, 1600)
    assert canvas_of_size((100, 50), (120, 90), anchor=(0, 0)).place == (0, 0, 100, 50)


def test_a_canvas_that_makes_no_sense_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match="crop instead"):
        canvas_with_margins((100, 50), left=-1)
    with pytest.raises(RequestError, match="nothing to extend"):
        canvas_of_ratio((160, 90), (16, 9))
    with pytest.raises(RequestError, match="does not fit"):
        canvas_of_size((100, 50), (90, 90))
    with pytest.raises(RequestError, match="16384"):
        canvas_with_margins((10_000, 50), right=10_000)
    with pytest.raises(RequestError, match="anchor"):
        canvas_of_size((100, 50), (120, 90), anchor=(0, 2))
    with pytest.raises(RequestError, match="above 0"):
        canvas_of_ratio((100, 50), (0, 9))


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    width=st.integers(150, 3000),
    height=st.integers(150, 3000),
    margins=st.tuples(*[st.integers(0, 1500)] * 4).filter(any),
)
def test_a_plan_fills_the_canvas_outside_the_picture_from_parts_it_can_see(
    width: int, height: int, margins: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = margins
    canvas = canvas_with_margins((width, height), left=left, top=top, right=right, bottom=bottom)
    steps = planned(canvas, ratios=RATIOS)
    covered = np.zeros((canvas.size[1] // 10 + 1, canvas.size[0] // 10 + 1), bool)
    rows, columns = np.arange(covered.shape[0]) * 10 + 5, np.arange(covered.shape[1]) * 10 + 5

    def inside(box: tuple[int, int, int, int]) -> np.ndarray:
        return ((rows >= box[1]) & (rows < box[3]))[:, None] & ((columns >= box[0]) & (columns < box[2]))

    covered |= inside(canvas.place)
    for step in steps:
        shape = RATIOS[step.ratio]
        wide, high = step.box[2] - step.box[0], step.box[3] - step.box[1]
        assert abs(wide * shape[1] / (high * shape[0]) - 1) < 0.02
        assert wide <= 1.26 * shape[0]
        assert overlap(step.fills, step.box) == step.fills
        known = np.logical_or.reduce([inside(box) for box in step.known])
        assert (known <= covered).all()
        assert (known & inside(step.box)).sum() >= 0.1 * inside(step.box).sum()
        covered |= inside(step.fills)
    assert covered[rows < canvas.size[1]][:, columns < canvas.size[0]].all()


def test_a_small_widening_takes_one_call_and_a_large_one_grows_step_by_step() -> None:
    assert len(planned(canvas_of_ratio((900, 700), (16, 9)), ratios=RATIOS)) == 1
    steps = planned(canvas_of_size((200, 200), (1024, 1024)), ratios=RATIOS)
    assert [step.fills[2] - step.fills[0] for step in steps] == sorted(
        {step.fills[2] - step.fills[0] for step in steps}
    )
    assert 2 <= len(steps) <= 3


def test_the_picture_to_send_keeps_the_source_and_runs_out_into_grey() -> None:
    source = Image.new("RGB", (300, 300), (200, 40, 40))
    canvas = canvas_with_margins((300, 300), right=300)
    (step,) = planned(canvas, ratios={"4:2": (1200, 600)})
    sent = padded(started(source, canvas), step)
    assert sent.size == (600, 300)
    assert (np.asarray(sent.crop((0, 0, 300, 300))) == (200, 40, 40)).all()
    near, far = np.array(sent.getpixel((305, 150)), int), np.array(sent.getpixel((595, 150)), int)
    assert np.abs(near - (200, 40, 40)).max() < 20
    assert np.abs(far - 128).max() < np.abs(near - 128).max() / 2


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    width=st.integers(20, 150),
    height=st.integers(20, 150),
    margins=st.tuples(*[st.integers(0, 90)] * 4).filter(any),
    mode=st.sampled_from(["RGB", "RGBA"]),
    seed=st.integers(0, 99),
)
def test_the_picture_in_its_place_stays_bit_identical_through_every_step(
    width: int, height: int, margins: tuple[int, int, int, int], mode: str, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    source = Image.fromarray(pixels).convert(mode)
    left, top, right, bottom = margins
    canvas = canvas_with_margins((width, height), left=left, top=top, right=right, bottom=bottom)
    picture = started(source, canvas)
    for step in planned(canvas, ratios={"1:1": (64, 64), "2:1": (96, 48), "1:2": (48, 96)}):
        picture = painted(picture, Image.new("RGB", (64, 64), (1, 200, 3)), step, feather=10).image
    assert picture.size == canvas.size
    assert (np.asarray(picture.crop(canvas.place)) == np.asarray(source)).all()
    if mode == "RGBA":
        beyond = np.ones((canvas.size[1], canvas.size[0]), bool)
        beyond[canvas.place[1] : canvas.place[3], canvas.place[0] : canvas.place[2]] = False
        assert (np.asarray(picture)[..., 3][beyond] == 255).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_drifted_and_recoloured_answer_continues_the_picture_without_a_join(seed: int) -> None:
    whole, place = photo(1560, 1040, seed=seed), (320, 200, 1200, 850)
    canvas = Canvas(size=whole.size, place=place)
    (step,) = planned(canvas, ratios={"3:2": (1264, 848)})
    answer = redrawn(
        whole.crop(step.box), shift=(12, -9), scale=1.012, gain=(1.08, 0.95, 1), offset=(-5, 5, 8), size=(1264, 848)
    )
    found = painted(started(whole.crop(place), canvas), answer, step)
    assert verdict(found.drift, found.seam) == "good"
    inner = (50, 50, 1500, 1000)
    assert np.abs(np.asarray(found.image.crop(inner), int) - np.asarray(whole.crop(inner), int)).mean() < 4


@pytest.mark.slow
def test_an_answer_that_ends_before_the_canvas_is_drawn_out_to_its_edges_and_leaves_no_stripes() -> None:
    whole, place = photo(900, 600, seed=4), (250, 0, 650, 600)
    canvas = Canvas(size=whole.size, place=place)
    (step,) = planned(canvas, ratios={"3:2": (1264, 848)})
    answer = whole.crop((27, 18, 873, 582)).resize((1264, 848))  # 3% of each side is not there
    found = painted(started(whole.crop(place), canvas), answer, step)
    assert verdict(found.drift, found.seam) == "good"
    made = np.asarray(found.image, int)
    for outermost in (made[:, :20], made[:, -20:]):
        assert np.abs(np.diff(outermost, axis=1)).mean() > np.abs(np.diff(made, axis=1)).mean() / 3
    near = [(place[0] - 40, 0, place[0], 600), (place[2], 0, place[2] + 40, 600)]
    for beside in near:  # where the join is, the answer lies on the picture as before
        assert np.abs(np.asarray(found.image.crop(beside), int) - np.asarray(whole.crop(beside), int)).mean() < 5


@pytest.mark.slow
@pytest.mark.parametrize("left", [248, 251, 253])
def test_a_frame_around_the_picture_is_seen_wherever_the_join_lies(left: int) -> None:
    whole, place = photo(900, 600, seed=4), (left, 0, left + 400, 600)
    canvas = Canvas(size=whole.size, place=place)
    (step,) = planned(canvas, ratios={"3:2": (1264, 848)})
    framed = Image.new("RGB", whole.size, "white")
    framed.paste(whole.crop(place), place)
    begun = started(whole.crop(place), canvas)
    assert set_in(begun, as_bytes(framed.resize((1264, 848))), step).fault == "edge"
    assert set_in(begun, as_bytes(whole.resize((1264, 848))), step).fault is None


def test_a_step_of_colour_at_the_edge_is_faded_out_into_the_new_part() -> None:
    source = Image.new("RGB", (200, 200), (100, 100, 100))
    canvas = canvas_with_margins((200, 200), right=200)
    (step,) = planned(canvas, ratios={"2:1": (400, 200)})
    # Bright above and dark below, so that no one recolouring of the whole answer mends it.
    answer = Image.new("RGB", (400, 200), (100, 100, 100))
    answer.paste((140, 140, 140), (0, 0, 400, 60))
    answer.paste((60, 60, 60), (0, 140, 400, 200))
    row = np.asarray(painted(started(source, canvas), answer, step).image, int)[25]
    assert abs(row[201, 0] - 100) <= 3
    assert row[399, 0] > 120
    assert np.abs(np.diff(row[200:, 0])).max() <= 3


def test_an_answer_that_is_brighter_all_over_is_brought_to_the_picture() -> None:
    source = Image.new("RGB", (200, 200), (100, 100, 100))
    canvas = canvas_with_margins((200, 200), right=200)
    (step,) = planned(canvas, ratios={"2:1": (400, 200)})
    row = np.asarray(painted(started(source, canvas), Image.new("RGB", (400, 200), (140, 140, 140)), step).image, int)
    assert np.abs(row[100, 200:] - 100).max() <= 3


@pytest.mark.slow
def test_an_unrelated_answer_is_nonsense() -> None:
    source, canvas = photo(700, 500, seed=3), canvas_with_margins((700, 500), right=200)
    (step,) = planned(canvas, ratios={"16:9": (1376, 768)})
    found = painted(started(source, canvas), photo(1376, 768, seed=70), step)
    assert verdict(found.drift, found.seam) == "nonsense"
