"""What a verb prepares and the studio carries out: a plan with its inputs, and what is told of it before and after."""

from dataclasses import dataclass

from nanobanana_mcp.budget import Spending
from nanobanana_mcp.domain import ImageRecord, ImageRequest, Mode, Parent, Upload
from nanobanana_mcp.drawing import Recipe
from nanobanana_mcp.plan import Plan
from nanobanana_mcp.shapes import nearest_ratio
from nanobanana_mcp.sources import Source
from nanobanana_mcp.tiers import AspectRatio, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan with its inputs, the calls it may take, and, where it is more than plain calls, its recipe."""

    plan: Plan
    sources: list[Source]
    calls: int
    recipe: Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a request would be; `calls` at most are paid for; `refusal` when the limits would not let it pass now."""

    plan: Plan
    calls: int
    inputs: tuple[ImageRecord, ...]
    spending: Spending
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """The result of upload_file."""

    record: ImageRecord
    upload: Upload
    reused: bool
    notes: tuple[str, ...] = ()


def parents_of(mode: Mode, sources: list[Source]) -> tuple[Parent, ...]:
    return tuple(
        Parent(
            image_id=source.record.id,
            role=source.role or ("base" if mode == "edit" and position == 0 else "reference"),
        )
        for position, source in enumerate(sources)
    )


def ratio_to_send(
    request: ImageRequest, mode: Mode, spec: ModelSpec, sources: list[Source]
) -> tuple[AspectRatio | None, list[str]]:
    """The caller's ratio, else in an edit the source's own.

    A model that is given none follows its last input; with references behind the source that would be the wrong
    one, so the source's nearest ratio is sent.
    """
    if request.aspect_ratio is not None or mode == "generate" or len(sources) == 1:
        return request.aspect_ratio, []
    base = sources[0].record
    if not base.width:
        return None, [f"The shape of {sources[0].given} is not known here; give aspect_ratio to keep it."]
    return nearest_ratio(base.width, base.height, spec.ratios), []
