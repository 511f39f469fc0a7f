"""Thumbnails look like their pictures, stay small, and are made only of pictures that decode to their end."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from nanobanana_mcp.domain.errors import NotAnImage, RequestError
from nanobanana_mcp.pixels.files.header import read_header
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, contact_sheet, examine, thumbnail
from tests.support.lanes import cases

EVERY_FORMAT = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"]


def photograph(width: int, height: int) -> Image.Image:
    """Octaves of noise with hard-edged blocks and single lines on them, about as busy as an outdoor photograph."""
    source = np.random.default_rng(7)
    planes = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 9):
        grid = source.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(grid[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            planes[..., channel] += np.asarray(layer) / 1.7**octave
    planes = (planes - planes.min()) / (planes.max() - planes.min()) * 255
    for left, upper, side in source.integers(0, min(width, height) // 2, (30, 3)):
        planes[upper : upper + side // 4, left : left + side // 4] = source.integers(0, 256, 3)
    for column in source.integers(0, width, width // 12):
        planes[:, column : column + 2] = source.integers(0, 256, 3)
    planes += source.normal(0, 6, (height, width, 1))
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8))


def corner(width: int = 60, height: int = 40) -> Image.Image:
    image = Image.new("RGB", (width, height), (20, 40, 200))
    image.paste((250, 240, 20), (0, 0, width // 3, height // 4))
    return image


def saved(image: Image.Image, pillow: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, pillow, **options)
    return buffer.getvalue()


def opened(result: Thumbnail) -> Image.Image:
    image = Image.open(BytesIO(result.data))
    image.load()
    assert image.size == (result.width, result.height)
    assert Image.MIME[image.format or ""] == result.mime_type
    return image


def _box(plane: np.ndarray, side: int = 7) -> np.ndarray:
    total = np.pad(plane, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    mean: np.ndarray = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    ) / side**2
    return mean


def similarity(one: Image.Image, other: Image.Image) -> float:
    """Structural similarity of the greys, over windows of 7 by 7 (Wang et al. 2004), 1 for equal pictures."""
    a, b = (np.asarray(image.convert("L"), np.float64) for image in (one, other))
    mean_a, mean_b = _box(a), _box(b)
    spread = _box(a * a) - mean_a**2 + _box(b * b) - mean_b**2
    shared = _box(a * b) - mean_a * mean_b
    both = (2 * mean_a * mean_b + 6.5025) * (2 * shared + 58.5225)
    return float((both / ((mean_a**2 + mean_b**2 + 6.5025) * (spread + 58.5225))).mean())


@cases("size", [(900, 1300), (3100, 1600), (2051, 1367)])
@pytest.mark.parametrize("pillow", ["JPEG", "PNG"])
def test_a_thumbnail_of_a_photograph_is_as_good_as_one_from_a_full_decode(pillow: str, size: tuple[int, int]) -> None:
    data = saved(photograph(*size), pillow, **({"quality": 92} if pillow == "JPEG" else {"compress_level": 1}))
    share = 512 / max(size)
    with Image.open(BytesIO(data)) as image:
        wanted = image.resize((round(size[0] * share), round(size[1] * share)), Image.Resampling.LANCZOS)
    result = thumbnail(data)
    assert result.mime_type == "image/jpeg"
    assert similarity(opened(result), wanted) >= 0.98


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pillow", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("long_side", [30, 512])
def test_a_thumbnail_stands_upright(pillow: str, orientation: int, long_side: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = corner()
    stored.getexif()[0x0112] = orientation
    wanted = ImageOps.exif_transpose(stored).convert("RGB")
    wanted.thumbnail((long_side, long_side))
    image = opened(thumbnail(saved(corner(), pillow, exif=exif), long_side=long_side))
    assert image.size == wanted.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(wanted)).mean() < 12
    assert not image.getexif()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("1", (40, 30), 1),
        Image.new("L", (40, 30), 200),
        Image.new("I;16", (40, 30), 51_200),
        Image.new("P", (40, 30), 0),
        Image.new("LA", (40, 30), (200, 90)),
        Image.new("RGBA", (40, 30), (1, 2, 3, 90)),
        Image.new("RGB", (1, 1)),
        Image.new("L", (3000, 1)),
    ],
    ids=["1", "L", "I;16", "P", "LA", "RGBA", "1x1", "3000x1"],
)
def test_odd_pictures_have_thumbnails_too(image: Image.Image) -> None:
    result = thumbnail(saved(image, "PNG"))
    assert max(result.width, result.height) == min(512, max(image.size))
    opened(result)


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    assert opened(thumbnail(saved(Image.new("I;16", (40, 30), 51_200), "PNG"))).getpixel((20, 15)) == 200


def test_cmyk_becomes_rgb() -> None:
    image = opened(thumbnail(saved(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "JPEG")))
    assert image.mode == "RGB"
    assert image.getpixel((20, 15))[0] > 200


def test_transparency_is_kept_and_an_alpha_channel_without_any_is_dropped() -> None:
    clear = Image.new("RGBA", (600, 400), (255, 0, 0, 0))
    clear.paste((0, 200, 0, 255), (0, 0, 300, 400))
    result = thumbnail(saved(clear, "PNG"), long_side=120)
    assert result.mime_type == "image/webp"
    image = opened(result)
    assert image.getpixel((100, 40))[3] == 0
    assert image.getpixel((20, 40))[3] == 255
    assert thumbnail(saved(corner().convert("RGBA"), "PNG")).mime_type == "image/jpeg"


def test_a_profile_is_applied_and_a_damaged_one_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    where = {name: profile.index(name) for name in (b"rXYZ", b"bXYZ")}  # in the tag table: name, offset, size
    swapped = bytearray(profile)
    red, blue = (slice(where[name] + 4, where[name] + 12) for name in (b"rXYZ", b"bXYZ"))
    swapped[red], swapped[blue] = profile[blue], profile[red]
    data = saved(Image.new("RGB", (40, 30), (255, 0, 0)), "PNG", icc_profile=bytes(swapped))
    assert opened(thumbnail(data)).getpixel((20, 15))[2] > 240
    broken = profile[:16] + b"RGB " + bytes(len(profile) - 20)
    data = saved(Image.new("RGB", (40, 30), (255, 0, 0)), "PNG", icc_profile=broken)
    assert opened(thumbnail(data)).getpixel((20, 15))[0] > 240


@cases("mode", ["RGB", "RGBA"])
def test_a_thumbnail_keeps_its_bound_of_bytes(mode: str) -> None:
    channels = len(mode)
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (700, 900, channels), dtype=np.uint8))
    data = saved(noise, "PNG")
    for bound in (150_000, 20_000, 4_000):
        result = thumbnail(data, max_bytes=bound)
        assert len(result.data) <= bound
        opened(result)
    with pytest.raises(RequestError, match="bytes"):
        thumbnail(data, max_bytes=10)


@pytest.mark.parametrize("pillow", EVERY_FORMAT)
def test_examining_gives_header_and_thumbnail_together(pillow: str) -> None:
    data = saved(corner(), pillow)
    header, small = examine(data, long_side=32)
    assert header == read_header(data)
    assert small == thumbnail(data, long_side=32)
    assert (small.width, small.height) == (32, 21)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pillow", EVERY_FORMAT)
def test_examining_proves_that_a_picture_is_whole(pillow: str) -> None:
    data = saved(photograph(92, 70), pillow)
    examine(data)
    for percent in range(5, 100, 5):
        with pytest.raises(NotAnImage):
            examine(data[: len(data) * percent // 100])
    with pytest.raises(NotAnImage):
        examine(data[: -12 if pillow == "JPEG" else -1])  # of its last two bytes a JPEG may lack one or both


def test_a_small_picture_is_decoded_too() -> None:
    data = bytearray(saved(photograph(60, 40), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(NotAnImage, match="damaged"):
        thumbnail(bytes(data))


def test_text_has_no_thumbnail() -> None:
    with pytest.raises(NotAnImage, match="text"):
        thumbnail(b"GEMINI_API_KEY=secret")


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    data=st.sampled_from([saved(photograph(24, 18), pillow) for pillow in EVERY_FORMAT]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4),
)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_flipped_bits_are_refused_or_give_a_thumbnail(data: bytes, flips: list[tuple[float, int]]) -> None:
    damaged = bytearray(data)
    for place, bit in flips:
        damaged[int(place * len(damaged))] ^= 1 << bit
    try:
        opened(thumbnail(bytes(damaged), long_side=16))
    except NotAnImage as error:
        assert str(error)


def test_a_contact_sheet_shows_every_picture_in_reading_order() -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]
    pictures = [(saved(Image.new("RGB", (100, 100), colour), "PNG"), f"number {colour}") for colour in colours]
    sheet = opened(contact_sheet(pictures, columns=3, cell=100, format="png"))
    assert sheet.width == 16 + 3 * 116
    step = (sheet.height - 16) // 2
    for index, colour in enumerate(colours):
        assert sheet.getpixel((16 + index % 3 * 116 + 70, 16 + index // 3 * step + 70)) == colour


def test_captions_numbers_and_title_are_drawn() -> None:
    data = saved(Image.new("RGB", (80, 80), "white"), "PNG")
    plain = contact_sheet([(data, "")], format="png")
    captioned = contact_sheet([(data, "a harbour at dawn")], format="png")
    assert captioned.data != plain.data
    assert captioned.height == plain.height
    assert contact_sheet([(data, "")], title="Session", format="png").height > plain.height
    assert opened(plain).getpixel((16 + 11, 16 + 8)) == (43, 43, 43)


@pytest.mark.parametrize("caption", ["x" * 500, "word " * 300, "caf\u00e9 \u65e5\u672c \ud800 \u202e\x00\n\t", ""])
def test_no_caption_breaks_the_layout(caption: str) -> None:
    data = saved(corner(), "PNG")
    sheet = contact_sheet([(data, caption), (data, "short")], cell=120, columns=2, title=caption)
    assert sheet.width == 16 + 2 * 136
    assert (sheet.width, sheet.height) == opened(sheet).size


def test_a_picture_that_does_not_decode_leaves_a_cell_that_says_so() -> None:
    whole = saved(corner(), "PNG")
    sheet = opened(contact_sheet([(whole[:-20], "cut"), (whole, "whole")], columns=2, cell=160, format="png"))
    cell = np.asarray(sheet.crop((16, 60, 176, 176)).convert("L"))
    assert 0.01 < (cell < 180).mean() < 0.5


def test_at_most_a_hundred_pictures_are_drawn() -> None:
    data = saved(Image.new("RGB", (8, 8), "red"), "PNG")
    hundred = contact_sheet([(data, "")] * 100, cell=40, columns=10)
    more = contact_sheet([(data, "")] * 130, cell=40, columns=10)
    assert hundred.width == more.width
    assert 0 < more.height - hundred.height < 60


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_contact_sheet_keeps_its_bound_of_bytes(kind: str) -> None:
    pictures = [(saved(photograph(300, 200), "JPEG"), f"number {number}") for number in range(4)]
    sheet = contact_sheet(pictures, max_bytes=30_000, format=kind)
    assert len(sheet.data) <= 30_000
    assert sheet.mime_type == f"image/{kind}"


def test_a_contact_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="no pictures"):
        contact_sheet([])
