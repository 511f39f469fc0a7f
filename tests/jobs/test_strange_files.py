"""Files of rare kinds look after a conversion as they do in a viewer, or are refused in words."""

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastmcp.exceptions import ToolError
from PIL import Image, ImageCms

from tests.conftest import Emulated
from tests.support.easel import drawing, seen, use
from tests.support.lanes import cases
from tests.support.scenes import as_bytes, photo
from tests.support.strange import bmp, large_profile, png_with, tiff, twelve_bits

LINEAR = (b"gAMA", (100_000).to_bytes(4, "big"))
USUAL = (b"gAMA", (45_455).to_bytes(4, "big"))
P3_POINTS = (b"cHRM", struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000))
P3_CODES = (b"cICP", bytes([12, 13, 0, 1]))
PQ = (b"cICP", bytes([9, 16, 0, 1]))
HLG = (b"cICP", bytes([9, 18, 0, 1]))
RAMP = np.tile((np.arange(64) * 1023.98).astype(np.uint16), (32, 1))
COLOURS = np.stack([RAMP, RAMP[:, ::-1], 65_535 - RAMP], -1)


async def _converted(emulated: Emulated, folder: Path, data: bytes, name: str, **wish: Any) -> np.ndarray:
    (folder / name).write_bytes(data)
    wish = wish or {"output_format": "png"}
    return seen((await use(emulated, "convert_image", image=str(folder / name), **wish))["file_paths"][0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff((64, 32), [twelve_bits(RAMP >> 4)], bits=12), RAMP >> 8),
        (tiff((64, 32), [RAMP.tobytes()]), RAMP >> 8),
        (tiff((64, 32), [RAMP.byteswap().tobytes()], order=">"), RAMP >> 8),
        (tiff((64, 32), [RAMP.tobytes()], photometric=0), 255 - (RAMP >> 8)),
        (tiff((64, 32), [(RAMP >> 8).astype(np.uint8).tobytes()], bits=8, photometric=0), 255 - (RAMP >> 8)),
        (tiff((64, 32), [COLOURS.tobytes()], channels=3, photometric=2), COLOURS >> 8),
        (
            tiff((64, 32), [(COLOURS[..., i] >> 8).astype(np.uint8).tobytes() for i in range(3)], bits=8, channels=3, photometric=2),
            COLOURS >> 8,
        ),
    ],
    ids=["12 bits", "16 bits", "16 bits, big end first", "white is zero", "8 bits, white is zero", "16-bit RGB", "planes"],
)  # fmt: skip
async def test_a_scan_keeps_its_brightness_however_its_samples_are_stored(
    emulated: Emulated, tmp_path: Path, data: bytes, expected: np.ndarray
) -> None:
    grey = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, 2)
    assert (await _converted(emulated, tmp_path, data, "scan.tif") == grey).all()


async def test_a_scan_that_would_be_decoded_to_noise_is_refused(emulated: Emulated, tmp_path: Path) -> None:
    data = tiff((64, 32), [COLOURS[..., i].tobytes() for i in range(3)], channels=3, photometric=2)
    with pytest.raises(ToolError, match="separate planes"):
        await _converted(emulated, tmp_path, data, "planes.tif")


async def test_a_bmp_whose_alpha_is_nothing_but_zero_is_opaque_and_one_that_means_it_is_not(
    emulated: Emulated, tmp_path: Path
) -> None:
    opaque = await _converted(emulated, tmp_path, bmp((8, 4), (200, 20, 10), 0), "screen.bmp")
    assert opaque.shape == (4, 8, 3) and (opaque == (200, 20, 10)).all()
    clear = await _converted(emulated, tmp_path, bmp((8, 4), (200, 20, 10), 128), "glass.bmp")
    assert (clear == (200, 20, 10, 128)).all()
    facts = await use(emulated, "generate_image", prompt="what it shows", input_images=[str(tmp_path / "screen.bmp")])
    assert facts["images"]  # and it is no picture in which a model sees nothing


async def test_a_picture_with_a_doubled_exif_header_is_turned(emulated: Emulated, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = as_bytes(photo(64, 32, seed=5), "JPEG", exif=b"Exif\0\0" + exif.tobytes())
    assert b"Exif\0\0Exif\0\0" in data
    turned = await _converted(emulated, tmp_path, data, "phone.jpg", output_format="png")
    with Image.open(BytesIO(data)) as lying:
        assert (turned == np.rot90(np.asarray(lying), -1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s.png", "s.jpg"])
@pytest.mark.parametrize(
    ("background", "corner"),
    [
        ("transparent", (0, 0, 0, 0)),
        ("rgba(0,0,0,0)", (0, 0, 0, 0)),
        ("#00000000", (0, 0, 0, 0)),
        ("rgba(255, 0, 0, 0.5)", (255, 0, 0, 128)),
        ("rgb(255 0 0 / 50%)", (255, 0, 0, 128)),
    ],
)
async def test_a_pad_that_is_asked_to_be_transparent_is(
    emulated: Emulated, tmp_path: Path, name: str, background: str, corner: tuple[int, ...]
) -> None:
    data = as_bytes(photo(64, 32, seed=5), "PNG" if name.endswith("png") else "JPEG")
    wish = {"width": 64, "height": 64, "fit": "pad", "background": background}
    padded = await _converted(emulated, tmp_path, data, name, **wish)
    assert tuple(padded[0, 0]) == corner
    assert padded[32, 32, 3] == 255


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output_format": "jpeg"}, "JPEG has no transparency"),
        ({"output_path": "a.jpg"}, "JPEG has no transparency"),
        ({"width": None, "height": None, "fit": None, "assets": "social"}, "not opaque"),
        ({"background": "rgba(0, 0, 0, 255)"}, "no colour"),
    ],
)
async def test_a_transparent_background_is_refused_where_there_can_be_none(
    emulated: Emulated, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    wish = {"width": 64, "height": 64, "fit": "pad", "background": "transparent"} | changes
    with pytest.raises(ToolError, match=words):
        await _converted(emulated, tmp_path, as_bytes(photo(64, 32, seed=5), "JPEG"), "s.jpg", **wish)


def _looked_at(path: str) -> np.ndarray:
    """The picture that a viewer with ICC profiles shows, as numbers of sRGB, by littlecms."""
    with Image.open(path) as image:
        profile = image.info.get("icc_profile")
        if profile is None:
            return np.asarray(image.convert("RGB")).astype(int)
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        return np.asarray(
            ImageCms.profileToProfile(image.convert("RGB"), opened, ImageCms.createProfile("sRGB"))
        ).astype(int)


SHOWN = pytest.mark.parametrize(
    ("chunk", "stored", "shows"),
    [
        ((LINEAR,), (55, 55, 55), (127, 127, 127)),
        ((USUAL,), (55, 128, 200), (55, 128, 200)),
        ((USUAL, P3_POINTS), (234, 51, 35), (255, 0, 0)),
        ((P3_CODES,), (117, 251, 76), (0, 255, 0)),
        ((PQ,), (148, 148, 148), (255, 255, 255)),  # 203 cd/m2, the white of a page
        ((PQ,), (225, 225, 225), (255, 255, 255)),
        ((HLG,), (191, 191, 191), (255, 255, 255)),
        (((b"sRGB", b"\0"), LINEAR), (55, 55, 55), (55, 55, 55)),
    ],
    ids=["linear", "usual", "primaries", "Display P3", "PQ white", "PQ sun", "HLG white", "sRGB goes before gamma"],
)


@pytest.mark.slow
@SHOWN
@pytest.mark.parametrize("wish", [{"output_format": "png"}, {"output_format": "webp", "quality": 100}, {"rotate": 90}])
async def test_colours_that_a_png_names_without_a_profile_are_shown_after_a_conversion(
    emulated: Emulated,
    tmp_path: Path,
    chunk: tuple[tuple[bytes, bytes], ...],
    stored: tuple[int, int, int],
    shows: tuple[int, int, int],
    wish: dict[str, Any],
) -> None:
    path = tmp_path / "s.png"
    path.write_bytes(png_with(as_bytes(Image.new("RGB", (40, 40), stored)), *chunk))
    facts = await use(emulated, "convert_image", image=str(path), **wish)
    assert np.abs(_looked_at(facts["file_paths"][0])[20, 20] - shows).max() <= 4


@pytest.mark.slow
@cases(
    ("tool", "wish"),
    [("edit_region", {"instruction": "a hat", "box": [100, 80, 200, 160]}), ("extend_image", {"right": 80})],
)
async def test_an_edit_keeps_the_numbers_of_a_linear_png_and_says_that_they_are_linear(
    emulated: Emulated, tmp_path: Path, tool: str, wish: dict[str, Any]
) -> None:
    path = tmp_path / "s.png"
    picture = photo(320, 240, seed=6)
    path.write_bytes(png_with(as_bytes(picture), LINEAR))
    drawing(emulated, None)
    facts = await use(emulated, tool, image=str(path), **wish)
    assert (seen(facts["file_paths"][0])[:60, :320] == np.asarray(picture)[:60]).all()
    light = np.asarray(picture)[:60] / 255
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    assert np.abs(_looked_at(facts["file_paths"][0])[:60, :320] - expected).max() <= 2


@cases(
    ("tool", "wish"),
    [("edit_region", {"instruction": "a hat", "box": [100, 80, 200, 160]}), ("extend_image", {"right": 80})],
)
async def test_an_edit_of_an_hdr_picture_says_that_its_brightest_light_is_cut_off(
    emulated: Emulated, tmp_path: Path, tool: str, wish: dict[str, Any]
) -> None:
    (tmp_path / "s.png").write_bytes(png_with(as_bytes(photo(320, 240, seed=6)), PQ))
    drawing(emulated, None)
    for dry_run in (True, False):
        facts = await use(emulated, tool, image=str(tmp_path / "s.png"), dry_run=dry_run, **wish)
        assert facts["warnings"][0].startswith("s.png: it is coded for HDR screens")


async def test_an_avif_that_names_its_colours_by_codes_is_shown_in_them(emulated: Emulated, tmp_path: Path) -> None:
    data = as_bytes(Image.new("RGB", (40, 40), (234, 51, 35)), "AVIF", quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    path = tmp_path / "s.avif"
    path.write_bytes(data[:place] + b"\0\x0c" + data[place + 2 :])
    facts = await use(emulated, "convert_image", image=str(path), output_format="png")
    assert np.abs(_looked_at(facts["file_paths"][0])[20, 20] - (255, 0, 0)).max() <= 6


@cases("kind", ["PNG", "JPEG", "WEBP"])
@cases(
    ("tool", "wish"),
    [
        ("edit_region", {"instruction": "a hat", "box": [100, 80, 200, 160]}),
        ("extend_image", {"right": 80}),
        ("convert_image", {"output_format": "png"}),
    ],
)
async def test_a_colour_profile_of_more_than_a_megabyte_is_applied_and_no_file_suffers(
    emulated: Emulated, tmp_path: Path, kind: str, tool: str, wish: dict[str, Any]
) -> None:
    path = tmp_path / "s.png"
    path.write_bytes(as_bytes(photo(320, 240, seed=6), kind, icc_profile=large_profile()))
    drawing(emulated, None)
    rehearsed = await use(emulated, tool, image=str(path), dry_run=True, **wish)
    facts = await use(emulated, tool, image=str(path), **wish)
    for told in (rehearsed, facts):
        assert "colours were converted to sRGB" in " ".join(told.get("warnings") or told["notes"])
    with Image.open(facts["file_paths"][0]) as made:  # Pillow by its own bound would not
        assert "icc_profile" not in made.info
        made.load()


def _animation(kind: str) -> bytes:
    red, blue = Image.new("RGB", (64, 64), (250, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 250))
    return as_bytes(red, kind, save_all=True, append_images=[blue, red], duration=50)


def _pages() -> bytes:
    page = Image.new("RGB", (64, 64), (250, 0, 0))
    return as_bytes(page, "TIFF", save_all=True, append_images=[page, page])


ULTRA_HDR = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
)
JPEG = as_bytes(photo(64, 64, seed=5), "JPEG")
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(5000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_animation("GIF"), "only the first of its 3 frames"),
        (_animation("PNG"), "only the first of its 3 frames"),
        (_animation("WEBP"), "only the first of its 3 frames"),
        (_animation("AVIF"), "only the first of its 3 frames"),
        (_pages(), "only the first of its 3 pages"),
        (as_bytes(photo(64, 64, seed=5), "JPEG", xmp=ULTRA_HDR) + JPEG, "gain map"),
        (JPEG + VIDEO, "video in the same file"),
        (as_bytes(photo(64, 64, seed=5), "HEIF") + struct.pack(">I4s", 8 + len(VIDEO), b"mpvd") + VIDEO, "video in the"),
        (JPEG + b"x" * 77, "77 bytes behind the end"),
        (tiff((64, 32), [COLOURS.tobytes()], channels=3, photometric=2), "16 bits a channel"),
        (tiff((64, 32), [twelve_bits(RAMP >> 4)], bits=12), "12 bits a channel"),
        (png_with(as_bytes(photo(64, 64, seed=5)), PQ), "HDR screens"),
        (as_bytes(photo(64, 64, seed=5), "JPEG", icc_profile=large_profile()), "profile has 1.4 MB"),
        (as_bytes(photo(64, 64, seed=5)), None),
        (JPEG, None),
        (as_bytes(photo(64, 64, seed=5), "TIFF"), None),
        (as_bytes(photo(64, 64, seed=5), "HEIF"), None),
        (as_bytes(photo(64, 64, seed=5), "AVIF"), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
@cases("wish", [{"output_format": "png"}, {"assets": "favicon"}])
async def test_a_conversion_says_what_it_left_out(
    emulated: Emulated, tmp_path: Path, data: bytes, words: str | None, wish: dict[str, Any]
) -> None:
    path = tmp_path / "s"
    path.write_bytes(data)
    for dry_run in (True, False):
        facts = await use(emulated, "convert_image", image=str(path), dry_run=dry_run, **wish)
        notes = [note for note in facts["notes"] if not note.startswith(("Enlarged", "To fill"))]
        assert len(notes) == (words is not None), notes
        assert words is None or words.lower() in notes[0].lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff((64, 32), [COLOURS.tobytes()], channels=3, photometric=2), "from TIFF to PNG, and from 16 to 8 bits a channel"),
        (png_with(as_bytes(photo(64, 64, seed=5)), PQ), "s: it is coded for HDR screens"),
        (png_with(as_bytes(photo(64, 64, seed=5)), LINEAR), "s: its colours were converted to sRGB."),
        (png_with(as_bytes(photo(64, 64, seed=5)), USUAL), None),
        (as_bytes(photo(64, 64, seed=5), "TIFF", icc_profile=large_profile()), "its colour profile has 1.4 MB"),
        (as_bytes(photo(64, 64, seed=5), "TIFF"), "from TIFF to PNG."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_is_sent_of_a_picture_is_told(
    emulated: Emulated, tmp_path: Path, data: bytes, words: str | None
) -> None:
    path = tmp_path / "s"
    path.write_bytes(data)
    facts = await use(emulated, "generate_image", prompt="at night", input_images=[str(path)])
    told = [f"{warning.rstrip('.')}." for warning in facts["warnings"] if warning.startswith("s: ")]
    assert any(words in one for one in told) if words is not None else not told, told


@pytest.mark.slow
async def test_a_set_says_what_was_cut_off_and_enlarged_for_it(emulated: Emulated, tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(as_bytes(photo(64, 64, seed=5)))
    story = await use(emulated, "convert_image", image=str(tmp_path / "small.png"), assets="social")
    cut, enlarged = story["notes"]
    assert "story.jpg 44%" in cut and "square.jpg" not in cut
    assert "story.jpg 30.0 times" in enlarged and "square.jpg 16.9 times" in enlarged
    (tmp_path / "wide.png").write_bytes(as_bytes(photo(1600, 1200, seed=5)))
    (cut,) = (await use(emulated, "convert_image", image=str(tmp_path / "wide.png"), assets="app_icons"))["notes"]
    assert "25% of the picture" in cut
    (tmp_path / "logo.png").write_bytes(as_bytes(Image.new("RGBA", (1600, 1200), (200, 10, 10, 128))))
    assert (await use(emulated, "convert_image", image=str(tmp_path / "logo.png"), assets="favicon"))["notes"] == []
