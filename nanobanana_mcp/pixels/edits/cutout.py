"""A cutout on bytes: alpha from a white and a black plate, or from one on a key colour, with how good it is."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.alignment import aligned, restored
from nanobanana_mcp.pixels.edits.chequer import looks_like_checkerboard
from nanobanana_mcp.pixels.edits.colours import recoloured
from nanobanana_mcp.pixels.edits.matte import Matte, Quality, key, least, matte
from nanobanana_mcp.pixels.files.clean import DECODES, to_srgb
from nanobanana_mcp.pixels.files.decoding import Size, decoded, from_srgb
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.png import png
from nanobanana_mcp.pixels.outputs.render import opaque_colour

CHEQUERBOARD = "the model painted a chequerboard instead of a background"


_OTHER_COLOUR = 0.2  # of 1: a background this far from the key colour is another one, or was left as it was
_LOOKED_AT = 1024  # px of the longer side at which a cutout is laid upon its source
_SAME = 28  # levels between source and plate, smoothed over 5 px, up to which they show the same
_MOSTLY = 0.5  # of what is not empty
_INSIDE = 253  # alpha from which an object hides what is behind it


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """An RGBA PNG of `size` px; `data` is None when the plates cannot give one, and `problem` says why.

    `overlays`: it has the size of its source and lies on it pixel by pixel. Then `own` is the part of its solid inside
    that has the source's own pixels, where the model had not drawn something else, and `enlarged` how many times larger
    than the plates it is.
    """

    data: bytes | None
    quality: Quality | None = None
    problem: str | None = None
    size: Size = (0, 0)
    overlays: bool = False
    own: float = 0.0
    enlarged: float = 1.0


def painted_chequerboard(plate: bytes, *, source: bytes | None = None) -> bool:
    """Tells whether a model drew the picture of transparency instead of leaving a plain background; what the source has
    is its own.
    """
    with DECODES:
        return looks_like_checkerboard(decoded(plate).convert("RGB"), _seen(source))


def from_plates(white: bytes, black: bytes, *, source: bytes | None = None, label: Label | None = None) -> Cutout:
    """`source` is the picture that it is cut out of, None for a new one."""
    with DECODES:
        plate = decoded(white).convert("RGB")
        try:
            found = matte(plate, decoded(black).convert("RGB"), source=_seen(source))
        except RequestError as error:
            return Cutout(data=None, problem=str(error))
        if not found.quality.matching:
            words = "the model changed the subject between its picture on white and the one on black"
            return Cutout(data=None, quality=found.quality, problem=words)
        return _finished(found, plate, source, label)


def from_key(plate: bytes, colour: str, *, source: bytes | None = None, label: Label | None = None) -> Cutout:
    """`source` is the picture that it is cut out of, None for a new one."""
    with DECODES:
        keyed = decoded(plate).convert("RGB")
        try:
            found = key(keyed, opaque_colour(colour), source=_seen(source))
        except RequestError as error:
            return Cutout(data=None, problem=str(error))
        if found.quality.mismatch > _OTHER_COLOUR:
            return Cutout(
                data=None, quality=found.quality, problem="the model did not put the subject on the key colour"
            )
        return _finished(found, keyed, source, label)


def _finished(found: Matte, plate: Image.Image, source: bytes | None, label: Label | None) -> Cutout:
    quality = found.quality
    if quality.chequered:
        return Cutout(data=None, quality=quality, problem=CHEQUERBOARD)
    if quality.transparent < 0.005 or quality.opaque + quality.semi < 0.001:
        left = "nothing but background" if quality.opaque + quality.semi < 0.001 else "no background to take away"
        return Cutout(data=None, quality=quality, problem=f"the model left {left}")
    placed = None if source is None else _upon(decoded(source), found.image, plate)
    if placed is None:
        return Cutout(data=png(found.image, label=label), quality=quality, size=found.image.size)
    image, own = placed
    return Cutout(
        data=png(image, label=label),
        quality=quality,
        size=image.size,
        overlays=True,
        own=own,
        enlarged=max(image.width / plate.width, image.height / plate.height),
    )


def _seen(source: bytes | None) -> Image.Image | None:
    """The source no larger than it is looked at, RGB on white."""
    return None if source is None else _small(decoded(source))


def _small(whole: Image.Image) -> Image.Image:
    factor = min(1.0, _LOOKED_AT / max(whole.size))
    size = (max(1, round(whole.width * factor)), max(1, round(whole.height * factor)))
    image = whole.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.info = dict(whole.info)
    image = to_srgb(image)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", size, "white"), image)
    return image.convert("RGB")


def _upon(whole: Image.Image, cut: Image.Image, plate: Image.Image) -> tuple[Image.Image, float] | None:
    """The cutout where its source has the object, and which part of its solid inside has the source's own pixels.

    None where the object's solid inside does not tell where it is. Edges and see-through parts have the colour that was
    solved from the plates, brought to the source's; inside the source's own pixels stand, in its profile, but where the
    model drew something else: what hid a part of the object is gone there.
    """
    reference = _small(whole)
    alpha = cut.getchannel("A")
    small = np.asarray(alpha.resize(reference.size))
    solid = least(small, 2) > 240
    # How a plate bends is known where the object is solid, and no guess is made far beyond that: hair, glass, shadow.
    bends = bool(np.count_nonzero(solid) > _MOSTLY * np.count_nonzero(small > 12))
    found = aligned(reference, plate, changed=(~solid).view(np.uint8), bends=bends)
    if not found.drift.known:
        return None
    # Apart from alpha, so that colour goes on beside the object.
    colours = recoloured(restored(cut.convert("RGB"), whole.size, found.drift), found.drift.colours)
    colours = from_srgb(colours, whole.info.get("icc_profile"))
    alpha = restored(alpha, whole.size, found.drift)
    before, after = (image.filter(ImageFilter.BoxBlur(2)) for image in (reference, found.image))
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(axis=2)
    same = Image.fromarray(np.where(apart < _SAME, np.uint8(255), np.uint8(0)))
    same = same.filter(ImageFilter.MedianFilter(5)).resize(whole.size, Image.Resampling.BILINEAR)
    inside = alpha.point(lambda value: 255 if value >= _INSIDE else 0)
    own = ImageChops.multiply(same, inside)
    image = Image.composite(whole.convert("RGB"), colours, own)
    if whole.mode == "RGBA":
        alpha = ImageChops.darker(alpha, whole.getchannel("A"))
    image.putalpha(alpha)
    image.info = {"icc_profile": whole.info["icc_profile"]} if "icc_profile" in whole.info else {}
    counts, whole_inside = own.histogram(), inside.histogram()
    return image, counts[255] / max(1, whole_inside[255])
