"""Finds how far a model's answer has drifted from the picture it was given, and puts it back.

A model redraws every pixel: a little shifted, a little larger or smaller, a little recoloured. Only the pixels that it
was not asked to change can tell by how much. The drift is found coarsely by masked normalised correlation (Padfield
2012) over a few scales, then exactly by Gauss-Newton on shift and scale at rising resolutions (the forward-additive
scheme of Baker and Matthews 2004, on brightness with its local mean taken away). Residuals are not weighed: content
that has changed is no likelier to pull one way than the other, while weights take the sharpest edges away with it;
where two thirds of the outside had changed they lost the way, and plain squares stayed within 0.05 px.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.files.decoding import Size

Plane = NDArray[np.float32]

SURE = 0.35  # confidence from which an answer is corrected; unrelated pictures were measured below 0.1
_FURTHEST = 0.06  # of the longer side: how far a shift is searched for
_SCALES = (0.96, 0.97, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04)
_LOST = 0.12  # shift as a part of a side, or change of scale, at which the search has run away
_COARSE = 192  # px of the longer side
_LEVELS = (256, 512, 1024)
_LEAST_PIXELS = 1200  # outside pixels at the level of 256 below which nothing is said
_LEAST_TEXTURE = 1.2  # standard deviation in 8-bit levels after the local mean is taken away; JPEG noise stays below


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far the answer moved and recoloured the picture: px of the crop to the right and down, size about the middle, colour.

    The source is `gain` * answer + `offset` in each of R, G, B (8-bit levels). `residual` is the mean absolute
    difference that is left outside the changed part, in 8-bit levels. `confidence` is 0 to 1: below `SURE` nothing was
    corrected, and shift 0, scale 1, gain 1 and offset 0 stand for "not known". `unlike` is then what the best gain and
    offset would leave as a part of the source's own mean deviation from its median colour: 0.5 and more where the answer
    shows something else, and 0 where the source has nothing to align by.
    """

    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    residual: float
    confidence: float
    unlike: float = 0.0

    @property
    def known(self) -> bool:
        return self.confidence >= SURE


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """The answer in the crop's size, with its drift taken back, RGB (or RGBA when the answer has alpha)."""

    image: Image.Image
    drift: Drift


def aligned(reference: Image.Image, answer: Image.Image, *, changed: NDArray[np.uint8] | None = None) -> Aligned:
    """Puts `answer`, of any size, back onto `reference`. `changed` is the weight of what may differ, height x width.

    The answer is resampled once, straight from its own pixels. When the outside is too small, too flat or too
    different to tell, the answer is only resized and the confidence is below `SURE`.
    """
    reference_rgb, answer_rgb = rgb(reference), rgb(answer)
    width, height = reference.size
    outside = np.ones((height, width), bool) if changed is None else changed == 0
    motion, confidence, textured = _motion(reference_rgb, answer_rgb, outside)
    if confidence < SURE:
        plain = answer.resize((width, height), Image.Resampling.LANCZOS)
        residual = _residual(reference_rgb, rgb(plain), outside)
        unlike = 0.0
        if textured:
            recoloured_left = _colour(reference_rgb, rgb(plain), outside)[2]
            unlike = recoloured_left / max(_spread(reference_rgb, outside), 1.0)
        return Aligned(image=plain, drift=Drift(residual=residual, confidence=confidence, unlike=unlike))
    moved = _warped(answer, (width, height), motion)
    gain, offset, residual = _colour(reference_rgb, rgb(moved), outside)
    drift = Drift(
        shift_x=float(motion[0] * width),
        shift_y=float(motion[1] * height),
        scale=float(motion[2]),
        gain=gain,
        offset=offset,
        residual=residual,
        confidence=confidence,
    )
    return Aligned(image=recoloured(moved, gain=gain, offset=offset), drift=drift)


def rgb(image: Image.Image) -> Image.Image:
    """The picture itself where it is RGB: Pillow's own conversion would be one more copy of a large crop."""
    return image if image.mode == "RGB" else image.convert("RGB")


def restored(answer: Image.Image, size: Size, drift: Drift) -> Image.Image:
    """Takes a known drift back from another picture of the same kind: in `size`, in its own colours."""
    motion = np.array([drift.shift_x / size[0], drift.shift_y / size[1], drift.scale], np.float32)
    return _warped(answer, size, motion)


def recoloured(
    image: Image.Image, *, gain: tuple[float, float, float], offset: tuple[float, float, float]
) -> Image.Image:
    """The picture with gain * value + offset in each of R, G, B, rounded and clipped; alpha is kept."""
    table: list[int] = []
    for channel_gain, channel_offset in zip(gain, offset, strict=True):
        values = np.clip(np.rint(np.arange(256) * channel_gain + channel_offset), 0, 255)
        table += [int(value) for value in values]
    if image.mode == "RGBA":
        table += list(range(256))
    return image.point(table)


def _motion(reference: Image.Image, answer: Image.Image, outside: NDArray[np.bool_]) -> tuple[Plane, float, bool]:
    """(shift as a part of width, as a part of height, scale), the confidence, 0 to 1, and whether there was texture."""
    still = np.array([0, 0, 1], np.float32)
    bright, answered = reference.convert("L"), answer.convert("L")
    level = _level(bright, outside, _COARSE)
    if level.count < _LEAST_PIXELS * (_COARSE / _LEVELS[0]) ** 2 or level.texture < _LEAST_TEXTURE:
        return still, 0.0, False
    motion = _searched(level, answered)
    confidence = 0.0
    for longest in _LEVELS:
        if longest > _LEVELS[0] and longest // 2 >= max(reference.size):
            break
        level = _level(bright, outside, longest)
        if level.count < _LEAST_PIXELS or level.texture < _LEAST_TEXTURE:
            return still, 0.0, False
        finer, trust = _refined(level, answered, motion)
        if trust < SURE / 2:  # a redrawn picture may have no detail in common with its source; the coarser answer holds
            break
        motion, confidence = finer, max(confidence, trust)
    if max(abs(motion[0]), abs(motion[1])) > 1.2 * _FURTHEST or abs(motion[2] - 1) > 0.06:
        return still, 0.0, True
    return motion, confidence, True


@dataclass(frozen=True, kw_only=True)
class _Level:
    size: Size
    detail: Plane  # brightness of the reference, its local mean taken away, 0 in the changed part
    mask: Plane
    around: Plane  # how many pixels of the mask are in the window of each
    count: int
    texture: float


def _level(bright: Image.Image, outside: NDArray[np.bool_], longest: int) -> _Level:
    factor = min(1.0, longest / max(bright.size))
    size = (max(8, round(bright.width * factor)), max(8, round(bright.height * factor)))
    plane = np.asarray(bright.resize(size, Image.Resampling.LANCZOS), np.float32)
    shown = Image.fromarray(np.where(outside, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
    mask = (np.asarray(shown) > 250).astype(np.float32)
    count = int(mask.sum())
    around = np.maximum(_box_sum(mask), 1)
    detail = _detail(plane, mask, around)
    texture = float(np.sqrt((detail * detail).sum() / max(count, 1)))
    return _Level(size=size, detail=detail, mask=mask, around=around, count=count, texture=texture)


def _detail(plane: Plane, mask: Plane, around: Plane) -> Plane:
    """The plane less its mean over 13 x 13 pixels of the mask: blind to slow changes of light and to what changed."""
    return np.asarray((plane - _box_sum(plane * mask) / around) * mask, np.float32)


def _box_sum(plane: Plane, radius: int = 6) -> Plane:
    width, beyond = 2 * radius + 1, (radius + 1, radius)
    down = np.cumsum(np.pad(plane, (beyond, (0, 0))), axis=0, dtype=np.float64)
    plane = np.subtract(down[width:], down[:-width]).astype(np.float32)
    across = np.cumsum(np.pad(plane, ((0, 0), beyond)), axis=1, dtype=np.float64)
    return np.subtract(across[:, width:], across[:, :-width]).astype(np.float32)


def _searched(level: _Level, answered: Image.Image) -> Plane:
    """The shift and scale with the highest masked normalised correlation, to about a pixel of the coarse size."""
    width, height = level.size
    reach = int(np.ceil(_FURTHEST * max(width, height)))
    shape = (height + reach, width + reach)
    mask, detail = np.fft.rfft2(level.mask, shape), np.fft.rfft2(level.detail, shape)
    energy = np.fft.rfft2(level.detail**2, shape)

    def correlation(one: NDArray[np.complexfloating], other: NDArray[np.complexfloating]) -> Plane:
        full = np.fft.irfft2(np.conj(one) * other, shape)
        rows, columns = np.arange(-reach, reach + 1) % shape[0], np.arange(-reach, reach + 1) % shape[1]
        return full[np.ix_(rows, columns)].astype(np.float32)

    common = correlation(mask, mask)
    enough = common > 0.3 * level.count
    best, found = -1.0, np.array([0, 0, 1], np.float32)
    for scale in _SCALES:
        warped = np.asarray(_warped(answered, level.size, np.array([0, 0, scale], np.float32)), np.float32)
        other = _detail(warped, level.mask, level.around)
        plane, power = np.fft.rfft2(other, shape), np.fft.rfft2(other**2, shape)
        below = np.maximum(correlation(mask, power), 1) * np.maximum(correlation(energy, mask), 1)
        score = np.where(enough, correlation(detail, plane) / np.sqrt(below), np.float32(-1))
        at = np.unravel_index(int(score.argmax()), score.shape)
        if score[at] > best:
            best = float(score[at])
            found = np.array([scale * (at[1] - reach) / width, scale * (at[0] - reach) / height, scale], np.float32)
    return found


def _refined(level: _Level, answered: Image.Image, motion: Plane) -> tuple[Plane, float]:
    """Gauss-Newton on shift, scale and contrast from a near start, and how far the result can be trusted."""
    width, height = level.size
    near = answered
    if min(answered.width / width, answered.height / height) >= 2:
        near = answered.reduce(int(min(answered.width / width, answered.height / height)))
    inside = level.mask > 0
    across = np.broadcast_to(np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2), (height, width))[inside]
    down = np.broadcast_to(
        (np.arange(height, dtype=np.float32) + np.float32(0.5 - height / 2))[:, None], (height, width)
    )
    down = down[inside]
    wanted = level.detail[inside]
    slope_x, slope_y = _slopes(level.detail)
    current = np.array([motion[0] * width, motion[1] * height, motion[2]], np.float64)
    contrast, spread = 1.0, np.zeros((3, 3))
    other = level.detail
    for turn in range(14):
        at = np.array([current[0] / width, current[1] / height, current[2]], np.float32)
        other = _detail(np.asarray(_warped(near, level.size, at), np.float32), level.mask, level.around)
        turned_x, turned_y = _slopes(other)
        values = other[inside]
        residual = wanted - contrast * values
        # The mean of both slopes converges from further off (Benhimane and Malis 2004) and noise biases it less.
        step_x = (contrast * turned_x[inside] + slope_x[inside]) / 2
        step_y = (contrast * turned_y[inside] + slope_y[inside]) / 2
        columns_of = np.stack([step_x, step_y, across * step_x + down * step_y, values])
        normal = np.asarray(columns_of @ columns_of.T, np.float64)
        scaling = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-6))
        conditioned = normal * np.outer(scaling, scaling) + 1e-6 * np.eye(4)
        step = scaling * np.linalg.solve(conditioned, scaling * (columns_of @ residual))
        current += step[:3]
        if max(abs(current[0]) / width, abs(current[1]) / height, abs(current[2] - 1)) > _LOST:
            return motion, 0.0
        contrast = float(np.clip(contrast + step[3], 0.3, 3))
        spread = np.outer(scaling, scaling) * np.linalg.inv(conditioned) * float(np.square(residual).mean())
        if turn > 5 and max(abs(step[0]), abs(step[1]), abs(step[2]) * width / 2) < 0.004:
            break
    found = np.array([current[0] / width, current[1] / height, current[2]], np.float32)
    # Neighbouring residuals are alike over some 5 x 5 px, so the count of independent ones is that much smaller.
    unsure = 5 * float(np.sqrt(max(spread[0, 0], spread[1, 1])))
    if unsure > 0.5:
        return found, 0.0
    return found, _likeness(level.detail, other, level.mask)


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


def _warped(answer: Image.Image, size: Size, motion: Plane) -> Image.Image:
    """The answer in `size`, read where the motion says each pixel has gone; beyond its edges the last pixels repeat."""
    shift_x, shift_y, scale = (float(value) for value in motion)
    across, down = answer.size
    left, right = across * (0.5 - scale / 2 + shift_x), across * (0.5 + scale / 2 + shift_x)
    top, bottom = down * (0.5 - scale / 2 + shift_y), down * (0.5 + scale / 2 + shift_y)
    beyond = max(0, int(np.ceil(max(-left, -top, right - across, bottom - down))))
    if beyond:
        pixels = np.asarray(answer)
        edges = ((beyond, beyond), (beyond, beyond)) + ((0, 0),) * (pixels.ndim - 2)
        answer = Image.fromarray(np.pad(pixels, edges, mode="edge"))
    box = (left + beyond, top + beyond, right + beyond, bottom + beyond)
    return answer.resize(size, Image.Resampling.LANCZOS, box=box)


Triple = tuple[float, float, float]


def _colour(reference: Image.Image, moved: Image.Image, outside: NDArray[np.bool_]) -> tuple[Triple, Triple, float]:
    """Gain and offset of each channel by a line through the outside pixels, and the mean difference left."""
    wanted, given, shown = _small(reference, moved, outside)
    gains, offsets, left = [1.0] * 3, [0.0] * 3, [0.0] * 3
    for channel in range(3):
        first, second = given[..., channel][shown], wanted[..., channel][shown]
        if first.size == 0:
            continue
        unclipped = (np.minimum(first, second) > 4) & (np.maximum(first, second) < 251)
        if unclipped.sum() > max(50, first.size // 20):
            gains[channel], offsets[channel] = _line(first[unclipped], second[unclipped])
        left[channel] = float(np.abs(np.clip(gains[channel] * first + offsets[channel], 0, 255) - second).mean())
    return (gains[0], gains[1], gains[2]), (offsets[0], offsets[1], offsets[2]), sum(left) / 3


def _residual(reference: Image.Image, moved: Image.Image, outside: NDArray[np.bool_]) -> float:
    wanted, given, shown = _small(reference, moved, outside)
    return float(np.abs(wanted[shown] - given[shown]).mean()) if shown.any() else 0.0


def _spread(reference: Image.Image, outside: NDArray[np.bool_]) -> float:
    wanted, _, shown = _small(reference, reference, outside)
    return float(np.abs(wanted[shown] - np.median(wanted[shown], axis=0)).mean()) if shown.any() else 0.0


def _small(
    reference: Image.Image, moved: Image.Image, outside: NDArray[np.bool_]
) -> tuple[Plane, Plane, NDArray[np.bool_]]:
    factor = min(1.0, 256 / max(reference.size))
    size = (max(1, round(reference.width * factor)), max(1, round(reference.height * factor)))
    shown = Image.fromarray(np.where(outside, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
    pictures = [np.asarray(image.resize(size, Image.Resampling.BOX), np.float32) for image in (reference, moved)]
    return pictures[0], pictures[1], np.asarray(shown) > 250


def _line(first: Plane, second: Plane) -> tuple[float, float]:
    """A robust line second = gain * first + offset. A flat channel only gets an offset; both are kept within reason."""
    gain, offset = 1.0, float(np.median(second - first))
    for _ in range(12):
        residual = second - gain * first - offset
        sigma = max(0.5, 1.4826 * float(np.median(np.abs(residual))))
        weight = np.square(np.clip(1 - np.square(residual / (4.685 * sigma)), 0, None)).astype(np.float64)
        total = weight.sum()
        mean_first, mean_second = (weight * first).sum() / total, (weight * second).sum() / total
        variance = (weight * np.square(first - mean_first)).sum() / total
        if variance > 16:
            covariance = (weight * (first - mean_first) * (second - mean_second)).sum() / total
            gain = float(np.clip(covariance / variance, 0.6, 1.6))
        offset = float(np.clip(mean_second - gain * mean_first, -80, 80))
    return gain, offset
