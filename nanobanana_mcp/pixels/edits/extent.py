"""Finds the part of a region that an edit really changed, so that the rest of the region can stay the source's.

A model redraws all of what it is shown, and most edits need far less: a hat needs no new wall behind it. What is left out
wrongly is a worse fault than what is pasted needlessly, so each way in which an edit can be faint has a measure of its own,
held against what the redraw does outside the region, and whatever stands out in one of them is pasted with a wide margin.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nanobanana_mcp.pixels.edits.alignment import rgb
from nanobanana_mcp.pixels.edits.change import furthest_apart
from nanobanana_mcp.pixels.edits.levels import box_sum, mean_of, slope
from nanobanana_mcp.pixels.edits.masks import Weight, distance
from nanobanana_mcp.pixels.edits.threads import both

Plane = NDArray[np.float32]

_CELL = 4  # px
_MARGIN, _SOFT = 0.02, 0.02  # of the crop's longer side, around what changed and of its soft edge
_LEAST_PX = 10
_OUTSIDE = 6000  # pixels outside by which a redraw is known well enough
_GAIN = 0.1  # share of the region that has to be left out for it to be worth while
_EDGE = 0.06  # of the shorter side, along which an answer that was moved shows nothing
_USUAL = 99.0  # percentile of what a redraw does outside that is still taken for a redraw
_CLEARLY = 1.5  # times that, from where on it is a change without a doubt


def extent(reference: Image.Image, answer: Image.Image, weight: Weight) -> Weight | None:
    """Tells how much of an aligned answer is wanted at each pixel, 0 to 255, in the size of both; None for all of the region.

    Measured are the colour of patches of three sizes (an object, a soft shadow, a tint of a whole sky), how alike
    neighbouring pixels are (writing on rough paper), and how much detail there is (what was sharpened or smoothed).
    A doubtful cell counts where it is connected to a clear one; where there is too little outside to tell a redraw from a
    change, all is wanted.
    """
    inside, outside = weight > 0, np.zeros(weight.shape, bool)
    edge = max(6, round(_EDGE * min(weight.shape)))
    outside[edge:-edge, edge:-edge] = weight[edge:-edge, edge:-edge] == 0
    if outside.sum() < _OUTSIDE:
        return None
    doubtful, clear = np.zeros(weight.shape, bool), np.zeros(weight.shape, bool)
    for plane, floor in _measures(reference, answer):
        usual = max(floor, float(np.percentile(plane[outside], _USUAL)))
        doubtful |= plane > usual
        clear |= plane > _CLEARLY * usual
    doubtful, clear = _in_cells(doubtful & inside), _in_cells(clear & inside)
    if not clear.any():
        return None
    wanted = _connected(doubtful, clear)
    longest = max(weight.shape)
    margin, soft = (max(_LEAST_PX, part * longest) / _CELL for part in (_MARGIN, _SOFT))
    away = distance(wanted, limit=int(np.ceil(margin + soft)) + 1)
    ramp = np.clip((margin + soft - away) / soft, 0, 1).astype(np.float32)
    ramp = ramp * ramp * (3 - 2 * ramp)
    cells = Image.fromarray((255 * ramp + np.float32(0.5)).astype(np.uint8))
    size = (cells.width * _CELL, cells.height * _CELL)
    found = np.asarray(cells.resize(size, Image.Resampling.BILINEAR))[: weight.shape[0], : weight.shape[1]]
    if float((found[inside] == 0).mean()) < _GAIN:
        return None
    return found


def _measures(reference: Image.Image, answer: Image.Image) -> list[tuple[Plane, float]]:
    """The planes in which a change stands out, and the value of each below which nobody sees one."""
    reference, answer = rgb(reference), rgb(answer)

    def colours() -> list[tuple[Plane, float]]:
        planes = [np.asarray(furthest_apart(reference, answer, radius), np.float32) for radius in (2, 8, 24)]
        planes[0] = planes[0] - slope(mean_of(reference.filter(ImageFilter.BoxBlur(2))))
        return list(zip(planes, (6.0, 3.0, 2.0), strict=True))

    def details() -> list[tuple[Plane, float]]:
        bright = [mean_of(image) for image in (reference, answer)]
        detail = [_detail(plane) for plane in bright]
        unlike = _mean(np.abs(bright[0] - bright[1])) / (detail[0] + 3)
        ratio = np.abs(np.log((detail[1] + 2) / (detail[0] + 2)))
        return [(np.asarray(unlike, np.float32), 0.8), (np.asarray(ratio, np.float32), 0.3)]

    first, second = both(colours, details)
    return first + second


def _mean(plane: Plane) -> Plane:
    return box_sum(plane, 4) / np.float32(81)


def _detail(plane: Plane) -> Plane:
    """The mean distance of the pixels around from their own mean, 8-bit levels."""
    return _mean(np.abs(plane - _mean(plane)))


def _in_cells(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells of which a quarter is marked: single pixels are noise."""
    high, wide = -plane.shape[0] % _CELL, -plane.shape[1] % _CELL
    wider = np.pad(plane, ((0, high), (0, wide)))
    shape = (wider.shape[0] // _CELL, _CELL, wider.shape[1] // _CELL, _CELL)
    return np.asarray(wider.reshape(shape).mean(axis=(1, 3)) >= 0.25)


def _connected(doubtful: NDArray[np.bool_], clear: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The clear cells with all doubtful ones that lie in touch with them, over two cells between as well."""
    found, count = clear, 0
    while found.sum() > count:
        count = int(found.sum())
        found = found | (doubtful & (distance(found, limit=3) <= 3))
    return found
