"""edit_region, extend_image, remove_background and convert_image: exact work on pixels, with the model or without."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastmcp import Context, FastMCP
from fastmcp.tools import ToolResult
from mcp.types import InputRequiredResult, ToolAnnotations
from pydantic import Field

from nanobanana_mcp.domain.arguments import (
    USUAL_QUALITY,
    Answer,
    CutoutFitArgument,
    DryRun,
    EditFit,
    EditFormat,
    EditHeight,
    EditKey,
    EditMaxCost,
    EditQuality,
    EditWidth,
    Margin,
    Output,
    Picture,
    Thinking,
    Tier,
)
from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.terms import MAX_PROMPT, OutputFormat
from nanobanana_mcp.server.asking import carried, handed_over, painted
from nanobanana_mcp.server.clients import result
from nanobanana_mcp.server.schemas import offer
from nanobanana_mcp.server.session import shared
from nanobanana_mcp.server.tools.generate import answer, check_fit, check_quality, exact_of, pictures

if TYPE_CHECKING:
    from nanobanana_mcp.studio.studio import Studio

CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
LOCAL = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


async def edit_region(
    caller: Context,
    image: Picture,
    instruction: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT, description="What changes there.")],
    box: Annotated[
        list[float] | None,
        Field(
            min_length=4,
            max_length=4,
            description="[left, top, right, bottom] in pixels, or fractions if all <= 1.",
        ),
    ] = None,
    mask: Annotated[
        str | None, Field(description="Instead of box: a picture, white (or a hole in it) = edit; any size.")
    ] = None,
    feather: Annotated[int, Field(ge=0, le=500, description="Pixels of softened edge.")] = 16,
    grow: Annotated[
        Annotated[int, Field(ge=0, le=500)] | Literal["auto"],
        Field(description="Pixels to widen it by; auto: to the change."),
    ] = 16,
    context: Annotated[float, Field(ge=0.1, le=4, description="How much the model sees around it, of its size.")] = 0.5,
    model_tier: Tier = "auto",
    resolution: Answer = "high",
    thinking_level: Thinking = None,
    output_path: Output = None,
    width: EditWidth = None,
    height: EditHeight = None,
    fit: EditFit = None,
    output_format: EditFormat = None,
    quality: EditQuality = None,
    idempotency_key: EditKey = None,
    max_cost_usd: EditMaxCost = None,
    rejoin: Annotated[bool, Field(description="image is an earlier edit or its answer: join anew, free.")] = False,
    dry_run: DryRun = False,
) -> ToolResult | InputRequiredResult:
    from nanobanana_mcp.studio.edits import EditRequest, region_job

    studio = await shared(caller).studio()
    corners = (box[0], box[1], box[2], box[3]) if box is not None else None
    exact = exact_of(width, height, fit, output_format, quality, output_path)
    if rejoin:
        if (context, model_tier, resolution, thinking_level) != (0.5, "auto", "high", None):
            raise RequestError(
                "rejoin asks no model, so context, model_tier, resolution and thinking_level have no say in it; leave them out."
            )
        return await _rejoined(
            caller, studio, dry_run, image=image, instruction=instruction, box=corners, mask=mask, grow=grow, feather=feather,
            output_path=output_path, exact=exact,
        )  # fmt: skip
    painting = await handed_over(caller, image, mask) if mask is not None else None
    if box is None and mask is None and not dry_run:
        place = await painted(caller, image, instruction)
        if isinstance(place, InputRequiredResult):
            return place
        painting = place
    if painting is not None:
        mask = painting.ticket
    request = EditRequest(
        image=image,
        instruction=instruction,
        model_tier=model_tier,
        resolution=resolution,
        thinking_level=thinking_level,
        output_path=output_path,
        exact=exact,
    )
    job = await region_job(studio, request, box=corners, mask=mask, feather=feather, grow=grow, context=context)
    told = await answer(caller, studio, job, idempotency_key, max_cost_usd, dry_run)
    if painting is not None and isinstance(told, InputRequiredResult):
        return carried(told, painting)
    if painting is not None and not dry_run:
        painting.taken = True
    return told


async def _rejoined(caller: Context, studio: "Studio", dry_run: bool, **asked: Any) -> ToolResult:
    from nanobanana_mcp.studio.rejoin import RejoinRequest, rejoin_edit, will_rejoin
    from nanobanana_mcp.studio.results.answers import rejoined_structure, rejoined_text

    request = RejoinRequest(**asked)
    if dry_run:
        told = await will_rejoin(studio, request)
        return result(caller, told, {"dry_run": True, "estimated_usd": 0.0, "would_be_refused": None})
    made = await rejoin_edit(studio, request)
    return result(caller, rejoined_text(made), rejoined_structure(made), await pictures(caller, studio, [made.record]))


async def extend_image(
    caller: Context,
    image: Picture,
    instruction: Annotated[
        str, Field(max_length=MAX_PROMPT, description="What lies beyond the edges; empty: whatever fits.")
    ] = "",
    top: Margin = 0,
    right: Margin = 0,
    bottom: Margin = 0,
    left: Margin = 0,
    aspect_ratio: Annotated[
        str | None, Field(max_length=20, description="Any W:H, such as 3:1, instead of margins.")
    ] = None,
    width: Annotated[int | None, Field(ge=1, le=16384, description="With height: the size to extend to.")] = None,
    height: Annotated[int | None, Field(ge=1, le=16384, description="With width.")] = None,
    model_tier: Tier = "auto",
    resolution: Answer = "high",
    output_path: Output = None,
    output_format: EditFormat = None,
    quality: EditQuality = None,
    idempotency_key: EditKey = None,
    max_cost_usd: EditMaxCost = None,
    dry_run: DryRun = False,
) -> ToolResult | InputRequiredResult:
    from nanobanana_mcp.studio.edits import EditRequest, extension_job

    studio = await shared(caller).studio()
    request = EditRequest(
        image=image,
        instruction=instruction,
        model_tier=model_tier,
        resolution=resolution,
        output_path=output_path,
        exact=exact_of(None, None, None, output_format, quality, output_path),
    )
    job = await extension_job(
        studio,
        request,
        margins=(left, top, right, bottom) if top or right or bottom or left else None,
        aspect_ratio=aspect_ratio,
        size=(width or 0, height or 0) if width or height else None,
    )
    return await answer(caller, studio, job, idempotency_key, max_cost_usd, dry_run)


async def remove_background(
    caller: Context,
    image: Picture,
    subject: Annotated[str | None, Field(max_length=500, description="What stays; unset: the main subject.")] = None,
    model_tier: Tier = "auto",
    resolution: Answer = "high",
    output_path: Output = None,
    width: EditWidth = None,
    height: EditHeight = None,
    fit: CutoutFitArgument = None,
    output_format: EditFormat = None,
    quality: EditQuality = None,
    idempotency_key: EditKey = None,
    max_cost_usd: EditMaxCost = None,
    dry_run: DryRun = False,
) -> ToolResult | InputRequiredResult:
    from nanobanana_mcp.studio.edits import EditRequest, cutout_job

    studio = await shared(caller).studio()
    request = EditRequest(
        image=image,
        instruction=f"Cut out {subject or 'the main subject'}",
        model_tier=model_tier,
        resolution=resolution,
        output_path=output_path,
        exact=exact_of(width, height, fit, output_format, quality, output_path, usual_fit="contain"),
    )
    job = await cutout_job(studio, request, subject=subject)
    return await answer(caller, studio, job, idempotency_key, max_cost_usd, dry_run)


async def convert_image(
    caller: Context,
    image: Picture,
    width: EditWidth = None,
    height: EditHeight = None,
    fit: EditFit = None,
    output_format: Annotated[OutputFormat | None, Field(description="Unset: as the picture is.")] = None,
    quality: EditQuality = None,
    crop: Annotated[
        list[float] | None,
        Field(min_length=4, max_length=4, description="[left, top, right, bottom] in pixels or fractions."),
    ] = None,
    rotate: Annotated[float, Field(ge=-360, le=360, description="Degrees clockwise.")] = 0,
    background: Annotated[
        str | None, Field(max_length=40, description="CSS colour for padding and where alpha must go; unset: none.")
    ] = None,
    assets: Annotated[
        Literal["favicon", "app_icons", "social"] | None, Field(description="Make this set of files instead.")
    ] = None,
    output_path: Output = None,
    dry_run: Annotated[bool, Field(description="Only say what would be written.")] = False,
) -> ToolResult:
    from nanobanana_mcp.studio.convert import ConvertRequest, convert, rehearse
    from nanobanana_mcp.studio.results.reports import (
        converted_structure,
        converted_text,
        rehearsed_structure,
        rehearsed_text,
    )

    check_fit(fit, width, height)
    check_quality(quality, output_format, output_path)
    studio = await shared(caller).studio()
    request = ConvertRequest(
        image=image,
        width=width,
        height=height,
        fit=fit or "cover",
        output_format=output_format,
        quality=quality or USUAL_QUALITY,
        crop=tuple(crop) if crop is not None else None,
        rotate=rotate,
        background=background,
        assets=assets,
        output_path=output_path,
    )
    if dry_run:
        rehearsal = await rehearse(studio, request)
        return result(caller, rehearsed_text(rehearsal), rehearsed_structure(rehearsal))
    made, notes = await convert(studio, request)
    shown = await pictures(caller, studio, made)
    return result(caller, converted_text(made, notes), converted_structure(made, notes), shown)


def add(server: FastMCP) -> None:
    offer(
        server,
        edit_region,
        title="Edit a region",
        description="Change only one region of a picture; every pixel outside it stays bit-identical (lossless PNG). "
        "One call ($0.05-0.06 flash, $0.15 pro), a second if the first does not fit. Without box and mask the person paints it.",
        annotations=CHANGES,
    )
    offer(
        server,
        extend_image,
        title="Extend a picture",
        description="Outpaint: continue a picture beyond its edges, by margins, to an aspect ratio or to a size. "
        "The picture itself stays bit-identical in its place. One call or more (each $0.05-0.06 flash, $0.15 pro); "
        "dry_run tells how many.",
        annotations=CHANGES,
    )
    offer(
        server,
        remove_background,
        title="Remove the background",
        description="Cut the subject out with real alpha (PNG): soft edges, hair and glass kept. "
        "Two calls ($0.09-0.13 flash, $0.31 pro), a third if the first two do not match.",
        annotations=CHANGES,
    )
    offer(
        server,
        convert_image,
        title="Convert a picture",
        description="Free and local: resize, crop, rotate, change the format, or make an asset set of any picture. The "
        "original stays; every file is recorded as its child.",
        annotations=LOCAL,
    )
