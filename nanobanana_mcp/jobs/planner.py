"""Prepares a job for the studio to carry out: the plan with its inputs and calls, and the quote of it."""

from dataclasses import dataclass

from nanobanana_mcp.domain.budget import Spending
from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize, ModelSpec
from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.plan import Plan, Target
from nanobanana_mcp.domain.pricing import estimate
from nanobanana_mcp.domain.records import ImageRecord, Parent, Upload
from nanobanana_mcp.domain.requests import Choice, ImageRequest
from nanobanana_mcp.domain.shapes import nearest_ratio
from nanobanana_mcp.domain.terms import MAX_INPUTS, Backend, Mode
from nanobanana_mcp.domain.text import counted
from nanobanana_mcp.domain.wire import Turn
from nanobanana_mcp.jobs.calls import Recipe
from nanobanana_mcp.jobs.inputs import Source

ROOM = 150_000_000
"""Bytes a disk must have free before anything is paid for, and for each picture on top, its raw answer included."""

PICTURE_ROOM: dict[ImageSize, int] = {"512": 3_000_000, "1K": 6_000_000, "2K": 20_000_000, "4K": 80_000_000}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan with its inputs, the calls it may take, and, where it is more than plain calls, its recipe."""

    plan: Plan
    sources: list[Source]
    calls: int
    recipe: Recipe | None = None
    made: tuple[int, int] = (0, 0)
    """Width x height of the picture that the recipe puts together, where it is another than the model's."""

    @property
    def room(self) -> int:
        """Bytes that must be free before it is begun: a file in pixels that nothing compresses has 4 bytes each."""
        exact = self.plan.request.exact
        width, height = (
            (0, 0) if exact is None else (exact.width or exact.height or 0, exact.height or exact.width or 0)
        )
        finished = 4 * (self.made[0] * self.made[1] + self.plan.request.n * width * height)
        return ROOM + self.calls * PICTURE_ROOM[self.plan.choice.image_size] + finished


@dataclass(frozen=True, kw_only=True)
class Quote:
    """Tells what a request would be and cost; `calls` at most are paid for; `refusal` when the limits would not let it pass now."""

    plan: Plan
    backend: Backend
    calls: int
    inputs: tuple[ImageRecord, ...]
    spending: Spending
    reserved_usd: float
    """USD that all of its calls together would hold against the limits."""
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """The result of upload_file."""

    record: ImageRecord
    upload: Upload
    reused: bool
    notes: tuple[str, ...] = ()


def named_inputs(request: ImageRequest) -> tuple[str, ...]:
    """Every input of a request in the order it is sent. Raises RequestError for what cannot be one request."""
    given = tuple(one for one in (request.continue_from, request.file_id) if one is not None) + request.inputs
    if not request.prompt.strip():
        raise RequestError("The prompt is empty; say what the picture should show.")
    if request.file_id is not None and not request.file_id.startswith("files/"):
        raise RequestError("file_id takes a Files API id such as 'files/abc123'; give paths and img_... ids as inputs.")
    if len(given) > MAX_INPUTS:
        raise RequestError(f"{counted(len(given), 'input image')} given; at most {MAX_INPUTS} are taken.")
    new = len(given) - (request.continue_from is not None)
    if len(request.input_roles) > new:
        raise RequestError(
            f"input_roles names {counted(len(request.input_roles), 'role')} for {counted(new, 'input image')}."
        )
    if request.continue_from is not None and not is_image_id(request.continue_from):
        raise RequestError("continue_from takes the img_... id of a picture made here; others can only be inputs.")
    return given


def make_plan(
    request: ImageRequest,
    *,
    mode: Mode,
    choice: Choice,
    target: Target,
    sources: list[Source],
    history: tuple[Turn, ...],
    notes: list[str],
) -> Plan:
    """The plan for a request whose inputs are found; pictures of earlier turns are sent, and paid for, again."""
    told_again = sum(part.data is not None for turn in history for part in turn.parts)
    characters = len(request.prompt) + len(request.negative_prompt or "") + len(request.system_instruction or "")
    ratio, warnings = ratio_to_send(request, mode, choice.spec, sources)
    return Plan(
        request=request,
        mode=mode,
        choice=choice,
        aspect_ratio=ratio,
        parents=parents_of(mode, sources),
        target=target,
        estimate_usd=estimate(choice, inputs=len(sources) + told_again, prompt_characters=characters),
        warnings=(*notes, *warnings, *(note for source in sources for note in source.notes)),
    )


def expected_shape(request: ImageRequest, mode: Mode, sources: list[Source]) -> tuple[float, float]:
    """The picture's shape as far as it is known before it is drawn: the ratio asked for, in an edit its source's, else square."""
    if request.aspect_ratio is not None:
        across, down = request.aspect_ratio.split(":")
        return float(across), float(down)
    base = sources[0].record if mode == "edit" and sources else None
    return (base.width, base.height) if base is not None and base.width and base.height else (1.0, 1.0)


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
