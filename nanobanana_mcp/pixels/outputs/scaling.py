"""Scales pictures: shrinks them in linear light, enlarges them as they are encoded, and draws no rings around edges.

A sharp filter swings below the dark side of an edge. In linear light that is far below in what one sees: black outlines
around light letters. So what Lanczos makes of a pixel is held within the averages of the pixels beside it. Whole blocks
are averaged first where much is left out, as Pillow's `reducing_gap` does, and the result is made a strip at a time, so
that no more than some rows are held as light: the memory and the time of a large photograph are then near those of
Pillow's own resizing.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.files.decoding import Size

Plane = NDArray[np.float32]
Part = tuple[float, float, float, float]
_Pair = tuple[Plane, Plane]

_GAP = 1.5
"""Times the size wanted that averaging leaves to Lanczos at least: 0.6 levels from Lanczos alone on photographs (mean)."""
_REACH = 3  # of Lanczos to either side, in pixels of the result
_STRIP = 128  # rows of the result that are made at once; a strip reads `_REACH` rows of its neighbours again
_ROWS = 32  # of the source that are turned to light at once, about: they stay in the cache of a processor
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
    to_bytes = _curves()[1]
    made = np.empty((size[1], size[0], len(image.getbands())), np.uint8)
    for first in range(0, size[1], _STRIP):
        rows = (first, min(first + _STRIP, size[1]))
        strip = made[first : rows[1]]
        lights, covers = _resized(image, size, box, rows)
        if covers is not None:
            strip[..., 3] = np.rint(np.clip(_held(*covers), 0, 1) * 255)
        for channel, (sharp, soft) in enumerate(lights):
            if covers is None:
                light = _held(sharp, soft)  # within averages of what lies between 0 and 1
            else:
                sharp, soft = (np.where(part > _LEAST_COVER, shown / np.maximum(part, _LEAST_COVER), np.float32(np.nan))
                               for shown, part in ((sharp, covers[0]), (soft, covers[1])))  # fmt: skip
                light = np.clip(np.nan_to_num(_held(sharp, soft), copy=False, nan=0.0), 0, 1)
            strip[..., channel] = to_bytes[np.asarray(light * np.float32(65_535) + np.float32(0.5), np.uint16)]
    return Image.fromarray(made)


def _resized(image: Image.Image, size: Size, box: Part, rows: tuple[int, int]) -> tuple[list[_Pair], _Pair | None]:
    """Rows of the light of red, green and blue in another size, each multiplied by its alpha, and of that alpha.

    Each by Lanczos, and as plain averages, which have one pixel more on all sides.
    """
    left, top, right, bottom = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    across = max(1, int((box[2] - box[0]) / size[0] / _GAP))
    down = max(1, int((box[3] - box[1]) / size[1] / _GAP))
    # From here on in rows of the averaged picture: where the result begins, how many make one of its rows, what is read.
    begins, scale = (box[1] - top) / down, (box[3] - box[1]) / size[1] / down
    upper = max(0, math.floor(begins + (rows[0] - _REACH) * scale))
    lower = min(-(-(bottom - top) // down), math.ceil(begins + (rows[1] + _REACH) * scale))
    planes = [Image.new("F", (-(-(right - left) // across), lower - upper)) for _ in image.getbands()]
    first, last = top + upper * down, min(bottom, top + lower * down)
    step = max(1, _ROWS // down) * down
    for start in range(first, last, step):
        lights = _lights(image.crop((left, start, right, min(start + step, last))))
        for plane, light in zip(planes, lights, strict=True):
            plane.paste(light if across == down == 1 else light.reduce((across, down)), (0, (start - first) // down))

    def resized(plane: Image.Image, method: Image.Resampling, first: int, last: int) -> Plane:
        part = (
            (box[0] - left) / across,
            max(0.0, begins + first * scale - upper),
            (box[2] - left) / across,
            min(float(plane.height), begins + last * scale - upper),
        )
        return np.asarray(plane.resize((size[0], last - first), method, box=part), np.float32)

    beside = max(0, rows[0] - 1), min(size[1], rows[1] + 1)
    margins = ((int(beside[0] == rows[0]), int(beside[1] == rows[1])), (1, 1))
    pairs = [
        (
            resized(plane, Image.Resampling.LANCZOS, *rows),
            np.pad(resized(plane, Image.Resampling.BOX, *beside), margins, mode="edge"),
        )
        for plane in planes
    ]
    return pairs[:3], pairs[3] if len(pairs) == 4 else None


def _lights(image: Image.Image) -> list[Image.Image]:
    """Red, green and blue as light from 0 to 1, multiplied by alpha where there is one, and that."""
    to_light = _curves()[0]
    lights = [channel.point(to_light, "F") for channel in image.split()[:3]]
    if image.mode != "RGBA":
        return lights
    cover = np.asarray(image.getchannel("A"), np.float32) / np.float32(255)
    return [Image.fromarray(plane) for plane in (*(np.asarray(light) * cover for light in lights), cover)]


def _held(sharp: Plane, soft: Plane) -> Plane:
    """Limits `sharp` to the least and the largest value of `soft` there and beside it; NaN counts for nothing."""
    return np.fmax(np.fmin(sharp, -_least(-soft)), _least(soft))


def _least(plane: Plane) -> Plane:
    """The least of each pixel and the eight around it, for all but those at the edges."""
    rows = np.fmin(np.fmin(plane[:-2], plane[1:-1]), plane[2:])
    return np.fmin(np.fmin(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


@cache
def _curves() -> tuple[list[float], NDArray[np.uint8]]:
    """sRGB to light, and back from 16 bits of light (IEC 61966-2-1)."""
    encoded_values, light = np.arange(256) / 255, np.arange(65_536) / 65_535
    to_light = np.where(encoded_values <= 0.04045, encoded_values / 12.92, ((encoded_values + 0.055) / 1.055) ** 2.4)
    to_bytes = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return [float(value) for value in to_light], np.rint(to_bytes * 255).astype(np.uint8)
