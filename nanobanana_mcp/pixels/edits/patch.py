"""A region edit in three steps on bytes: what to send, what to think of the answer, and the finished picture."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.pixels.edits.alignment import Drift, drift_of, laid, rgb
from nanobanana_mcp.pixels.edits.change import visibly_changed
from nanobanana_mcp.pixels.edits.levels import fewer
from nanobanana_mcp.pixels.edits.masks import Region, context_box, region_from_box, region_from_mask
from nanobanana_mcp.pixels.edits.region import Seam, Verdict, composite, seam, verdict
from nanobanana_mcp.pixels.files.clean import DECODES, to_srgb
from nanobanana_mcp.pixels.files.decoding import Box, Size, decoded, from_srgb
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.png import png
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, thumbnail_of

SENT_PIXELS = 2048 * 2048
"""A 2K answer's: the model looks at no more, and pays for no more, however large the crop is."""

SENT_BYTES = 7_000_000
"""One inline picture on Vertex AI; the Developer API takes three times as much."""


JUDGED_PIXELS = 1_500_000
"""What a join is judged by; more would show no more."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The crop that is sent for a region, in sRGB; `where` is the region within it, in words."""

    region: Region
    box: Box
    ratio: str
    crop: bytes
    mime_type: str
    where: str


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A finished picture with how well it joined; `data` is None when the answer does not belong there."""

    data: bytes | None
    verdict: Verdict
    seam: Seam
    drift: Drift
    changed: bool
    preview: Thumbnail | None = None


def prepare(
    data: bytes,
    *,
    box: Sequence[float] | None,
    mask: bytes | None,
    grow: int,
    feather: int,
    context: float,
    ratios: Mapping[str, Size],
) -> Patch:
    """Cut out what the model needs to see. `ratios` gives the pixels it answers with, by name.

    Raises RequestError for a region that is none, NotAnImage for bytes that are no picture.
    """
    with DECODES:
        source = decoded(data)
        size = source.size
        region = _region(source, box=box, mask=mask, grow=grow, feather=feather)
        if region.share > 0.98:
            raise RequestError("The region is the whole picture; edit it with generate_image instead.")
        found = context_box(region.box, size=size, ratios=ratios, context=context)
        crop = rgb(to_srgb(source.crop(found.box)))
        del source
        data, mime_type = as_sent(crop)
    where = _where(region.box, found.box)
    return Patch(region=region, box=found.box, ratio=found.ratio, crop=data, mime_type=mime_type, where=where)


def prepared(
    data: bytes, *, box: Sequence[float] | None, mask: bytes | None, grow: int, feather: int, crop: Box
) -> Patch:
    """The patch of an answer that is here already: the same region, and the `crop` that was sent, without its picture."""
    with DECODES:
        region = _region(decoded(data), box=box, mask=mask, grow=grow, feather=feather)
    return Patch(region=region, box=crop, ratio="", crop=b"", mime_type="", where=_where(region.box, crop))


def join(data: bytes, answer: bytes, patch: Patch, *, label: Label | None = None) -> Joined:
    """Align the answer to its source and set it in; every pixel of weight 0 keeps the decoded source's numbers."""
    with DECODES:
        whole, opinion, edge, drift, changed = _joined(data, answer, patch)
        encoded = None if whole is None else png(whole, label=label)
        preview = None if whole is None else thumbnail_of(whole)
    return Joined(data=encoded, verdict=opinion, seam=edge, drift=drift, changed=changed, preview=preview)


def _joined(data: bytes, answer: bytes, patch: Patch) -> tuple[Image.Image | None, Verdict, Seam, Drift, bool]:
    """The picture before it is encoded; apart, so that what it was made of is gone from memory by then."""
    source, given = decoded(data), rgb(decoded(answer))
    reference, weight = rgb(to_srgb(source.crop(patch.box))), patch.region.within(patch.box)
    size = reference.size
    drift = drift_of(reference, given, changed=weight)
    reference = fewer(reference, math.sqrt(JUDGED_PIXELS * max(size) / min(size)))
    if reference.size != size:
        weight = np.asarray(Image.fromarray(weight).resize(reference.size, Image.Resampling.BOX))
    seen = laid(given, reference.size, drift)
    edge = seam(reference, seen, weight)
    opinion = verdict(drift, edge)
    changed = not drift.known or visibly_changed(reference, seen, weight)
    del reference, weight, seen
    if opinion == "nonsense":
        return None, opinion, edge, drift, changed
    left, top, right, bottom = patch.region.box
    within = (left - patch.box[0], top - patch.box[1], right - patch.box[0], bottom - patch.box[1])
    own_colours = from_srgb(laid(given, size, drift, within), source.info.get("icc_profile"))
    return composite(source, own_colours, box=patch.region.box, region=patch.region), opinion, edge, drift, changed


def as_sent(image: Image.Image) -> tuple[bytes, str]:
    """An RGB picture for a request, and its mime type: no larger than the largest answer, and lossless where that fits."""
    if image.width * image.height > SENT_PIXELS:
        factor = math.sqrt(SENT_PIXELS / (image.width * image.height))
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    data = png(image)
    if len(data) <= SENT_BYTES:
        return data, "image/png"
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, subsampling="4:4:4")
    return stream.getvalue(), "image/jpeg"


def _region(source: Image.Image, *, box: Sequence[float] | None, mask: bytes | None, grow: int, feather: int) -> Region:
    if mask is not None:
        return region_from_mask(mask, source=source, grow=grow, feather=feather)
    if box is not None:
        return region_from_box(box, size=source.size, grow=grow, feather=feather)
    raise RequestError("Say which region to edit: box [left, top, right, bottom], or mask.")


def _where(region: Box, crop: Box) -> str:
    """The region in percent of the crop: models read places so."""
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    left, right = (round(100 * (x - crop[0]) / width) for x in (region[0], region[2]))
    top, bottom = (round(100 * (y - crop[1]) / height) for y in (region[1], region[3]))
    return f"the area from {left}% to {right}% of the width and from {top}% to {bottom}% of the height"
