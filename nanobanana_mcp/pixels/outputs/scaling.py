"""Scales pictures: shrinks them in linear light, enlarges them as they are encoded, and draws no rings around edges.

A sharp filter swings below the dark side of an edge. In linear light that is far below in what one sees: black outlines
around light letters. So what Lanczos makes of a pixel is held within the averages of the pixels beside it. Whole blocks
are averaged first where much is left out, as Pillow's `reducing_gap` does, and no more than a few rows are held as
light at once: the memory and the time of a large photograph are then near those of Pillow's own resizing.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.files.decoding import Size

Plane = NDArray[np.float32]
Part = tuple[float, float, float, float]

_GAP = 1.5
"""Times the size wanted that averaging leaves to Lanczos at least: 0.6 levels from Lanczos alone on photographs (mean)."""
_ROWS = 128  # of the source that are held as light at once, about
_LEAST_COVER = np.float32(1e-4)


def scaled(image: Image.Image, size: Size, *, box: Part | None = None) -> Image.Image:
    """The part `box` of an RGB or RGBA picture in another size, by Lanczos; alpha is weighed in, its profile kept.

    Shrinking is done in linear light (the sRGB curve), as a lens would: on the encoded values fine bright detail gets
    darker. Enlarging stays on the encoded values, where overshoot is evenly small. Each side has what it needs.
    """
    left, top, right, bottom = box or (0, 0, *image.size)
    narrower, lower = size[0] < right - left, size[1] < bottom - top
    if narrower or lower:
        # What a side that does not shrink shows of the picture, in whole pixels; the rest of the way is done after it.
        first, last = (left, right) if narrower else (math.floor(left), math.ceil(right))
        upper, under = (top, bottom) if lower else (math.floor(top), math.ceil(bottom))
        smaller = (size[0] if narrower else int(last - first), size[1] if lower else int(under - upper))
        profile = image.info.get("icc_profile")
        image = _shrunk(image, smaller, (first, upper, last, under))
        image.info = {"icc_profile": profile} if profile else {}
        left, right = (0, size[0]) if narrower else (left - first, right - first)
        top, bottom = (0, size[1]) if lower else (top - upper, bottom - upper)
    if image.size == size and (left, top, right, bottom) == (0, 0, *size):
        return image
    return image.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def _shrunk(image: Image.Image, size: Size, box: Part) -> Image.Image:
    to_light, to_bytes = _curves()
    planes = np.empty((size[1], size[0], len(image.getbands())), np.uint8)
    cover = image.getchannel("A") if image.mode == "RGBA" else None
    shown = None
    if cover is not None:
        shown = _resized(cover, size, box, [value / 255 for value in range(256)])
        planes[..., 3] = np.rint(np.clip(_held(*shown), 0, 1) * 255)
    for channel in range(3):  # one by one: all three would be three times the memory
        sharp, soft = _resized(image.getchannel(channel), size, box, to_light, cover=cover)
        if shown is not None:
            sharp, soft = (np.where(part > _LEAST_COVER, light / np.maximum(part, _LEAST_COVER), np.float32(np.nan))
                           for light, part in ((sharp, shown[0]), (soft, shown[1])))  # fmt: skip
        light = np.nan_to_num(_held(sharp, soft), nan=0.0)
        planes[..., channel] = to_bytes[np.rint(np.clip(light, 0, 1) * 65_535).astype(np.uint16)]
    return Image.fromarray(planes)


def _resized(
    channel: Image.Image, size: Size, box: Part, curve: list[float], *, cover: Image.Image | None = None
) -> tuple[Plane, Plane]:
    """The part of a channel of bytes in another size, by Lanczos and as plain averages; each byte is read by the `curve`.

    With `cover`, its alpha, each pixel is multiplied by that.
    """
    left, top, right, bottom = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    across = max(1, int((box[2] - box[0]) / size[0] / _GAP))
    down = max(1, int((box[3] - box[1]) / size[1] / _GAP))
    plane = Image.new("F", (-(-(right - left) // across), -(-(bottom - top) // down)))
    rows = max(1, _ROWS // down) * down
    for start in range(top, bottom, rows):
        band = (left, start, right, min(start + rows, bottom))
        light = channel.crop(band).point(curve, "F")
        if cover is not None:
            light = Image.fromarray(np.asarray(light) * (np.asarray(cover.crop(band), np.float32) / np.float32(255)))
        plane.paste(light if across == down == 1 else light.reduce((across, down)), (0, (start - top) // down))
    part = ((box[0] - left) / across, (box[1] - top) / down, (box[2] - left) / across, (box[3] - top) / down)
    sharp, soft = (
        np.asarray(plane.resize(size, method, box=part), np.float32)
        for method in (Image.Resampling.LANCZOS, Image.Resampling.BOX)
    )
    return sharp, soft


def _held(sharp: Plane, soft: Plane) -> Plane:
    """Limits `sharp` to the least and the largest value of `soft` there and beside it; NaN counts for nothing."""
    return np.fmax(np.fmin(sharp, -_least(-soft)), _least(soft))


def _least(plane: Plane) -> Plane:
    """The least of each pixel and the eight around it."""
    beside = np.pad(plane, 1, mode="edge")
    rows = np.fmin(np.fmin(beside[:-2], beside[1:-1]), beside[2:])
    return np.fmin(np.fmin(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


@cache
def _curves() -> tuple[list[float], NDArray[np.uint8]]:
    """sRGB to light, and back from 16 bits of light (IEC 61966-2-1)."""
    encoded_values, light = np.arange(256) / 255, np.arange(65_536) / 65_535
    to_light = np.where(encoded_values <= 0.04045, encoded_values / 12.92, ((encoded_values + 0.055) / 1.055) ** 2.4)
    to_bytes = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return [float(value) for value in to_light], np.rint(to_bytes * 255).astype(np.uint8)
