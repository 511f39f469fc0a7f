"""Plans a request: inputs, mode, model, size, history, price, recipe and disk space. Nothing is written or paid for
yet.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nanobanana_mcp.domain.catalog import AspectRatio, ImageSize, ModelSpec, TierName
from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.plan import Plan, PlannedInput, RecipeData
from nanobanana_mcp.domain.pricing import estimate, highest_known
from nanobanana_mcp.domain.requests import ImageRequest, OutputSpec
from nanobanana_mcp.domain.selector import choose, find_mode
from nanobanana_mcp.domain.shapes import nearest_ratio
from nanobanana_mcp.domain.sizing import check_name, check_size, shape_request
from nanobanana_mcp.domain.terms import MAX_INPUTS, Mode
from nanobanana_mcp.domain.text import counted
from nanobanana_mcp.domain.wire import Turn
from nanobanana_mcp.jobs.conversation import continued_picture, history_of
from nanobanana_mcp.jobs.inputs import Source, Sources, check_something_is_seen
from nanobanana_mcp.jobs.run import Recipe
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.pixels.files.formats import FORMATS

ROOM = 150_000_000
"""Bytes that a disk must have free before anything is paid for, besides those of the pictures."""

PICTURE_ROOM: dict[ImageSize, int] = {"512": 3_000_000, "1K": 6_000_000, "2K": 20_000_000, "4K": 80_000_000}
"""Bytes of disk that one picture may need, its raw answer included."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan with what is needed to make it: the inputs' bytes, the conversation so far and the recipe."""

    plan: Plan
    sources: list[Source]
    history: tuple[Turn, ...] = ()
    recipe: Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The decisions that a recipe makes for an edit before its plan is made; a plain request only says how many calls
    it takes.
    """

    calls: int
    words: str
    """Text that is sent beside the prompt, ours or the negative prompt: it is paid for, too."""
    recipe: RecipeData | None = None
    sources: list[Source] | None = None
    """The inputs of an edit, already read."""
    ratio: AspectRatio | None = None
    """The ratio that is sent; None lets the plan choose."""
    made: tuple[int, int] = (0, 0)
    """Width x height in pixels of the picture that is composed, which also needs space on the disk."""
    shape: tuple[float, float] | None = None
    """Width and height of the finished picture where they are known, against which the exact file's are checked."""
    same: str = ""
    """The pixels that stay bit-identical in the PNG that is made, in words, such as "outside the region"."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Makes plans; `models` has the model of each tier."""

    store: PictureStore
    sources: Sources
    models: Mapping[TierName, ModelSpec]

    async def job(self, request: ImageRequest, *, offline: bool = False, prepared: Prepared | None = None) -> Job:
        """Decide everything that costs nothing to decide; `offline` does not even ask the Files API. Raises
        RequestError and its subclasses.
        """
        if request.continue_from is not None:
            continued = await asyncio.to_thread(continued_picture, request.continue_from, self.store.library)
            request = replace(request, continue_from=continued)
        if prepared is None:
            prepared = Prepared(calls=request.n, words=request.negative_prompt or "")
        given = _named_inputs(request)
        mode = find_mode(request) if prepared.sources is None else "edit"
        stay = await asyncio.to_thread(self._stays_with, request)
        request, notes = shape_request(request, self.models, stay=stay)
        choice = choose(request, self.models, stay=stay)
        target = await asyncio.to_thread(self.store.disk.target, request.output_path)
        check_name(request.exact, target.output_format)
        sources = prepared.sources or [await self.sources.resolve(one, offline=offline) for one in given]
        check_something_is_seen(sources)
        check_size(request.exact, prepared.shape or _expected_shape(request, mode, sources), target.output_format)
        history, history_notes = await self._history(request, sources, choice.spec)
        ratio, ratio_notes = _ratio_to_send(request, mode, choice.spec, sources)
        repeated = sum(part.data is not None for turn in history for part in turn.parts)
        plan = Plan(
            request=request,
            mode=mode,
            choice=choice,
            aspect_ratio=prepared.ratio or ratio,
            inputs=_inputs(mode, sources),
            target=target,
            estimate_usd=estimate(
                choice,
                inputs=1 if prepared.recipe is not None else len(sources) + repeated,
                prompt_characters=len(request.prompt) + len(request.system_instruction or "") + len(prepared.words),
            ),
            warnings=(
                *notes,
                *history_notes,
                *ratio_notes,
                *(note for source in sources for note in source.notes),
                *prepared.notes,
                *(_losses(target.exact(request.exact, "image/png"), prepared.same) if prepared.same else ()),
            ),
            recipe=prepared.recipe,
            continues=request.continue_from if history else None,
            calls=prepared.calls,
            room=_room(request, choice.image_size, prepared),
        )
        return Job(plan=plan, sources=sources, history=history)

    async def _history(
        self, request: ImageRequest, sources: list[Source], spec: ModelSpec
    ) -> tuple[tuple[Turn, ...], list[str]]:
        """The earlier turns of the conversation that the request continues, and notes for the caller."""
        if request.continue_from is None:
            return (), []
        beside = self.sources.inline(sources)[1:]
        return await asyncio.to_thread(
            history_of,
            request.continue_from,
            self.store.library,
            self.store.disk,
            beside=beside,
            model_id=spec.id,
        )

    def _stays_with(self, request: ImageRequest) -> TierName | None:
        """The tier that drew the picture whose conversation goes on: another model does not accept its signatures."""
        if request.continue_from is None:
            return None
        drew = self.store.library.get(request.continue_from)
        return next((tier for tier, spec in self.models.items() if drew is not None and spec.id == drew.model_id), None)


def reserved_usd(plan: Plan) -> float:
    """USD reserved for one call; for a model without a known price, that of the dearest known model."""
    if plan.estimate_usd is not None:
        return plan.estimate_usd
    return highest_known(plan.choice, inputs=len(plan.inputs), prompt_characters=len(plan.request.prompt))


def _room(request: ImageRequest, size: ImageSize, prepared: Prepared) -> int:
    """Bytes of disk space that the request may need, counting 4 bytes a pixel for files that may not compress."""
    exact = request.exact
    width, height = (0, 0) if exact is None else (exact.width or exact.height or 0, exact.height or exact.width or 0)
    finished = 4 * (prepared.made[0] * prepared.made[1] + request.n * width * height)
    return ROOM + prepared.calls * PICTURE_ROOM[size] + finished


def _named_inputs(request: ImageRequest) -> tuple[str, ...]:
    """Every input of a request in the order it is sent. Raises RequestError for what cannot be one request."""
    given = tuple(one for one in (request.continue_from, request.file_id) if one is not None) + request.inputs
    if not request.prompt.strip():
        raise RequestError("The prompt is empty; say what the picture should show.")
    if request.file_id is not None and not request.file_id.startswith("files/"):
        raise RequestError("file_id takes a Files API id such as 'files/abc123'; give paths and img_... ids as inputs.")
    if len(given) > MAX_INPUTS:
        raise RequestError(f"{counted(len(given), 'input image')} given; at most {MAX_INPUTS} are possible.")
    new = len(given) - (request.continue_from is not None)
    if len(request.input_roles) > new:
        raise RequestError(
            f"input_roles names {counted(len(request.input_roles), 'role')} for {counted(new, 'input image')}."
        )
    if request.continue_from is not None and not is_image_id(request.continue_from):
        raise RequestError(
            "continue_from takes the img_... id of a picture that was made here. Give any other picture as an input."
        )
    return given


def _expected_shape(request: ImageRequest, mode: Mode, sources: list[Source]) -> tuple[float, float]:
    """The picture's shape as far as it is known before it is drawn: the ratio asked for, in an edit its source's, else square."""
    if request.aspect_ratio is not None:
        across, down = request.aspect_ratio.split(":")
        return float(across), float(down)
    base = sources[0].record if mode == "edit" and sources else None
    return (base.width, base.height) if base is not None and base.width and base.height else (1.0, 1.0)


def _inputs(mode: Mode, sources: list[Source]) -> tuple[PlannedInput, ...]:
    return tuple(
        PlannedInput(
            image_id=source.record.id,
            role=source.role or ("base" if mode == "edit" and position == 0 else "reference"),
            sha256=source.record.sha256,
        )
        for position, source in enumerate(sources)
    )


def _ratio_to_send(
    request: ImageRequest, mode: Mode, spec: ModelSpec, sources: list[Source]
) -> tuple[AspectRatio | None, list[str]]:
    """The caller's ratio, or in an edit of several inputs the first one's nearest. Without a ratio the model follows its
    last input, which is right when that is the only one, and the wrong picture when references come after the source.
    """
    if request.aspect_ratio is not None or mode == "generate" or len(sources) == 1:
        return request.aspect_ratio, []
    base = sources[0].record
    if not base.width:
        return None, [f"The shape of {sources[0].given} is not known here; give aspect_ratio to keep it."]
    return nearest_ratio(base.width, base.height, spec.ratios), []


def _losses(exact: OutputSpec | None, where: str) -> tuple[str, ...]:
    """A note where the file that is asked for, `exact`, cannot hold the pixels `where` as they are."""
    if exact is None:
        return ()
    named, lossless = exact.output_format or "png", exact.output_format == "webp" and exact.quality == 100
    if exact.width or exact.height:
        why = "is scaled"
    elif named != "png" and not lossless:
        why = f"is {FORMATS[named].words}, which loses a little"
    else:
        return ()
    told = f"The file {why}, so pixels {where} are not bit-identical in it. They are in the PNG that is kept beside it."
    return (told,)
