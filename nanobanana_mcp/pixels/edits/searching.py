"""Looks for a picture in an answer coarsely, by shift and scale: masked normalised correlation (Padfield 2012)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.edits.levels import Level, detail_of, reduced_to
from nanobanana_mcp.pixels.edits.warping import STILL, Plane, Warp, similar, warped

_NEARER = 0.08  # how much better than no shift at all the furthest one has to suit


def searched(level: Level, answered: Image.Image, scales: Sequence[float], furthest: float) -> tuple[Warp, float]:
    """The shift and scale with the highest masked normalised correlation, to about a pixel of the coarse size, and it."""
    width, height = level.size
    reach = int(np.ceil(furthest * max(width, height)))
    shape = (_quick(height + reach), _quick(width + reach))
    mask, detail = np.fft.rfft2(level.mask, shape), np.fft.rfft2(level.detail, shape)
    energy = np.fft.rfft2(level.detail**2, shape)

    def correlation(one: NDArray[np.complexfloating], other: NDArray[np.complexfloating]) -> Plane:
        full = np.fft.irfft2(np.conj(one) * other, shape)
        rows, columns = np.arange(-reach, reach + 1) % shape[0], np.arange(-reach, reach + 1) % shape[1]
        return full[np.ix_(rows, columns)].astype(np.float32)

    answered = reduced_to(answered, level.size, 2.0)
    common = correlation(mask, mask)
    enough = common > 0.3 * level.count
    against = np.maximum(correlation(energy, mask), 1)
    # Lines of text and rows of windows are alike, so of places that suit nearly as well the nearer one is taken.
    away = np.abs(np.arange(-reach, reach + 1, dtype=np.float32)) / reach
    nearer = np.float32(_NEARER) * np.hypot(away[:, None], away)
    best, found, correlated = -1.0, STILL, -1.0
    for scale in scales:
        moved = np.asarray(warped(answered, level.size, similar(0, 0, scale)), np.float32)
        other = detail_of(moved, level.mask, level.around)
        plane, power = np.fft.rfft2(other, shape), np.fft.rfft2(other**2, shape)
        below = np.maximum(correlation(mask, power), 1) * against
        score = np.where(enough, correlation(detail, plane) / np.sqrt(below), np.float32(-1))
        likely = score - nearer
        at = np.unravel_index(int(likely.argmax()), likely.shape)
        if likely[at] > best:
            best, correlated = float(likely[at]), float(score[at])
            found = similar(scale * (at[1] - reach) / width, scale * (at[0] - reach) / height, scale)
    return found, correlated


def _quick(length: int) -> int:
    """The next length whose only factors are 2, 3 and 5, as Fourier transforms like it."""
    while True:
        left = length
        for factor in (2, 3, 5):
            while left % factor == 0:
                left //= factor
        if left == 1:
            return length
        length += 1
