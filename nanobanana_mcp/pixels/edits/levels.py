"""A picture at a smaller size with what aligning it wants to know: its detail, and which pixels may be compared."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.warping import Plane, Warp
from nanobanana_mcp.pixels.files.decoding import Size

Value = TypeVar("Value", np.int16, np.float32)


@dataclass(frozen=True, kw_only=True)
class Level:
    size: Size
    bright: Plane
    detail: Plane  # brightness of the reference, its local mean taken away, 0 in the changed part
    mask: Plane
    around: Plane  # how many pixels of the mask the local mean of each pixel is taken over, at least 1
    count: int
    texture: float


def level_of(bright: Image.Image, outside: NDArray[np.bool_], longest: int) -> Level:
    factor = min(1.0, longest / max(bright.size))
    size = (max(8, round(bright.width * factor)), max(8, round(bright.height * factor)))
    plane = np.asarray(bright.resize(size, Image.Resampling.LANCZOS), np.float32)
    return _of_mask(size, plane, of_size(outside, size).astype(np.float32))


def _of_mask(size: Size, bright: Plane, mask: Plane) -> Level:
    around = np.maximum(box_sum(mask), np.float32(1))
    detail, count = detail_of(bright, mask, around), int(mask.sum())
    texture = float(np.sqrt((detail * detail).sum() / max(count, 1)))
    return Level(size=size, bright=bright, detail=detail, mask=mask, around=around, count=count, texture=texture)


def shown_by(level: Level, warp: Warp) -> Level:
    """The level without what lies beyond the answer's edges."""
    there = covered(warp, level.size)
    return level if there.all() else _of_mask(level.size, level.bright, level.mask * there)


def detail_of(plane: Plane, mask: Plane, around: Plane) -> Plane:
    """The plane less its mean over 13 x 13 pixels of the mask: blind to slow changes of light and to what changed."""
    return np.asarray((plane - box_sum(plane * mask) / around) * mask, np.float32)


def box_sum(plane: NDArray[np.floating] | NDArray[np.int16], radius: int = 6) -> Plane:
    wide = np.pad(np.asarray(plane, np.float32), radius)
    down = _run_sum(wide, 2 * radius + 1)
    return np.ascontiguousarray(_run_sum(down.T, 2 * radius + 1).T)


def _run_sum(plane: Plane, length: int) -> Plane:
    """Sums of `length` rows, put together of those of 1, 2, 4, ... rows: a running sum would want double precision."""
    rows, start, power, runs = plane.shape[0] - length + 1, 0, 1, plane
    total = np.zeros_like(plane[:rows])  # lies in memory as the plane does, which may be turned
    while True:
        if length & power:
            total += runs[start : start + rows]
            start += power
        if 2 * power > length:
            return total
        runs, power = runs[:-power] + runs[power:], 2 * power


def slopes_of(plane: Plane) -> tuple[Plane, Plane]:
    across, down = np.zeros_like(plane), np.zeros_like(plane)
    np.subtract(plane[:, 2:], plane[:, :-2], out=across[:, 1:-1])
    np.subtract(plane[2:], plane[:-2], out=down[1:-1])
    across *= np.float32(0.5)
    down *= np.float32(0.5)
    return across, down


def covered(warp: Warp, size: Size) -> NDArray[np.bool_]:
    """Marks the pixels of the picture that the answer shows at all."""
    few = 64
    x, y = np.meshgrid((np.arange(few) + 0.5) / few, (np.arange(few) + 0.5) / few)
    left, top = warp.lies_at(x, y)
    there = (left > 0) & (left < 1) & (top > 0) & (top < 1)
    if there.all():
        return np.ones((size[1], size[0]), bool)
    shown = Image.fromarray(np.where(there, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(np.asarray(shown) > 250)


def of_size(outside: NDArray[np.bool_], size: Size) -> NDArray[np.bool_]:
    """Marks the pixels of the picture in another size that lie wholly outside."""
    if outside.shape == size[::-1]:
        return outside
    shown = Image.fromarray(outside.view(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
    return np.asarray(np.asarray(shown) > 250)


def fewer(image: Image.Image, longest: float) -> Image.Image:
    """The picture with at most `longest` px a side."""
    factor = longest / max(image.size)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def reduced_to(answered: Image.Image, size: Size, times: float = 1.0) -> Image.Image:
    """The answer with about `times` as many pixels a side as are read of it, where it has more: it is read many times."""
    factor = min(answered.width / size[0], answered.height / size[1]) / times
    return fewer(answered, max(answered.size) / factor) if factor > 1.3 else answered


def mean_of(image: Image.Image) -> Plane:
    """The mean of R, G and B at each pixel, 8-bit levels."""
    red, green, blue = (np.asarray(plane) for plane in image.split())
    return np.asarray((np.add(red, green, dtype=np.float32) + blue) / np.float32(3), np.float32)


def slope(plane: NDArray[Value]) -> NDArray[Value]:
    """Measures how far a plane differs from one pixel to the next but one, down or across: what a misfit of a pixel makes."""
    steep = np.zeros_like(plane)
    steep[:, 1:-1] = np.abs(plane[:, 2:] - plane[:, :-2])
    steep[1:-1] = np.maximum(steep[1:-1], np.abs(plane[2:] - plane[:-2]))
    return steep
