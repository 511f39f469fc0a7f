"""An answer set into its source: exact outside, judged at the join."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from nanobanana_mcp.domain.errors import NotAnImage, RequestError
from nanobanana_mcp.pixels.edits.alignment import Drift, aligned
from nanobanana_mcp.pixels.edits.masks import region_from_box
from nanobanana_mcp.pixels.edits.region import Seam, seam, set_in, verdict
from nanobanana_mcp.pixels.files.clean import to_srgb
from nanobanana_mcp.pixels.files.decoding import decoded, from_srgb
from nanobanana_mcp.pixels.files.png import png
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, photo, redrawn

MODES = ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16"]


def _file(mode: str, width: int, height: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    if mode == "I;16":
        return as_bytes(Image.fromarray(random.integers(0, 65_536, (height, width), np.uint16)))
    pixels = Image.fromarray(random.integers(0, 256, (height, width, 4), np.uint8), "RGBA")
    image = pixels if mode == "RGBA" else pixels.convert("RGB").convert(mode)
    return as_bytes(image, "TIFF" if mode == "CMYK" else "PNG")


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    mode=st.sampled_from(MODES),
    width=st.integers(3, 90),
    height=st.integers(3, 90),
    edges=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1)),
    grow=st.integers(0, 9),
    feather=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_every_pixel_outside_the_region_is_bit_identical_to_the_source(
    mode: str, width: int, height: int, edges: tuple[float, ...], grow: int, feather: int, seed: int
) -> None:
    source = decoded(_file(mode, width, height, seed))
    left, top = int(edges[0] * width), int(edges[1] * height)
    box = [left, top, min(width, left + 2 + int(edges[2] * width)), min(height, top + 2 + int(edges[3] * height))]
    region = region_from_box(box, size=source.size, grow=grow, feather=feather)
    crop = (left // 2, top // 2, width, height)
    answer = Image.new("RGB", (crop[2] - crop[0], crop[3] - crop[1]), (1, 2, 3))
    finished = source.copy()
    set_in(finished, answer, box=crop, region=region)
    result = decoded(png(finished))
    weight = np.zeros((height, width), np.uint8)
    weight[crop[1] :, crop[0] :] = region.within(crop)
    before, after = np.asarray(source), np.asarray(result)
    assert result.mode == source.mode
    assert (after[weight == 0] == before[weight == 0]).all()
    assert (after[weight == 255][:, :3] == (1, 2, 3)).all()
    assert (after[..., 3:] == before[..., 3:]).all()


def test_a_feather_mixes_in_proportion_to_the_weight() -> None:
    source = Image.new("RGB", (60, 60), (0, 100, 200))
    region = region_from_box([10, 10, 50, 50], size=(60, 60), feather=12)
    set_in(source, Image.new("RGB", (60, 60), (255, 100, 0)), box=(0, 0, 60, 60), region=region)
    result = np.asarray(source)
    weight = region.within((0, 0, 60, 60)).astype(int)
    assert (result[..., 0] == weight).all()
    assert (result[..., 1] == 100).all()


def test_pieces_that_do_not_fit_are_refused() -> None:
    region = region_from_box([1, 1, 9, 9], size=(20, 20))
    with pytest.raises(RequestError, match="do not fit"):
        set_in(Image.new("RGB", (20, 20)), Image.new("RGB", (7, 7)), box=(0, 0, 20, 20), region=region)


def test_the_decoded_source_is_upright_and_sixteen_bits_keep_their_upper_byte() -> None:
    picture = Image.new("RGB", (40, 20), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(as_bytes(picture, "JPEG", exif=exif)).size == (20, 40)
    wide = Image.fromarray(np.array([[0, 255, 256, 65_535]], np.uint16))
    assert np.asarray(decoded(as_bytes(wide)))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_damaged_and_foreign_bytes_are_refused_in_words() -> None:
    with pytest.raises(NotAnImage, match="SVG"):
        decoded(b"<svg/>")
    with pytest.raises(NotAnImage, match="cut off"):
        decoded(as_bytes(photo(200, 200))[:9000])


def test_a_profile_travels_with_the_pixels_and_answers_are_brought_into_it() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = decoded(as_bytes(photo(64, 64), "JPEG", icc_profile=profile))
    assert source.info["icc_profile"] == profile
    assert Image.open(BytesIO(png(source))).info["icc_profile"] == profile
    there_and_back = from_srgb(to_srgb(source.copy()), profile)
    assert there_and_back.info["icc_profile"] == profile
    assert np.abs(np.asarray(there_and_back, int) - np.asarray(source, int)).max() <= 2


def test_a_cmyk_picture_becomes_rgb_without_a_profile() -> None:
    source = decoded(as_bytes(photo(64, 64).convert("CMYK"), "JPEG"))
    assert source.mode == "RGB"
    assert "icc_profile" not in source.info


def _judged(source: Image.Image, answer: Image.Image) -> tuple[Drift, Seam, str]:
    weight = region_from_box([0.25, 0.25, 0.65, 0.7], size=source.size, grow=12, feather=12).within(
        (0, 0, *source.size)
    )
    result = aligned(source, answer, changed=weight)
    join = seam(source, result.image, weight)
    return result.drift, join, verdict(result.drift, join)


@pytest.mark.slow
@cases("seed", [1, 2, 3])
def test_a_proper_edit_is_good_and_an_unrelated_picture_is_nonsense(seed: int) -> None:
    source = photo(560, 420, seed=seed)
    edited = source.copy()
    edited.paste(photo(140, 112, seed=seed + 40), (196, 154))
    answer = redrawn(edited, shift=(6, -5), scale=1.01, gain=(1.05, 1, 0.95), offset=(4, 0, -4), size=(800, 600))
    _, join, good = _judged(source, answer)
    assert (good, join.score < 0.3) == ("good", True)
    assert _judged(source, photo(800, 600, seed=seed + 90))[2] == "nonsense"
    assert _judged(source, Image.new("RGB", (800, 600), (128, 128, 128)))[2] == "nonsense"


def _toned(image: Image.Image, contrast: float, *, about: int) -> Image.Image:
    return image.point([round(about + (value - about) * contrast) for value in range(256)] * 3)


@pytest.mark.slow
@cases(("contrast", "about"), [(1, 0), (0.4, 0), (0.15, 0), (0.15, 128)])
def test_another_picture_is_held_against_the_contrast_and_another_framing_is_mended(
    contrast: float, about: int
) -> None:
    source = _toned(photo(560, 420, seed=21), contrast, about=about)
    drift, _, judged = _judged(source, _toned(photo(800, 600, seed=22), contrast, about=about))
    assert (drift.known, judged) == (False, "nonsense")
    for scale in (0.85, 1.1, 1.2):
        drift, _, judged = _judged(source, redrawn(source, scale=scale, size=(800, 600)))
        assert (drift.known, judged) == (True, "good")
    assert _judged(source, redrawn(source, shift=(6, -5), scale=1.01, size=(800, 600)))[2] == "good"


def test_an_even_background_has_nothing_to_align_by_and_a_proper_edit_of_it_is_good() -> None:
    slope = np.linspace(120, 220, 600).astype(np.uint8)[:, None, None]
    for source in (Image.new("RGB", (800, 600), (190, 200, 215)), Image.fromarray(np.tile(slope, (1, 800, 3)))):
        edited = source.copy()
        edited.paste((200, 40, 40), (330, 260, 450, 350))
        drift, _, judged = _judged(source, redrawn(edited, size=(1200, 896)))
        assert (drift.known, drift.unlike, judged) == (False, 0, "good")


def test_a_region_that_cuts_through_what_changed_is_poor() -> None:
    source = photo(800, 600, seed=5)
    edited = source.copy()
    edited.paste(photo(330, 280, seed=45), (190, 140))
    drift, join, judged = _judged(source, redrawn(edited))
    assert judged == "poor"
    assert join.worst > join.score > 0.6
    assert drift.confidence > 0.5


@pytest.mark.parametrize(
    ("confidence", "residual", "score", "worst", "expected"),
    [
        (0.9, 1, 0.1, 0.2, "good"),
        (0.9, 1, 5.0, 9.0, "poor"),
        (0.9, 1, 0.5, 1.6, "poor"),
        (0.05, 40, 0.1, 0.2, "nonsense"),
        (0.0, 3, 4.0, 6.0, "nonsense"),
        (0.3, 10, 0.1, 0.2, "poor"),
        (0.0, 2, 0.0, 0.0, "good"),
    ],
)
def test_a_verdict_weighs_what_lies_outside_and_the_join(
    confidence: float, residual: float, score: float, worst: float, expected: str
) -> None:
    assert verdict(Drift(confidence=confidence, residual=residual), Seam(score=score, worst=worst)) == expected


def test_an_answer_that_was_not_aligned_shows_its_join() -> None:
    source = photo(800, 600, seed=6)
    weight = region_from_box([0.25, 0.25, 0.65, 0.7], size=source.size).within((0, 0, 800, 600))
    moved = redrawn(source, shift=(14, 9), offset=(12, 0, -12))
    assert seam(source, moved, weight).score > 0.6
    assert seam(source, source, weight) == Seam(score=0, worst=0)


def test_a_region_that_is_the_whole_picture_has_no_join() -> None:
    source = photo(300, 200, seed=7)
    weight = np.full((200, 300), 255, np.uint8)
    assert seam(source, photo(300, 200, seed=8), weight) == Seam(score=0, worst=0)
