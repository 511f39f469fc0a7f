"""Chooses the ratio and size to ask for when an exact file is wanted. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize, ModelSpec, TierName
from nanobanana_mcp.domain.errors import RequestError, UnsupportedOption
from nanobanana_mcp.domain.requests import ImageRequest, OutputSpec
from nanobanana_mcp.domain.selector import choose
from nanobanana_mcp.domain.shapes import answer_pixels, nearest_ratio
from nanobanana_mcp.domain.terms import MADE_PIXELS, MADE_SIDE, OutputFormat, Resolution

WEBP_SIDE = 16_383

RESOLUTIONS: dict[ImageSize, Resolution] = {"1K": "1k", "2K": "2k", "4K": "4k"}


def shape_request(
    request: ImageRequest, models: Mapping[TierName, ModelSpec], *, stay: TierName | None = None
) -> tuple[ImageRequest, list[str]]:
    """The request with the nearest ratio and the smallest size that covers its exact file, unless it names them.

    Raises UnsupportedOption for what the model of its tier cannot do.
    """
    exact = request.exact
    if exact is None or (exact.width is None and exact.height is None):
        return request, []
    spec = choose(request, models, stay=stay).spec
    ratio: AspectRatio | None = request.aspect_ratio
    if ratio is None and exact.width is not None and exact.height is not None:
        ratio = nearest_ratio(exact.width, exact.height, spec.ratios)
        request = replace(request, aspect_ratio=ratio)
    if request.resolution != "high":
        return request, []
    size, covers = covering_size(spec, ratio or "1:1", exact.width or 0, exact.height or 0)
    request = replace(request, resolution=RESOLUTIONS[size])
    if covers:
        return request, []
    width, height = answer_pixels(ratio or "1:1", size)
    return request, [f"The largest picture this model makes is about {width}x{height}; the file is enlarged from it."]


def check_name(exact: OutputSpec | None, named: OutputFormat | None) -> None:
    """Raise RequestError where output_format is another one than output_path has `named`."""
    if exact is None or named is None:
        return
    if exact.output_format not in (None, named):
        raise RequestError(
            f"output_path asks for {named} and output_format for {exact.output_format}. Name one format, or leave "
            "output_format out."
        )


def check_size(exact: OutputSpec | None, shape: tuple[float, float], named: OutputFormat | None = None) -> None:
    """Refuse a file too large to be made, or for the format that output_path has `named`. Of one side alone the other
    follows from the `shape` of the picture, its width and height in any measure. Raises RequestError.
    """
    if exact is None or (exact.width is None and exact.height is None):
        return
    width = exact.width or max(1, round((exact.height or 0) * shape[0] / shape[1]))
    height = exact.height or max(1, round(width * shape[1] / shape[0]))
    if max(width, height) > MADE_SIDE or width * height > MADE_PIXELS:
        raise RequestError(
            f"A file of {width}x{height} px is too large; at most {MADE_SIDE} px a side and {MADE_PIXELS // 1_000_000} "
            "megapixels are made. Ask for a smaller one."
        )
    if "webp" in (exact.output_format, named) and max(width, height) > WEBP_SIDE:
        raise RequestError(
            f"WebP has at most {WEBP_SIDE} px a side, and {width}x{height} was asked for; use png or avif."
        )


def covering_size(
    spec: ModelSpec, ratio: AspectRatio, width: int, height: int, *, at_most: ImageSize = "4K"
) -> tuple[ImageSize, bool]:
    """The smallest of a model's sizes that has width x height pixels in this ratio, and whether any has."""
    allowed: list[ImageSize] = []
    for size in ("1K", "2K", "4K"):
        if size in spec.sizes:
            allowed.append(size)
        if size == at_most:
            break
    if not allowed:
        raise UnsupportedOption(f"{spec.nickname} makes none of the sizes 1K, 2K and 4K.")
    for size in allowed:
        has = answer_pixels(ratio, size)
        if has[0] >= width and has[1] >= height:
            return size, True
    return allowed[-1], False
