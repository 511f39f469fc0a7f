"""Says which pixels of a picture may change, how strongly, and which crop around them is shown to the model.

Boxes are (left, top, right, bottom) in pixels, right and bottom just outside. A weight is 0 (stays the source's) to
255 (becomes the answer's) and is kept as bytes within the region's bounding box only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.mask_files import read_mask
from nanobanana_mcp.pixels.files.decoding import Box, Size

Weight = NDArray[np.uint8]

_REACH = 96  # px that distances are computed exactly for; larger ones are measured on a reduced mask
_FAINT = 64  # weight that does not grow; above it, the part that does rises evenly to 255
_LONGEST = 1024  # px that a region may grow or feather


@dataclass(frozen=True, kw_only=True)
class Region:
    """The pixels of a picture that may change. `weight` is height x width bytes within `box`; outside `box` it is 0.
    `notes` say how a mask was read.
    """

    size: Size
    box: Box
    weight: Weight
    notes: tuple[str, ...] = ()

    def within(self, box: Box) -> Weight:
        """The weights in another box of the same picture, height x width; zero where the region does not reach."""
        left, top, right, bottom = box
        answer = np.zeros((bottom - top, right - left), np.uint8)
        shared = overlap(self.box, box)
        if shared is None:
            return answer
        answer[shared[1] - top : shared[3] - top, shared[0] - left : shared[2] - left] = self.weight[
            shared[1] - self.box[1] : shared[3] - self.box[1], shared[0] - self.box[0] : shared[2] - self.box[0]
        ]
        return answer

    @property
    def share(self) -> float:
        """Part of the picture that may change at all, 0 to 1."""
        return float(np.count_nonzero(self.weight)) / (self.size[0] * self.size[1])


@dataclass(frozen=True, kw_only=True)
class Context:
    """The crop to send. `ratio` names the shape to ask for; `distortion` is how far the crop is from it (0.01: 1 %)."""

    box: Box
    ratio: str
    distortion: float


def overlap(one: Box, other: Box) -> Box | None:
    """The box both share, or None."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def pixel_box(box: Sequence[float], *, size: Size, name: str = "box") -> Box:
    """Whole pixels of a box that is given in pixels, or in fractions of the picture when all four numbers are <= 1.

    A pixel that is touched belongs to it. Raises RequestError for a box that is empty, reversed, not finite, outside, or
    of both kinds of numbers: [0.1, 0.1, 300, 300] could mean two regions.
    """
    if len(box) != 4:
        raise RequestError(f"{name} needs four numbers, left, top, right, bottom; it has {len(box)}.")
    if not all(math.isfinite(value) for value in box):
        raise RequestError(f"{name} {_plain(box)} has a number that is not finite; give left, top, right, bottom.")
    width, height = size
    fractions = all(value <= 1 for value in box)
    if not fractions and any(0 < value < 1 for value in box):
        raise RequestError(
            f"{name} {_plain(box)} mixes fractions and pixels; give all four in pixels of the {width}x{height} picture, or all "
            "four as fractions of it, 0 to 1."
        )
    left, top, right, bottom = (
        value * scale for value, scale in zip(box, (width, height) * 2 if fractions else (1, 1) * 2, strict=True)
    )
    unit = "fractions of the picture, 0 to 1" if fractions else f"pixels of a {width}x{height} picture"
    if left >= right or top >= bottom:
        raise RequestError(f"{name} {_plain(box)} is empty or reversed; left < right, top < bottom is needed ({unit}).")
    if left < 0 or top < 0 or right > width or bottom > height:
        raise RequestError(f"{name} {_plain(box)} reaches outside the picture (read as {unit}); correct the numbers.")
    slack = 1e-6  # 0.3 * 10 must be 3, not 4, when rounded up
    found = (math.floor(left + slack), math.floor(top + slack), math.ceil(right - slack), math.ceil(bottom - slack))
    if found[0] >= found[2] or found[1] >= found[3]:
        raise RequestError(f"{name} {_plain(box)} has no whole pixel in it; give a larger one ({unit}).")
    return found


def _plain(box: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in box)}]"


def region_from_box(box: Sequence[float], *, size: Size, grow: int = 0, feather: int = 0) -> Region:
    """A rectangle of a picture of `size`; the box is read as in `pixel_box`, grow and feather as in `grown`."""
    left, top, right, bottom = pixel_box(box, size=size)
    width, height = right - left, bottom - top
    # The middle of a long side is the same all along, so it is made once and repeated. Beyond _REACH distances are
    # measured on blocks, which lie differently in another length.
    far = max(grow, feather + 1, 1)
    least = 4 * far + 4 if far <= _REACH else max(width, height)
    wide, high = min(width, least), min(height, least)
    weight = np.full((high, wide), 255, np.uint8)
    short = Region(
        size=(size[0] - width + wide, size[1] - height + high), box=(left, top, left + wide, top + high), weight=weight
    )
    found = grown(short, grow=grow, feather=feather)
    weight = found.weight
    for axis, (middle, more) in enumerate(
        ((top + high // 2 - found.box[1], height - high), (left + wide // 2 - found.box[0], width - wide))
    ):
        times = np.ones(weight.shape[axis], int)
        times[middle] += more
        weight = np.repeat(weight, times, axis)
    reached = (*found.box[:2], found.box[2] + width - wide, found.box[3] + height - high)
    return Region(size=size, box=reached, weight=weight)


def region_from_mask(data: bytes, *, source: Image.Image, grow: int = 0, feather: int = 0) -> Region:
    """A mask file's region of a decoded picture: white may change, greys count as soft weights; see `mask_files`.

    Raises RequestError for a mask without any white or one that could mean two things, NotAnImage for bytes that are no
    picture.
    """
    mask = read_mask(data, source)
    plane, size = mask.plane, source.size
    # 16 levels at both ends are JPEG noise; the rest is spread out, since a jump there would be a line in a slope.
    weight = np.asarray(plane.point([min(255, max(0, round((level - 15) * 255 / 224))) for level in range(256)]))
    rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
    if not rows.size:
        raise RequestError(
            "The mask has no white in it, so nothing may change. Nothing was sent. Paint the part to edit white."
        )
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    weight = np.ascontiguousarray(weight[box[1] : box[3], box[0] : box[2]])
    region = Region(size=size, box=box, weight=weight)
    strength = float(weight[weight > 0].mean()) / 255
    fully = "fully" if strength > 0.95 else f"at {strength:.0%} strength on average"
    share = f"{region.share:.0%}" if region.share >= 0.01 else "less than 1%"
    notes = (*mask.notes, f"The mask covers {share} of the picture, {fully}.")
    return grown(replace(region, notes=notes), grow=grow, feather=feather)


def grown(region: Region, *, grow: int, feather: int) -> Region:
    """The region widened by `grow` px all round, its edge then softened over `feather` px *inside* the widened one.

    Weights spread over the disc around them and the highest counts, so that a slope moves outwards and stays one.
    So the weight outside the grown region is exactly 0; with grow >= feather the region itself keeps its full weight.
    An edge that is the picture's own is not softened. A part thinner than the feather is softened less, so that its
    middle stays full.
    """
    if not (0 <= grow <= _LONGEST and 0 <= feather <= _LONGEST):
        raise RequestError(f"grow and feather are 0 to {_LONGEST} px; they are {grow} and {feather}.")
    if grow == 0 and feather == 0:
        return region
    (width, height), (left, top, right, bottom) = region.size, region.box
    box = (max(left - grow, 0), max(top - grow, 0), min(right + grow, width), min(bottom + grow, height))
    weight = region.within(box)
    if grow:
        # Faint weights stay where they are: around a hard edge they are what JPEG left there.
        grows = np.array([max(0, round((level - _FAINT) * 255 / (255 - _FAINT))) for level in range(256)], np.uint8)
        weight = np.maximum(weight, _dilated(grows[weight], grow))
    if feather:
        edges = ((int(box[1] > 0), int(box[3] < height)), (int(box[0] > 0), int(box[2] < width)))
        depth = distance(np.pad(weight == 0, edges, constant_values=True), limit=feather + 1)
        depth = depth[edges[0][0] : depth.shape[0] - edges[0][1], edges[1][0] : depth.shape[1] - edges[1][1]]
        ramp = depth / np.float32(min(float(depth.max()), feather + 1))
        ramp = np.minimum(ramp, 1)
        ramp = ramp * ramp * (3 - 2 * ramp)  # smoothstep: no visible line where the ramp begins or ends
        weight = (weight * ramp + np.float32(0.5)).astype(np.uint8)
        if grow >= feather:
            weight = np.maximum(weight, region.within(box))
    return replace(region, box=box, weight=weight)


def context_box(
    box: Box, *, size: Size, ratios: Mapping[str, Size], context: float = 0.5, minimum: int = 512
) -> Context:
    """The crop around `box` that the model is shown, in one of the shapes it can answer in, never beyond the picture.

    `ratios` gives for each name the pixels the model really answers with (16:9 is 1376x768). `context` is added on
    each side, as a part of the box's longer side; neither side is below `minimum` px where the picture allows. Context
    is given up before shape: a distortion above 1 % is left only where no shape fits into the picture around the box.
    """
    if not ratios:
        raise RequestError("No aspect ratio to choose from was given.")
    width, height = size
    longer = max(box[2] - box[0], box[3] - box[1])
    tries: list[Context] = []
    for part in (context, context / 2, context / 4, 0.0):
        margin = round(longer * part)
        wide = max(min(width, box[2] + margin) - max(0, box[0] - margin), min(minimum, width))
        high = max(min(height, box[3] + margin) - max(0, box[1] - margin), min(minimum, height))
        found = sorted((_shaped(box, wide, high, size, name, shape) for name, shape in ratios.items()), key=_rank)
        if found[0].distortion <= 0.01:
            return found[0]
        tries.append(found[0])
    return min(tries, key=lambda one: one.distortion)


def _rank(context: Context) -> tuple[float, int]:
    left, top, right, bottom = context.box
    return max(0.01, context.distortion), (right - left) * (bottom - top)


def _shaped(box: Box, wide: int, high: int, size: Size, name: str, shape: Size) -> Context:
    wanted = shape[0] / shape[1]
    across, down = max(wide, round(high * wanted)), max(high, round(wide / wanted))
    across, down = min(across, size[0]), min(down, size[1])
    left = min(max(0, (box[0] + box[2] - across) // 2), size[0] - across)
    top = min(max(0, (box[1] + box[3] - down) // 2), size[1] - down)
    distortion = abs(math.log(across / down / wanted))
    return Context(box=(left, top, left + across, top + down), ratio=name, distortion=distortion)


def distance(inside: NDArray[np.bool_], *, limit: int) -> NDArray[np.float32]:
    """Euclidean distance in px to the nearest pixel of `inside`, exact up to `limit`, and limit + 1 or more beyond.

    Columns first, then the lower envelope of parabolas over rows (Felzenszwalb and Huttenlocher 2012, the plain form).
    """
    step = -(-limit // _REACH)
    if step > 1:
        reduced = distance(_any_of_blocks(inside, step), limit=-(-limit // step) + 1) * step
        size = (inside.shape[1], inside.shape[0])
        smooth = np.asarray(Image.fromarray(reduced).resize(size, Image.Resampling.BILINEAR))
        return np.where(inside, np.float32(0), np.maximum(smooth, np.float32(1)))
    cap = limit + 1
    height, width = inside.shape
    column = np.full((height, width), cap, np.uint16)
    column[inside] = 0
    for row in range(1, height):
        np.minimum(column[row], column[row - 1] + 1, out=column[row])
    for row in range(height - 2, -1, -1):
        np.minimum(column[row], column[row + 1] + 1, out=column[row])
    np.minimum(column, cap, out=column)
    column *= column
    nearest = column.copy()
    for across in range(1, min(limit, width - 1) + 1):
        square = np.uint16(across * across)
        np.minimum(nearest[:, across:], column[:, :-across] + square, out=nearest[:, across:])
        np.minimum(nearest[:, :-across], column[:, across:] + square, out=nearest[:, :-across])
    return np.sqrt(nearest, dtype=np.float32)


def _dilated(weight: Weight, radius: int) -> Weight:
    """The highest weight within `radius` px of each pixel: exact up to _REACH, measured on reduced weights beyond.

    A disc is rows of pixels, and the highest of a row is that of two overlapping powers of two (van Herk's idea).
    """
    if ((weight == 0) | (weight == 255)).all():
        return np.where(distance(weight > 0, limit=radius) <= radius, np.uint8(255), np.uint8(0))
    height, width = weight.shape
    step = -(-radius // _REACH)
    if step > 1:
        padded = np.pad(weight, ((0, -height % step), (0, -width % step)))
        small = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).max(axis=(1, 3))
        smooth = Image.fromarray(_dilated(small, radius // step)).resize((width, height), Image.Resampling.BILINEAR)
        near = distance(weight > 0, limit=radius) <= radius
        return np.maximum(weight, np.where(near, np.asarray(smooth), np.uint8(0)))
    highest = [np.pad(weight, ((0, 0), (radius, radius)))]  # of 1, 2, 4, ... pixels to the right
    while 2 ** len(highest) <= 2 * radius + 1:
        last, half = highest[-1], 2 ** (len(highest) - 1)
        highest.append(np.maximum(last[:, :-half], last[:, half:]))
    answer = np.zeros_like(weight)
    for down in range(min(radius, height - 1) + 1):
        reach = math.isqrt(radius * radius - down * down)
        power = (2 * reach + 1).bit_length() - 1
        first, last = radius - reach, radius + reach + 1 - 2**power
        row = np.maximum(highest[power][:, first : first + width], highest[power][:, last : last + width])
        np.maximum(answer[down:], row[: height - down], out=answer[down:])
        np.maximum(answer[: height - down], row[down:], out=answer[: height - down])
    return answer


def _any_of_blocks(inside: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    height, width = inside.shape
    padded = np.pad(inside, ((0, -height % step), (0, -width % step)))
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    return np.asarray(blocks.any(axis=(1, 3)), bool)
