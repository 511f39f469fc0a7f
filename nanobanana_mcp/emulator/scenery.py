"""Draws what a model has to make up from a picture: what lies beyond its edges, and what in it is the subject."""

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Place = tuple[float, float, float, float]
"""Left, top, right, bottom as parts of the sides."""
Beyond = Literal["on", "left", "framed", "foreign"]

_PLACE = re.compile(
    r"from ([\d.]+)% to ([\d.]+)% of the width and from ([\d.]+)% to ([\d.]+)% of the height", re.IGNORECASE
)
_LOOKED_AT = 128  # px of the longer side at which a subject is looked for
_COLOURS = 6  # that a background has


def places_in(prompt: str) -> list[Place]:
    """The areas that a prompt names in percent of the sides."""
    found = []
    for numbers in _PLACE.findall(prompt):
        left, right, top, bottom = (float(number) / 100 for number in numbers)
        found.append((left, top, right, bottom))
    return found


def asks_for_more(prompt: str) -> bool:
    """Tells whether a prompt says that parts of its picture are still to be painted."""
    return "not painted yet" in prompt


def continued(image: Image.Image, painted: list[Place], how: Beyond, *, seed: bytes) -> Image.Image:
    """A canvas of which the parts `painted` are there, with the rest mirrored on from the first of them.

    Or as models fail at it: left as it is, or with the picture in a white frame, or before another scene.
    """
    if how == "left":
        return image
    boxes = [_box(place, image.size) for place in painted]
    width, height = image.size
    left, top, right, bottom = boxes[0]
    if how == "framed":
        answer = Image.new("RGB", image.size, "white")
    elif how == "foreign":
        answer = _hills(image.size, seed)
    else:
        # Two pixels within the edge: the place is named in tenths of a percent.
        inner = (
            left + 2 * (left > 0),
            top + 2 * (top > 0),
            right - 2 * (right < width),
            bottom - 2 * (bottom < height),
        )
        margins = ((inner[1], height - inner[3]), (inner[0], width - inner[2]), (0, 0))
        answer = Image.fromarray(np.pad(np.asarray(image.crop(inner)), margins, mode="symmetric"))
    for box in boxes:
        answer.paste(image.crop(box), box)
    return answer


def subject_of(source: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cuts out the subject of a picture: the part that stands out from the colours along its edges, RGBA in `size`; an
    oval in the middle where nothing stands out.
    """
    image = source.resize(size, Image.Resampling.BICUBIC)
    small = source.copy()
    small.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX)
    mask = _standing_out(np.asarray(small, np.float32))
    if mask is None:
        y, x = np.mgrid[0 : small.height, 0 : small.width].astype(np.float32)
        mask = np.hypot((x + 0.5) / small.width - 0.5, (y + 0.5) / small.height - 0.5) < 0.36
    soft = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).filter(ImageFilter.GaussianBlur(1.5))
    edge = np.asarray(soft.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
    alpha = np.clip((edge - 0.5) * 6 + 0.5, 0, 1)
    image.putalpha(Image.fromarray((255 * alpha).round().astype(np.uint8)))
    return image


def _standing_out(pixels: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    height, width = pixels.shape[:2]
    deep = max(2, min(height, width) // 16)
    ring = np.ones((height, width), bool)
    ring[deep:-deep, deep:-deep] = False
    colours = _means(pixels[ring])
    away = np.sqrt(np.square(pixels[:, :, None] - colours).sum(axis=3)).min(axis=2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    middle = np.clip(1.4 - 2 * np.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5), 0.2, 1)
    score = Image.fromarray(np.clip(away * middle * 2, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    values = np.asarray(score)
    limit = _divide(values)
    plane = Image.fromarray(np.where(values > limit, np.uint8(255), np.uint8(0)))
    plane = plane.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))
    best = np.where(np.asarray(plane) > 0, values * middle, 0)
    seed = divmod(int(best.argmax()), width)
    ImageDraw.floodfill(plane, (seed[1], seed[0]), 128)
    one = np.asarray(plane) == 128
    outside = Image.fromarray(np.where(np.pad(one, 1), np.uint8(255), np.uint8(0))).copy()
    ImageDraw.floodfill(outside, (0, 0), 128)
    whole = np.asarray(outside)[1:-1, 1:-1] != 128  # with its holes
    share = float(whole.mean())
    return whole if 0.04 < share < 0.7 and float(whole[ring].mean()) < 0.35 else None


def _means(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """The colours that most of these are near to (k-means from evenly spread brightness)."""
    order = colours[np.argsort(colours.sum(axis=1))]
    means = order[np.linspace(0, len(order) - 1, _COLOURS).astype(int)]
    for _ in range(8):
        nearest = np.square(colours[:, None] - means).sum(axis=2).argmin(axis=1)
        means = np.stack(
            [colours[nearest == k].mean(axis=0) if (nearest == k).any() else means[k] for k in range(_COLOURS)]
        )
    return np.asarray(means, np.float32)


def _divide(values: NDArray[np.uint8]) -> int:
    """The level that divides values into two groups most unlike each other (Otsu 1979)."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * np.arange(256)).cumsum()
    between = np.zeros(256)
    both = (below > 0) & (above > 0)
    between[both] = (
        below[both] * above[both] * np.square(sums[both] / below[both] - (sums[-1] - sums[both]) / above[both])
    )
    return int(between.argmax())


def _hills(size: tuple[int, int], seed: bytes) -> Image.Image:
    """Another scene: a sky over rows of hills."""
    width, height = size
    random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    image = Image.fromarray(
        np.linspace((255, 190, 120), (120, 170, 230), height, dtype=np.float32).astype(np.uint8)[:, None]
    )
    image = image.resize(size)
    draw = ImageDraw.Draw(image)
    for row in range(5):
        base, bends = height * (0.45 + 0.12 * row), random.uniform(0, 6, 2)
        steps = np.linspace(0, 1, 60)
        tops = base + height * 0.06 * np.sin(9 * steps + bends[0]) + height * 0.03 * np.sin(23 * steps + bends[1])
        points = [(float(x * width), float(y)) for x, y in zip(steps, tops, strict=True)]
        draw.polygon([*points, (width, height), (0, height)], fill=(70 - 10 * row, 120 - 16 * row, 60 - 8 * row))
    return image


def _box(place: Place, size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = place
    return round(left * size[0]), round(top * size[1]), round(right * size[0]), round(bottom * size[1])
