"""A cutout on bytes: alpha from a white and a black plate, or from one on a key colour, with how good it is."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.alignment import aligned, restored
from nanobanana_mcp.pixels.edits.chequer import looks_like_checkerboard
from nanobanana_mcp.pixels.edits.matte import Matte, Quality, key, matte
from nanobanana_mcp.pixels.files.clean import DECODES, to_srgb
from nanobanana_mcp.pixels.files.decoding import Size, decoded
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.png import png
from nanobanana_mcp.pixels.outputs.render import opaque_colour

CHEQUERBOARD = "the model painted a chequerboard instead of a background"


_OTHER_COLOUR = 0.2  # of 1: a background this far from the key colour is another one, or was left as it was
_LOOKED_AT = 1024  # px of the longer side at which a cutout is laid upon its source


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """An RGBA PNG of `size` px; `data` is None when the plates cannot give one, and `problem` says why.

    `overlays`: it has the size of its source and lies on it pixel by pixel.
    """

    data: bytes | None
    quality: Quality | None = None
    problem: str | None = None
    size: Size = (0, 0)
    overlays: bool = False


def painted_chequerboard(plate: bytes) -> bool:
    """Whether a model drew the picture of transparency instead of leaving a plain background."""
    with DECODES:
        return looks_like_checkerboard(decoded(plate).convert("RGB"))


def from_plates(white: bytes, black: bytes, *, source: bytes | None = None, label: Label | None = None) -> Cutout:
    """`source` is the picture that it is cut out of, None for a new one."""
    with DECODES:
        plate = decoded(white).convert("RGB")
        try:
            found = matte(plate, decoded(black).convert("RGB"))
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
            found = key(keyed, opaque_colour(colour))
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
    placed = None if source is None else _upon(source, found.image, plate)
    image = placed or found.image
    return Cutout(data=png(image, label=label), quality=quality, size=image.size, overlays=placed is not None)


def _upon(source: bytes, cut: Image.Image, plate: Image.Image) -> Image.Image | None:
    """The cutout where its source has the object, None where the object's solid inside does not tell where that is."""
    whole = decoded(source)
    size, factor = whole.size, min(1.0, _LOOKED_AT / max(whole.size))
    small = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    reference = to_srgb(whole.resize(small, Image.Resampling.LANCZOS, reducing_gap=3.0)).convert("RGB")
    del whole
    solid = np.asarray(cut.getchannel("A").resize(small).filter(ImageFilter.MinFilter(5))) > 240
    drift = aligned(reference, plate, changed=np.where(solid, np.uint8(0), np.uint8(255)), bends=False).drift
    if not drift.known:
        return None
    if cut.size == size and drift.warp.furthest(size) < 0.4:
        return cut  # as it lies; resampling would only blur it
    placed = restored(cut.convert("RGB"), size, drift)  # apart from alpha, so that colour goes on beside the object
    placed.putalpha(restored(cut.getchannel("A"), size, drift))
    return placed
