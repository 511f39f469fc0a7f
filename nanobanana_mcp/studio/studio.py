"""The studio: its methods are the verbs. It puts the parts together and alone knows the order of things."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

from nanobanana_mcp.domain.budget import Limits, check
from nanobanana_mcp.domain.catalog import ModelSpec, TierName
from nanobanana_mcp.domain.errors import (
    BudgetExceeded,
    NotAllowed,
    ServiceError,
    SetupError,
    SourceNotFound,
    StudioError,
)
from nanobanana_mcp.domain.ids import is_image_id, new_id, now
from nanobanana_mcp.domain.plan import Plan
from nanobanana_mcp.domain.policy.limits import Limit
from nanobanana_mcp.domain.pricing import highest_known
from nanobanana_mcp.domain.provider import ImageModel
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.results import Created
from nanobanana_mcp.domain.selector import choose, find_mode
from nanobanana_mcp.domain.sizing import check_name, check_size, shape_request
from nanobanana_mcp.domain.terms import Backend, Operation
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.domain.wire import Turn
from nanobanana_mcp.jobs.active import ActiveRequests
from nanobanana_mcp.jobs.calls import Progress, Sleep, silent
from nanobanana_mcp.jobs.conversation import history_of, speaker
from nanobanana_mcp.jobs.files import no_such_picture, stored_bytes
from nanobanana_mcp.jobs.inputs import Source, Sources, check_something_is_seen
from nanobanana_mcp.jobs.planner import Job, Quote, Uploaded, expected_shape, make_plan, named_inputs, parents_of
from nanobanana_mcp.jobs.recovery import Recovered, Recovery
from nanobanana_mcp.jobs.replay import read_back
from nanobanana_mcp.jobs.runner import Runner
from nanobanana_mcp.jobs.uploads import Uploads
from nanobanana_mcp.library.call_limits import Counts
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.glance import Glimpse
from nanobanana_mcp.library.journal import UNSETTLED, Delivery, Journal, RequestRow, Reservation
from nanobanana_mcp.library.pictures import Library, Lineage
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import ProcessLock
from nanobanana_mcp.storage.writing import check_room
from nanobanana_mcp.studio.admission import judge_plan
from nanobanana_mcp.studio.maintenance import KEEP_COUNT, MAX_AGE_HOURS, Maintenance, Report, check_options
from nanobanana_mcp.studio.previews import make_previews
from nanobanana_mcp.studio.stats import Stats, collect

SAME_REQUEST = (
    "The same request was under way already: these are its pictures, and nothing was charged again. For more pictures "
    "ask for n of them, or give another idempotency_key."
)

logger = logging.getLogger(__name__)

DRAIN_S = 20.0
"""How long an ending process waits for pictures that are being drawn; most take less."""

THUMBNAIL_PX = 512
UPLOAD_DRAIN_S = 2.0
REPLAY_POLL_S = 0.25
REPLAY_S = 600.0
"""How long a repeated request waits for the process that made it first: longer than any picture takes."""


class Studio:
    """Create, upload, count, tidy up. Everything it needs is handed in, so that tests hand in a stand-in model."""

    def __init__(
        self,
        *,
        model: ImageModel,
        database: Database,
        places: Places,
        backend: Backend,
        models: dict[TierName, ModelSpec],
        uploading: str = "always",
        limits: Limits | None = None,
        max_concurrency: int = 8,
        setup_problem: Callable[[], str | None] = lambda: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.library = Library(database)
        self.journal = Journal(database)
        disk = self.disk = Disk(places)
        self.places = places
        self.backend: Backend = backend
        self.models = models
        self.limits = limits or Limits()
        self.model = model
        self.uploading = uploading
        self.may_send: Callable[[], bool] = lambda: True
        """Whether a kept picture may be uploaded unasked: not while nobody knows what the policy says."""
        self._setup_problem = setup_problem
        self.uploads = Uploads(model, self.library, disk, backend)
        self.sources = Sources(model, self.library, self.uploads, disk, backend, uploading=uploading != "never")
        self._maintenance = Maintenance(self.library, model, disk, backend)
        self._made_lock: ProcessLock | None = None
        self._making_lock = threading.Lock()
        self._active = ActiveRequests()
        self._closing = False
        self._noting: set[asyncio.Task[Delivery | None]] = set()
        self._counts = Counts(database=database)
        self._sleep = sleep
        self._runner = Runner(
            model=model,
            journal=self.journal,
            library=self.library,
            sources=self.sources,
            uploads=self.uploads,
            disk=disk,
            upload_now=lambda: uploading == "always" and self.may_send(),
            max_concurrency=max_concurrency,
            sleep=sleep,
        )

    @property
    def _process_lock(self) -> ProcessLock:
        """Made with the first thing that writes: on a read-only disk what only reads goes on working."""
        with self._making_lock:  # a recovery asks for it in a thread of its own
            if self._made_lock is None:
                self._made_lock = self.disk.process_lock()
            return self._made_lock

    @cached_property
    def _recovery(self) -> Recovery:
        return Recovery(
            self.journal,
            self.disk,
            lambda: self._process_lock,
            running=self._active,
            mend=lambda: self._maintenance.mend(dry_run=False),
        )

    async def plan(
        self,
        request: ImageRequest,
        *,
        offline: bool = False,
        sources: list[Source] | None = None,
        shape: tuple[float, float] | None = None,
    ) -> tuple[Plan, list[Source]]:
        """Decide everything that can be decided for nothing; `offline` asks not even the Files API. `sources` are the
        inputs where they were found already, `shape` the width and height of the picture where they are known. Raises
        RequestError and its kin.
        """
        if request.continue_from is not None:
            goes_on = await asyncio.to_thread(speaker, request.continue_from, self.library)
            request = replace(request, continue_from=goes_on)
        given = named_inputs(request)
        mode = find_mode(request) if sources is None else "edit"
        stay = await asyncio.to_thread(self._stays_with, request)
        request, notes = shape_request(request, self.models, stay=stay)
        choice = choose(request, self.models, stay=stay)
        target = await asyncio.to_thread(self.disk.target, request.output_path)
        check_name(request.exact, target.output_format)
        if sources is None:
            sources = [await self.sources.resolve(one, offline=offline) for one in given]
        check_something_is_seen(sources)
        check_size(request.exact, shape or expected_shape(request, mode, sources), target.output_format)
        history: tuple[Turn, ...] = ()
        if request.continue_from is not None:
            history, _ = await asyncio.to_thread(
                history_of, request.continue_from, self.library, self.disk, model_id=choice.spec.id
            )
        made = make_plan(
            request, mode=mode, choice=choice, target=target, sources=sources, history=history, notes=notes
        )
        return made, sources

    def _stays_with(self, request: ImageRequest) -> TierName | None:
        """The tier whose model drew the picture that a conversation goes on from: its signatures are that model's."""
        drew = self.library.get(request.continue_from) if request.continue_from is not None else None
        return next((tier for tier, spec in self.models.items() if drew is not None and spec.id == drew.model_id), None)

    async def create(self, request: ImageRequest, *, key: str | None = None, progress: Progress = silent) -> Created:
        """Make or edit pictures. What was begun is finished and kept even when the caller goes away.

        Raises a StudioError when there is no picture at all.
        """
        try:
            return await self.carry_out(await self.job(request), key=key, progress=progress)
        except StudioError as error:
            if error.request_id is not None:  # who calls this has no transport on which the words could be lost
                await self.delivered(error.request_id)
            raise

    async def job(self, request: ImageRequest, *, offline: bool = False) -> Job:
        """A request as plain calls, one a picture; `offline` as in `plan`."""
        plan, sources = await self.plan(request, offline=offline)
        return Job(plan=plan, sources=sources, calls=request.n)

    async def carry_out(self, job: Job, *, key: str | None = None, progress: Progress = silent) -> Created:
        """Reserve what a job may cost, do it, and answer; or answer for an earlier one that it repeats.

        Who calls this says when the answer is with its client, by `delivered`, of an error by its `request_id`.
        """
        judge_plan(job.plan)
        self._check_setup()
        plan, sources = job.plan, job.sources
        if self._closing:
            raise SetupError("The server is ending; nothing was sent. Call again when it is back.")
        await self.noted()
        reserved_usd = self._reserved_usd(plan, len(sources))
        request_row = RequestRow(
            id=new_id(),
            created_at=now(),
            process=await asyncio.to_thread(self._process_lock.renew),
            mode=plan.mode,
            tier=plan.choice.spec.tier,
            model_id=plan.choice.spec.id,
            backend=self.backend,
            plan=plan.dump(),
            fingerprint=plan.fingerprint(tuple(s.record.sha256 or s.record.id for s in sources)),
            idempotency_key=key,
        )
        self._active.begin(
            request_row.id, self._reserve_and_draw(job, request_row, plan, sources, reserved_usd, progress)
        )
        try:
            return await self._active.answer(request_row.id)
        except StudioError as error:
            if error.request_id is None:
                error.request_id = request_row.id
            raise

    async def delivered(self, request_id: str) -> Callable[[], Awaitable[None]]:
        """Note that an answer has gone to its client; behind the answer, which need not wait for the disk. The next
        request does: until it is noted, the same words would be taken for the same wish.

        What is returned takes the note back, for an answer that turns out to have been left unread.
        """
        noting = asyncio.create_task(self._note_delivery(request_id))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)
        return partial(self._take_back, noting)

    async def noted(self) -> None:
        """Until every delivery so far is in the journal."""
        if self._noting:
            await asyncio.wait(self._noting)

    async def _note_delivery(self, request_id: str) -> Delivery | None:
        try:
            return await asyncio.to_thread(self.journal.delivered, request_id)
        except StudioError as error:  # the pictures are there and told; at worst they are told once more
            logger.warning("That %s was delivered could not be noted: %s", request_id, error)
            return None

    async def _take_back(self, noting: asyncio.Task[Delivery | None]) -> None:
        delivery = await noting
        if delivery is None:
            return
        try:
            await asyncio.to_thread(self.journal.taken_back, delivery)
        except StudioError as error:
            logger.warning("That %s was not delivered could not be noted: %s", delivery.request_id, error)

    async def upload(self, path: str, display_name: str | None = None) -> Uploaded:
        """Put a picture into the Files API, unless the same content is alive there already."""
        self._check_setup()
        if self.uploading == "never":
            raise NotAllowed(
                "Uploading is switched off (NANOBANANA_UPLOAD=never, or Vertex AI, which has no Files API). "
                "generate_image takes the path itself."
            )
        source = await self.sources.resolve(path)
        (source,) = await self.sources.import_([source])
        upload, reused = await self.uploads.put(source.record, source.data, source.mime_type, display_name)
        notes = source.notes
        if reused and display_name not in (None, upload.display_name):
            notes += (
                f"It keeps the display name {shorten(upload.display_name or '')}, since the Files API renames nothing.",
            )
        return Uploaded(record=source.record, upload=upload, reused=reused, notes=notes)

    async def stats(self, recent: int = 10) -> Stats:
        await self.noted()
        stats = await asyncio.to_thread(
            collect, self.library, self.journal, self.disk, self.backend, self.limits, recent
        )
        if self.backend != "emulator":
            return stats
        files = await self.model.files()  # those of the emulator end with its process, whatever the rows say
        return replace(stats, live_uploads=len(files), live_upload_bytes=sum(file.bytes for file in files))

    async def recover(self, *, asked: bool = False) -> list[Recovered]:
        """Finish or report what dead processes left behind; at every start, and when asked."""
        return await asyncio.to_thread(self._recovery.recover, asked=asked)

    async def knows(self, key: str) -> bool:
        """Whether a request with this key was made before."""
        return await asyncio.to_thread(self.journal.knows, key)

    async def consume(self, limits: Sequence[Limit], tool: str) -> None:
        """Use a policy's limits once. Raises PolicyViolation when one of them is used up."""
        await asyncio.to_thread(self._counts.consume, limits, tool)

    async def refund(self, limits: Sequence[Limit]) -> None:
        """Undo consume() for a call that was not made after all."""
        await asyncio.to_thread(self._counts.refund, limits)

    def price(self, job: Job) -> float:
        """USD that all of a job's calls together would hold against the limits."""
        return job.calls * self._reserved_usd(job.plan, len(job.sources))

    async def quote(self, job: Job) -> Quote:
        """Tell what a job would be and cost. Sends nothing, writes nothing. Raises PolicyViolation."""
        judge_plan(job.plan)
        plan, sources = job.plan, job.sources
        spending = await asyncio.to_thread(self.journal.spending, self.backend)
        reserved = self.price(job)
        refusal = None
        try:
            check(self.limits, spending, wanted_usd=reserved, calls=job.calls, at=now())
        except BudgetExceeded as error:
            refusal = str(error)
        return Quote(
            plan=plan,
            backend=self.backend,
            calls=job.calls,
            inputs=tuple(source.record for source in sources),
            spending=spending,
            reserved_usd=reserved,
            refusal=refusal,
        )

    async def lineage(self, image_id: str) -> Lineage:
        found = await asyncio.to_thread(self.library.lineage, image_id)
        if found is None:
            raise await asyncio.to_thread(no_such_picture, image_id, self.library)
        return found

    async def maintain(
        self,
        operation: Operation,
        *,
        dry_run: bool = True,
        max_age_hours: float = MAX_AGE_HOURS,
        keep_count: int = KEEP_COUNT,
        image_ids: tuple[str, ...] = (),
    ) -> Report:
        """Tidy up; a dry run lists the very deeds that the real run does."""
        check_options(operation, max_age_hours=max_age_hours, keep_count=keep_count, image_ids=image_ids)
        if operation == "recover":
            own = None if self._made_lock is None else self._made_lock.name
            found = await (asyncio.to_thread(self._recovery.preview, own) if dry_run else self.recover(asked=True))
            said = [(one.call_id, one.outcome) for one in found]
            said += await asyncio.to_thread(self._maintenance.mend, dry_run=True) if dry_run else []
            return Report(
                operation=operation,
                dry_run=dry_run,
                findings=tuple(f"{'' if is_image_id(one) else 'Call '}{one}: {outcome}" for one, outcome in said),
            )
        if not dry_run:
            await asyncio.to_thread(self._process_lock.renew)  # a start after its death looks for what is half moved
        return await self._maintenance.run(
            operation, dry_run=dry_run, max_age_hours=max_age_hours, keep_count=keep_count, image_ids=image_ids
        )

    async def newest(self, count: int, beginning: str = "") -> list[Glimpse]:
        """The newest pictures that were made here and are not in the trash, whose ids begin so, for a list."""
        return await asyncio.to_thread(self.library.glimpses, count, self.backend, beginning)

    async def picture(self, image_id: str, *, thumbnail: bool = False) -> tuple[bytes, str]:
        """The bytes and mime type of a kept picture or its thumbnail, for reading as a resource."""
        record = await asyncio.to_thread(self.library.get, image_id)
        if record is None:
            raise SourceNotFound(f"The library has no picture {shorten(image_id)[1:-1]}.")
        if not thumbnail:
            return await asyncio.to_thread(stored_bytes, record, self.disk), record.mime_type
        found = await asyncio.to_thread(make_previews, [record], THUMBNAIL_PX, self.disk)
        if not found:
            raise SourceNotFound(f"There is no thumbnail of {image_id}, and its file is not there to make one of.")
        return found[0].data, found[0].mime_type

    async def previews(self, records: list[ImageRecord], long_side: int) -> list[Thumbnail]:
        """One preview a picture; beyond four pictures one numbered contact sheet of all of them."""
        return await asyncio.to_thread(make_previews, records, long_side, self.disk)

    async def close(self) -> None:
        """Let what is paid for come home, within a bound, and begin nothing more; the journal tells the next start of
        the rest.
        """
        self._closing = True
        await self._active.finish(DRAIN_S)
        await self.noted()
        await self.uploads.drain(UPLOAD_DRAIN_S)
        await self.model.close()
        await asyncio.to_thread(self.library.database.close)
        if self._made_lock is not None:
            self._made_lock.close()

    async def _reserve_and_draw(
        self,
        job: Job,
        request_row: RequestRow,
        plan: Plan,
        sources: list[Source],
        reserved_usd: float,
        progress: Progress,
    ) -> Created:
        """Everything from the first row on, which no caller's leaving can break off."""
        reservation = await asyncio.to_thread(
            self.journal.reserve, request_row, n=job.calls, estimate_usd=reserved_usd, limits=self.limits
        )
        if reservation.replay:
            return await self._replay(request_row.id, reservation, progress)
        plan = replace(plan, warnings=(*plan.warnings, *reservation.warnings))
        try:
            await asyncio.to_thread(check_room, job.room, plan.target.folder, self.disk.places.state)
            sources = await self.sources.import_(sources)
        except StudioError as error:
            why = str(error)
            for call in reservation.calls:
                await asyncio.to_thread(self.journal.failed, call.id, reason="NEVER_SENT", message=why, cost_usd=0.0)
            raise
        parents = parents_of(plan.mode, sources)
        if parents != plan.parents:  # another request was quicker to enter one of them
            plan = replace(plan, parents=parents)
            await asyncio.to_thread(self.journal.replan, request_row.id, plan.dump())
        stop = self._active.stop_of(request_row.id)
        return await self._runner.carry_out(plan, sources, request_row, reservation.calls, progress, job.recipe, stop)

    async def _replay(self, asking: str, reservation: Reservation, progress: Progress) -> Created:
        """The answer to a request that was made before: waited for, recovered or read back; never paid twice."""
        request_row = reservation.request_row
        await progress(0, len(reservation.calls), "This request was made before; waiting for its pictures")
        if request_row.id in self._active:
            created = await self._active.join(asking, request_row.id)
            return replace(created, warnings=(*created.warnings, SAME_REQUEST))
        waited = 0.0
        while True:
            request_row, calls = await asyncio.to_thread(self.journal.request, request_row.id)
            if not any(call.state in UNSETTLED for call in calls):
                break
            ours = request_row.process == self._process_lock.name
            if ours or not await asyncio.to_thread(self._process_lock.is_alive, request_row.process):
                outcomes = await asyncio.to_thread(self._recovery.recover)
                request_row, calls = await asyncio.to_thread(self.journal.request, request_row.id)
                if any(call.state in UNSETTLED for call in calls):
                    ids = {call.id for call in calls}
                    why = (
                        " ".join(one.outcome for one in outcomes if one.call_id in ids)
                        or "its answer cannot be read back now."
                    )
                    raise SetupError(f"This request was made before and {why} Call again later; nothing is charged.")
                break
            if waited > REPLAY_S:
                raise ServiceError(
                    "This request was made before, by another window, which is still waiting for Gemini. Call again later; "
                    "nothing was charged for this call."
                )
            await self._sleep(REPLAY_POLL_S)
            waited += REPLAY_POLL_S
        try:
            return await asyncio.to_thread(read_back, request_row, calls, self.library, self.backend, self.disk)
        except StudioError as error:
            error.request_id = request_row.id  # the earlier request's failure is what its caller is told
            raise

    def _reserved_usd(self, plan: Plan, inputs: int) -> float:
        """USD that one picture may cost; where nobody knows, that of the dearest known model."""
        if plan.estimate_usd is not None:
            return plan.estimate_usd
        return highest_known(plan.choice, inputs=inputs, prompt_characters=len(plan.request.prompt))

    def _check_setup(self) -> None:
        problem = self._setup_problem()
        if problem is not None:
            raise SetupError(problem)
