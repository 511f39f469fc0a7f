"""Files of rare kinds look after a conversion as they do in a viewer, or are refused in words."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Emulated
from easel import seen, use
from fastmcp.exceptions import ToolError
from PIL import Image

from tests.scenes import as_bytes, photo
from tests.strange import bmp, tiff, twelve_bits

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
    with pytest.raises(ToolError, match="plane of its own"):
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
