"""Tells what an edit changed, if anything: models sometimes give back what was there, or change something beside it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from nanobanana_mcp.pixels.edits.levels import box_sum, slope
from nanobanana_mcp.pixels.edits.masks import Weight
from nanobanana_mcp.pixels.files.clean import DECODES, decode, eight_bit, upright, with_its_end
from nanobanana_mcp.pixels.files.decoding import Box
from nanobanana_mcp.pixels.files.header import memory_for, read_header

_SEEN = 6.0  # 8-bit levels, mean over a cell of smoothed pixels: a redraw of the same stays at 1 to 4
_CELLS = 16  # along the longer side of what is looked at
_FINE = 96  # the same where it is asked which parts changed
_LOOKED_AT = 256  # px of the longer side at which whole pictures are compared
_LEAST = 8.0  # 8-bit levels from which on a smoothed pixel counts as changed where a redraw leaves no more
_UNCHANGED = 0.03  # share of the region up to which it came back as it was; real edits were measured from 0.14 on
_CLEAR = 0.1  # share from which on there is no doubt
_EDGE = 0.06  # of the shorter side
_BESIDE = 6  # fine cells that a change beside the region has at least

Told = Literal["yes", "little", "no"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """The parts of a picture that an aligned answer changed. `share` is of the region's pixels; boxes are in px of the
    pictures compared.

    `told` "little" is what could be a small edit, such as a bird taken out of the sky, or a redraw of the same. `reached` is
    the box of all changes that touch the region, `beside` that of the largest one that does not; None where there is none.
    """

    share: float
    told: Told
    reached: Box | None = None
    beside: Box | None = None

    @property
    def plain(self) -> bool:
        """True when so much changed that the change itself can be told from what a redraw does."""
        return self.share > _UNCHANGED


def compared(reference: Image.Image, answer: Image.Image, weight: Weight) -> Change:
    """Finds where an aligned answer differs from what it stands for, by more than a redraw of the same does outside the
    region.

    `weight` is the region's in the crop that both show, height x width, 0 outside. A smoothed pixel may differ by as much
    as the picture does from one pixel to the next but one, since no alignment is exact. Along the crop's edges an answer that
    was moved shows nothing, so they do not tell what a redraw does.
    """
    apart = np.asarray(furthest_apart(reference, answer), np.int16)
    smooth = np.asarray(reference.convert("L").filter(ImageFilter.BoxBlur(2)), np.int16)
    beyond = np.maximum(apart - slope(smooth), 0)
    inside, outside = weight >= 128, np.zeros(weight.shape, bool)
    edge = max(6, round(_EDGE * min(weight.shape)))
    outside[edge:-edge, edge:-edge] = weight[edge:-edge, edge:-edge] == 0
    if not inside.any():
        return Change(share=1.0, told="yes")
    usual = float(np.percentile(beyond[outside], 75)) if outside.any() else 0.0
    changed = beyond > max(_LEAST, 4 + 2.5 * usual)
    share = float(changed[inside].mean())
    reached, beside = _parts(changed, weight > 0)
    told: Told = "yes" if share >= _CLEAR else "little"
    if share <= _UNCHANGED and not _has_a_spot(beyond, inside, outside):
        told = "no"
    return Change(share=share, told=told, reached=reached, beside=beside)


def _has_a_spot(beyond: NDArray[np.int16], inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> bool:
    """Tells whether something small stands out inside as nothing does outside: 9 x 9 pixels of one change."""
    spots = box_sum(beyond, 4) / 81
    usual = float(np.percentile(spots[outside], 99.5)) if outside.any() else 0.0
    return float(spots[inside].max()) > max(_SEEN, 1.6 * usual)


def _parts(changed: NDArray[np.bool_], region: NDArray[np.bool_]) -> tuple[Box | None, Box | None]:
    """The boxes of what changed in touch with the region, and of the largest change elsewhere."""
    height, width = changed.shape
    cell = max(4, max(changed.shape) // _FINE)
    rows, columns = -(-height // cell), -(-width // cell)

    def shares(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
        wide = np.pad(plane, ((0, rows * cell - height), (0, columns * cell - width)))
        return np.asarray(wide.reshape(rows, cell, columns, cell).mean(axis=(1, 3)), np.float64)

    strong, within = shares(changed) >= 0.3, shares(region) > 0
    labels = np.where(strong, np.arange(1, strong.size + 1).reshape(strong.shape), 0)
    while True:  # the highest number of each group of cells that touch spreads over all of it
        wide = np.pad(labels, 1)
        around = [wide[down : down + rows, across : across + columns] for down in range(3) for across in range(3)]
        spread = np.where(strong, np.maximum.reduce(around), 0)
        if (spread == labels).all():
            break
        labels = spread
    touching = np.isin(labels, np.unique(labels[within & strong])) & strong
    names, counts = np.unique(labels[strong & ~touching], return_counts=True)
    largest = labels == names[counts.argmax()] if counts.size and counts.max() >= _BESIDE else np.zeros_like(strong)

    def box(cells: NDArray[np.bool_]) -> Box | None:
        if not cells.any():
            return None
        down, across = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
        right, bottom = min(width, (int(across[-1]) + 1) * cell), min(height, (int(down[-1]) + 1) * cell)
        return int(across[0]) * cell, int(down[0]) * cell, right, bottom

    return box(touching), box(largest)


def became(before: bytes, after: bytes) -> list[str]:
    """Notes on an edit of a whole picture: that nothing changed, or that its transparency is gone."""
    with DECODES:
        first, second = (_small(data) for data in (before, after))
    notes = []
    if _alike(first, second):
        notes.append(
            "Nothing visibly changed: the model gave the picture back as it was. Say more plainly what is to be different."
        )
    if first.mode == "RGBA" and second.mode != "RGBA":
        notes.append(
            "The picture had transparent parts and the answer has none: models draw no transparency. remove_background makes it."
        )
    return notes


def _alike(first: Image.Image, second: Image.Image) -> bool:
    if abs(first.width / first.height - second.width / second.height) > 0.02 * first.width / first.height:
        return False
    apart = furthest_apart(first, second.resize(first.size, Image.Resampling.BOX))
    return float(_cells(apart, np.ones(apart.shape, bool)).max()) <= _SEEN


def _small(data: bytes) -> Image.Image:
    """RGBA where a pixel is not opaque."""
    header = read_header(data)
    with memory_for(header):
        image = decode(with_its_end(data, header), header, at_least=2 * _LOOKED_AT)
        image = upright(eight_bit(image, header), header)
    image.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX)
    return image


def furthest_apart(first: Image.Image, second: Image.Image, radius: int = 2) -> NDArray[np.uint8]:
    """The largest difference of R, G and B at each pixel once both are smoothed over `radius` px all round, 8-bit levels;
    whole numbers, since a crop may have 24 megapixels.
    """
    smooth = [
        (image if image.mode == "RGB" else image.convert("RGB")).filter(ImageFilter.BoxBlur(radius))
        for image in (first, second)
    ]
    red, green, blue = ImageChops.difference(*smooth).split()
    return np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))


def _cells(values: NDArray[np.uint8], counted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The mean of each cell that is at least a quarter counted."""
    cell = max(4, max(values.shape) // _CELLS)
    starts = (np.arange(0, values.shape[0], cell), np.arange(0, values.shape[1], cell))

    def summed(plane: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.int64]:
        # Band by band: reduceat would turn the whole plane into eight bytes a pixel first.
        bands = np.stack([plane[top : top + cell].sum(axis=0, dtype=np.int64) for top in starts[0]])
        return np.asarray(np.add.reduceat(bands, starts[1], axis=1), np.int64)

    sums, counts = summed(np.where(counted, values, np.uint8(0))), summed(counted)
    told = counts * 4 >= counts.max()
    return np.asarray(sums[told] / np.maximum(counts[told], 1), np.float32)
