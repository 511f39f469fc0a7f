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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.colours import SAME, Colours, applied, fitted, recoloured, small
from nanobanana_mcp.pixels.edits.warping import STILL, Exact, Plane, Warp, between, similar, warped
from nanobanana_mcp.pixels.files.decoding import Size

SURE = 0.35  # confidence from which an answer is corrected; unrelated pictures were measured below 0.1
_NEAR = tuple(0.96 + step / 100 for step in range(9))
_FAR = tuple(0.78 * 1.018**step for step in range(32))  # to 1.36
_FURTHEST, _FARTHER = 0.06, 0.17  # of the longer side: how far a shift is searched for at first, and then
_FOUND = 0.55  # correlation at which nothing further is searched for
_NEARER = 0.08  # how much better than no shift at all the furthest one has to suit
_LOST = 0.4  # shift as a part of a side, or change of scale, at which the search has run away
_COARSE = 192  # px of the longer side
_LEVELS = (256, 512, 1024)
_LEAST_PIXELS = 1200  # outside pixels at the level of 256 below which nothing is said
_LEAST_TEXTURE = 1.2  # standard deviation in 8-bit levels after the local mean is taken away; JPEG noise stays below
_BLOCK = 8  # px of the blocks of which windows are made
_TURNED = 0.012  # how far the four numbers of an affine map usually are from those of a mere scale
_BENT = 2.0  # px at 1024: how far a bend usually reaches


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far the answer moved and recoloured the picture. Shifts are px of the crop, to the right and down.

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
        """How far a middle grey of the answer was moved, in 8-bit levels."""
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
    reference_rgb, answer_rgb = rgb(reference), rgb(answer)
    width, height = reference.size
    outside = np.ones((height, width), bool) if changed is None else changed == 0
    warp, confidence, textured = _motion(reference_rgb, answer_rgb, outside, bends)
    sure = confidence >= SURE
    if not sure:
        warp = STILL
    moved = warped(answer, (width, height), warp)
    shown = outside & _covered(warp, (width, height)) if sure else outside
    colours, residual = fitted(reference_rgb, rgb(moved), shown, sure=sure)
    unlike = 0.0
    if not sure:
        unlike = _unlike(reference_rgb, recoloured(rgb(moved), colours), outside) if textured else 0.0
        if unlike > _NOT_THE_SAME:
            colours = SAME
        wanted, given, seen = small(reference_rgb, recoloured(rgb(moved), colours), outside)
        residual = float(np.abs(wanted[seen] - given[seen]).mean()) if seen.any() else 0.0
    drift = Drift(
        shift_x=float(warp.matrix[0, 2] * width),
        shift_y=float(warp.matrix[1, 2] * height),
        warp=warp,
        colours=colours,
        residual=residual,
        confidence=confidence,
        unlike=unlike,
    )
    return Aligned(image=recoloured(moved, colours), drift=drift)


_NOT_THE_SAME = 0.47  # unlike from which colours are not brought nearer: it is another picture


def rgb(image: Image.Image) -> Image.Image:
    """The picture itself where it is RGB: Pillow's own conversion would be one more copy of a large crop."""
    return image if image.mode == "RGB" else image.convert("RGB")


def restored(answer: Image.Image, size: Size, drift: Drift) -> Image.Image:
    """Takes a known drift back from another picture of the same kind: in `size`, in its own colours."""
    return warped(answer, size, drift.warp)


def _unlike(reference: Image.Image, moved: Image.Image, outside: NDArray[np.bool_]) -> float:
    wanted, given, shown = small(reference, moved, outside)
    if not shown.any():
        return 0.0
    spread = float(np.abs(wanted[shown] - np.median(wanted[shown], axis=0)).mean())
    return float(np.abs(wanted[shown] - given[shown]).mean()) / max(spread, 1.0)


def _covered(warp: Warp, size: Size) -> NDArray[np.bool_]:
    """Which pixels of the picture the answer shows at all."""
    few = 64
    x, y = np.meshgrid((np.arange(few) + 0.5) / few, (np.arange(few) + 0.5) / few)
    left, top = warp.lies_at(x, y)
    there = (left > 0) & (left < 1) & (top > 0) & (top < 1)
    if there.all():
        return np.ones((size[1], size[0]), bool)
    shown = Image.fromarray(np.where(there, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(np.asarray(shown) > 250)


def _motion(
    reference: Image.Image, answer: Image.Image, outside: NDArray[np.bool_], bends: bool
) -> tuple[Warp, float, bool]:
    """Where the picture lies in the answer, the confidence, 0 to 1, and whether there was texture."""
    bright, answered = reference.convert("L"), answer.convert("L")
    level = _level(bright, outside, _COARSE)
    if level.count < _LEAST_PIXELS * (_COARSE / _LEVELS[0]) ** 2 or level.texture < _LEAST_TEXTURE:
        return STILL, 0.0, False
    warp, score = _searched(level, answered, _NEAR, _FURTHEST)
    if score < _FOUND:  # zoomed or framed in another way; twice as long to search for, so only then
        further, better = _searched(level, answered, _FAR, _FARTHER)
        if better > score + 0.05:
            warp = further
    confidence = 0.0
    level = _level(bright, outside, _LEVELS[0])
    if level.count < _LEAST_PIXELS or level.texture < _LEAST_TEXTURE:
        return STILL, 0.0, False
    for longest in _LEVELS:
        if longest > _LEVELS[0]:
            if longest // 2 >= max(reference.size):
                break
            level = _level(bright, outside, longest)
        turns = {"affine": 10 if longest == _LEVELS[1] else 5} if bends else {"similar": 14}
        if longest == _LEVELS[0]:
            turns = {"similar": 14, "affine": 14} if bends else {"similar": 14}
        finer, trust = _refined(level, answered, warp, turns)
        if trust < SURE / 2:  # a redrawn picture may have no detail in common with its source; the coarser answer holds
            break
        warp, confidence = finer, max(confidence, trust)
        if bends and confidence >= SURE and longest > _LEVELS[0]:
            warp = _bent(level, answered, warp, turns=2)
    if np.abs(warp.matrix[:, 2]).max() > 1.2 * _FARTHER or not 0.7 < np.linalg.det(warp.matrix[:, :2]) ** 0.5 < 1.45:
        return STILL, 0.0, True
    return warp, confidence, True


@dataclass(frozen=True, kw_only=True)
class _Level:
    size: Size
    bright: Plane
    detail: Plane  # brightness of the reference, its local mean taken away, 0 in the changed part
    mask: Plane
    around: Plane  # how many pixels of the mask the local mean of each pixel is taken over, at least 1
    count: int
    texture: float


def _level(bright: Image.Image, outside: NDArray[np.bool_], longest: int) -> _Level:
    factor = min(1.0, longest / max(bright.size))
    size = (max(8, round(bright.width * factor)), max(8, round(bright.height * factor)))
    plane = np.asarray(bright.resize(size, Image.Resampling.LANCZOS), np.float32)
    shown = Image.fromarray(np.where(outside, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
    mask = (np.asarray(shown) > 250).astype(np.float32)
    return _of_mask(size, plane, mask)


def _of_mask(size: Size, bright: Plane, mask: Plane) -> _Level:
    around = np.maximum(_box_sum(mask), np.float32(1))
    detail, count = _detail(bright, mask, around), int(mask.sum())
    texture = float(np.sqrt((detail * detail).sum() / max(count, 1)))
    return _Level(size=size, bright=bright, detail=detail, mask=mask, around=around, count=count, texture=texture)


def _shown(level: _Level, warp: Warp) -> _Level:
    """The level without what lies beyond the answer's edges."""
    there = _covered(warp, level.size)
    return level if there.all() else _of_mask(level.size, level.bright, level.mask * there)


def _detail(plane: Plane, mask: Plane, around: Plane) -> Plane:
    """The plane less its mean over 13 x 13 pixels of the mask: blind to slow changes of light and to what changed."""
    return np.asarray((plane - _box_sum(plane * mask) / around) * mask, np.float32)


def _box_sum(plane: NDArray[np.floating], radius: int = 6) -> Plane:
    width, beyond = 2 * radius + 1, (radius + 1, radius)
    down = np.cumsum(np.pad(plane, (beyond, (0, 0))), axis=0, dtype=np.float64)
    plane = np.subtract(down[width:], down[:-width]).astype(np.float32)
    across = np.cumsum(np.pad(plane, ((0, 0), beyond)), axis=1, dtype=np.float64)
    return np.subtract(across[:, width:], across[:, :-width]).astype(np.float32)


def _searched(level: _Level, answered: Image.Image, scales: Sequence[float], furthest: float) -> tuple[Warp, float]:
    """The shift and scale with the highest masked normalised correlation, to about a pixel of the coarse size, and it."""
    width, height = level.size
    reach = int(np.ceil(furthest * max(width, height)))
    shape = (height + reach, width + reach)
    mask, detail = np.fft.rfft2(level.mask, shape), np.fft.rfft2(level.detail, shape)
    energy = np.fft.rfft2(level.detail**2, shape)

    def correlation(one: NDArray[np.complexfloating], other: NDArray[np.complexfloating]) -> Plane:
        full = np.fft.irfft2(np.conj(one) * other, shape)
        rows, columns = np.arange(-reach, reach + 1) % shape[0], np.arange(-reach, reach + 1) % shape[1]
        return full[np.ix_(rows, columns)].astype(np.float32)

    common = correlation(mask, mask)
    enough = common > 0.3 * level.count
    against = np.maximum(correlation(energy, mask), 1)
    # Lines of text and rows of windows are alike, so of places that suit nearly as well the nearer one is taken.
    away = np.abs(np.arange(-reach, reach + 1, dtype=np.float32)) / reach
    nearer = np.float32(_NEARER) * np.hypot(away[:, None], away)
    best, found, correlated = -1.0, STILL, -1.0
    for scale in scales:
        moved = np.asarray(warped(answered, level.size, similar(0, 0, scale)), np.float32)
        other = _detail(moved, level.mask, level.around)
        plane, power = np.fft.rfft2(other, shape), np.fft.rfft2(other**2, shape)
        below = np.maximum(correlation(mask, power), 1) * against
        score = np.where(enough, correlation(detail, plane) / np.sqrt(below), np.float32(-1))
        likely = score - nearer
        at = np.unravel_index(int(likely.argmax()), likely.shape)
        if likely[at] > best:
            best, correlated = float(likely[at]), float(score[at])
            found = similar(scale * (at[1] - reach) / width, scale * (at[0] - reach) / height, scale)
    return found, correlated


def _refined(level: _Level, answered: Image.Image, warp: Warp, most: Mapping[str, int]) -> tuple[Warp, float]:
    """Gauss-Newton on the map and on contrast from a near start, and how far the result can be trusted.

    First on shift and scale, which converge from further off, then on all six numbers; those are held near a mere
    scale where the pixels do not tell. A bend that is known already stays.
    """
    width, height = level.size
    level = _shown(level, warp)
    near = answered
    if min(answered.width / width, answered.height / height) >= 2:
        near = answered.reduce(int(min(answered.width / width, answered.height / height)))
    inside = level.mask > 0
    if inside.sum() < _LEAST_PIXELS / 4:
        return warp, 0.0
    across = np.broadcast_to(np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2), (height, width))[inside]
    down = np.broadcast_to(
        (np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2))[:, None], (height, width)
    )[inside]
    wanted = level.detail[inside]
    slope_x, slope_y = _slopes(level.detail)
    sides = np.array([width, height], np.float64)
    matrix = warp.matrix * sides[:, None] / np.array([width, height, 1.0])  # in px of the level
    contrast, trusted, other = 1.0, True, level.detail
    for kind, turns in most.items():
        numbers = 3 if kind == "similar" else 6
        for turn in range(turns):
            current = _of_level(matrix, sides, warp.flow)
            other = _detail(np.asarray(warped(near, level.size, current), np.float32), level.mask, level.around)
            turned_x, turned_y = _slopes(other)
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
            columns_of = np.asarray(np.stack(parts), np.float32)
            normal = np.asarray(columns_of @ columns_of.T, np.float64)
            pull = np.asarray(columns_of @ residual, np.float64)
            noise = float(np.square(residual).mean())
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


def _bent(level: _Level, answered: Image.Image, warp: Warp, *, turns: int) -> Warp:
    """The warp with what a smooth bend adds to it, from windows of 5 x 5 blocks outside the changed part.

    A window counts by how much texture it has and by how alike both pictures are in it; where none counts, the bend
    goes on from those around and fades to nothing.
    """
    width, height = level.size
    level = _shown(level, warp)
    rows, columns = height // _BLOCK, width // _BLOCK
    if min(rows, columns) < 6:
        return warp
    slope_x, slope_y = _slopes(level.detail)
    flow = _on_nodes(warp.flow, rows, columns)
    free = (_BENT * max(level.size) / 1024) ** 2
    for _ in range(turns):
        current = Warp(matrix=warp.matrix, flow=flow)
        other = _detail(np.asarray(warped(answered, level.size, current), np.float32), level.mask, level.around)
        turned_x, turned_y = _slopes(other)
        step_x, step_y = (slope_x + turned_x) / 2 * level.mask, (slope_y + turned_y) / 2 * level.mask
        ones, others, both = (
            _windows(plane) for plane in (level.detail * level.detail, other * other, level.detail * other)
        )
        contrast = np.asarray(np.clip(both / np.maximum(others, 1e-3), 0.3, 3), np.float32)
        alike = np.clip((both / np.sqrt(np.maximum(ones * others, 1e-3)) - 0.3) / 0.5, 0, 1)
        left = np.asarray(level.detail - other * _spread_out(contrast, level.size), np.float32)
        noise = _windows(left * left) / np.maximum(_windows(level.mask), 1)
        xx, xy, yy = (_windows(plane) for plane in (step_x * step_x, step_x * step_y, step_y * step_y))
        xt, yt = _windows(step_x * left), _windows(step_y * left)
        # A window's pixels are no independent witnesses; what they do not tell is taken to be no bend at all.
        held = 10 * noise / free + 1e-3
        det = (xx + held) * (yy + held) - xy * xy
        moved_x, moved_y = ((yy + held) * xt - xy * yt) / det, ((xx + held) * yt - xy * xt) / det
        least = np.maximum((xx + yy) / 2 - np.sqrt(np.square(xx - yy) / 4 + xy * xy), 0)
        weight = np.asarray(alike * alike * least / (least + held), np.float32)
        reach = 2.0
        length = np.maximum(np.hypot(moved_x, moved_y) / reach, 1)
        step = np.asarray(np.stack([moved_x / length / width, moved_y / length / height], axis=-1), np.float32)
        flow = np.asarray(flow + _from_blocks(_smooth(step, weight)), np.float32)
    return Warp(matrix=warp.matrix, flow=flow.astype(np.float32))


def _windows(plane: NDArray[np.floating]) -> Plane:
    """Sums over 5 x 5 blocks about each block."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    blocks = plane[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3))
    return _box_sum(blocks, 2)


def _spread_out(blocks: NDArray[np.floating], size: Size) -> Plane:
    return np.asarray(Image.fromarray(blocks.astype(np.float32)).resize(size, Image.Resampling.BILINEAR), np.float32)


def _smooth(step: Plane, weight: Plane) -> Plane:
    """The mean of what counts near each block; far from all that counts, that of a wider ring, and at last nothing."""
    found = np.zeros_like(step)
    for radius in (max(weight.shape), 24, 8, 3):
        total = _box_sum(weight, radius)
        sums = np.stack([_box_sum(step[..., axis] * weight, radius) for axis in (0, 1)], axis=-1)
        found = (sums + 2 * found) / (total + 2)[..., None]
    return np.asarray(found, np.float32)


def _from_blocks(blocks: Plane) -> Plane:
    """Values at the middles of blocks carried on to their corners."""
    wide = np.pad(blocks, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return np.asarray((wide[:-1, :-1] + wide[1:, :-1] + wide[:-1, 1:] + wide[1:, 1:]) / 4, np.float32)


def _on_nodes(flow: Plane | None, rows: int, columns: int) -> Plane:
    """A flow on other nodes."""
    if flow is None:
        return np.zeros((rows + 1, columns + 1, 2), np.float32)
    if flow.shape[:2] == (rows + 1, columns + 1):
        return flow
    x, y = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    return np.asarray(between(flow, x, y), np.float32)


def _slopes(plane: Plane) -> tuple[Plane, Plane]:
    down, across = np.gradient(plane)
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


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
