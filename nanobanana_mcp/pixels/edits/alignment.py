"""Finds how far a model's answer has drifted from the picture it was given, and puts it back.

A model redraws every pixel: a little shifted, larger or smaller, turned, bent and recoloured. Only the pixels that it
was not asked to change can tell by how much. The drift is found coarsely by masked normalised correlation (Padfield
2012) over some scales, then by Gauss-Newton on shift and scale, and on all six numbers of an affine map, at rising
resolutions (the forward-additive scheme of Baker and Matthews 2004, on brightness with its local mean taken away).
What is left, a smooth bend, is measured in windows (Lucas and Kanade 1981) and carried on into the changed part.
Residuals of the affine map are not weighed: content that has changed is no likelier to pull one way than the other,
while weights take the sharpest edges away with it; where two thirds of the outside had changed they lost the way, and
plain squares stayed within 0.05 px. A window, which can be all changed, counts by how alike it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.bends import bent
from nanobanana_mcp.pixels.edits.colours import LOOKED_AT, SAME, Colours, applied, fitted, recoloured, small
from nanobanana_mcp.pixels.edits.levels import (
    Level,
    covered,
    detail_of,
    fewer,
    level_of,
    of_size,
    reduced_to,
    shown_by,
    slopes_of,
)
from nanobanana_mcp.pixels.edits.searching import searched
from nanobanana_mcp.pixels.edits.threads import both
from nanobanana_mcp.pixels.edits.warping import STILL, Exact, Plane, Warp, warped
from nanobanana_mcp.pixels.files.decoding import Box, Size

SURE = 0.35  # confidence from which an answer is corrected; unrelated pictures were measured below 0.1
_NEAR = tuple(0.96 + step / 100 for step in range(9))
_FAR = tuple(0.78 * 1.018**step for step in range(32))  # to 1.36
_FURTHEST, _FARTHER = 0.06, 0.17  # of the longer side: how far a shift is searched for at first, and then
_FOUND = 0.55  # correlation at which nothing further is searched for
_LOST = 0.4  # shift as a part of a side, or change of scale, at which the search has run away
_COARSE = 192  # px of the longer side
_LEVELS = (256, 512, 1024)
_TURNS = {256: {"similar": 14, "affine": 14}, 512: {"affine": 10}, 1024: {"affine": 5}}  # of Gauss-Newton, at most
_LEAST_PIXELS = 1200  # outside pixels at the level of 256 below which nothing is said
_LEAST_TEXTURE = 1.2  # standard deviation in 8-bit levels after the local mean is taken away; JPEG noise stays below
_FLAT = 3  # levels between the darkest and the brightest pixel of an answer that shows nothing
_TURNED = 0.012  # how far the four numbers of an affine map usually are from those of a mere scale
_ROUNDED = 1 / 12  # variance of 8-bit rounding, which stripes that lie exactly upon each other would hide


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The amounts by which the answer moved and recoloured the picture. Shifts are px of the crop, to the right and
    down.

    `colours` bring the answer's back to the source's. `residual` is the mean absolute difference that is left outside
    the changed part, in 8-bit levels. `confidence` is 0 to 1: below `SURE` the answer was not moved. `unlike` is then
    what the best colours would leave as a part of the source's own mean deviation from its median colour: 0.5 and more
    where the answer shows something else, and 0 where the source has nothing to align by.
    """

    shift_x: float = 0.0
    shift_y: float = 0.0
    warp: Warp = field(default=STILL, compare=False)
    colours: Colours = SAME
    residual: float
    confidence: float
    unlike: float = 0.0

    @property
    def known(self) -> bool:
        return self.confidence >= SURE

    @property
    def scale(self) -> float:
        return float(np.sqrt(abs(np.linalg.det(self.warp.matrix[:, :2]))))

    @property
    def recolouring(self) -> float:
        """The distance by which a middle grey of the answer was moved, in 8-bit levels."""
        grey = np.full((1, 3), 128, np.float32)
        return float(np.abs(applied(grey, self.colours) - grey).max())


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """The answer in the crop's size, with its drift taken back, RGB (or RGBA when the answer has alpha)."""

    image: Image.Image
    drift: Drift


def aligned(
    reference: Image.Image, answer: Image.Image, *, changed: NDArray[np.uint8] | None = None, bends: bool = True
) -> Aligned:
    """Puts `answer`, of any size, back onto `reference`. `changed` is the weight of what may differ, height x width.

    The answer is resampled once, straight from its own pixels. When the outside is too small, too flat or too
    different to tell, the answer is only resized and recoloured, and the confidence is below `SURE`. Without `bends` only
    shift and scale are looked for: plates have to agree to a tenth of a pixel and are better off without a guess at more.
    """
    drift = drift_of(reference, answer, changed=changed, bends=bends)
    return Aligned(image=laid(answer, reference.size, drift), drift=drift)


def drift_of(
    reference: Image.Image, answer: Image.Image, *, changed: NDArray[np.uint8] | None = None, bends: bool = True
) -> Drift:
    """The drift that `aligned` takes back. It is measured in pictures of at most 1024 px, however large the given ones are."""
    size = reference.size
    reference_rgb, answer_rgb = both(
        lambda: fewer(rgb(reference), _LEVELS[-1]), lambda: fewer(rgb(answer), 2 * _LEVELS[-1])
    )
    outside = np.ones(size[::-1], bool) if changed is None else changed == 0
    outside = of_size(outside, reference_rgb.size)
    warp, confidence, textured = _motion(reference_rgb, answer_rgb, outside, bends)
    sure = confidence >= SURE
    if not sure:
        warp = STILL
    reference_rgb = fewer(reference_rgb, LOOKED_AT)
    outside = of_size(outside, reference_rgb.size)
    moved = warped(answer_rgb, reference_rgb.size, warp)
    shown = outside & covered(warp, reference_rgb.size) if sure else outside
    colours, residual = fitted(reference_rgb, moved, shown, sure=sure)
    unlike = 0.0
    if not sure:
        wanted, given, seen = small(reference_rgb, recoloured(moved, colours), outside)
        unlike = _unlike(wanted, given, seen) if textured else 0.0
        if unlike > _NOT_THE_SAME:
            colours = SAME
            wanted, given, seen = small(reference_rgb, moved, outside)
        residual = float(np.abs(wanted[seen] - given[seen]).mean()) if seen.any() else 0.0
    return Drift(
        shift_x=float(warp.matrix[0, 2] * size[0]),
        shift_y=float(warp.matrix[1, 2] * size[1]),
        warp=warp,
        colours=colours,
        residual=residual,
        confidence=confidence,
        unlike=unlike,
    )


def laid(answer: Image.Image, size: Size, drift: Drift, box: Box | None = None) -> Image.Image:
    """The answer in `size` with its drift taken back, or the `box` of that."""
    return recoloured(warped(answer, size, drift.warp, box), drift.colours)


_NOT_THE_SAME = 0.47  # unlike from which colours are not brought nearer: it is another picture


def rgb(image: Image.Image) -> Image.Image:
    """The picture itself where it is RGB: Pillow's own conversion would be one more copy of a large crop."""
    return image if image.mode == "RGB" else image.convert("RGB")


def restored(answer: Image.Image, size: Size, drift: Drift) -> Image.Image:
    """Takes a known drift back from another picture of the same kind: in `size`, in its own colours."""
    return warped(answer, size, drift.warp)


def _unlike(wanted: Plane, given: Plane, shown: NDArray[np.bool_]) -> float:
    if not shown.any():
        return 0.0
    spread = float(np.abs(wanted[shown] - np.median(wanted[shown], axis=0)).mean())
    return float(np.abs(wanted[shown] - given[shown]).mean()) / max(spread, 1.0)


def _motion(
    reference: Image.Image, answer: Image.Image, outside: NDArray[np.bool_], bends: bool
) -> tuple[Warp, float, bool]:
    """Finds where the picture lies in the answer, the confidence, 0 to 1, and whether there was texture."""
    bright, answered = reference.convert("L"), answer.convert("L")
    level = level_of(bright, outside, _COARSE)
    if level.count < _LEAST_PIXELS * (_COARSE / _LEVELS[0]) ** 2 or level.texture < _LEAST_TEXTURE:
        return STILL, 0.0, False
    darkest, brightest = answered.getextrema()
    if brightest - darkest <= _FLAT:  # type: ignore[operator]  # grey has two numbers
        return STILL, 0.0, True
    warp, score = searched(level, answered, _NEAR, _FURTHEST)
    if score < _FOUND:  # zoomed or framed in another way; twice as long to search for, so only then
        further, better = searched(level, answered, _FAR, _FARTHER)
        if better > score + 0.05:
            warp = further
    confidence = 0.0
    level = level_of(bright, outside, _LEVELS[0])
    if level.count < _LEAST_PIXELS or level.texture < _LEAST_TEXTURE:
        return STILL, 0.0, False
    for longest in _LEVELS:
        if longest > _LEVELS[0]:
            if longest // 2 >= max(reference.size):
                break
            level = level_of(bright, outside, longest)
        if bends and longest == _LEVELS[-1] and confidence >= SURE:
            # Six numbers are as exact as they can be by now; only a bend has more to tell at this size.
            warp = bent(level, answered, warp, turns=1)
            break
        turns = _TURNS[longest] if bends else {"similar": 14}
        finer, trust = _refined(level, answered, warp, turns)
        if trust < SURE / 2:  # a redrawn picture may have no detail in common with its source; the coarser answer holds
            break
        warp, confidence = finer, max(confidence, trust)
        if bends and confidence >= SURE and longest > _LEVELS[0]:
            warp = bent(level, answered, warp, turns=2)
    if np.abs(warp.matrix[:, 2]).max() > 1.2 * _FARTHER or not 0.7 < np.linalg.det(warp.matrix[:, :2]) ** 0.5 < 1.45:
        return STILL, 0.0, True
    return warp, confidence, True


def _refined(level: Level, answered: Image.Image, warp: Warp, most: Mapping[str, int]) -> tuple[Warp, float]:
    """Gauss-Newton on the map and on contrast from a near start, and how far the result can be trusted.

    First on shift and scale, which converge from further off, then on all six numbers; those are held near a mere
    scale where the pixels do not tell. A bend that is known already stays.
    """
    width, height = level.size
    level = shown_by(level, warp)
    near = reduced_to(answered, level.size)
    inside = level.mask > 0
    if inside.sum() < _LEAST_PIXELS / 4:
        return warp, 0.0
    across = np.broadcast_to(np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2), (height, width))[inside]
    down = np.broadcast_to(
        (np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2))[:, None], (height, width)
    )[inside]
    wanted = level.detail[inside]
    slope_x, slope_y = slopes_of(level.detail)
    sides = np.array([width, height], np.float64)
    matrix = warp.matrix * sides[:, None] / np.array([width, height, 1.0])  # in px of the level
    contrast, trusted, other = 1.0, True, level.detail
    for kind, turns in most.items():
        numbers = 3 if kind == "similar" else 6
        for turn in range(turns):
            current = _of_level(matrix, sides, warp.flow)
            other = detail_of(np.asarray(warped(near, level.size, current), np.float32), level.mask, level.around)
            turned_x, turned_y = slopes_of(other)
            values = other[inside]
            residual = wanted - contrast * values
            # The mean of both slopes converges from further off (Benhimane and Malis 2004) and noise biases it less.
            step_x = (contrast * turned_x[inside] + slope_x[inside]) / 2
            step_y = (contrast * turned_y[inside] + slope_y[inside]) / 2
            parts: list[NDArray[np.floating]]
            if kind == "similar":
                parts = [step_x, step_y, across * step_x + down * step_y, values]
            else:
                parts = [step_x, step_y, across * step_x, down * step_x, across * step_y, down * step_y, values]
            columns_of = np.stack(parts)
            normal = np.asarray(columns_of @ columns_of.T, np.float64)
            pull = np.asarray(columns_of @ residual, np.float64)
            noise = max(float(np.square(residual).mean()), _ROUNDED)
            if kind == "affine":
                # Neighbouring residuals are alike over some 5 x 5 px, so the count of independent ones is that much smaller.
                held, away = _held(matrix[:, :2], 25 * noise / _TURNED**2)
                normal[2:6, 2:6] += held
                pull[2:6] -= away
            scaling = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-6))
            conditioned = normal * np.outer(scaling, scaling) + 1e-6 * np.eye(numbers + 1)
            step = scaling * np.linalg.solve(conditioned, scaling * pull)
            matrix = matrix.copy()
            matrix[:, 2] += step[:2]
            if kind == "similar":
                matrix[0, 0] += step[2]
                matrix[1, 1] += step[2]
            else:
                matrix[:, :2] += step[2:6].reshape(2, 2)
            shift = np.abs(matrix[:, 2]) / sides
            if shift.max() > _LOST or np.abs(matrix[:, :2] - np.eye(2)).max() > _LOST:
                return warp, 0.0
            contrast = float(np.clip(contrast + step[numbers], 0.3, 3))
            spread = np.outer(scaling, scaling) * np.linalg.inv(conditioned) * noise
            if turn > 3 and np.abs(step[:2]).max() < 0.004 and np.abs(step[2:numbers]).max() * width / 2 < 0.006:
                break
        trusted = trusted and 5 * float(np.sqrt(max(spread[0, 0], spread[1, 1]))) <= 0.5
    found = _of_level(matrix, sides, warp.flow)
    return found, _likeness(level.detail, other, level.mask) if trusted else 0.0


def _of_level(matrix: Exact, sides: Exact, flow: Plane | None) -> Warp:
    return Warp(matrix=matrix / sides[:, None] * np.array([sides[0], sides[1], 1.0]), flow=flow)


def _held(matrix: Exact, weight: float) -> tuple[Exact, Exact]:
    """Hold an affine map near a mere scale: for the normal equations of its four numbers, and their right side."""
    # Both sums are nothing for a scale: xx - yy and xy + yx stretch the picture; xy - yx turns it.
    sums = np.array([[1.0, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]])
    held = weight * sums.T @ sums
    return held, held @ matrix.reshape(4)


def _likeness(one: Plane, other: Plane, mask: Plane, cells: int = 8) -> float:
    """The median correlation over the cells of a grid that have texture: half of them may have changed."""
    scores = []
    for rows in np.array_split(np.arange(one.shape[0]), cells):
        for columns in np.array_split(np.arange(one.shape[1]), cells):
            here = np.ix_(rows, columns)
            first, second, shown = one[here], other[here], float(mask[here].sum())
            below = float(np.sqrt((first * first).sum() * (second * second).sum()))
            if shown >= 40 and (first * first).sum() / shown > _LEAST_TEXTURE**2:
                scores.append(float((first * second).sum()) / below if below > 0 else 0.0)
    return max(0.0, float(np.median(scores))) if len(scores) >= 2 else 0.0
