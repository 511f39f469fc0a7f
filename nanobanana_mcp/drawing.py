"""Carrying out a plan: n calls to the model at once, and for each what follows, from the raw answer to the kept picture."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from nanobanana_mcp.domain import Created, Failure, ImageRecord, InputPart, KeptImage, ModelRequest
from nanobanana_mcp.errors import RateLimited, ServiceError, SourceNotFound, StudioError, Unavailable, UnknownOutcome
from nanobanana_mcp.gemini.reply import NoPicture, Unreadable, read_reply
from nanobanana_mcp.keeping import keep
from nanobanana_mcp.library.journal import Call, Journal, Order
from nanobanana_mcp.model import ImageModel
from nanobanana_mcp.plan import Plan
from nanobanana_mcp.pricing import cost
from nanobanana_mcp.shapes import differences
from nanobanana_mcp.sources import Source, Sources
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.state import drop_spool, spool
from nanobanana_mcp.uploads import Uploads

Progress = Callable[[float, float, str], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]

HEARTBEAT_S = 5.0
ATTEMPTS = 3
LONGEST_WAIT_S = 60.0
"""A delay that Google asks for beyond this is the caller's to wait out."""


async def silent(_done: float, _total: float, _words: str) -> None:
    """Progress that nobody hears."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A picture that did not come, and the error that says why."""

    failure: Failure
    error: StudioError


@dataclass(kw_only=True)
class Run:
    """One request under way: what its n calls share."""

    plan: Plan
    order: Order
    sources: list[Source]
    request: ModelRequest
    progress: Progress
    total: int
    done: int = 0
    warnings: list[str] = field(default_factory=list)
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return f"{self.plan.choice.spec.tier} ({self.plan.choice.spec.nickname})"

    async def heartbeat(self) -> None:
        """Say that it goes on: a client that hears nothing for minutes may give up."""
        waited = 0.0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            waited += HEARTBEAT_S
            await self.progress(self.done, self.total, f"Waiting for {self.name}: {waited:.0f} s")

    def problem(self, call: Call, error: StudioError, reason: str, cost_usd: float | None) -> Problem:
        failure = Failure(index=call.position + 1, reason=reason, message=str(error), cost_usd=cost_usd)
        return Problem(failure=failure, error=error)


class Drawing:
    """Turns reserved calls into kept pictures. Each step is in the journal before the next begins."""

    def __init__(
        self,
        *,
        model: ImageModel,
        journal: Journal,
        sources: Sources,
        uploads: Uploads,
        places: Places,
        upload_always: bool,
        max_concurrency: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._model = model
        self._journal = journal
        self._sources = sources
        self._uploads = uploads
        self._places = places
        self._upload_always = upload_always
        self._gate = asyncio.Semaphore(max_concurrency)
        self._sleep = sleep

    async def carry_out(
        self, plan: Plan, sources: list[Source], order: Order, calls: tuple[Call, ...], progress: Progress
    ) -> Created:
        """Make the pictures. Raises a StudioError when there is none at all."""
        total = len(calls)
        name = f"{plan.choice.spec.tier} ({plan.choice.spec.nickname})"
        await progress(0, total, f"Asking {name} for {total} {'picture' if total == 1 else 'pictures'}")
        try:
            await self._sources.enter(sources)
            parts, notes = await self._sources.parts(sources)
        except StudioError as error:
            for call in calls:
                await self._give_up(call, error)
            raise
        run = Run(
            plan=plan,
            order=order,
            sources=sources,
            request=model_request(plan, parts),
            progress=progress,
            total=total,
            warnings=notes,
        )
        beating = asyncio.create_task(run.heartbeat())
        try:
            results = await asyncio.gather(*(self._make_one(run, call) for call in calls))
        finally:
            beating.cancel()
        images = tuple(result for result in results if isinstance(result, KeptImage))
        problems = [result for result in results if isinstance(result, Problem)]
        costs = [image.cost_usd for image in images] + [problem.failure.cost_usd for problem in problems]
        if not images:
            raise nothing_made(problems, sum(c or 0 for c in costs))
        return Created(
            request=plan.request,
            mode=plan.mode,
            choice=plan.choice,
            sent_aspect_ratio=plan.aspect_ratio,
            inputs=tuple(source.record for source in sources),
            images=images,
            failures=tuple(problem.failure for problem in problems),
            warnings=tuple(dict.fromkeys((*plan.warnings, *run.warnings))),
            cost_usd=None if None in costs else round(sum(c or 0 for c in costs), 6),
            request_id=order.id,
        )

    async def _make_one(self, run: Run, call: Call) -> KeptImage | Problem:
        """One call to the model and everything after it; an expected mishap comes back as a Problem."""
        async with self._gate:
            await asyncio.to_thread(self._journal.sent, call.id)
            try:
                raw = await self._ask_patiently(run, call)
            except UnknownOutcome as error:
                await asyncio.to_thread(self._journal.unknown, call.id, message=str(error))
                return run.problem(call, error, "UNKNOWN_OUTCOME", call.estimate_usd)
            except StudioError as error:
                await self._give_up(call, error)
                return run.problem(call, error, type(error).__name__, 0.0)
        try:
            image, data = await asyncio.to_thread(self._finish, run, call, raw)
        except NoPicture as error:
            return run.problem(call, error, error.reason, cost(run.plan.choice.spec, error.usage))
        except StudioError as error:
            return run.problem(call, error, type(error).__name__, call.estimate_usd)
        if self._upload_always and image.record.mime_type.startswith("image/"):
            upload = await self._uploads.begin(image.record, data, image.record.mime_type, image.record.prompt)
            image = replace(image, upload=upload)
        run.done += 1
        shape = f"{image.record.width}x{image.record.height}, {image.record.bytes / 1e6:.1f} MB"
        await run.progress(run.done, run.total, f"Picture {run.done} of {run.total} is kept: {shape}")
        return image

    async def _ask_patiently(self, run: Run, call: Call) -> bytes:
        """Ask again, a bounded number of times, where Gemini said no before it drew anything."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._ask(run)
            except (RateLimited, Unavailable) as error:
                wait = error.retry_after if isinstance(error, RateLimited) else 2.0 ** (attempt - 1)
                if not error.retryable or wait is None or wait > LONGEST_WAIT_S or attempt == ATTEMPTS:
                    raise
                why = "asked to wait" if isinstance(error, RateLimited) else "could not be reached or was overloaded"
                run.warnings.append(
                    f"Gemini {why}, so picture {call.position + 1} was asked for again after {wait:.0f} s "
                    f"(attempt {attempt + 1} of {ATTEMPTS}; nothing was charged before)."
                )
                await run.progress(run.done, run.total, f"Gemini {why}; trying again in {wait:.0f} s")
                await self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, run: Run) -> bytes:
        setting = f"NANOBANANA_{run.plan.choice.spec.tier.upper()}_MODEL"
        request = run.request
        try:
            return await self._model.generate(request, setting=setting)
        except SourceNotFound:
            # Google refused a file before drawing anything: nothing is charged, and the file can be had again.
            async with run.renewing:
                if run.request is request:
                    run.sources = await self._sources.renewed(run.sources)
                    parts, notes = await self._sources.parts(run.sources)
                    run.warnings += [*notes, *(note for source in run.sources for note in source.notes)]
                    run.request = replace(request, inputs=parts)
        return await self._model.generate(run.request, setting=setting)

    async def _give_up(self, call: Call, error: StudioError) -> None:
        await asyncio.to_thread(
            self._journal.failed, call.id, reason=type(error).__name__, message=str(error), cost_usd=0.0
        )

    def _finish(self, run: Run, call: Call, raw: bytes) -> tuple[KeptImage, bytes]:
        """The raw answer to the disk first; then what is in it. Runs in a thread."""
        try:
            spool(call.id, raw, self._places)
            self._journal.spooled(call.id)
        except OSError as error:
            run.warnings.append(f"The raw answer could not be put aside ({error.strerror}); the disk may be full.")
        kept = settle(raw, plan=run.plan, order=run.order, call=call, places=self._places, journal=self._journal)
        base = run.sources[0].record if run.plan.mode == "edit" else None
        run.warnings += [*kept.warnings, *shortfalls(kept.record, run.plan, base)]
        return kept.image, kept.data


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A raw answer that became a picture, with the picture's bytes."""

    image: KeptImage
    record: ImageRecord
    data: bytes
    warnings: tuple[str, ...]


def settle(
    raw: bytes, *, plan: Plan, order: Order, call: Call, places: Places, journal: Journal, again: bool = False
) -> Settled:
    """Read a raw answer that is in the spool and keep its picture; the journal has the outcome when this returns.

    Raises NoPicture with Gemini's reason, or Unreadable, whose raw answer stays in the spool.
    """
    try:
        reply = read_reply(raw)
    except NoPicture as error:
        price = cost(plan.choice.spec, error.usage)
        journal.failed(call.id, reason=error.reason, message=str(error), cost_usd=price or 0.0)
        drop_spool(call.id, places)
        raise
    except Unreadable as error:
        journal.unknown(call.id, message=str(error))
        raise
    kept = keep(reply, plan=plan, order=order, call=call, places=places, journal=journal, again=again)
    image = KeptImage(record=kept.record, upload=None, cost_usd=kept.cost_usd, text=reply.text, sources=reply.sources)
    return Settled(image=image, record=kept.record, data=reply.image, warnings=kept.warnings)


def model_request(plan: Plan, parts: tuple[InputPart, ...]) -> ModelRequest:
    return ModelRequest(
        model_id=plan.choice.spec.id,
        prompt=plan.request.prompt,
        negative_prompt=plan.request.negative_prompt,
        system_instruction=plan.request.system_instruction,
        inputs=parts,
        aspect_ratio=plan.aspect_ratio,
        image_size=plan.choice.image_size,
        thinking_level=plan.choice.thinking_level,
        grounding=plan.choice.grounding,
    )


def shortfalls(record: ImageRecord, plan: Plan, base: ImageRecord | None) -> list[str]:
    """Where the picture is not what was asked for; `base` is the picture that an edit started from."""
    if not record.width:
        return []
    source = (base.width, base.height) if base is not None and base.width else None
    return differences(record.width, record.height, size=plan.choice.image_size, ratio=plan.aspect_ratio, source=source)


def nothing_made(problems: list[Problem], spent: float) -> StudioError:
    if len(problems) == 1:
        return problems[0].error
    messages = list(dict.fromkeys(problem.failure.message for problem in problems))
    charged = f" Up to ${spent:.3f} may have been charged." if spent else ""
    return ServiceError(f"None of {len(problems)} pictures was made. {' / '.join(messages)}{charged}")
