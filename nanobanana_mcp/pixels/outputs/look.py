"""A close look at a picture: a part of it at full detail, two of them at the same place, and a map of what differs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.masks import pixel_box
from nanobanana_mcp.pixels.files.clean import DECODES, decode, eight_bit, to_srgb, upright, with_its_end
from nanobanana_mcp.pixels.files.decoding import Box, Size
from nanobanana_mcp.pixels.files.header import check_bounds, memory_for, read_header
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, within_bytes

TOLERANCE = 16
"""8-bit levels by which a channel may differ before a pixel counts as changed: what JPEG does to the same picture stays below
it nearly everywhere."""

_SHARP = 95  # JPEG, without thinning out the colours: letters keep their edges
_GAP = 16
_PAPER = (251, 251, 250)
_MARK = (255, 0, 200)
_DIM = 0.35  # how much of the picture shows through the map
_CELLS = 64  # along the longer side, of which changed areas are put together
_PLACES = 5
_CHEQUER = 8
_ALIKE_SHAPE = 0.02


@dataclass(frozen=True, kw_only=True)
class Place:
    """An area that changed: left, top, right, bottom in pixels, and its part of all changed pixels, 0 to 1."""

    box: Box
    share: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The differences of two pictures where they were looked at: the shares, 0 to 1, of pixels that differ at all, and
    by more than `tolerance` levels of 255 in some channel; the same outside the box, None where there was none; and the
    largest areas.
    """

    tolerance: int
    differing: float
    changed: float
    changed_outside: float | None
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Look:
    """`pictures` are one, or the pair and the map; `size` is that of the whole picture and `box` what is shown of it; `scale`
    is 1.0 where each pixel is shown as it is, and smaller where it had to be made smaller.
    """

    pictures: tuple[Thumbnail, ...]
    size: Size
    box: Box
    scale: float
    difference: Difference | None = None
    panels: tuple[tuple[float, float, float, float], ...] = ()
    """The places of the two in the picture of a pair: left, top, right, bottom as shares of it."""
    notes: tuple[str, ...] = ()


def look(
    data: bytes,
    *,
    box: Sequence[float] | None,
    max_px: int,
    max_bytes: int,
    other: bytes | None = None,
) -> Look:
    """Show a box of a picture, given in pixels or fractions, or all of it; with `other` the same place of both.

    No picture is longer than `max_px`, of a pair than half as much again, and all together have at most `max_bytes`. Raises
    RequestError for a box outside and for two pictures of different shapes, NotAnImage for bytes that are no picture.
    """
    with DECODES:
        first = _upright(data)
        size = first.size
        shown = pixel_box(box, size=size) if box is not None else (0, 0, *size)
        if other is None:
            cut = _flat(to_srgb(first.crop(shown)))
            picture = _within(_fitted(cut, max_px), max_bytes)
            return Look(pictures=(picture,), size=size, box=shown, scale=picture.width / cut.width)
        second, notes = _as_large(_upright(other), size)
        return _compared(to_srgb(first), to_srgb(second), shown, max_px, max_bytes, whole=box is None, notes=notes)


def same_pixels(one: bytes, other: bytes) -> bool:
    """Tells whether two files show the very same pixels."""
    with DECODES:
        first, second = _upright(one), _upright(other)
        if first.size != second.size:
            return False
        first, second = to_srgb(first).convert("RGBA"), to_srgb(second).convert("RGBA")
        return first.tobytes() == second.tobytes()


def _upright(data: bytes) -> Image.Image:
    header = read_header(data)
    check_bounds(header, data, made=True)
    with memory_for(header):
        return upright(eight_bit(decode(with_its_end(data, header), header), header), header)


def _as_large(image: Image.Image, size: Size) -> tuple[Image.Image, list[str]]:
    if image.size == size:
        return image, []
    if abs(math.log(image.width / image.height * size[1] / size[0])) > _ALIKE_SHAPE:
        raise RequestError(
            f"compare_with has {image.width}x{image.height} pixels and the picture {size[0]}x{size[1]}, which is another shape, "
            "so there is no same place in both."
        )
    note = f"compare_with has {image.width}x{image.height} pixels and was scaled to {size[0]}x{size[1]} for the comparison."
    scaled = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    scaled.info = dict(image.info)
    return scaled, [note]


def _compared(
    first: Image.Image, second: Image.Image, shown: Box, max_px: int, max_bytes: int, *, whole: bool, notes: list[str]
) -> Look:
    apart = _apart(first, second)
    within = apart[shown[1] : shown[3], shown[0] : shown[2]]
    changed = within > TOLERANCE
    outside = None
    if not whole:
        rest = apart.size - within.size
        outside = (int((apart > TOLERANCE).sum()) - int(changed.sum())) / rest if rest else 0.0
    one, two = _flat(first.crop(shown)), _flat(second.crop(shown))
    beside = one.width <= 1.5 * one.height
    across, down = (2 * one.width + _GAP, one.height) if beside else (one.width, 2 * one.height + _GAP)
    share = min(1.0, max_px / max(one.size), 1.5 * max_px / max(across, down))
    panels = [_scaled(image, share) for image in (one, two)]
    width, height = panels[0].size
    pair = Image.new("RGB", (2 * width + _GAP, height) if beside else (width, 2 * height + _GAP), _PAPER)
    pair.paste(panels[0], (0, 0))
    pair.paste(panels[1], (width + _GAP, 0) if beside else (0, height + _GAP))
    shared = _within(pair, max_bytes * 2 // 3)
    scale = share * shared.width / pair.width
    return Look(
        pictures=(shared, _within(_scaled(_map(one, within), share), max_bytes // 3)),
        size=first.size,
        box=shown,
        scale=scale,
        panels=(
            (0.0, 0.0, width / pair.width, height / pair.height),
            (1 - width / pair.width, 1 - height / pair.height, 1.0, 1.0),
        ),
        difference=Difference(
            tolerance=TOLERANCE,
            differing=float((within > 0).mean()),
            changed=float(changed.mean()),
            changed_outside=outside,
            places=_places(changed, shown),
        ),
        notes=(*notes, "The second picture stands " + ("on the right." if beside else "below the first.")),
    )


def _apart(first: Image.Image, second: Image.Image) -> NDArray[np.uint8]:
    """The largest difference of any channel at each pixel, transparency among them."""
    planes = ImageChops.difference(_on_grey(first), _on_grey(second)).split()
    found = planes[0]
    for plane in planes[1:]:
        found = ImageChops.lighter(found, plane)
    if "A" in first.getbands() or "A" in second.getbands():
        found = ImageChops.lighter(found, ImageChops.difference(_alpha(first), _alpha(second)))
    return np.asarray(found)


def _on_grey(image: Image.Image) -> Image.Image:
    """The picture on grey, without the colours of transparent pixels, which nobody can see."""
    if "A" not in image.getbands():
        return image if image.mode == "RGB" else image.convert("RGB")
    ground = Image.new("RGB", image.size, (128, 128, 128))
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _alpha(image: Image.Image) -> Image.Image:
    return image.getchannel("A") if "A" in image.getbands() else Image.new("L", image.size, 255)


def _flat(image: Image.Image) -> Image.Image:
    """The picture as it is shown, with transparency as a chequer."""
    if "A" not in image.getbands():
        return image if image.mode == "RGB" else image.convert("RGB")
    rows, columns = np.ogrid[: image.height, : image.width]
    squares = ((rows // _CHEQUER + columns // _CHEQUER) % 2 * 51 + 204).astype(np.uint8)
    ground = Image.fromarray(squares).convert("RGB")
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _map(image: Image.Image, apart: NDArray[np.uint8]) -> Image.Image:
    """The picture, pale and grey, with what differs marked: the more, the brighter."""
    pale = image.convert("L").point(lambda level: round(255 - (255 - level) * _DIM))
    strength = np.where(apart > TOLERANCE, np.clip(apart.astype(np.uint16) * 2 + 96, 0, 255), 0).astype(np.uint8)
    found = pale.convert("RGB")
    found.paste(_MARK, mask=Image.fromarray(strength))
    return found


def _places(changed: NDArray[np.bool_], shown: Box) -> tuple[Place, ...]:
    """The largest areas that changed, of cells that touch each other."""
    total = int(changed.sum())
    if not total:
        return ()
    cell = max(1, math.ceil(max(changed.shape) / _CELLS))
    rows = np.add.reduceat(changed.astype(np.int64), np.arange(0, changed.shape[0], cell), axis=0)
    counts = np.add.reduceat(rows, np.arange(0, changed.shape[1], cell), axis=1)
    left_over = {(int(row), int(column)) for row, column in np.argwhere(counts > 0)}
    areas = []
    while left_over:
        waiting, area = [left_over.pop()], []
        while waiting:
            row, column = waiting.pop()
            area.append((row, column))
            around = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left_over
            left_over -= around
            waiting += around
        areas.append(area)
    found = []
    for area in sorted(areas, key=lambda one: -sum(int(counts[cell]) for cell in one))[:_PLACES]:
        top, left = min(row for row, _ in area) * cell, min(column for _, column in area) * cell
        bottom, right = (max(row for row, _ in area) + 1) * cell, (max(column for _, column in area) + 1) * cell
        part = changed[top:bottom, left:right]
        down, across = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        box = (
            shown[0] + left + int(across[0]),
            shown[1] + top + int(down[0]),
            shown[0] + left + int(across[-1]) + 1,
            shown[1] + top + int(down[-1]) + 1,
        )
        found.append(Place(box=box, share=sum(int(counts[one]) for one in area) / total))
    return tuple(found)


def _fitted(image: Image.Image, max_px: int) -> Image.Image:
    return _scaled(image, min(1.0, max_px / max(image.size)))


def _scaled(image: Image.Image, share: float) -> Image.Image:
    if share >= 1:
        return image
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _within(image: Image.Image, max_bytes: int) -> Thumbnail:
    """Sharp where that fits, which letters of few pixels need; else as previews are."""
    out = BytesIO()
    image.save(out, "JPEG", quality=_SHARP, subsampling=0)
    if out.tell() <= max_bytes:
        return Thumbnail(data=out.getvalue(), mime_type="image/jpeg", width=image.width, height=image.height)
    return within_bytes(image, "image/jpeg", max_bytes=max_bytes)
