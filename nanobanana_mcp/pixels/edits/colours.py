"""Takes a model's recolouring back: three sums of R, G and B that bring an answer nearest to its source."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]
Colours = tuple[float, ...]
"""Twelve numbers, four for each of R, G and B: the parts of the answer's R, G and B, and what is added (8-bit levels)."""

SAME: Colours = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)

LOOKED_AT = 256  # px of the longer side at which colours are compared
_BLURRED = 40  # the same where pixels are not known to lie upon each other
_LEAST, _MOST = 0.6, 1.6  # of the three parts of a colour together
_FREE = np.array([0.15, 0.15, 0.15, 12.0])  # how far a part and a sum are from 1 or 0 before a fit needs reasons
_BLACK = np.array([0.15, 0.15, 0.15, 0.001])  # the same where nothing is to be added


def fitted(
    reference: Image.Image,
    moved: Image.Image,
    outside: NDArray[np.bool_],
    *,
    sure: bool,
    black_stays: bool = False,
) -> tuple[Colours, float]:
    """The colours that bring `moved` nearest to `reference` outside the changed part, and the mean difference left.

    All pixels count, white and black ones too: paper that came back grey is what shows most. What has changed is
    outvoted (Tukey's weights). Where pixels are not `sure` to lie upon each other, large patches are compared. With
    `black_stays` nothing is added to what is black.
    """
    wanted, given, shown = small(reference, moved, outside, longest=LOOKED_AT if sure else _BLURRED)
    if shown.sum() < 12:
        return SAME, float(np.abs(wanted[shown] - given[shown]).mean()) if shown.any() else 0.0
    first, second = given[shown].astype(np.float64), wanted[shown].astype(np.float64)
    if len(first) > 20_000:
        first, second = (values[:: len(values) // 20_000 + 1] for values in (first, second))
    columns = np.column_stack([first, np.ones(len(first))])
    found: list[float] = []
    for channel in range(3):
        usual = np.array([float(channel == 0), float(channel == 1), float(channel == 2), 0.0])
        found += [
            float(value) for value in _robust(columns, second[:, channel], usual, _BLACK if black_stays else _FREE)
        ]
    # A flat source before an uneven answer would take all contrast out of it; then only a sum is sure.
    parts = [sum(found[4 * channel : 4 * channel + 3]) for channel in range(3)]
    beyond = min(parts) < _LEAST or max(parts) > _MOST
    if beyond and black_stays:
        return SAME, float(np.abs(second - first).mean())
    if beyond:
        added = np.clip(np.median(second - first, axis=0), -60, 60)
        found = [*SAME[:3], float(added[0]), *SAME[4:7], float(added[1]), *SAME[8:11], float(added[2])]
    colours = tuple(found)
    left = np.abs(applied(given[shown], colours) - wanted[shown])
    before = np.abs(given[shown] - wanted[shown])
    if float(np.median(left.mean(axis=1))) > float(np.median(before.mean(axis=1))):
        return SAME, float(before.mean())
    return colours, float(left.mean())


def applied(pixels: Plane, colours: Colours) -> Plane:
    matrix = np.array(colours, np.float32).reshape(3, 4)
    return np.asarray(np.clip(pixels @ matrix[:, :3].T + matrix[:, 3], 0, 255), np.float32)


def recoloured(image: Image.Image, colours: Colours) -> Image.Image:
    """The picture in other colours, rounded and clipped; alpha is kept."""
    if colours == SAME:
        return image
    plain = image if image.mode == "RGB" else image.convert("RGB")  # a copy of a large crop is worth avoiding
    done = plain.convert("RGB", colours)
    if image.mode == "RGBA":
        done.putalpha(image.getchannel("A"))
    return done


def small(
    reference: Image.Image, moved: Image.Image, outside: NDArray[np.bool_], *, longest: int = LOOKED_AT
) -> tuple[Plane, Plane, NDArray[np.bool_]]:
    """Both pictures at few px, and which of these lie wholly outside."""
    factor = min(1.0, longest / max(reference.size))
    size = (max(1, round(reference.width * factor)), max(1, round(reference.height * factor)))
    shown = Image.fromarray(np.where(outside, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
    pictures = [np.asarray(image.resize(size, Image.Resampling.BOX), np.float32) for image in (reference, moved)]
    return pictures[0], pictures[1], np.asarray(shown) > 250


def _robust(
    columns: NDArray[np.float64], wanted: NDArray[np.float64], usual: NDArray[np.float64], free: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares with Tukey's weights, held near `usual` where the pixels do not tell."""
    found = usual.copy()
    found[3] = float(np.clip(np.median(wanted - columns @ usual), -60, 60))
    for _ in range(10):
        left = wanted - columns @ found
        sigma = max(1.0, 1.4826 * float(np.median(np.abs(left))))
        weight = np.square(np.clip(1 - np.square(left / (4.685 * sigma)), 0, None))
        # Neighbours are alike, so that some 25 pixels count as one.
        held = np.diag(25 * sigma**2 / np.square(free))
        normal = (columns * weight[:, None]).T @ columns + held
        found = np.linalg.solve(normal, (columns * weight[:, None]).T @ wanted + held @ usual)
    return np.asarray(found, np.float64)
