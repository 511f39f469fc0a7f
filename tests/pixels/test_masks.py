"""The part of a picture that may change: boxes, mask files, growing, feathering, and the crop that is sent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanobanana_mcp.domain.errors import NotAnImage, RequestError
from nanobanana_mcp.pixels.edits.masks import Region, context_box, grown, pixel_box, region_from_box, region_from_mask
from tests.support.scenes import as_bytes, photo

RATIOS = {"1:1": (1024, 1024), "16:9": (1376, 768), "9:16": (768, 1376), "3:2": (1264, 848), "4:1": (2064, 512)}
QUICK = settings(derandomize=True, deadline=None, max_examples=60)


def test_a_box_is_read_in_pixels_or_in_fractions() -> None:
    assert pixel_box([10, 20, 110, 220], size=(400, 300)) == (10, 20, 110, 220)
    assert pixel_box([0.1, 0.2, 0.5, 1], size=(400, 300)) == (40, 60, 200, 300)
    assert pixel_box([0, 0, 1, 1], size=(400, 300)) == (0, 0, 400, 300)
    assert pixel_box([0.29, 0.29, 0.57, 0.57], size=(100, 100)) == (29, 29, 57, 57)  # 0.57 * 100 is 56.99999999999999
    assert pixel_box([0.07, 0, 0.14, 0.07], size=(100, 100)) == (7, 0, 14, 7)  # 0.07 * 100 is 7.000000000000001


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([10, 10, 10, 40], "empty or reversed"),
        ([50, 10, 40, 40], "empty or reversed"),
        ([0.5, 0.5, 0.2, 0.9], "fractions"),
        ([-1, 0, 50, 50], "outside"),
        ([0.1, 0.1, 300, 300], "mixes fractions and pixels.*400x300"),
        ([0, 0.5, 1, 2], "mixes fractions and pixels"),
        ([0.25, 0, 1.5, 1], "mixes fractions and pixels"),
        ([0, 0, 401, 300], "400x300"),
        ([0, 0, float("nan"), 300], "not finite"),
        ([0, 0, float("inf"), 300], "not finite"),
        ([1, 2, 3], "four numbers"),
    ],
)
def test_a_box_that_makes_no_sense_is_refused_in_words(box: list[float], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        region_from_box(box, size=(400, 300))


@QUICK
@given(
    left=st.integers(0, 80),
    top=st.integers(0, 60),
    wide=st.integers(1, 60),
    high=st.integers(1, 60),
    grow=st.integers(0, 20),
    feather=st.integers(0, 20),
)
def test_feathering_never_reaches_beyond_what_was_grown(
    left: int, top: int, wide: int, high: int, grow: int, feather: int
) -> None:
    size = (110, 90)
    right, bottom = min(left + wide, 110), min(top + high, 90)
    region = region_from_box(
        [left, top, max(right, left + 2), max(bottom, top + 2)], size=size, grow=grow, feather=feather
    )
    weight = region.within((0, 0, *size))
    rows, columns = np.mgrid[0:90, 0:110]
    away_x = np.maximum(np.maximum(left - columns, columns - (max(right, left + 2) - 1)), 0)
    away_y = np.maximum(np.maximum(top - rows, rows - (max(bottom, top + 2) - 1)), 0)
    distance = np.hypot(away_x, away_y)
    assert not weight[distance > grow].any()
    assert weight.max() == 255
    if grow >= feather:
        assert (weight[distance == 0] == 255).all()
    if feather == 0:
        assert (weight[distance <= grow] == 255).all()


@QUICK
@given(
    corner=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    sides=st.tuples(st.integers(1, 260), st.integers(1, 260)),
    beyond=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    grow=st.sampled_from([0, 1, 7, 16, 96, 97]),
    feather=st.sampled_from([0, 1, 16, 30, 95, 96]),
)
def test_a_box_that_is_made_short_and_stretched_is_that_of_the_whole_rectangle(
    corner: tuple[int, int], sides: tuple[int, int], beyond: tuple[int, int], grow: int, feather: int
) -> None:
    size = corner[0] + sides[0] + beyond[0] + 2, corner[1] + sides[1] + beyond[1] + 2
    box = (*corner, corner[0] + sides[0] + 1, corner[1] + sides[1] + 1)
    whole = Region(size=size, box=box, weight=np.full((sides[1] + 1, sides[0] + 1), 255, np.uint8))
    wanted, found = (
        grown(whole, grow=grow, feather=feather),
        region_from_box(box, size=size, grow=grow, feather=feather),
    )
    assert found.box == wanted.box
    assert (found.weight == wanted.weight).all()


def test_a_wide_feather_falls_smoothly_from_full_to_nothing() -> None:
    region = region_from_box([400, 300, 1000, 900], size=(1400, 1200), grow=200, feather=200)
    across = region.within((0, 600, 1400, 601))[0].astype(int)
    assert not across[:200].any()
    assert across[400] == 255
    assert (np.diff(across[:700]) >= 0).all()
    assert np.diff(across[:700]).max() <= 4


def test_an_edge_of_the_picture_is_not_feathered() -> None:
    weight = region_from_box([0, 0, 50, 100], size=(100, 100), feather=20).within((0, 0, 100, 100))
    assert (weight[:, :29] == 255).all()
    assert weight[50, 49] < 20


def test_a_thin_line_keeps_a_full_middle_under_a_wide_feather() -> None:
    assert region_from_box([50, 10, 55, 90], size=(100, 100), feather=40).weight.max() == 255


@pytest.mark.parametrize(("grow", "feather"), [(16, 16), (16, 0), (40, 8), (200, 16)])
def test_the_slope_of_a_soft_mask_stays_a_slope_when_it_grows(grow: int, feather: int) -> None:
    slope = np.pad(np.tile(np.linspace(0, 255, 600).round().astype(np.uint8), (300, 1)), 250)
    plain, region = (
        region_from_mask(
            as_bytes(Image.fromarray(slope)), source=Image.new("RGB", (1100, 800), (9, 90, 30)), grow=px, feather=edge
        )
        for px, edge in ((0, 0), (grow, feather))
    )
    before, after = (one.within((0, 0, 1100, 800)).astype(int) for one in (plain, region))
    end = 850 + grow - feather - 2  # where the mask ends steeply, and the feather begins
    assert np.abs(np.diff(after[400, :end])).max() <= 3
    inner = np.arange(300 + feather, 780 - grow)
    moved = np.maximum((before[400, inner + grow] - 64) * 255 / 191, before[400, inner])
    assert np.abs(after[400, inner] - moved).max() <= (1 if grow <= 96 else 5)
    assert after[400].max() == 255
    assert not after[:, : 250 - grow].any() and not after[: 250 - grow].any()


@QUICK
@given(seed=st.integers(0, 99), grow=st.integers(1, 12))
def test_growing_takes_the_highest_of_what_is_not_faint_in_the_disc_around_each_pixel(seed: int, grow: int) -> None:
    weight = np.random.default_rng(seed).integers(0, 256, (9, 14), np.uint8)
    region = Region(size=(60, 60), box=(20, 20, 34, 29), weight=weight)
    found = grown(region, grow=grow, feather=0).within((0, 0, 60, 60))
    own = region.within((0, 0, 60, 60))
    whole = np.pad(np.rint(np.maximum(own.astype(float) - 64, 0) * 255 / 191).astype(np.uint8), grow)
    reach = [(x, y) for x in range(-grow, grow + 1) for y in range(-grow, grow + 1) if x * x + y * y <= grow * grow]
    disc = [whole[grow + y : grow + y + 60, grow + x : grow + x + 60] for x, y in reach]
    assert (found == np.maximum(own, np.max(disc, axis=0))).all()


def test_a_mask_file_of_another_size_is_stretched_to_the_picture() -> None:
    mask = Image.new("L", (100, 50))
    mask.paste(255, (50, 0, 100, 50))
    region = region_from_mask(as_bytes(mask), source=Image.new("RGB", (400, 400), (9, 90, 30)))
    assert 0.49 < region.share < 0.51
    assert region.box[2:] == (400, 400)


def test_a_mask_uses_its_alpha_where_that_varies_and_its_brightness_otherwise() -> None:
    varying = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    varying.paste((0, 0, 0, 255), (10, 10, 30, 30))
    assert region_from_mask(as_bytes(varying), source=Image.new("RGB", (60, 60), (9, 90, 30))).box == (10, 10, 30, 30)
    opaque = Image.new("RGBA", (60, 60), (0, 0, 0, 255))
    opaque.paste((255, 255, 255, 255), (5, 5, 20, 40))
    assert region_from_mask(as_bytes(opaque), source=Image.new("RGB", (60, 60), (9, 90, 30))).box == (5, 5, 20, 40)
    wide = Image.fromarray(np.pad(np.full((20, 20), 65_535, np.uint16), 20))
    assert region_from_mask(as_bytes(wide), source=Image.new("RGB", (60, 60), (9, 90, 30))).box == (20, 20, 40, 40)


def test_the_noise_of_a_jpeg_mask_is_neither_weight_nor_holes() -> None:
    mask = Image.new("L", (200, 200))
    mask.paste(255, (83, 83, 117, 117))
    weight = region_from_mask(
        as_bytes(mask, "JPEG", quality=80), source=Image.new("RGB", (200, 200), (9, 90, 30))
    ).within((0, 0, 200, 200))
    meant = np.asarray(mask)
    assert np.count_nonzero(weight[meant == 0]) <= 8
    assert np.count_nonzero(weight[meant == 255] != 255) <= 8


def test_a_mask_without_white_and_bytes_that_are_no_mask_are_refused() -> None:
    with pytest.raises(RequestError, match="no white"):
        region_from_mask(as_bytes(Image.new("L", (30, 30))), source=PICTURE)
    with pytest.raises(NotAnImage, match="The mask"):
        region_from_mask(b"not a picture", source=Image.new("RGB", (30, 30), (9, 90, 30)))
    with pytest.raises(RequestError, match="feather"):
        grown(region_from_box([0, 0, 9, 9], size=(30, 30)), grow=0, feather=-1)


@QUICK
@given(
    width=st.integers(600, 4000),
    height=st.integers(600, 4000),
    corner=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    part=st.floats(0.02, 0.5),
)
def test_the_crop_holds_the_box_stays_in_the_picture_and_has_a_shape_the_model_knows(
    width: int, height: int, corner: tuple[float, float], part: float
) -> None:
    left, top = int(corner[0] * width), int(corner[1] * height)
    box = (left, top, min(width, left + int(part * width) + 1), min(height, top + int(part * height) + 1))
    found = context_box(box, size=(width, height), ratios=RATIOS)
    assert 0 <= found.box[0] <= box[0] < box[2] <= found.box[2] <= width
    assert 0 <= found.box[1] <= box[1] < box[3] <= found.box[3] <= height
    assert min(found.box[2] - found.box[0], found.box[3] - found.box[1]) >= 512
    shape = RATIOS[found.ratio]
    real = (found.box[2] - found.box[0]) / (found.box[3] - found.box[1])
    assert abs(np.log(real / (shape[0] / shape[1]))) == pytest.approx(found.distortion)
    if part < 0.3 and 0.75 < width / height < 1.4:
        assert found.distortion <= 0.01


@pytest.mark.parametrize(
    ("box", "ratio"),
    [((1800, 1400, 2300, 1900), "1:1"), ((500, 1000, 2500, 2000), "16:9"), ((1800, 200, 2200, 1500), "9:16")],
)
def test_the_shape_is_the_one_that_needs_the_least_of_the_picture(box: tuple[int, int, int, int], ratio: str) -> None:
    assert context_box(box, size=(4000, 3000), ratios=RATIOS, context=0.1).ratio == ratio


def test_a_strip_that_no_shape_fits_is_sent_with_its_distortion_named() -> None:
    found = context_box((0, 0, 3000, 300), size=(3000, 300), ratios={"1:1": (1024, 1024), "4:1": (2064, 512)})
    assert found.box == (0, 0, 3000, 300)
    assert found.ratio == "4:1"
    assert found.distortion > 0.5


def _red(colour: tuple[int, int, int], ground: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", (120, 80), ground)
    image.paste(colour, (30, 20, 70, 60))
    return image


PICTURE = photo(120, 80, seed=4)
BOX = (30, 20, 70, 60)


def _with_hole(image: Image.Image) -> Image.Image:
    made = image.convert("RGBA")
    made.paste((0, 0, 0, 0), BOX)
    return made


def _painted(colour: tuple[int, int, int, int]) -> Image.Image:
    made = Image.new("RGBA", (120, 80), (0, 0, 0, 0))
    made.paste(colour, BOX)
    return made


def _over(colour: tuple[int, int, int]) -> Image.Image:
    made = PICTURE.copy()
    made.paste(colour, BOX)
    return made


def _cutout_at_the_edge() -> Image.Image:
    """A subject that stands on the lower edge, cut out of the picture."""
    made = Image.new("RGBA", (120, 80), (0, 0, 0, 0))
    made.paste(PICTURE.crop((10, 20, 110, 80)), (10, 20))
    return made


@pytest.mark.parametrize(
    "mask",
    [
        *(
            _red(colour, (0, 0, 0))
            for colour in ((255, 0, 0), (0, 0, 255), (0, 180, 0), (255, 255, 255), (90, 0, 0), (0, 0, 80))
        ),
        *(_red(colour, (255, 255, 255)) for colour in ((255, 0, 0), (0, 0, 255), (250, 0, 250))),
        *(_painted(colour) for colour in ((255, 0, 0, 255), (0, 0, 0, 255), (255, 255, 255, 255))),
        _with_hole(PICTURE),
        Image.merge("RGBA", (*_red((255, 255, 255), (0, 0, 0)).split(), Image.new("L", (120, 80), 254))),
        _with_hole(Image.new("RGB", (120, 80))),
        _over((255, 0, 255)),
        _over((255, 255, 255)),
    ],
    ids=range(17),
)
def test_a_mask_of_any_kind_edits_what_it_means_and_fully(mask: Image.Image) -> None:
    region = region_from_mask(as_bytes(mask), source=PICTURE)
    weight = region.within((0, 0, 120, 80))
    assert region.box == BOX
    assert (weight[20:60, 30:70] >= 250).all()
    assert region.notes[-1] == "The mask covers 17% of the picture, fully."


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255)])
def test_a_coloured_mask_may_be_a_jpeg(colour: tuple[int, int, int]) -> None:
    region = region_from_mask(as_bytes(_red(colour, (0, 0, 0)), "JPEG", quality=85), source=PICTURE)
    inside = region.within((34, 24, 66, 56))
    assert (inside >= 240).all()
    assert not region.within((0, 0, 120, 14)).any()


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (photo(120, 80, seed=9), "many colours"),
        (_with_hole(Image.new("RGB", (120, 80), (255, 0, 0))), "one colour with a transparent hole"),
        (_with_hole(Image.new("RGB", (120, 80), (255, 255, 255))), "one colour with a transparent hole"),
        (_red((0, 0, 0), (255, 255, 255)), "dark shape on white"),
        (Image.new("L", (120, 80), 255), "one shade all over"),
        (Image.new("L", (120, 80), 128), "one shade all over"),
        (Image.new("RGBA", (120, 80), (255, 255, 255, 0)), "equally transparent"),
        (Image.new("RGBA", (120, 80), (255, 255, 255, 128)), "equally transparent"),
        (Image.new("RGB", (120, 80), (200, 0, 0)), "colour all over"),
        (_red((200, 0, 0), (0, 0, 200)), "colour all over"),
        (PICTURE.convert("L"), "photograph in grey"),
        (_red((200, 0, 0), (128, 128, 128)), "many colours"),
        (_cutout_at_the_edge(), "shows a picture beside transparency"),
    ],
    ids=range(13),
)
def test_a_mask_that_could_mean_two_things_is_asked_about(mask: Image.Image, seen: str) -> None:
    with pytest.raises(RequestError, match=rf"{seen}.*Nothing was sent.*(white where to edit|edited white)"):
        region_from_mask(as_bytes(mask), source=PICTURE)


def test_a_mask_says_how_strong_it_is_and_that_it_was_stretched() -> None:
    soft = Image.new("L", (80, 80))
    soft.paste(128, (0, 0, 40, 80))
    notes = region_from_mask(as_bytes(soft), source=PICTURE).notes
    assert "80x80" in notes[0] and "stretched" in notes[0]
    assert "at 50% strength" in notes[1] or "at 49% strength" in notes[1] or "at 51% strength" in notes[1]
