"""Makes the calls of a plan, n at once, and turns each raw answer into a kept picture."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from nanobanana_mcp.domain.errors import (
    HistoryRejected,
    NoPicture,
    NotPutTogether,
    RateLimited,
    ServiceError,
    SetupError,
    SourceNotFound,
    StudioError,
    Unavailable,
    UnknownOutcome,
)
from nanobanana_mcp.domain.plan import ANSWER_ROOM, Plan
from nanobanana_mcp.domain.provider import ImageModel
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.results import Created, KeptImage
from nanobanana_mcp.domain.roles import worded_roles
from nanobanana_mcp.domain.shapes import differences
from nanobanana_mcp.domain.text import counted
from nanobanana_mcp.domain.wire import InputPart, ModelRequest
from nanobanana_mcp.jobs.group_commit import GroupCommit
from nanobanana_mcp.jobs.inputs import Sources
from nanobanana_mcp.jobs.outcomes import (
    Problem,
    nothing_made,
    price_of,
    problem_of,
    told_of_answers,
    total,
    undecodable,
)
from nanobanana_mcp.jobs.planner import Job
from nanobanana_mcp.jobs.run import ModelCalls, Progress, Recipe, Run, Sleep
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.jobs.uploads import Uploads
from nanobanana_mcp.library.journal import Call, Reservation

logger = logging.getLogger(__name__)

ATTEMPTS = 3
LONGEST_WAIT_S = 60.0
"""Seconds. When Google asks for a longer delay, the call fails and the caller decides whether to wait."""

DECODERS = 2
"""The number of answers that are decoded at once, so that other calls still find a free thread and a core."""

LARGE_ANSWER = 8_000_000
"""Bytes. A raw answer larger than this waits for its turn on the disk and not in memory: twenty 4K PNGs (58 MB each)
would fill a gigabyte.
"""


class Runner:
    """Turns reserved calls into kept pictures. Each step is in the journal before the next begins.

    At most `max_concurrency` calls are with Gemini at once (`_slots`); at most DECODERS of their answers are being
    decoded at once (`_decoding`).
    """

    def __init__(
        self,
        *,
        model: ImageModel,
        store: PictureStore,
        sources: Sources,
        uploads: Uploads,
        upload_now: Callable[[], bool],
        max_concurrency: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.store = store
        self._model = model
        self._journal = journal = store.journal
        self._disk = store.disk
        self._sources = sources
        self._uploads = uploads
        self._upload_now = upload_now
        self._slots = asyncio.Semaphore(max_concurrency)
        self._decoding = asyncio.Semaphore(DECODERS)
        self._readers = ThreadPoolExecutor(2 * DECODERS, "read")
        self._sleep = sleep
        self._sent = GroupCommit(lambda *call_ids: journal.mark_sent(*call_ids))
        self._spooled = GroupCommit(lambda *call_ids: journal.mark_spooled(*call_ids))

    async def run(
        self, job: Job, reservation: Reservation, progress: Progress, stop: asyncio.Event | None = None
    ) -> Created:
        """Make the pictures of a job whose inputs have their rows. Once `stop` is set nothing more is sent; answers to
        what was sent are still kept.

        Raises a StudioError when there is no picture at all.
        """
        plan, calls, recipe = job.plan, reservation.calls, job.recipe
        wanted = len(calls) if recipe is None else plan.request.n
        name = f"{plan.choice.spec.tier} ({plan.choice.spec.nickname})"
        await progress(0, wanted, f"Asking {name} for {counted(wanted, 'picture')}")
        try:
            request, fresh, notes = await self._first_request(job)
        except StudioError as error:
            for call in calls:
                await self._give_up(call, error)
            raise
        run = Run(
            plan=plan,
            request_row=reservation.request_row,
            sources=job.sources,
            request=request,
            fresh=fresh,
            continues=plan.continues,
            progress=progress,
            total=wanted,
            warnings=[*reservation.warnings, *notes],
            stop=stop or asyncio.Event(),
        )
        heartbeat = asyncio.create_task(run.heartbeat())
        try:
            if recipe is not None:
                return await self._follow(recipe, run, calls)
            ended = await asyncio.gather(*(self._keep_one(run, call) for call in calls), return_exceptions=True)
        finally:
            heartbeat.cancel()
        results = []
        for call, one in zip(calls, ended, strict=True):  # all have ended
            if isinstance(one, StudioError):
                one = problem_of(call, one, type(one).__name__, call.estimate_usd)
            if isinstance(one, Exception):
                one = await self.report_bug(run, call, one)
            if isinstance(one, BaseException):
                raise one
            results.append(one)
        images = tuple(one for made in results if isinstance(made, tuple) for one in made)
        problems = [result for result in results if isinstance(result, Problem)]
        return self._created(run, images, problems)

    async def _follow(self, recipe: Recipe, run: Run, calls: tuple[Call, ...]) -> Created:
        model_calls = ModelCalls(self, run, calls)
        try:
            images = await recipe.make(model_calls)
        except StudioError as error:
            if not model_calls.answered or isinstance(error, NotPutTogether):
                raise
            raise NotPutTogether(f"{error} Before that, {told_of_answers(model_calls.answered)}.") from error
        finally:
            await model_calls.give_back()
        images = [await self._uploaded(run, image) for image in images]
        costs = [
            await asyncio.to_thread(self._journal.cost_of, answer.record.call_id or "")
            for answer in model_calls.answered
        ]
        costs += [problem.failure.cost_usd for problem in model_calls.problems]
        created = self._created(run, tuple(images), [])
        return replace(created, cost_usd=total(costs), parts=tuple(answer.record for answer in model_calls.answered))

    async def _first_request(self, job: Job) -> tuple[ModelRequest, ModelRequest | None, list[str]]:
        """The first request, the one to fall back on when Gemini does not accept the conversation, and notes."""
        plan = job.plan
        if job.recipe is not None:
            return model_request(plan, ()), None, []
        parts, notes = await self._sources.parts(job.sources)
        fresh = model_request(plan, parts)
        if not job.history:
            return fresh, None, notes
        roles = worded_roles(plan.request.input_roles)  # the first input is already in the history
        return replace(fresh, inputs=parts[1:], history=job.history, roles=roles), fresh, notes

    def _created(self, run: Run, images: tuple[KeptImage, ...], problems: list[Problem]) -> Created:
        plan = run.plan
        costs = [image.cost_usd for image in images] + [problem.failure.cost_usd for problem in problems]
        if not images:
            raise nothing_made(problems, sum(c or 0 for c in costs), backend=run.request_row.backend)
        return Created(
            request=plan.request,
            mode=plan.mode,
            choice=plan.choice,
            sent_aspect_ratio=plan.aspect_ratio,
            inputs=tuple(source.record for source in run.sources),
            images=images,
            failures=tuple(problem.failure for problem in problems),
            warnings=tuple(dict.fromkeys((*plan.warnings, *run.warnings))),
            cost_usd=total(costs),
            request_id=run.request_row.id,
        )

    async def _keep_one(self, run: Run, call: Call) -> tuple[KeptImage, ...] | Problem:
        """One call of a request that does not need the bytes of its pictures: they are dropped once they are on the
        disk, since the other calls fill the memory meanwhile.
        """
        made = await self.make_one(run, call)
        return (replace(made, others=(), data=b""), *made.others) if isinstance(made, KeptImage) else made

    async def make_one(self, run: Run, call: Call, request: ModelRequest | None = None) -> KeptImage | Problem:
        """Make one call and keep its picture. An expected failure is returned as a Problem.

        `request` is what a recipe asks for; without it the call sends the run's own request, which all its calls share.
        """
        async with self._slots:
            if run.stop.is_set():
                return await self._not_sent(run, call)
            raw = await self._send(run, call, request)
            if isinstance(raw, Problem):
                return raw
            held, raw = [raw], b""  # the only reference, so that emptying the list frees the memory
            putting_aside = asyncio.create_task(self._put_aside(run, call, held[0], held))
            if len(held[0]) > LARGE_ANSWER and self._decoding.locked():
                await asyncio.wait([putting_aside])  # before the next one is asked for
        try:
            kept = await self._keep(run, call, held, putting_aside)
        except NoPicture as error:
            costs = [price_of(error, run.plan, call), run.spent_usd.get(call.id, 0.0)]
            return problem_of(call, error, error.reason, total(costs))
        except StudioError as error:
            return problem_of(call, error, type(error).__name__, call.estimate_usd)
        record = kept.delivered
        if not record.width:
            broken = undecodable(record)
            if not kept.others or run.plan.recipe is not None:
                return problem_of(call, broken, broken.reason, kept.cost_usd)
            run.warnings.append(str(broken))  # the answer has another picture, which is delivered instead
            kept = replace(kept.others[0], cost_usd=kept.cost_usd, others=kept.others[1:])
            record = kept.record
        if kept.upload is not None:
            self._uploads.start(kept.upload, kept.data)
        run.done += 1
        shape = f"{record.width}x{record.height}, {record.bytes / 1e6:.1f} MB"
        what = "Picture" if run.plan.recipe is None else "Part"
        await run.progress(min(run.done, run.total), run.total, f"{what} {run.done} is kept: {shape}")
        return replace(kept, others=tuple([await self._uploaded(run, one) for one in kept.others]))

    async def _send(self, run: Run, call: Call, request: ModelRequest | None) -> bytes | Problem:
        """Send one call, once it has room on the disk and its row says so. The raw answer, or why there is none."""
        try:
            await asyncio.to_thread(self._take_room, run, call)
            await self._sent(call.id)
        except StudioError as error:
            with suppress(StudioError):  # if even this fails, a later start finds the call reserved and never sent
                await self._give_up(call, error)
            return problem_of(call, error, type(error).__name__, 0.0)
        has_answer = False
        try:
            raw = await self._ask_patiently(run, call, request)
            has_answer = True
        except UnknownOutcome as error:
            await asyncio.to_thread(self._journal.mark_unknown, call.id, message=str(error))
            cost = f" It may have cost ${call.estimate_usd:.3f}." if run.request_row.backend != "emulator" else ""
            told = UnknownOutcome(f"{error}{cost}")
            return problem_of(call, told, "UNKNOWN_OUTCOME", call.estimate_usd)
        except StudioError as error:
            await self._give_up(call, error)
            return problem_of(call, error, type(error).__name__, 0.0)
        finally:
            if not has_answer:
                await asyncio.to_thread(self._disk.spool.give_room_back, call.id)
        return raw

    def _take_room(self, run: Run, call: Call) -> None:
        """Reserve disk space for the raw answer before it is paid for. Raises SetupError, and nothing is sent then."""
        try:
            self._disk.spool.take_room(call.id, ANSWER_ROOM[run.plan.choice.image_size])
        except OSError as error:
            raise SetupError(
                f"The folder {self._disk.places.spool} cannot take Gemini's answer ({error.strerror}); nothing was sent. Free "
                "some space, or name another folder by NANOBANANA_DATABASE_URL."
            ) from error

    async def report_bug(self, run: Run, call: Call, error: Exception) -> Problem:
        """Turn an unexpected exception of one call into a Problem, so that the request's other calls are not lost with
        it.
        """
        logger.error("Call %s of request %s failed because of a bug", call.id, run.request_row.id, exc_info=error)
        what = f"The program has a bug ({type(error).__name__}; the log has the traceback)"
        if isinstance(error, MemoryError):
            what = "There was not enough memory free here to work on the picture"
        emulated = run.request_row.backend == "emulator"
        cost = "" if emulated else f"; it may have cost ${call.estimate_usd:.3f}"
        told = UnknownOutcome(f"{what}. Whether this picture was made is not known{cost}.")
        kept = await asyncio.to_thread(self.store.library.get, f"img_{call.id}")
        if kept is not None:
            told = UnknownOutcome(f"{what}. The picture is kept as {kept.id} at {kept.path}.")
            return problem_of(call, told, "INTERNAL", call.estimate_usd)
        path = await asyncio.to_thread(self._disk.spool.path, call.id)
        if path is not None:
            told = UnknownOutcome(
                f"{what}. The picture's raw answer {'is' if emulated else 'was paid for and is'} kept at {path}; maintenance "
                "with operation 'recover', or the next start, makes a picture of it."
            )
        else:
            with suppress(StudioError):
                await asyncio.to_thread(self._journal.mark_unknown, call.id, message=str(told))
        return problem_of(call, told, "INTERNAL", call.estimate_usd)

    async def _uploaded(self, run: Run, image: KeptImage) -> KeptImage:
        """Start the upload of a kept picture where the settings ask for it. A failed upload is a warning, not an error."""
        record = image.master or image.record
        if not self._upload_now() or image.upload is not None or not record.mime_type.startswith("image/"):
            return image
        try:
            data, mime_type = await asyncio.to_thread(self.store.sendable, record)
            return replace(image, upload=await self._uploads.begin(record, data, mime_type, record.prompt))
        except StudioError as error:
            run.warnings.append(f"{record.id} is kept, but was not uploaded: {error}")
            return image

    async def _not_sent(self, run: Run, call: Call) -> Problem:
        """Close a call that was not sent because its caller has gone; it costs nothing."""
        error = ServiceError("The request was cancelled before this picture was asked for; nothing was charged for it.")
        await asyncio.to_thread(
            self._journal.mark_failed, call.id, reason="CANCELLED", message=str(error), cost_usd=0.0
        )
        return problem_of(call, error, "CANCELLED", 0.0)

    async def give_back(self, call: Call) -> None:
        await asyncio.to_thread(
            self._journal.mark_failed, call.id, reason="NOT_NEEDED", message="The call was not needed.", cost_usd=0.0
        )

    async def _ask_patiently(self, run: Run, call: Call, request: ModelRequest | None) -> bytes:
        """Make a call, and make it again a few times where Gemini refused it before it drew anything."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await (self._ask(run, call) if request is None else self._generate(run, request))
            except (RateLimited, Unavailable) as error:
                wait = error.retry_after if isinstance(error, RateLimited) else 2.0 ** (attempt - 1)
                if not error.retryable or wait is None or wait > LONGEST_WAIT_S or attempt == ATTEMPTS:
                    raise
                if run.stop.is_set():
                    raise
                why = "asked to wait" if isinstance(error, RateLimited) else "could not be reached or was overloaded"
                run.warnings.append(
                    f"Gemini {why}, so picture {call.position + 1} was asked for again after {wait:.0f} s "
                    f"(attempt {attempt + 1} of {ATTEMPTS}; nothing was charged before)."
                )
                await run.progress(run.done, run.total, f"Gemini {why}; trying again in {wait:.0f} s")
                await self._sleep(wait)
                if run.stop.is_set():
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, run: Run, call: Call) -> bytes:
        """Send the run's request, and repair it once where Google refuses it before drawing: an expired file is
        uploaded again, and a conversation that is not accepted is begun anew.

        A refusal as an error is not charged. An answer that only says that a signature is missing is charged, and its
        price is added to the call's.
        """
        request = run.request
        try:
            raw = await self._generate(run, request)
            refusal = self._model.unsigned(raw) if request.history and run.fresh is not None else None
            if refusal is None:
                return raw
            run.spent_usd[call.id] = price_of(refusal, run.plan, call) or 0.0
            self._begin_afresh(run)
        except SourceNotFound:
            async with run.renewing:
                if run.request is request:
                    run.sources = await self._sources.renewed(run.sources)
                    parts, notes = await self._sources.parts(run.sources)
                    run.warnings += [*notes, *(note for source in run.sources for note in source.notes)]
                    run.request = replace(request, inputs=parts[1:] if request.history else parts)
        except HistoryRejected:
            if run.fresh is None:
                raise
            self._begin_afresh(run)
        return await self._generate(run, run.request)

    def _begin_afresh(self, run: Run) -> None:
        assert run.fresh is not None
        run.request, run.continues = run.fresh, None
        run.warnings.append(
            "Gemini rejected the conversation's history (its signatures are missing, wrong or too old), so the "
            "edit started over from the picture alone."
        )

    async def _generate(self, run: Run, request: ModelRequest) -> bytes:
        return await self._model.generate(request, setting=f"NANOBANANA_{run.plan.choice.spec.tier.upper()}_MODEL")

    async def _give_up(self, call: Call, error: StudioError) -> None:
        await asyncio.to_thread(
            self._journal.mark_failed, call.id, reason=type(error).__name__, message=str(error), cost_usd=0.0
        )

    async def _keep(
        self, run: Run, call: Call, held: list[bytes], putting_aside: asyncio.Task[asyncio.Task[None]]
    ) -> KeptImage:
        """Keep one raw answer. It is decoded while it is written to the spool, and the picture is made only once the
        raw answer is durable: a kill in between loses nothing.
        """
        async with self._decoding:
            reading = self.store.reading(held.pop() if held else await self._read_again(call), self._readers)
            noting = await putting_aside
            try:
                kept = await asyncio.to_thread(
                    self.store.keep,
                    reading,
                    run.paid(call),
                    prepare_upload=self._uploads.prepare if self._upload_now() and run.plan.recipe is None else None,
                )
            finally:
                with suppress(StudioError):  # without the note, recovery still finds the file in the spool
                    await noting
        base = run.sources[0].record if run.plan.mode == "edit" and run.sources else None
        run.warnings += kept.notes
        if run.plan.recipe is None:
            run.warnings += _shortfalls(kept.delivered, run.plan, base)
            before = run.sources[0].data if base is not None and len(run.sources) == 1 else None
            if before is not None and kept.delivered.width:
                run.warnings += await asyncio.to_thread(_what_became_of, before, kept.data)
        return replace(kept, notes=())

    async def _put_aside(self, run: Run, call: Call, raw: bytes, held: list[bytes]) -> asyncio.Task[None]:
        """Write the raw answer to the spool, and return the task that notes this in the journal.

        Where the answer is large and must wait for a free worker, `held` is emptied: the bytes are read again from the
        disk when its turn comes.
        """
        try:
            await asyncio.to_thread(self._disk.spool.put, call.id, raw)
        except OSError as error:
            run.warnings.append(
                f"The raw answer could not be written to the spool ({error.strerror}); the disk may be full."
            )
            await asyncio.to_thread(self._disk.spool.give_room_back, call.id)
        else:
            if len(raw) > LARGE_ANSWER and self._decoding.locked():
                held.clear()
        return asyncio.create_task(self._spooled(call.id))

    async def _read_again(self, call: Call) -> bytes:
        """Read a raw answer that waited on the disk. Raises UnknownOutcome when it is no longer there."""
        try:
            raw = await asyncio.to_thread(self._disk.spool.read, call.id)
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
        else:
            if raw is not None:
                return raw
            why = "is gone"
        told = f"The raw answer that was kept in {self._disk.places.spool} {why}."
        await asyncio.to_thread(self._journal.mark_unknown, call.id, message=told)
        raise UnknownOutcome(told)


def _what_became_of(before: bytes, after: bytes) -> list[str]:
    from nanobanana_mcp.pixels.edits.change import became  # numpy: 40 ms and 12 MB that only edits pay

    return became(before, after)


def _shortfalls(record: ImageRecord, plan: Plan, base: ImageRecord | None) -> list[str]:
    """Say where the picture differs from what was asked for; `base` is the picture that an edit started from."""
    if not record.width:
        return []
    source = (base.width, base.height) if base is not None and base.width else None
    return differences(record.width, record.height, size=plan.choice.image_size, ratio=plan.aspect_ratio, source=source)


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
        roles=worded_roles(plan.request.input_roles, first=1 if plan.request.continue_from is None else 2),
        seed=plan.request.seed,
        safety=plan.request.safety,
    )
