"""Writes grey pictures as grey and those of a palette with one: work on pixels is done in RGB, files need not be."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.pixels.files.containers import jpeg_frame
from nanobanana_mcp.pixels.files.header import Header, open_picture

Kind = Literal["bilevel", "grey", "palette"]

_COLOURS = 256
_EVEN = 2  # levels between channels that are one grey, after a conversion through its profile
_UNSEEN = 8  # levels that the palette's colour may be off in any channel: at edges that scaling has softened
_ROWS = 256  # that are looked up at once
_MOST_TRIED = 50_000  # different colours; a drawing that was scaled has some hundreds


def kind_of(data: bytes, header: Header) -> Kind | None:
    """The way a file of fewer than three channels stores its pixels; None for colours as they are."""
    if header.format == "jpeg":  # to open it would be another walk over all of its bytes
        frame = jpeg_frame(data)
        return "grey" if frame is not None and frame[2] == 1 else None
    mode = open_picture(data, header.format).mode
    if mode in ("P", "PA"):
        return "palette"
    return "bilevel" if mode == "1" else "grey" if mode in ("L", "LA") or mode.startswith("I;16") else None


def narrowed(image: Image.Image, kind: Kind | None, output_format: str) -> Image.Image:
    """The picture as its source was stored, where it still can be and the format has that; else as it is."""
    profile = image.info.get("icc_profile")
    if kind == "palette" and output_format == "png":
        narrow = _with_palette(image)
    elif kind in ("bilevel", "grey") and output_format in ("png", "jpeg") and profile is None:
        narrow = _in_grey(image, kind)
    else:
        return image
    if narrow is not image and profile:
        narrow.info["icc_profile"] = profile
    return narrow


def _in_grey(image: Image.Image, kind: Kind) -> Image.Image:
    channels = image.split()
    if any(_apart(channels[0], other) > _EVEN for other in channels[1:3]):
        return image
    grey = channels[0]
    if len(channels) == 4:
        return Image.merge("LA", (grey, channels[3]))
    seen = grey.histogram()
    return grey.convert("1") if kind == "bilevel" and not any(seen[1:255]) else grey


def _apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def _with_palette(image: Image.Image) -> Image.Image:
    """Exactly where 256 colours are enough, as after a cut or a turn, and else where the nearest of 256 are not to be told."""
    found = image.getcolors(_MOST_TRIED)
    if found is None:
        return image
    colours = np.array([colour for _, colour in found], np.int16)
    colours = colours[np.argsort(_keys(colours))]
    chosen, nearest = _chosen(colours)
    if chosen is None:
        return image
    narrow = Image.new("P", image.size)
    narrow.putpalette(colours[chosen].astype(np.uint8).tobytes(), image.mode)
    for top in range(0, image.height, _ROWS):
        pixels = np.asarray(image.crop((0, top, image.width, min(top + _ROWS, image.height))))
        places = np.searchsorted(_keys(colours), _keys(pixels))
        narrow.paste(Image.fromarray(nearest[places], "P"), (0, top))
    return narrow


def _keys(colours: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Each colour as one number."""
    keys = np.zeros(colours.shape[:-1], np.uint32)
    for channel in range(colours.shape[-1]):
        keys = keys << np.uint32(8) | colours[..., channel].astype(np.uint32)
    return keys


def _chosen(colours: NDArray[np.int16]) -> tuple[list[int] | None, NDArray[np.uint8]]:
    """Chooses at most 256 of the colours, so that each has a near one that cannot be told from it, and the nearest for
    each (Gonzalez 1985); no colours where 256 are too few.
    """
    chosen, nearest = [0], np.zeros(len(colours), np.uint8)
    away = np.abs(colours - colours[0]).max(axis=1)
    while away.max() > 0 and len(chosen) < _COLOURS:
        furthest = int(away.argmax())
        other = np.abs(colours - colours[furthest]).max(axis=1)
        nearest[other < away] = len(chosen)
        away = np.minimum(away, other)
        chosen.append(furthest)
    return (chosen if away.max() <= _UNSEEN else None), nearest
