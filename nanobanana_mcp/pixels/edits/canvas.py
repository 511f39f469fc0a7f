"""Widens a picture: how large the canvas is, which parts are asked for in which order, and how they are joined to it.

What a picture already has is never touched: each answer is aligned on what it shares with the picture and set in
beside it. At the join the answer takes on the colours of the picture: the difference along the edge is continued into
the new part and fades out there, which leaves no line and, unlike a cross-fade, no double image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.terms import MADE_PIXELS, MADE_SIDE
from nanobanana_mcp.pixels.edits.alignment import Drift, aligned, laid, restored
from nanobanana_mcp.pixels.edits.continuation import Edge, edge_along, left_unpainted
from nanobanana_mcp.pixels.edits.masks import distance, overlap
from nanobanana_mcp.pixels.edits.region import Seam, seam
from nanobanana_mcp.pixels.edits.warping import Plane, reaching
from nanobanana_mcp.pixels.files.decoding import Box, Size

Side = Literal["left", "top", "right", "bottom"]

_NARROW = 5
"""A strip longer than this many times its width (1:8, 8:1) is not asked for: models repeat panels in one, and so little is
known across it that one was laid 277 px beside its place."""
_GROWTH = 4.0  # a step makes the known part at most four times as large, so that the model sees what to continue
_WASTE = 0.6  # part of an answer, over what is needed, that may fall outside the canvas
_GREYS = (128, 216, 56)
"""The colour of the parts that are not painted yet runs out into the first of these that the picture's edge is not near
to: on a grey backdrop nobody could tell afterwards what was painted."""
_APART = 48  # levels from the mean colour along the edge


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A canvas of `size`, width x height, with the picture at `place`."""

    size: Size
    place: Box


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call: the crop `box` of the canvas is sent and `fills` is taken from the answer.

    `box` has the shape named `ratio` and may reach beyond the canvas. `known` are the parts of the canvas that are
    painted already; one touches the box.
    """

    box: Box
    ratio: str
    fills: Box
    known: tuple[Box, ...]

    @property
    def where(self) -> str:
        """Says which parts are painted already, in percent of the crop: models read places so."""
        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        named = []
        for box in self.known:
            shared = overlap(box, self.box)
            if shared is not None:
                left, right = (round(100 * (x - self.box[0]) / width, 1) for x in (shared[0], shared[2]))
                top, bottom = (round(100 * (y - self.box[1]) / height, 1) for y in (shared[1], shared[3]))
                named.append(
                    f"from {left:g}% to {right:g}% of the width and from {top:g}% to {bottom:g}% of the height"
                )
        return " and ".join(named)


@dataclass(frozen=True, kw_only=True)
class Painted:
    """The canvas after a step, with the drift of the answer and the join as `region.verdict` takes them.

    `left` is the part of what was to be painted that came back as it was sent, 0 to 1, and `edge` how far the join
    stands out as a line.
    """

    image: Image.Image
    drift: Drift
    seam: Seam
    left: float
    edge: Edge


def canvas_with_margins(size: Size, *, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> Canvas:
    """A canvas with so many px more on each side. Raises RequestError without any, for negative ones, and beyond the bounds."""
    if min(left, top, right, bottom) < 0:
        raise RequestError(
            f"Margins are 0 or more px; they are {(left, top, right, bottom)}. To take away, crop instead."
        )
    if max(left, top, right, bottom) == 0:
        raise RequestError("There is nothing to extend: every margin is 0. Give a margin, a ratio or a size.")
    width, height = size[0] + left + right, size[1] + top + bottom
    if max(width, height) > MADE_SIDE or width * height > MADE_PIXELS:
        raise RequestError(
            f"The canvas would have {width}x{height} px; at most {MADE_SIDE} px a side and "
            f"{MADE_PIXELS // 1_000_000} megapixels are made. Make the picture or the margins smaller."
        )
    return Canvas(size=(width, height), place=(left, top, left + size[0], top + size[1]))


def canvas_of_size(size: Size, wanted: Size, *, anchor: tuple[float, float] = (0.5, 0.5)) -> Canvas:
    """A canvas of exactly `wanted`; `anchor` is where the picture goes in the room to spare, 0 left or top to 1.

    Raises RequestError where the picture does not fit in: it is never scaled here.
    """
    spare = (wanted[0] - size[0], wanted[1] - size[1])
    if min(spare) < 0:
        raise RequestError(
            f"A picture of {size[0]}x{size[1]} does not fit into {wanted[0]}x{wanted[1]}; "
            "make it smaller first, or ask for a larger canvas."
        )
    if not all(0 <= part <= 1 for part in anchor):
        raise RequestError(f"The anchor is two numbers from 0 to 1; it is {anchor}.")
    left, top = round(spare[0] * anchor[0]), round(spare[1] * anchor[1])
    return canvas_with_margins(size, left=left, top=top, right=spare[0] - left, bottom=spare[1] - top)


def canvas_of_ratio(size: Size, ratio: tuple[float, float], *, anchor: tuple[float, float] = (0.5, 0.5)) -> Canvas:
    """The smallest canvas of this shape (16, 9) that holds the picture; sides are rounded to whole px."""
    if not all(math.isfinite(part) and part > 0 for part in ratio):
        raise RequestError(f"A ratio is two numbers above 0, such as 16 and 9; it is {ratio}.")
    width = max(size[0], round(size[1] * ratio[0] / ratio[1]))
    height = max(size[1], round(size[0] * ratio[1] / ratio[0]))
    return canvas_of_size(size, (width, height), anchor=anchor)


def planned(canvas: Canvas, *, ratios: Mapping[str, Size], enlarged: float = 1.25) -> tuple[Step, ...]:
    """The calls that fill the canvas, in order.

    `ratios` gives for each name the pixels the model answers with; an answer is blown up at most `enlarged` times. One
    call if it can be; else the known part grows all round, at most fourfold in area; and where an answer is too small
    for that, side after side in overlapping tiles.
    """
    if not ratios:
        raise RequestError("No aspect ratio to choose from was given.")
    whole = (0, 0, *canvas.size)
    known, steps = canvas.place, list[Step]()
    while known != whole:
        goal = _goal(known, whole)
        covering = _covering(goal, whole, ratios, enlarged)
        if covering is not None:
            steps.append(Step(box=covering[0], ratio=covering[1], fills=goal, known=(known,)))
            known = goal
            continue
        strip, tiles = _tiled(known, goal, ratios, enlarged)
        steps += tiles
        known = strip
    return tuple(steps)


def started(source: Image.Image, canvas: Canvas) -> Image.Image:
    """The canvas with the decoded source in its place and nothing else; keep it RGBA where the source is."""
    picture = Image.new(source.mode, canvas.size)
    picture.paste(source, canvas.place)
    if "icc_profile" in source.info:
        picture.info["icc_profile"] = source.info["icc_profile"]
    return picture


def padded(picture: Image.Image, step: Step) -> Image.Image:
    """The part of the canvas that the model is shown, RGB: where nothing is known, the edge's colours run out into plain grey.

    A blurred edge tells it what to go on from, and the grey that this part is not painted yet; a mirrored edge would
    be kept.
    """
    crop, known = _crop(picture, step)
    if known.all():
        return crop
    small, weight = _reduced(np.asarray(crop), known)
    # Grey all the way out, however narrow the margin: a few px of blurred edge alone would look like a picture.
    reach = max(8, min(weight.shape) // 4)
    far = distance(weight > 0.5, limit=reach)
    grey = np.clip(far / np.clip(far.max(), 1, reach), 0, 1)[..., None] * np.float32(0.6)
    plain = next((level for level in _GREYS if np.abs(_rim_mean(small, weight) - level).max() >= _APART), _GREYS[0])
    filled = _filled(small, weight) * (1 - grey) + plain * grey
    answer = Image.fromarray(np.rint(np.clip(filled, 0, 255)).astype(np.uint8)).resize(
        crop.size, Image.Resampling.BICUBIC
    )
    answer.paste(crop, mask=Image.fromarray(known))
    return answer


def painted(picture: Image.Image, answer: Image.Image, step: Step, *, feather: int = 48) -> Painted:
    """Sets the answer into the part of the canvas that the step fills; all that is known keeps its exact numbers.

    `answer` is of any size and in the canvas' colour profile. `feather` is how far, in px outside the known part, its
    colours are drawn to those at the edge. A new part of an RGBA canvas is opaque.
    """
    crop, known = _crop(picture, step)
    unknown = np.where(known, np.uint8(0), np.uint8(255))
    found = aligned(crop, answer.convert("RGB"), changed=unknown)
    band = np.where(known & (distance(~known, limit=5) > 5), np.uint8(0), np.uint8(255))
    join = seam(Image.composite(found.image, crop, Image.fromarray(unknown)), found.image, band)
    fills = overlap(step.fills, step.box)
    assert fills is not None
    near = np.clip(1 - distance(known, limit=feather) / np.float32(feather + 1), 0, 1)
    kept = Image.fromarray(known).getbbox() or (0, 0, *crop.size)
    to_edges = replace(found.drift, warp=reaching(found.drift.warp, crop.size, kept))
    whole_answer = (
        found.image if to_edges.warp is found.drift.warp else laid(answer.convert("RGB"), crop.size, to_edges)
    )
    patch = _pulled(crop, whole_answer, known, np.asarray(near, np.float32)).convert(picture.mode)
    as_came = restored(answer.convert("RGB"), crop.size, found.drift)
    left, top, _, _ = step.box
    known_boxes = tuple((box[0] - left, box[1] - top, box[2] - left, box[3] - top) for box in step.known)
    inner = (fills[0] - left, fills[1] - top, fills[2] - left, fills[3] - top)
    whole = picture.copy()
    whole.paste(patch.crop(inner), fills, Image.fromarray(unknown).crop(inner))
    return Painted(
        image=whole,
        drift=found.drift,
        seam=join,
        left=left_unpainted(padded(picture, step), (found.image, as_came), known, wanted=inner),
        edge=edge_along(found.image, crop, known, known_boxes),
    )


def _crop(picture: Image.Image, step: Step) -> tuple[Image.Image, NDArray[np.bool_]]:
    """The step's crop on white, RGB, and which of its pixels are known."""
    crop = picture.crop(step.box)
    if crop.mode == "RGBA":
        crop = Image.alpha_composite(Image.new("RGBA", crop.size, "white"), crop)
    known = np.zeros((crop.height, crop.width), bool)
    for box in step.known:
        shared = overlap(box, step.box)
        if shared is not None:
            left, top = step.box[0], step.box[1]
            known[shared[1] - top : shared[3] - top, shared[0] - left : shared[2] - left] = True
    return crop.convert("RGB"), known


def _rim_mean(small: Plane, weight: Plane) -> Plane:
    """The mean colour of what is known beside what is not."""
    rim = (weight > 0.5) & (distance(weight <= 0.5, limit=8) <= 8)
    return np.asarray(small[rim].mean(axis=0) if rim.any() else np.zeros(3), np.float32)


def _pulled(crop: Image.Image, answer: Image.Image, known: NDArray[np.bool_], near: Plane) -> Image.Image:
    """The answer plus what the picture differs from it along its edge, 12 px deep, continued smoothly and fading with `near`."""
    rim = known & (distance(~known, limit=12) <= 12)
    before, weight = _reduced(np.asarray(crop), rim)
    after, _ = _reduced(np.asarray(answer), rim)
    filled = _filled(before - after, weight)
    layers = [Image.fromarray(filled[..., channel]) for channel in range(3)]
    rows, height = weight.shape[0], crop.height
    pixels = np.asarray(answer).copy()
    for top in range(0, height, 256):  # in strips: a 4K answer as floats would take a gigabyte
        bottom = min(top + 256, height)
        if not near[top:bottom].any():
            continue
        box = (0, top * rows / height, layers[0].width, bottom * rows / height)
        size = (crop.width, bottom - top)
        parts = [np.asarray(layer.resize(size, Image.Resampling.BILINEAR, box=box)) for layer in layers]
        pull = near[top:bottom, :, None] ** 2 * (3 - 2 * near[top:bottom, :, None])
        moved = pixels[top:bottom] + np.stack(parts, axis=-1) * pull
        pixels[top:bottom] = np.rint(np.clip(moved, 0, 255))
    return Image.fromarray(pixels)


def _reduced(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> tuple[Plane, Plane]:
    """Means of the known pixels at no more than 512 px, and which share of each is known."""
    height, width = known.shape
    factor = min(1.0, 512 / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    share = Image.fromarray(np.where(known, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
    weight = np.asarray(np.asarray(share, np.float32) / 255, np.float32)
    lit = Image.fromarray(np.where(known[..., None], pixels, np.uint8(0))).resize(size, Image.Resampling.BOX)
    means = np.asarray(lit, np.float32) / np.maximum(weight, np.float32(1e-3))[..., None]
    return np.asarray(means * (weight > 0)[..., None], np.float32), weight


def _filled(values: Plane, weight: Plane) -> Plane:
    """Fills what has no weight smoothly from what has (the pull-push pyramid of Gortler and others 1996)."""
    if min(weight.shape) < 2 or (weight > 0.99).all():
        mean = (values * weight[..., None]).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
        return np.where(weight[..., None] > 0, values, mean).astype(np.float32)
    height, width = weight.shape
    edges = ((0, height % 2), (0, width % 2))
    wide, heavy = np.pad(values * weight[..., None], (*edges, (0, 0))), np.pad(weight, edges)
    blocks = wide.reshape(wide.shape[0] // 2, 2, wide.shape[1] // 2, 2, 3).sum(axis=(1, 3))
    weights = heavy.reshape(heavy.shape[0] // 2, 2, heavy.shape[1] // 2, 2).sum(axis=(1, 3))
    means = blocks / np.maximum(weights, np.float32(1e-6))[..., None]
    coarse = _filled(np.asarray(means, np.float32), np.minimum(weights, np.float32(1)))
    size = (wide.shape[1], wide.shape[0])
    layers = [Image.fromarray(coarse[..., channel]).resize(size, Image.Resampling.BILINEAR) for channel in range(3)]
    fine = np.stack([np.asarray(layer) for layer in layers], axis=-1)[:height, :width]
    return np.asarray(values * weight[..., None] + fine * (1 - weight[..., None]), np.float32)


def _goal(known: Box, whole: Box) -> Box:
    """The whole, or the part of the way to it on every side at which the area has grown by as much as it may."""
    area = (known[2] - known[0]) * (known[3] - known[1])
    left_to_grow = whole[2] * whole[3] / area
    count = math.ceil(math.log(left_to_grow, _GROWTH) - 1e-9)
    most = 1.02 * area * left_to_grow ** (1 / count)  # equal steps, so that the last is not a sliver
    for part in (1.0, *(step / 64 for step in range(63, 0, -1))):
        goal = (
            known[0] - round((known[0] - whole[0]) * part),
            known[1] - round((known[1] - whole[1]) * part),
            known[2] + round((whole[2] - known[2]) * part),
            known[3] + round((whole[3] - known[3]) * part),
        )
        if goal != known and (goal[2] - goal[0]) * (goal[3] - goal[1]) <= most:
            return goal
    return whole


def _covering(goal: Box, whole: Box, ratios: Mapping[str, Size], enlarged: float) -> tuple[Box, str] | None:
    """The box of a shape the model knows that holds the goal with the least waste, None where none is sharp enough."""
    wide, high = goal[2] - goal[0], goal[3] - goal[1]
    found: list[tuple[int, Box, str]] = []
    for name, shape in ratios.items():
        ratio = shape[0] / shape[1]
        width, height = max(wide, math.ceil(high * ratio)), max(high, math.ceil(wide / ratio))
        if width > enlarged * shape[0] or width * height > (1 + _WASTE) * wide * high:
            continue
        left = _placed((goal[0] + goal[2] - width) // 2, width, whole[2])
        top = _placed((goal[1] + goal[3] - height) // 2, height, whole[3])
        found.append((width * height, (left, top, left + width, top + height), name))
    return min(found)[1:] if found else None


def _placed(start: int, length: int, room: int) -> int:
    """Within the canvas where that is possible, in the middle of it otherwise."""
    return min(max(0, start), room - length) if length <= room else start


def _tiled(known: Box, goal: Box, ratios: Mapping[str, Size], enlarged: float) -> tuple[Box, list[Step]]:
    """The steps that widen `known` on the one side where most is missing, as deep as the answers allow."""
    sides: tuple[Side, ...] = ("left", "top", "right", "bottom")
    missing = {side: abs(goal[index] - known[index]) for index, side in enumerate(sides)}
    side = max(sides, key=lambda one: missing[one])
    upright = side in ("left", "right")
    long_start, long_end = (known[1], known[3]) if upright else (known[0], known[2])
    length = long_end - long_start
    best: tuple[int, int, int, int, int, str] | None = None
    for name, shape in ratios.items():
        if max(shape) > _NARROW * min(shape):
            continue
        across, along = shape if upright else shape[::-1]
        # No larger than what is missing asks for: in a box that is mostly beyond the canvas nothing can be aligned.
        part = min(enlarged, max(length / along, (1.5 * missing[side] + 2) / across))
        across, along = int(across * part), int(along * part)
        depth = min(missing[side], across * 2 // 3)  # a third of the box is known and shows what to go on from
        reach = depth * (length if along >= length else along - along // 5)
        if best is None or (reach, -across * along) > best[:2]:
            best = (reach, -across * along, depth, across, along, name)
    assert best is not None
    _, _, depth, across, along, name = best
    index = sides.index(side)
    outer = known[index] + (depth if index > 1 else -depth)
    inner = outer - across if index > 1 else outer + across
    count = max(1, math.ceil((long_end - long_start - along // 5) / (along - along // 5)))
    steps, painted_boxes = [], [known]
    for number in range(count):
        room = long_end - long_start - along
        start = long_start + (room * number // (count - 1) if count > 1 else room // 2)
        first, last = max(start, long_start), min(start + along, long_end)
        box = _turned(upright, min(outer, inner), start, max(outer, inner), start + along)
        fills = _turned(upright, min(outer, known[index]), first, max(outer, known[index]), last)
        steps.append(Step(box=box, ratio=name, fills=fills, known=tuple(painted_boxes)))
        painted_boxes.append(fills)
    widened = list(known)
    widened[index] = outer
    return (widened[0], widened[1], widened[2], widened[3]), steps


def _turned(upright: bool, near: int, start: int, far: int, end: int) -> Box:
    return (near, start, far, end) if upright else (start, near, end, far)
