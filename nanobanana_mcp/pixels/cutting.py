"""A cutout on bytes: alpha from a white and a black plate, or from one on a key colour, with how good it is."""

from dataclasses import dataclass

from nanobanana_mcp.errors import RequestError
from nanobanana_mcp.pixels.chequer import looks_like_checkerboard
from nanobanana_mcp.pixels.clean import DECODES
from nanobanana_mcp.pixels.decoding import decoded
from nanobanana_mcp.pixels.export import named_colour
from nanobanana_mcp.pixels.labels import Label
from nanobanana_mcp.pixels.lossless import png
from nanobanana_mcp.pixels.matte import Matte, Quality, key, matte

CHEQUERBOARD = "the model painted a chequerboard instead of a background"


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """An RGBA PNG; `data` is None when the plates cannot give one, and `problem` says why."""

    data: bytes | None
    quality: Quality | None = None
    problem: str | None = None


def painted_chequerboard(plate: bytes) -> bool:
    """Whether a model drew the picture of transparency instead of leaving a plain background."""
    with DECODES:
        return looks_like_checkerboard(decoded(plate).convert("RGB"))


def from_plates(white: bytes, black: bytes, *, label: Label | None = None) -> Cutout:
    with DECODES:
        try:
            found = matte(decoded(white).convert("RGB"), decoded(black).convert("RGB"))
        except RequestError as error:
            return Cutout(data=None, problem=str(error))
        if not found.quality.matching:
            words = f"the two plates do not show the same picture (mismatch {found.quality.mismatch:.3f})"
            return Cutout(data=None, quality=found.quality, problem=words)
        return _finished(found, label)


def from_key(plate: bytes, colour: str, *, label: Label | None = None) -> Cutout:
    with DECODES:
        try:
            found = key(decoded(plate).convert("RGB"), named_colour(colour))
        except RequestError as error:
            return Cutout(data=None, problem=str(error))
        return _finished(found, label)


def _finished(found: Matte, label: Label | None) -> Cutout:
    quality = found.quality
    if quality.chequered:
        return Cutout(data=None, quality=quality, problem=CHEQUERBOARD)
    if quality.transparent < 0.005 or quality.opaque + quality.semi < 0.001:
        empty = "nothing but background" if quality.opaque + quality.semi < 0.001 else "no background"
        return Cutout(data=None, quality=quality, problem=f"there is {empty} in the plates")
    return Cutout(data=png(found.image, label=label), quality=quality)
