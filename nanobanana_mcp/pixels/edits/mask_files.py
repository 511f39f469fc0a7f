"""Reads a mask file by what it can only mean, and refuses one that could mean two things.

White on black is the convention, greys being soft. People and programs also send shapes painted in one colour on black,
on white, on transparency or over a copy of the picture, and, as OpenAI's image editing wants it, a picture with a
transparent hole where to edit. Taken for brightness, a red shape would edit at a quarter of its strength, and a hole
would protect just what was to change.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, RequestError
from nanobanana_mcp.pixels.files.decoding import Size, decoded

_GREY = 48
"""Levels between a pixel's channels up to which it counts as grey: what JPEG does to black and white stays below."""

_ALIKE = 64
"""Levels by which the pixels of one painted colour may differ in a channel, soft edges and JPEG included."""

_OPAQUE = 250
"""An alpha from here on is what encoders leave of an opaque picture."""

_WAY_OUT = "Nothing was sent. Give a mask that is white where to edit and black elsewhere, in the shape of the picture, or a box."


@dataclass(frozen=True, kw_only=True)
class Mask:
    """`plane` is 8-bit grey of the picture's size, 255 where it may change fully; `notes` say how it was read."""

    plane: Image.Image
    notes: tuple[str, ...]


def read_mask(data: bytes, source: Image.Image) -> Mask:
    """Read what a mask file says about a decoded picture.

    Raises RequestError for one that could mean more than one thing, NotAnImage for bytes that are no picture.
    """
    try:
        image = decoded(data)
    except (NotAnImage, NotEnoughMemory) as error:
        raise type(error)(f"The mask cannot be read. {error}") from error
    plane, how = _plane(image, source)
    notes = [how] if how else []
    if abs(math.log(image.width / image.height * source.height / source.width)) > 0.02:
        notes.append(
            f"The mask is {image.width}x{image.height} and the picture {source.width}x{source.height}: it has another shape "
            "and was stretched."
        )
    return Mask(plane=_fitted(plane, source.size), notes=tuple(notes))


def _fitted(plane: Image.Image, size: Size) -> Image.Image:
    return plane if plane.size == size else plane.resize(size, Image.Resampling.BILINEAR)


def _plane(image: Image.Image, source: Image.Image) -> tuple[Image.Image, str | None]:
    """The mask as grey, white being what may change, and how it was read where that is not the convention."""
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        levels = np.asarray(alpha)
        if levels.min() < _OPAQUE:
            if levels.min() == levels.max():
                raise _unclear("is equally transparent all over")
            return _by_alpha(image, alpha)
    pixels = _small(image.convert("RGB"))
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > _GREY
    if coloured.mean() < 0.0005:
        grey = image.convert("L")
        _check_grey(_small(grey))
        return grey, None
    if coloured.all():
        raise _unclear("has colour all over")
    rest = pixels[~coloured]
    if _is_one_colour(pixels[coloured]):
        dark, bright = bool((rest < 64).all(axis=1).mean() > 0.98), bool((rest > 191).all(axis=1).mean() > 0.98)
        if dark or bright:
            ground = "black" if dark else "white"
            return _by_colour(
                image.convert("RGB"), dark=dark
            ), f"The mask's colour on {ground} was read as what to edit."
    if image.size == source.size:
        painted = _painted_over(image.convert("RGB"), source.convert("RGB"))
        if painted is not None:
            return (
                painted,
                "The mask is the picture with one colour painted over it; that colour was read as what to edit.",
            )
    raise _unclear("has many colours")


def _unclear(seen: str) -> RequestError:
    return RequestError(f"The mask {seen}, so it does not say which part is to be edited. {_WAY_OUT}")


def _check_grey(grey: NDArray[np.uint8]) -> None:
    """Raise RequestError for greys that are no white on black, soft or hard: one shade, a dark shape, a photograph."""
    least, most = int(grey.min()), int(grey.max())
    if most - least < 32 and most >= 16:  # black all over has a sentence of its own
        raise _unclear("is one shade all over")
    frame = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if (frame > 191).mean() >= 0.9 and (grey > 191).mean() > 0.5:
        raise RequestError(
            "The mask is a dark shape on white: the shape or all around it could be what is to be edited. Nothing was sent. "
            "Paint what is to be edited white, or in one colour such as red, and the rest black."
        )
    middle = (grey > 63) & (grey < 192)
    if middle.mean() > 0.5 and grey.shape[1] > 2:
        bend = np.abs(np.diff(grey.astype(np.int16), n=2, axis=1))  # nothing on a slope, much in a photograph
        if bend.mean() > 4:
            raise _unclear("is a photograph in grey")


def _by_alpha(image: Image.Image, alpha: Image.Image) -> tuple[Image.Image, str | None]:
    """A painted shape on transparency is what to edit; a transparent hole in something that fills its frame is, too."""
    pixels, shown = _small(image.convert("RGB")), _small(alpha) > 127
    frame = np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]]).mean()
    one_colour = not shown.any() or _is_one_colour(pixels[shown])
    black = one_colour and bool((pixels[shown] < 64).all())
    hole = alpha.point([255 - level for level in range(256)]), "The mask's transparent part was read as what to edit."
    if not one_colour:
        if frame >= 0.6:
            return hole
        if frame <= 0.1:
            return alpha, "The mask's visible part was read as what to edit."
        raise _unclear("shows a picture beside transparency, and either could be meant")
    if frame >= 0.9:
        if black:
            return hole
        raise _unclear("is one colour with a transparent hole, and either could be meant")
    if frame > 0.1 and black and shown.mean() > 0.5:
        raise _unclear("is black beside transparency, and either could be meant")
    return alpha, None


def _by_colour(image: Image.Image, *, dark: bool) -> Image.Image:
    """Measures how much of the painted colour each pixel has: its strongest channel on black, its lack of white on
    white.
    """
    pixels = np.asarray(image)
    highest, lowest = pixels.max(axis=2), pixels.min(axis=2)
    strength = highest if dark else 255 - lowest
    full = float(np.median(strength[highest - lowest > _GREY]))  # a dark red edits as fully as a bright one
    return Image.fromarray(np.minimum(255, np.rint(strength * (255 / full))).astype(np.uint8))


def _painted_over(image: Image.Image, source: Image.Image) -> Image.Image | None:
    """Marks where a copy of the source was painted over, None where it is no copy or not painted in one colour."""
    pixels = np.asarray(image)
    away = np.abs(pixels.astype(np.int16) - np.asarray(source, np.int16)).max(axis=2)
    differs = away > 48
    if not 0.0005 < differs.mean() < 0.5 or np.median(away[~differs]) > 12 or not _is_one_colour(pixels[differs]):
        return None
    return Image.fromarray(differs.astype(np.uint8) * 255)


def _is_one_colour(pixels: NDArray[np.uint8]) -> bool:
    """Tells whether nine tenths of the pixels (n x 3) lie close around their median; soft edges and JPEG may differ."""
    if len(pixels) == 0:
        return False
    away = np.abs(pixels.astype(np.int16) - np.median(pixels, axis=0)).max(axis=1)
    return bool((away <= _ALIKE).mean() >= 0.9)


def _small(image: Image.Image) -> NDArray[np.uint8]:
    """The picture's pixels, few enough to be counted at once."""
    step = max(1, math.ceil(max(image.size) / 1024))
    return np.asarray(image)[::step, ::step]
