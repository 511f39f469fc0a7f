"""Tells whether an edit changed anything that one can see: models sometimes give back what was there."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from nanobanana_mcp.pixels.edits.masks import Weight
from nanobanana_mcp.pixels.files.clean import DECODES, decode, eight_bit, upright
from nanobanana_mcp.pixels.files.header import read_header

_SEEN = 6.0  # 8-bit levels, mean over a cell of smoothed pixels: a redraw of the same stays at 1 to 4
_CELLS = 16  # along the longer side of what is looked at
_LOOKED_AT = 256  # px of the longer side at which whole pictures are compared


def visibly_changed(reference: Image.Image, answer: Image.Image, weight: Weight) -> bool:
    """Whether an aligned answer differs inside the region by more than a redraw of the same does outside of it.

    `weight` is the region's in the crop that both show, height x width, 0 outside.
    """
    apart = _apart(reference, answer)
    rows, columns = np.nonzero(weight >= 128)
    if not rows.size:
        return True
    within = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    inside = _cells(apart[within], weight[within] >= 128)
    outside = _cells(apart, weight == 0)
    noise = float(np.percentile(outside, 95)) if outside.size else 0.0
    return not inside.size or float(inside.max()) > max(_SEEN, 1.5 * noise)


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
    apart = _apart(first, second.resize(first.size, Image.Resampling.BOX))
    return float(_cells(apart, np.ones(apart.shape, bool)).max()) <= _SEEN


def _small(data: bytes) -> Image.Image:
    """RGBA where a pixel is not opaque."""
    header = read_header(data)
    image = upright(eight_bit(decode(data, header, at_least=2 * _LOOKED_AT), header), header)
    image.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX)
    return image


def _apart(first: Image.Image, second: Image.Image) -> NDArray[np.uint8]:
    """The largest difference of R, G and B at each pixel, 8-bit levels; whole numbers, since a crop may have 24 megapixels."""
    smooth = [
        (image if image.mode == "RGB" else image.convert("RGB")).filter(ImageFilter.BoxBlur(2))
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
