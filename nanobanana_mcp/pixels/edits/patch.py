"""A region edit in three steps on bytes: what to send, what to think of the answer, and the finished picture."""

import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.terms import Grow
from nanobanana_mcp.pixels.edits.alignment import Drift, drift_of, laid, rgb
from nanobanana_mcp.pixels.edits.alpha import background_of, composed, uncomposed
from nanobanana_mcp.pixels.edits.bends import lies_within
from nanobanana_mcp.pixels.edits.change import Change, compared
from nanobanana_mcp.pixels.edits.extent import extent
from nanobanana_mcp.pixels.edits.levels import covered, fewer
from nanobanana_mcp.pixels.edits.masks import Region, Weight, context_box, overlap, region_from_box, region_from_mask
from nanobanana_mcp.pixels.edits.region import Seam, Verdict, seam_within, set_in, steps_between, verdict
from nanobanana_mcp.pixels.edits.threads import both
from nanobanana_mcp.pixels.files.clean import DECODES, to_srgb
from nanobanana_mcp.pixels.files.decoding import Box, Size, decoded, from_srgb
from nanobanana_mcp.pixels.files.labels import Label
from nanobanana_mcp.pixels.files.png import Begun, begin, png
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail, thumbnail_of

SENT_PIXELS = 2048 * 2048
"""A 2K answer's: the model looks at no more, and pays for no more, however large the crop is."""

SENT_BYTES = 7_000_000
"""One inline picture on Vertex AI; the Developer API takes three times as much."""


JUDGED_PIXELS = 1_500_000
"""The most pixels by which a join is judged; more would show no more."""

_COMPARED = 1024  # px of the longer side in which the changed part of a region is looked for
_SEEN_LESS, _WORST_LESS = 0.05, 0.1  # by how much more a part's join may show than the whole region's
_FEATHER = 16  # px around a change that a region is grown to, and of its soft edge
_MOST_GROWN = 4  # times the region's area up to which it is grown to the change


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The crop that is sent for a region, in sRGB; `where` is the region within it, in words."""

    region: Region
    box: Box
    ratio: str
    crop: bytes
    mime_type: str
    where: str
    grows: bool = False
    """True when the region is grown to what the model changed in touch with it."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A finished picture with how well it joined; `data` is None when the answer does not belong there, or is no edit.

    Boxes are in px of the source: `pasted` holds all that may have changed, `offer` the region grown to the change where that
    is larger and still small enough, `beside` what the model changed elsewhere. `left_share` is the share of the region
    that stays the source's, since the edit left it as it was. `within` is how far off most of what lies around the region is
    after the alignment, px of the crop; None where that is not known, or nothing is set in.
    """

    data: bytes | None
    verdict: Verdict
    seam: Seam
    drift: Drift
    change: Change
    pasted: Box
    left_share: float = 0.0
    grown: bool = False
    offer: Box | None = None
    beside: Box | None = None
    within: float | None = None
    preview: Thumbnail | None = None

    @property
    def changed(self) -> bool:
        return self.change.told != "no"


def prepare(
    data: bytes,
    *,
    box: Sequence[float] | None,
    mask: bytes | None,
    grow: Grow,
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
        crop = composed(source.crop(found.box))
        del source
        data, mime_type = as_sent(rgb(to_srgb(crop)))
    where, grows = _where(region.box, found.box), grow == "auto" and mask is None
    return Patch(
        region=region, box=found.box, ratio=found.ratio, crop=data, mime_type=mime_type, where=where, grows=grows
    )


def prepared(
    data: bytes, *, box: Sequence[float] | None, mask: bytes | None, grow: Grow, feather: int, crop: Box
) -> Patch:
    """The patch of an answer that is here already, of the `crop` that was sent, without its picture. Raises RequestError for
    a region that the crop does not show.
    """
    with DECODES:
        region = _region(decoded(data), box=box, mask=mask, grow=grow, feather=feather)
    if overlap(region.box, crop) != region.box:
        raise RequestError(
            f"The region reaches {list(region.box)}, and the answer shows only {list(crop)} of the picture (left, top, right, "
            "bottom); give a smaller one, or less grow."
        )
    where, grows = _where(region.box, crop), grow == "auto" and mask is None
    return Patch(region=region, box=crop, ratio="", crop=b"", mime_type="", where=where, grows=grows)


def join(data: bytes, answer: bytes, patch: Patch, *, label: Label | None = None, anyway: bool = False) -> Joined:
    """Align the answer to its source and set it in; every pixel of weight 0 keeps the decoded source's numbers.

    An answer that gives the region back as it was is no edit, and is set in only `anyway`.
    """
    with DECODES, ThreadPoolExecutor(1) as thread:
        whole, joined, begun = _joined(data, answer, patch, anyway, thread)
        if whole is None:
            thread.shutdown(cancel_futures=True)
            return joined
        preview = thread.submit(thumbnail_of, whole)
        return replace(joined, data=png(whole, label=label, begun=begun), preview=preview.result())


def _joined(
    data: bytes, answer: bytes, patch: Patch, anyway: bool, thread: Executor
) -> tuple[Image.Image | None, Joined, Begun]:
    """The picture before it is encoded; apart, so that what it was made of is gone from memory by then. `thread` begins
    to compress the rows that stay as they are while the answer is aligned and judged.
    """
    drawn = thread.submit(decoded, answer)
    source = decoded(data)
    # In the source's own colours: those beyond sRGB are clipped in what was sent, and the recolouring brings them nearer.
    given = from_srgb(rgb(drawn.result()), source.info.get("icc_profile"))
    reference, region = composed(source.crop(patch.box)), patch.region
    size = reference.size
    showing = thread.submit(fewer, reference, math.sqrt(JUDGED_PIXELS * max(size) / min(size)))
    begun = begin(source, patch.box, thread)

    def laid_in(region: Region) -> tuple[Drift, Image.Image, Weight]:
        weight = region.within(patch.box)
        drift = drift_of(reference, given, changed=weight)
        shown = showing.result().size
        return drift, laid(given, shown, drift), _of_size(weight, shown)

    drift, seen, weight = laid_in(region)
    shown = showing.result()
    # As the model saw it: what it gives back of colours beyond sRGB is clipped, which is no change.
    sent = from_srgb(to_srgb(shown), source.info.get("icc_profile"))
    change, steps = both(lambda: compared(sent, seen, weight), lambda: steps_between(shown, seen))
    if not drift.known and change.told == "no":
        change = replace(change, told="little")
    offer = _offer(change, patch, shown.size) if drift.known else None
    grown = patch.grows and offer is not None
    if grown and offer is not None:
        region = region_from_box(offer, size=source.size, grow=0, feather=_FEATHER)
        drift, seen, weight = laid_in(region)
        change, steps, offer = compared(sent, seen, weight), steps_between(shown, seen), None
    edge = seam_within(steps, weight)
    opinion = verdict(drift, edge)
    if change.told == "no" and opinion != "nonsense" and not anyway:
        opinion = "unchanged"
    within = None
    if drift.known and opinion in ("good", "poor"):
        within = lies_within(shown, seen, (weight == 0) & covered(drift.warp, shown.size))
    left_share = 0.0
    if drift.known and opinion == "good" and change.plain:
        part = _changed_part(region, patch.box, sent, seen, weight)
        if part is not None:
            weight = _of_size(part.within(patch.box), shown.size)
            finer = seam_within(steps, weight)
            if finer.score <= edge.score + _SEEN_LESS and finer.worst <= edge.worst + _WORST_LESS:
                left_share = 1 - np.count_nonzero(part.weight) / np.count_nonzero(region.weight)
                region, edge = part, finer
    joined = Joined(
        data=None,
        verdict=opinion,
        seam=edge,
        drift=drift,
        change=change,
        pasted=region.box,
        left_share=left_share,
        within=None if within is None else within * max(size) / max(shown.size),
        grown=grown,
        offer=offer,
        beside=_in_source(change.beside, patch.box, shown.size) if drift.known else None,
    )
    if opinion in ("nonsense", "unchanged"):
        return None, joined, begun
    begun = begin(source, region.box, thread, begun)
    left, top, right, bottom = region.box
    pasted = (left - patch.box[0], top - patch.box[1], right - patch.box[0], bottom - patch.box[1])
    inside = laid(given, size, drift, pasted)
    if source.mode == "RGBA":
        inside = uncomposed(inside, source.crop(region.box), background_of(source.crop(patch.box)))
    # The thread may still read other rows of `source`: those that are begun lie outside this box, and stay as they are.
    set_in(source, inside, box=region.box, region=region)
    return source, joined, begun


def _of_size(weight: Weight, size: Size) -> Weight:
    image = Image.fromarray(weight)
    return weight if image.size == size else np.asarray(image.resize(size, Image.Resampling.BOX))


def _changed_part(region: Region, crop: Box, shown: Image.Image, seen: Image.Image, weight: Weight) -> Region | None:
    """The region less what the edit left as it was; None where all of it is wanted."""
    looked = fewer(shown, _COMPARED)
    wanted = extent(looked, fewer(seen, _COMPARED), _of_size(weight, looked.size))
    if wanted is None:
        return None
    left, top, right, bottom = region.box
    across, down = looked.width / (crop[2] - crop[0]), looked.height / (crop[3] - crop[1])
    read = ((left - crop[0]) * across, (top - crop[1]) * down, (right - crop[0]) * across, (bottom - crop[1]) * down)
    size = (right - left, bottom - top)
    share = np.asarray(Image.fromarray(wanted).resize(size, Image.Resampling.BILINEAR, box=read))
    product = region.weight.astype(np.uint16) * share
    part = ((product + 127) // 255).astype(np.uint8)
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not rows.size:
        return None
    x, y, end, low = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return replace(
        region, box=(left + x, top + y, left + end, top + low), weight=np.ascontiguousarray(part[y:low, x:end])
    )


def _offer(change: Change, patch: Patch, shown: Size) -> Box | None:
    """The region grown to what changed in touch with it or, where it came back as it was, to what changed beside it; None
    where that is no larger, or too large to be what was meant.
    """
    found = _in_source(change.beside if change.told == "no" else change.reached, patch.box, shown)
    own, crop = patch.region.box, patch.box
    if found is None:
        return None
    wide = (
        max(min(own[0], found[0] - _FEATHER), crop[0]),
        max(min(own[1], found[1] - _FEATHER), crop[1]),
        min(max(own[2], found[2] + _FEATHER), crop[2]),
        min(max(own[3], found[3] + _FEATHER), crop[3]),
    )
    if overlap(found, own) == found or _area(wide) > _MOST_GROWN * _area(own) or _area(wide) > 0.7 * _area(crop):
        return None
    return wide


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _in_source(box: Box | None, crop: Box, shown: Size) -> Box | None:
    """A box of the crop as it was looked at, in px of the source."""
    if box is None:
        return None
    across, down = (crop[2] - crop[0]) / shown[0], (crop[3] - crop[1]) / shown[1]
    left, top = crop[0] + math.floor(box[0] * across), crop[1] + math.floor(box[1] * down)
    right, bottom = crop[0] + math.ceil(box[2] * across), crop[1] + math.ceil(box[3] * down)
    return left, top, min(right, crop[2]), min(bottom, crop[3])


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


def _region(
    source: Image.Image, *, box: Sequence[float] | None, mask: bytes | None, grow: Grow, feather: int
) -> Region:
    wider = feather if grow == "auto" else grow
    if mask is not None:
        return region_from_mask(mask, source=source, grow=wider, feather=feather)
    if box is not None:
        return region_from_box(box, size=source.size, grow=wider, feather=feather)
    raise RequestError("Say which region to edit: box [left, top, right, bottom], or mask.")


def _where(region: Box, crop: Box) -> str:
    """The region in percent of the crop: models read places so."""
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    left, right = (round(100 * (x - crop[0]) / width) for x in (region[0], region[2]))
    top, bottom = (round(100 * (y - crop[1]) / height) for y in (region[1], region[3]))
    return f"the area from {left}% to {right}% of the width and from {top}% to {bottom}% of the height"
