"""Prepares the jobs that take more than plain calls: a region, an extension, a cutout. The studio carries them out."""

import asyncio
from dataclasses import dataclass, replace

from nanobanana_mcp.domain.catalog import RATIOS, AspectRatio, ImageSize, ModelSpec, ThinkingLevel
from nanobanana_mcp.domain.errors import NotAnImage, NotEnoughMemory, RequestError, UnsupportedOption
from nanobanana_mcp.domain.plan import CutoutRecipe, ExtensionRecipe, Plan, RegionRecipe
from nanobanana_mcp.domain.requests import ImageRequest, OutputSpec
from nanobanana_mcp.domain.selector import choose
from nanobanana_mcp.domain.shapes import answer_pixels, nearest_ratio
from nanobanana_mcp.domain.sizing import RESOLUTIONS, covering_size
from nanobanana_mcp.domain.terms import AskedTier, Grow, OutputFormat, Resolution
from nanobanana_mcp.domain.text import printable, shorten
from nanobanana_mcp.domain.wire import InputPart
from nanobanana_mcp.jobs.inputs import Source, check_something_is_seen
from nanobanana_mcp.jobs.planner import Job, Prepared
from nanobanana_mcp.jobs.recipes.cutout import CALLS, REPLACE_PLAIN, Cut
from nanobanana_mcp.jobs.recipes.extend import WORDS as BEYOND
from nanobanana_mcp.jobs.recipes.extend import Extension
from nanobanana_mcp.jobs.recipes.region import WORDS, RegionEdit
from nanobanana_mcp.pixels.edits.canvas import Canvas, canvas_of_ratio, canvas_of_size, canvas_with_margins
from nanobanana_mcp.pixels.edits.extend import steps_for
from nanobanana_mcp.pixels.edits.patch import prepare
from nanobanana_mcp.pixels.files.decoding import is_flat
from nanobanana_mcp.pixels.files.header import read_header
from nanobanana_mcp.pixels.files.losses import recoloured
from nanobanana_mcp.studio.studio import Studio


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """The arguments that all edits have in common. `resolution` is that of the model's answer."""

    image: str
    instruction: str
    model_tier: AskedTier = "auto"
    resolution: Resolution = "high"
    thinking_level: ThinkingLevel | None = None
    output_path: str | None = None
    exact: OutputSpec | None = None

    def request(self, **changes: object) -> ImageRequest:
        fields = {
            "prompt": self.instruction,
            "inputs": (self.image,),
            "mode": "edit",
            "model_tier": self.model_tier,
            "resolution": self.resolution,
            "thinking_level": self.thinking_level,
            "enable_grounding": False,
            "output_path": self.output_path,
            "exact": self.exact,
        }
        return ImageRequest(**(fields | changes))  # type: ignore[arg-type]  # names and types are the dataclass's own


async def region_job(
    studio: Studio,
    edit_request: EditRequest,
    *,
    box: tuple[float, float, float, float] | None,
    mask: str | None,
    feather: int,
    grow: Grow,
    context: float,
) -> Job:
    """Edit a part of a picture. Raises RequestError for a region that is none, and what the inputs may raise."""
    if (box is None) == (mask is None):
        raise RequestError("Give box or mask, and not both, to say which region to edit.")
    source, original = await _seen(studio, edit_request.image, sent=False)
    sources = [source]
    mask_bytes = None
    if mask is not None:
        mask_source, mask_bytes = await exact_source(studio, mask)
        sources.append(replace(mask_source, role="mask"))
    spec = choose(edit_request.request(), studio.models).spec
    try:
        patch = await asyncio.to_thread(
            prepare,
            original,
            box=box,
            mask=mask_bytes,
            grow=grow,
            feather=feather,
            context=context,
            ratios={ratio: answer_pixels(ratio, "1K") for ratio in spec.ratios},
        )
    except (NotAnImage, NotEnoughMemory) as error:  # of the picture: the mask was decoded when it was read
        raise type(error)(f"{printable(source.path or source.record.path)}: {error}") from error
    ratio = _ratio(patch.ratio)
    width, height = patch.box[2] - patch.box[0], patch.box[3] - patch.box[1]
    request = _sized(edit_request, spec, ratio, width, height)
    recipe = RegionRecipe(box=box, mask=mask is not None, grow=grow, feather=feather, crop=patch.box)
    prepared = Prepared(
        recipe=recipe,
        calls=2,
        words=WORDS + patch.where,
        sources=sources,
        ratio=ratio,
        made=(source.record.width, source.record.height),
        same="outside the region",
        notes=(
            *patch.region.notes,
            *(
                ("A mask is a hard limit, so it is not grown to the change.",)
                if grow == "auto" and mask is not None
                else ()
            ),
        ),
    )
    job = await studio.planner.job(replace(request, inputs=()), prepared=prepared)
    return replace(job, recipe=RegionEdit(source=original, patch=patch, instruction=edit_request.instruction))


async def extension_job(
    studio: Studio,
    edit_request: EditRequest,
    *,
    margins: tuple[int, int, int, int] | None,
    aspect_ratio: str | None,
    size: tuple[int, int] | None,
) -> Job:
    """Widen a picture by margins (left, top, right, bottom in pixels), to any ratio W:H, or to a size in pixels."""
    if size is not None and not all(size):
        raise RequestError("The size to extend to needs both width and height.")
    if sum(given is not None for given in (margins, aspect_ratio, size)) != 1:
        raise RequestError("Say how far to extend by one of: top/right/bottom/left, aspect_ratio, or width and height.")
    source, original = await _seen(studio, edit_request.image)
    shape = source.record.width, source.record.height
    canvas: Canvas
    if margins is not None:
        left, top, right, bottom = margins
        canvas = canvas_with_margins(shape, left=left, top=top, right=right, bottom=bottom)
    elif size is not None:
        canvas = canvas_of_size(shape, size)
    else:
        assert aspect_ratio is not None
        canvas = canvas_of_ratio(shape, _sides(aspect_ratio))
    spec = choose(edit_request.request(), studio.models).spec
    asked: dict[Resolution, list[ImageSize]] = {"1k": ["1K"], "2k": ["2K"], "4k": ["4K"]}
    sizes = asked.get(edit_request.resolution) or [one for one in ("1K", "2K") if one in spec.sizes]
    plans = {one: steps_for(canvas, {ratio: answer_pixels(ratio, one) for ratio in spec.ratios}) for one in sizes}
    # The cheapest size; of two at one price, as pro's 1K and 2K are, the larger.
    best = min(reversed(sizes), key=lambda one: len(plans[one]) * spec.image_tokens.get(one, 0))
    steps = plans[best]
    if len(steps) > 12:
        raise UnsupportedOption(
            f"This would take {len(steps)} calls. Extend by less, or ask for a larger resolution (4k) or smaller target."
        )
    prompt = edit_request.instruction.strip() or "Extend the picture beyond its edges."
    request = edit_request.request(prompt=prompt, inputs=(), resolution=RESOLUTIONS[best])
    prepared = Prepared(
        recipe=ExtensionRecipe(canvas=canvas.size, place=canvas.place, steps=len(steps)),
        calls=len(steps) + 1,
        words=BEYOND + max((step.where for step in steps), key=len),
        sources=[source],
        ratio=_ratio(steps[0].ratio),
        made=canvas.size,
        shape=canvas.size,
        same="of the picture itself",
    )
    job = await studio.planner.job(request, prepared=prepared)
    extension = Extension(source=original, canvas=canvas, steps=steps, instruction=edit_request.instruction.strip())
    return replace(job, recipe=extension)


async def cutout_job(studio: Studio, edit_request: EditRequest, *, subject: str | None) -> Job:
    """Take a picture's background away. Raises UnsupportedOption for a format without transparency, RequestError for a
    picture of one flat colour.
    """
    source, original = await _seen(studio, edit_request.image)
    if await asyncio.to_thread(is_flat, original):
        raise RequestError(
            f"{shorten(edit_request.image)} is one flat colour, so there is no subject to cut out; nothing was charged."
        )
    spec = choose(edit_request.request(), studio.models).spec
    ratio = nearest_ratio(source.record.width, source.record.height, spec.ratios)
    wanted = (
        edit_request.exact
        if edit_request.exact is not None and (edit_request.exact.width or edit_request.exact.height)
        else None
    )
    if wanted is not None:
        request = _sized(edit_request, spec, ratio, wanted.width or 0, wanted.height or 0, at_most="4K")
    else:
        request = _sized(edit_request, spec, ratio, source.record.width, source.record.height)
    size = source.record.width, source.record.height
    prepared = Prepared(
        recipe=CutoutRecipe(subject=subject or SUBJECT),
        calls=CALLS,
        words=REPLACE_PLAIN * 2,
        sources=[source],
        ratio=ratio,
        made=size,
    )
    job = await studio.planner.job(replace(request, inputs=()), prepared=prepared)
    _check_transparent(job.plan)
    assert source.data is not None
    picture = InputPart(mime_type=source.mime_type, data=source.data)
    return replace(job, recipe=Cut(picture=picture, subject=subject or SUBJECT, source=original, size=size))


async def transparent_job(studio: Studio, request: ImageRequest) -> Job:
    """Generate pictures that have real transparency. Raises UnsupportedOption for a format without it."""
    if request.inputs or request.file_id or request.continue_from:
        raise UnsupportedOption(
            "background 'transparent' is for new pictures without inputs; use remove_background on a finished picture."
        )
    prepared = Prepared(recipe=CutoutRecipe(subject=None), calls=CALLS * request.n, words=REPLACE_PLAIN * 2)
    job = await studio.planner.job(request, prepared=prepared)
    _check_transparent(job.plan)
    return replace(job, recipe=Cut(picture=None, subject=SUBJECT))


SUBJECT = "the main subject"
_OPAQUE: frozenset[OutputFormat] = frozenset({"jpeg"})


def _check_transparent(plan: Plan) -> None:
    exact = plan.exact_of("image/png")
    if exact is not None and exact.output_format in _OPAQUE:
        raise UnsupportedOption("JPEG has no transparency; use png, webp or avif as output_format or in output_path.")


async def _seen(studio: Studio, given: str, *, sent: bool = True) -> tuple[Source, bytes]:
    """The picture to be edited, with its bytes, and a note where its colours cannot stay as they are."""
    source, original = await exact_source(studio, given, sent=sent)
    check_something_is_seen([source])
    name = given if source.path is None else printable(source.path.name)
    changes = await asyncio.to_thread(lambda: recoloured(original, read_header(original)))
    return replace(source, notes=(*source.notes, *(f"{name}: {change}." for change in changes))), original


async def exact_source(studio: Studio, given: str, *, sent: bool = True) -> tuple[Source, bytes]:
    """A picture with its file's own bytes; see `Sources.resolve` for one that is not `sent`. Raises RequestError for one that
    is only in the Files API.
    """
    source = await studio.sources.resolve(given, offline=True, sent=sent)
    if source.original is None and source.record.path is not None:
        # A Files API id whose picture is in the library, too.
        source = await studio.sources.resolve(source.record.id, sent=sent)
    if source.original is None:
        raise RequestError(
            f"{given} is only in the Files API, and exact work on pixels needs the file; give its path or img_... id."
        )
    return source, source.original


def _sized(
    edit_request: EditRequest,
    spec: ModelSpec,
    ratio: AspectRatio,
    width: int,
    height: int,
    *,
    at_most: ImageSize = "2K",
) -> ImageRequest:
    """The request at the smallest size that shows width x height in full, unless one is asked for."""
    request = edit_request.request()
    if edit_request.resolution != "high":
        return request
    size, _ = covering_size(spec, ratio, width, height, at_most=at_most)
    return replace(request, resolution=RESOLUTIONS[size])


def _sides(ratio: str) -> tuple[float, float]:
    """The two numbers of a ratio such as 3:1 or 2.39:1."""
    across, _, down = ratio.partition(":")
    try:
        return float(across), float(down)
    except ValueError as error:
        raise RequestError(f"aspect_ratio is two numbers such as 3:1 or 2.39:1; it is {shorten(ratio)!r}.") from error


def _ratio(name: str) -> AspectRatio:
    return next(ratio for ratio in RATIOS if ratio == name)
