"""Measures how far two pictures are apart in what one sees of their colours."""

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]


def apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Plane:
    """The difference in CIE L*a*b* (1976) of sRGB pixels."""
    first, second = (_lab(values) for values in (one, other))
    return np.asarray(np.sqrt(np.square(first - second).sum(axis=-1)), np.float64)


def _lab(pixels: NDArray[np.uint8]) -> Plane:
    values = np.asarray(pixels, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    roots = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * roots[..., 1] - 16, 500 * (roots[..., 0] - roots[..., 1]), 200 * (roots[..., 1] - roots[..., 2])], -1
    )
