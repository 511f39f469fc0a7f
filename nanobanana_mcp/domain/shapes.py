"""Ratios and sizes: the nearest one a model has, and whether what came is what was asked for. Pure."""

import math
from collections.abc import Iterable

from nanobanana_mcp.domain.catalog import ANSWERS_1K, AspectRatio, ImageSize

_PIXELS: dict[ImageSize, int] = {"512": 512 * 512, "1K": 1024 * 1024, "2K": 2048 * 2048, "4K": 4096 * 4096}
TOLERANCE = 0.08
"""Real answers miss their ratio by up to 4 % (8:1 comes as 2928 x 352); beyond twice that it is another shape."""


def ratio_value(ratio: AspectRatio) -> float:
    width, height = ratio.split(":")
    return int(width) / int(height)


def nearest_ratio(width: int, height: int, ratios: Iterable[AspectRatio]) -> AspectRatio:
    """The ratio closest to width x height, by the factor that one side would have to change."""
    return min(ratios, key=lambda ratio: abs(math.log(ratio_value(ratio) * height / width)))


def size_class(width: int, height: int) -> ImageSize:
    """The one of Gemini's sizes that a picture has, by its area: 1K is about one megapixel in every ratio."""
    return min(_PIXELS, key=lambda size: abs(math.log(width * height / _PIXELS[size])))


def differences(
    width: int,
    height: int,
    *,
    size: ImageSize | None,
    ratio: AspectRatio | None,
    source: tuple[int, int] | None,
) -> list[str]:
    """Says in words where a picture differs from what was asked for; `source` is the shape an edit should keep."""
    found = []
    if size is not None and size_class(width, height) != size:
        found.append(f"{size} was asked for and {size_class(width, height)} came back ({width}x{height}).")
    if ratio is not None and _off(width / height, ratio_value(ratio)):
        found.append(f"Aspect ratio {ratio} was asked for and {width}x{height} came back.")
    elif ratio is None and source is not None and _off(width / height, source[0] / source[1]):
        found.append(f"The source is {source[0]}x{source[1]} and the edit came back as {width}x{height}.")
    return found


def _off(obtained: float, wanted: float) -> bool:
    return abs(math.log(obtained / wanted)) > TOLERANCE


def answer_pixels(ratio: AspectRatio, size: ImageSize) -> tuple[int, int]:
    """The width x height that a model answers with; 2K is twice 1K and 4K four times, in every ratio."""
    width, height = ANSWERS_1K[ratio]
    factor = {"512": 0.5, "1K": 1, "2K": 2, "4K": 4}[size]
    return round(width * factor), round(height * factor)
