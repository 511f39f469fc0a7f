"""generate_image: new pictures, and edits of existing ones."""

import base64
from math import ceil
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

from fastmcp import Context, FastMCP
from fastmcp.apps import AppConfig
from fastmcp.tools import ToolResult
from mcp.types import ContentBlock, ImageContent, InputRequiredResult, ResourceLink, ToolAnnotations
from pydantic import Field

from nanobanana_mcp.domain.arguments import (
    USUAL_QUALITY,
    DryRun,
    FitArgument,
    FormatArgument,
    Height,
    KeyArgument,
    MaxCost,
    MorePath,
    PathArgument,
    QualityArgument,
    Width,
)
from nanobanana_mcp.domain.catalog import AspectRatio, ThinkingLevel
from nanobanana_mcp.domain.errors import BudgetExceeded, NotAgreed, RequestError, StudioError
from nanobanana_mcp.domain.plan import WRITTEN
from nanobanana_mcp.domain.requests import ImageRequest, OutputSpec
from nanobanana_mcp.domain.results import Created
from nanobanana_mcp.domain.terms import (
    MAX_INPUTS,
    MAX_INSTRUCTION,
    MAX_N,
    MAX_NEGATIVE,
    MAX_PROMPT,
    AskedMode,
    AskedTier,
    Background,
    Fit,
    HarmCategory,
    HarmThreshold,
    InputRole,
    OutputFormat,
    Resolution,
)
from nanobanana_mcp.domain.text import counted
from nanobanana_mcp.server.asking import agreed, can_ask
from nanobanana_mcp.server.clients import result
from nanobanana_mcp.server.resources import APP
from nanobanana_mcp.server.schemas import offer
from nanobanana_mcp.server.session import mark_delivered, progress_to, request_key, shared

if TYPE_CHECKING:
    from nanobanana_mcp.domain.records import ImageRecord
    from nanobanana_mcp.jobs.planner import Job
    from nanobanana_mcp.studio.studio import Studio

DESCRIPTION = """\
Create new images or edit existing ones. About $0.04 a picture with flash, $0.15 with pro ($0.27 at 4k). They are \
saved on this machine; the answer has paths, ids (img_...) for later calls, previews and the cost. To edit, \
give exactly one input image (or file_id) and say in the prompt what changes and what must stay."""


async def generate_image(
    caller: Context,
    prompt: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_PROMPT,
            description="What it shows, or what an edit changes; sent as written.",
        ),
    ],
    n: Annotated[int, Field(ge=1, le=MAX_N, description="How many pictures; each is paid for.")] = 1,
    negative_prompt: Annotated[
        str | None, Field(max_length=MAX_NEGATIVE, description="What to keep out of the picture.")
    ] = None,
    system_instruction: Annotated[
        str | None, Field(max_length=MAX_INSTRUCTION, description="A standing instruction, such as a house style.")
    ] = None,
    input_image_path_1: PathArgument = None,
    input_image_path_2: MorePath = None,
    input_image_path_3: MorePath = None,
    input_images: Annotated[
        list[str] | None,
        Field(
            max_length=MAX_INPUTS,
            description="More inputs, in order: paths, files/... or img_... ids.",
        ),
    ] = None,
    file_id: Annotated[
        str | None,
        Field(description="files/... id of the image to edit; other inputs are references."),
    ] = None,
    mode: Annotated[
        AskedMode,
        Field(description="auto: edit with file_id or exactly one input, else generate."),
    ] = "auto",
    model_tier: Annotated[
        AskedTier,
        Field(
            description="flash: fast, all ratios. pro: best text, detail, composition; 4x the price. lite: 1k, no "
            "search. nb2: flash. auto: by the prompt's words; the answer says why."
        ),
    ] = "auto",
    resolution: Annotated[
        Resolution,
        Field(description="high: most pixels at the base price (flash 1K, pro 2K). 4k costs more."),
    ] = "high",
    thinking_level: Annotated[
        ThinkingLevel | None,
        Field(description="How long it plans. flash: not low; lite: minimal, high; pro: none."),
    ] = None,
    enable_grounding: Annotated[
        bool | None, Field(description="Search Google for facts. Unset: on for pro alone.")
    ] = None,
    aspect_ratio: Annotated[
        AspectRatio | None,
        Field(description="Unset: the source's in an edit, else the model's. pro lacks 1:4, 4:1, 1:8, 8:1."),
    ] = None,
    output_path: Annotated[
        str | None,
        Field(description="File or folder; numbered if n > 1; never overwrites. The extension sets the format."),
    ] = None,
    width: Width = None,
    height: Height = None,
    fit: FitArgument = None,
    output_format: FormatArgument = None,
    quality: QualityArgument = None,
    background: Annotated[
        Background,
        Field(description="transparent: real alpha; without inputs; up to 3 calls a picture."),
    ] = "opaque",
    input_roles: Annotated[
        list[InputRole] | None,
        Field(max_length=MAX_INPUTS, description="What each input is for, in order."),
    ] = None,
    seed: Annotated[
        int | None, Field(ge=0, le=2**31 - 1, description="Sent and recorded; no promise to repeat.")
    ] = None,
    safety: Annotated[
        dict[HarmCategory, HarmThreshold] | None, Field(description="Gemini's thresholds by category.")
    ] = None,
    continue_from: Annotated[
        str | None,
        Field(description="img_... id: the edit goes on in the conversation that made it."),
    ] = None,
    idempotency_key: KeyArgument = None,
    max_cost_usd: MaxCost = None,
    dry_run: DryRun = False,
) -> ToolResult | InputRequiredResult:
    paths = (input_image_path_1, input_image_path_2, input_image_path_3)
    request = ImageRequest(
        prompt=prompt,
        n=n,
        negative_prompt=negative_prompt,
        system_instruction=system_instruction,
        inputs=tuple(path for path in paths if path is not None) + tuple(input_images or ()),
        file_id=file_id,
        mode=mode,
        model_tier=model_tier,
        resolution=resolution,
        thinking_level=thinking_level,
        enable_grounding=enable_grounding,
        aspect_ratio=aspect_ratio,
        output_path=output_path,
        input_roles=tuple(input_roles or ()),
        seed=seed,
        safety=tuple((safety or {}).items()),
        continue_from=continue_from,
        exact=exact_of(width, height, fit, output_format, quality, output_path),
    )
    studio = await shared(caller).studio()
    if background == "transparent":
        from nanobanana_mcp.studio.edits import transparent_job

        job = await transparent_job(studio, request)
    else:
        job = await studio.job(request, offline=dry_run)
    return await answer(caller, studio, job, idempotency_key, max_cost_usd, dry_run)


def exact_of(
    width: int | None,
    height: int | None,
    fit: Fit | None,
    output_format: OutputFormat | None,
    quality: int | None,
    output_path: str | None,
    *,
    usual_fit: Fit = "cover",
) -> OutputSpec | None:
    """The exact file that the arguments ask for; None when the master as delivered is wanted. Raises RequestError for
    an argument that would have no effect.
    """
    check_fit(fit, width, height)
    check_quality(quality, output_format, output_path)
    if quality is not None and output_format is None:  # then the name says it
        output_format = named_format(output_path)
    if width is None and height is None and output_format is None:
        return None
    return OutputSpec(
        width=width, height=height, fit=fit or usual_fit, output_format=output_format, quality=quality or USUAL_QUALITY
    )


def check_quality(quality: int | None, output_format: OutputFormat | None, output_path: str | None) -> None:
    """Raise RequestError for a quality that would have no effect: PNG has none, and a picture as delivered is not encoded."""
    if quality is not None and (output_format or named_format(output_path)) not in ("jpeg", "webp", "avif"):
        raise RequestError(
            "quality is for output_format jpeg, webp or avif, or an output_path that ends in one of these; give "
            "one, or leave quality out."
        )


def named_format(output_path: str | None) -> OutputFormat | None:
    return WRITTEN.get(PurePath(output_path or "").suffix.lower())


def check_fit(fit: Fit | None, width: int | None, height: int | None) -> None:
    """Raise RequestError for fit without both sides: with one given the other follows, and there is nothing to fit."""
    if fit is not None and (width is None or height is None):
        raise RequestError("fit says how the picture fills width x height; give both of them, or leave fit out.")


async def answer(
    caller: Context, studio: "Studio", job: "Job", key: str | None, max_cost_usd: float | None, dry_run: bool
) -> ToolResult | InputRequiredResult:
    """The answer of a tool that makes pictures: the quote of its job, the pictures, or a question to be answered first."""
    if dry_run:
        from nanobanana_mcp.studio.results.answers import quote_structure, quote_text

        quote = await studio.quote(job)
        _check_price(quote.reserved_usd, max_cost_usd)
        return result(caller, quote_text(quote), quote_structure(quote))
    question = await _ask_about_price(caller, studio, job, key, max_cost_usd)
    if question is not None:
        return question
    try:
        created = await studio.carry_out(job, key=request_key(caller, key), progress=progress_to(caller))
    except StudioError as error:
        if error.request_id is not None:  # noted only once written, so that a client that died can ask again for free
            await mark_delivered(caller, studio, error.request_id)
        raise
    return await present(caller, studio, created)


async def _ask_about_price(
    caller: Context, studio: "Studio", job: "Job", key: str | None, max_cost_usd: float | None
) -> InputRequiredResult | None:
    """Make sure that somebody agreed to a dear job, by max_cost_usd or by answering yes; returns the question that must
    be asked first. The command line, which calls without a client, asks by itself. Raises NotAgreed, BudgetExceeded.
    """
    price, ask_above = studio.price(job), shared(caller).settings.ask_above_usd
    repeated = request_key(caller, key)
    if repeated is not None and await studio.knows(repeated):
        return None  # it was paid for
    _check_price(price, max_cost_usd)
    if max_cost_usd is not None:
        return None
    if ask_above is None or price < ask_above or studio.backend == "emulator" or caller.request_context is None:
        return None
    if (await studio.quote(job)).refusal is not None:
        return None  # a limit refuses it with its own message
    most = f"{ceil(price * 100) / 100:.2f}"  # rounded up, so that what is agreed to is enough
    what = (
        f"This asks {job.plan.choice.spec.nickname} for {counted(job.plan.calls, 'picture')} and may cost up to ${most}"
    )
    way_out = f"If the person agrees to spend up to ${most}, call again with max_cost_usd {most}."
    if not can_ask(caller):
        raise NotAgreed(f"{what}; nothing was sent. Ask the person first. {way_out}")
    return await agreed(caller, f"{what}. Go on?", yes=f"Yes, spend up to ${most}", way_out=way_out)


def _check_price(price: float, max_cost_usd: float | None) -> None:
    if max_cost_usd is not None and price > max_cost_usd:
        raise BudgetExceeded(
            f"It may cost ${price:.4f}, more than max_cost_usd {max_cost_usd:g}; nothing was sent. Ask for less, "
            "or give a higher max_cost_usd if the person agrees."
        )


async def present(caller: Context, studio: "Studio", created: Created) -> ToolResult:
    """An answer: text, previews, links to the full pictures, and the same facts as structure."""
    from nanobanana_mcp.studio.results.answers import created_structure, created_text

    shown = await pictures(caller, studio, [image.record for image in created.images])
    await mark_delivered(caller, studio, created.request_id)
    return result(caller, created_text(created), created_structure(created), shown)


async def pictures(caller: Context, studio: "Studio", records: "list[ImageRecord]") -> list[ContentBlock]:
    """Previews, and where each full picture can be read as a resource."""
    shown: list[ContentBlock] = []
    long_side = shared(caller).settings.preview_px
    if long_side:
        shown += [
            ImageContent(type="image", data=base64.b64encode(preview.data).decode(), mime_type=preview.mime_type)
            for preview in await studio.previews(records, long_side)
        ]
    return [*shown, *links(records)]


def links(records: "list[ImageRecord]") -> list[ContentBlock]:
    return [
        ResourceLink(
            type="resource_link",
            uri=f"image://{record.id}",
            name=PurePath(record.path).name if record.path else record.id,
            mime_type=record.mime_type,
            size=record.bytes,
        )
        for record in records
    ]


def add(server: FastMCP) -> None:
    offer(
        server,
        generate_image,
        title="Generate or edit images",
        description=DESCRIPTION,
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
        ),
        meta={"anthropic/alwaysLoad": True},
        app=AppConfig(resource_uri=APP),
    )
