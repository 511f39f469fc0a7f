"""Pictures as large as Gemini's: a drawn scene with the fine grain that photographs have and compressors pay for."""

import io
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

Sample = Literal["1K JPEG", "4K JPEG", "4K PNG"]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An encoded picture and how it is asked for."""

    data: bytes
    mime: Literal["image/jpeg", "image/png"]
    size: Literal["1K", "4K"]


@cache
def sample(kind: Sample) -> Ready:
    """Return about 0.8 MB for 1K (1024 x 1024), 7 MB for a 4K JPEG and 22 MB for a 4K PNG (4096 x 4096)."""
    if kind == "1K JPEG":
        return Ready(data=_encoded(_scene(1024, grain=20), "JPEG", quality=93), mime="image/jpeg", size="1K")
    if kind == "4K JPEG":
        return Ready(data=_encoded(_scene(4096, grain=11), "JPEG", quality=90), mime="image/jpeg", size="4K")
    return Ready(data=_encoded(_scene(4096, grain=2.0), "PNG", compress_level=4), mime="image/png", size="4K")


def _scene(side: int, *, grain: float) -> Image.Image:
    random = np.random.default_rng(11)
    shapes = random.uniform(0, 255, (24, 24, 3)).astype(np.uint8)
    picture = Image.fromarray(shapes).resize((side, side), Image.Resampling.BICUBIC)
    edges = Image.fromarray(random.uniform(0, 255, (128, 128, 3)).astype(np.uint8))
    edges = edges.resize((side, side), Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(side / 2048))
    values = np.asarray(Image.blend(picture, edges, 0.25), np.float32)
    values = values + random.normal(0, grain, (side, side, 1)).astype(np.float32)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()
