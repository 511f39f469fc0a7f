"""The studio: each of its methods is one thing the program can do. It puts the parts together and decides their order."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from types import EllipsisType
from typing import TYPE_CHECKING

from nanobanana_mcp.domain.budget import Limits, check
from nanobanana_mcp.domain.catalog import ModelSpec, TierName
from nanobanana_mcp.domain.errors import (
    BudgetExceeded,
    NotAllowed,
    RequestError,
    SetupError,
    SourceNotFound,
    StudioError,
)
from nanobanana_mcp.domain.finding import Changes, Deletion, FindRequest, Found, FoundPage, Landmarks, ViewRequest
from nanobanana_mcp.domain.ids import is_image_id, new_id, now
from nanobanana_mcp.domain.plan import load_plan
from nanobanana_mcp.domain.policy.limits import Limit
from nanobanana_mcp.domain.provider import ImageModel
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.results import Created, Quote, Uploaded
from nanobanana_mcp.domain.terms import KEEP_COUNT, MAX_AGE_HOURS, Backend, Operation
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.jobs.active import ActiveRequests
from nanobanana_mcp.jobs.files import no_such_picture
from nanobanana_mcp.jobs.inputs import Sources
from nanobanana_mcp.jobs.planner import Job, Planner, reserved_usd
from nanobanana_mcp.jobs.recovery import Recovered, Recovery
from nanobanana_mcp.jobs.repeats import Repeats
from nanobanana_mcp.jobs.run import Progress, Sleep, silent
from nanobanana_mcp.jobs.runner import Runner
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.jobs.uploads import Uploads
from nanobanana_mcp.library.call_limits import Counts
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.glance import Glimpse
from nanobanana_mcp.library.journal import Delivery, Journal, RequestRow
from nanobanana_mcp.library.pictures import Library, Lineage
from nanobanana_mcp.pixels.outputs.thumbnails import Thumbnail
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import ProcessLock
from nanobanana_mcp.storage.writing import check_room
from nanobanana_mcp.studio.admission import judge_plan
from nanobanana_mcp.studio.deletion import Deletions
from nanobanana_mcp.studio.maintenance import Maintenance, Report, check_options
from nanobanana_mcp.studio.previews import THUMBNAIL_PX, make_previews, make_sheet
from nanobanana_mcp.studio.search import Search
from nanobanana_mcp.studio.search import check as check_wanted
from nanobanana_mcp.studio.stats import Stats, collect

if TYPE_CHECKING:
    from nanobanana_mcp.studio.view import View, Viewer

logger = logging.getLogger(__name__)

DRAIN_S = 20.0
"""Seconds that an ending process waits for pictures that are being drawn; most take less."""

UPLOAD_DRAIN_S = 2.0


class Studio:
    """The facade over all verbs of the program. It is handed all that it needs, so that tests can hand in another
    model.
    """

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
        index_prompts: bool = True,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.places = places
        self.disk = Disk(places)
        self.library = Library(database)
        self.journal = Journal(database)
        self.store = PictureStore(self.disk, self.library, self.journal, model.read)
        self.backend: Backend = backend
        self.models = models
        self.limits = limits or Limits()
        self.model = model
        self.uploading = uploading
        self.may_send: Callable[[], bool] = lambda: True
        """True when a kept picture may be uploaded without being asked for: not while the policy cannot be read."""
        self._setup_problem = setup_problem
        self.uploads = Uploads(model, self.store, backend)
        self.sources = Sources(model, self.store, self.uploads, backend, uploading=uploading != "never")
        self.planner = Planner(store=self.store, sources=self.sources, models=models)
        self._maintenance = Maintenance(self.library, model, self.disk, backend)
        self._search = Search(self.store, backend, index_prompts=index_prompts)
        self._deletions = Deletions(self.store, self._search)
        self._made_lock: ProcessLock | None = None
        self._making_lock = threading.Lock()
        self._active = ActiveRequests()
        self._closing = False
        self._noting: set[asyncio.Task[Delivery | None]] = set()
        self._counts = Counts(database=database)
        self._sleep = sleep
        self._runner = Runner(
            model=model,
            store=self.store,
            sources=self.sources,
            uploads=self.uploads,
            upload_now=lambda: uploading == "always" and self.may_send(),
            max_concurrency=max_concurrency,
            sleep=sleep,
        )

    @property
    def _process_lock(self) -> ProcessLock:
        """Made by the first thing that writes, so that reading still works on a read-only disk."""
        with self._making_lock:  # a recovery asks for it in a thread of its own
            if self._made_lock is None:
                self._made_lock = self.disk.process_lock()
            return self._made_lock

    @cached_property
    def _viewer(self) -> "Viewer":
        from nanobanana_mcp.studio.view import Viewer  # numpy: 40 ms and 12 MB that only a close look pays

        return Viewer(self.store, self._search)

    @cached_property
    def _recovery(self) -> Recovery:
        return Recovery(
            self.store,
            lambda: self._process_lock,
            running=self._active,
            mend=lambda: self._maintenance.mend(dry_run=False),
        )

    @cached_property
    def _repeats(self) -> Repeats:
        return Repeats(self.journal, self._recovery, self._active, lambda: self._process_lock, self._sleep)

    async def create(self, request: ImageRequest, *, key: str | None = None, progress: Progress = silent) -> Created:
        """Make or edit pictures. Once begun, the request is finished and kept even when the caller goes away.

        Raises a StudioError when there is no picture at all.
        """
        try:
            return await self.carry_out(await self.job(request), key=key, progress=progress)
        except StudioError as error:
            if error.request_id is not None:  # a caller in this process has read the error, so it is delivered
                await self.mark_delivered(error.request_id)
            raise

    async def job(self, request: ImageRequest, *, offline: bool = False) -> Job:
        """Plan a request of plain calls, one for each picture, deciding everything that costs nothing to decide;
        `offline` does not even ask the Files API. Raises RequestError and its subclasses.
        """
        return await self.planner.job(request, offline=offline)

    async def carry_out(self, job: Job, *, key: str | None = None, progress: Progress = silent) -> Created:
        """Reserve what a job may cost, make it, and answer; or give the answer of an earlier request that it repeats.

        The caller notes by `mark_delivered` that the answer (or the error, by its `request_id`) has reached its client.
        """
        judge_plan(job.plan)
        self._check_setup()
        plan = job.plan
        if self._closing:
            raise SetupError("The server is shutting down; nothing was sent. Call again once it is running again.")
        await self.noted()
        request_row = RequestRow(
            id=new_id(),
            created_at=now(),
            process=await asyncio.to_thread(self._process_lock.renew),
            mode=plan.mode,
            tier=plan.choice.spec.tier,
            model_id=plan.choice.spec.id,
            backend=self.backend,
            plan=plan.dump(),
            fingerprint=plan.fingerprint(),
            idempotency_key=key,
        )
        self._active.begin(request_row.id, self._reserve_and_draw(job, request_row, progress))
        try:
            return await self._active.answer(request_row.id)
        except StudioError as error:
            if error.request_id is None:
                error.request_id = request_row.id
            raise

    async def mark_delivered(self, request_id: str) -> Callable[[], Awaitable[None]]:
        """Note that an answer has gone to its client. This runs after the answer, which need not wait for the disk; the
        next request waits for it, since until then the same words would count as the same request.

        Returns what takes the note back, for an answer that turns out to have been left unread.
        """
        noting = asyncio.create_task(self._note_delivery(request_id))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)
        return partial(self._take_back, noting)

    async def noted(self) -> None:
        """Wait until every delivery so far is in the journal."""
        if self._noting:
            await asyncio.wait(self._noting)

    async def _note_delivery(self, request_id: str) -> Delivery | None:
        try:
            return await asyncio.to_thread(self.journal.mark_delivered, request_id)
        except StudioError as error:  # the pictures are kept and answered; at worst they are reported once more
            logger.warning("Could not note that %s was delivered: %s", request_id, error)
            return None

    async def _take_back(self, noting: asyncio.Task[Delivery | None]) -> None:
        delivery = await noting
        if delivery is None:
            return
        try:
            await asyncio.to_thread(self.journal.take_back, delivery)
        except StudioError as error:
            logger.warning("Could not note that %s was not delivered: %s", delivery.request_id, error)

    async def upload(self, path: str, display_name: str | None = None) -> Uploaded:
        """Put a picture into the Files API, unless the same content is there already."""
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
                f"It keeps the display name {shorten(upload.display_name or '')}, because the Files API cannot "
                "rename a file.",
            )
        return Uploaded(record=source.record, upload=upload, reused=reused, notes=notes)

    async def record_of(self, given: str) -> ImageRecord:
        """The record of the picture that a path or an id names; a caller's own that is new is entered first."""
        (source,) = await self.sources.import_([await self.sources.resolve(given, offline=True)])
        return source.record

    async def stats(self, recent: int = 10) -> Stats:
        await self.noted()
        stats = await asyncio.to_thread(
            collect, self.library, self.journal, self.disk, self.backend, self.limits, recent
        )
        if self.backend != "emulator":
            return stats
        files = await self.model.files()  # the emulator's files end with its process, whatever the rows say
        return replace(stats, live_uploads=len(files), live_upload_bytes=sum(file.bytes for file in files))

    async def recover(self, *, asked: bool = False) -> list[Recovered]:
        """Finish or report what dead processes left behind; runs when a studio is opened, and when asked for."""
        return await asyncio.to_thread(self._recovery.recover, asked=asked)

    async def knows(self, key: str) -> bool:
        """Tells whether a request with this key was made before."""
        return await asyncio.to_thread(self.journal.knows, key)

    async def consume(self, limits: Sequence[Limit], tool: str) -> None:
        """Use a policy's limits once. Raises PolicyViolation when one of them is used up."""
        await asyncio.to_thread(self._counts.consume, limits, tool)

    async def refund(self, limits: Sequence[Limit]) -> None:
        """Undo consume() for a call that was not made."""
        await asyncio.to_thread(self._counts.refund, limits)

    def price(self, job: Job) -> float:
        """USD that all calls of a job together would reserve."""
        return job.plan.calls * reserved_usd(job.plan)

    async def quote(self, job: Job) -> Quote:
        """Say what a job would be and cost. Sends nothing and writes nothing. Raises PolicyViolation."""
        judge_plan(job.plan)
        plan = job.plan
        spending = await asyncio.to_thread(self.journal.spending, self.backend)
        reserved = self.price(job)
        refusal = None
        try:
            check(self.limits, spending, wanted_usd=reserved, calls=plan.calls, at=now())
        except BudgetExceeded as error:
            refusal = str(error)
        return Quote(
            plan=plan,
            backend=self.backend,
            inputs=tuple(source.record for source in job.sources),
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
        """Tidy up; a dry run lists exactly the actions that the real run takes."""
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
            await asyncio.to_thread(self._process_lock.renew)  # a later start looks for half-done moves
        return await self._maintenance.run(
            operation, dry_run=dry_run, max_age_hours=max_age_hours, keep_count=keep_count, image_ids=image_ids
        )

    async def newest(self, count: int, beginning: str = "") -> list[Glimpse]:
        """The newest pictures made here that are not in the trash and whose ids begin with a text."""
        return await asyncio.to_thread(self.library.glimpses, count, self.backend, beginning)

    async def picture(self, image_id: str, *, thumbnail: bool = False) -> tuple[bytes, str]:
        """The bytes and mime type of a kept picture or its thumbnail, as a resource serves them."""
        record = await asyncio.to_thread(self.library.get, image_id)
        if record is None:
            raise SourceNotFound(f"The library has no picture {shorten(image_id)[1:-1]}.")
        if not thumbnail:
            return await asyncio.to_thread(self.store.read, record), record.mime_type
        found = await asyncio.to_thread(make_previews, [record], THUMBNAIL_PX, self.store)
        if not found:
            raise SourceNotFound(f"{image_id} has no thumbnail, and its file is not there to make one from.")
        if record.thumbnail_path is None:
            await asyncio.to_thread(self.store.keep_thumbnail, record, found[0])
        return found[0].data, found[0].mime_type

    async def previews(self, records: list[ImageRecord], long_side: int) -> list[Thumbnail]:
        """One preview a picture; beyond four pictures one numbered contact sheet of all of them."""
        return await asyncio.to_thread(make_previews, records, long_side, self.store)

    async def find_images(self, wanted: FindRequest) -> FoundPage:
        """A page of the pictures that are wanted. Raises RequestError, SourceNotFound."""
        if wanted.copy_of is None:
            return await asyncio.to_thread(self._search.find, wanted)
        if replace(wanted, copy_of=None, limit=FindRequest.limit) != FindRequest():
            raise RequestError("copy_of asks which of ours a file is; give it alone, or with a limit.")
        check_wanted(wanted)
        return await asyncio.to_thread(self._viewer.copy_of, wanted.copy_of, wanted.limit)

    async def view(self, wanted: ViewRequest) -> "View":
        """A close look at a picture, or at two at the same place. Raises RequestError, SourceNotFound."""
        return await asyncio.to_thread(self._viewer.view, wanted)

    async def landmarks(self, wanted: FindRequest, every: int) -> Landmarks:
        """The places where the pages of a search begin, each of `every` pictures. Raises RequestError."""
        return await asyncio.to_thread(self._search.landmarks, wanted, every)

    async def found(self, image_id: str) -> Found:
        """One picture as a search tells it. Raises SourceNotFound."""
        found = await asyncio.to_thread(self._search.told, [image_id])
        if not found:
            raise await asyncio.to_thread(no_such_picture, image_id, self.library)
        return found[0]

    async def annotate(
        self,
        image_id: str,
        *,
        note: str | EllipsisType | None = ...,
        tags: Sequence[str] | EllipsisType = ...,
        rating: int | EllipsisType | None = ...,
    ) -> Found:
        """Note something about a picture; what is left out stays as it is. Raises RequestError, SourceNotFound."""
        given = {"note": note, "tags": tags, "rating": rating}
        changed = {name: value for name, value in given.items() if value is not ...}
        return await asyncio.to_thread(self._search.annotate, image_id, changed)

    async def seed_of(self, record: ImageRecord) -> int | None:
        """The seed that a picture was asked for with; None without one, and where no plan tells it any more."""
        planned = await asyncio.to_thread(self.journal.with_call, record.call_id) if record.call_id else None
        try:
            return load_plan(planned[0].plan).request.seed if planned is not None else None
        except SetupError:  # planned by another version
            return None

    async def tags(self) -> tuple[tuple[str, int], ...]:
        """Every tag with how many pictures have it, the most used first."""
        return await asyncio.to_thread(self._search.annotations.all_tags)

    async def trash(self, image_ids: Sequence[str]) -> Report:
        """Move pictures that a person chose to the trash, by the rules of maintenance. Raises SourceNotFound."""
        await asyncio.to_thread(self._process_lock.renew)  # a start after its death looks for what is half moved
        return await asyncio.to_thread(self._maintenance.trash, image_ids)

    async def restore(self, image_ids: Sequence[str]) -> Report:
        """Bring pictures back from the trash. Raises RequestError for one that is not there."""
        if not image_ids:
            raise RequestError("Give the ids of the pictures to bring back.")
        return await self.maintain("restore", dry_run=False, image_ids=tuple(image_ids))

    async def about_deleting(self, image_id: str) -> Deletion:
        """Says which files of a picture in the trash would be deleted. Raises SourceNotFound, RequestError."""
        return await asyncio.to_thread(self._deletions.about, image_id)

    async def delete_for_good(self, image_id: str, token: str) -> Deletion:
        """Delete a picture with its record, after a second yes: `token` is that of `about_deleting`. Raises RequestError."""
        return await asyncio.to_thread(self._deletions.delete, image_id, token)

    async def keep_mask(self, image_id: str, data: bytes, promised: str | None = None) -> Found:
        """Keep a mask, a PNG of the picture's size that is white where to edit; edit_region takes its id, which is the one
        that was `promised`. Raises RequestError.
        """
        record = await asyncio.to_thread(self.library.get, image_id)
        if record is None:
            raise await asyncio.to_thread(no_such_picture, image_id, self.library)
        mask = await asyncio.to_thread(self.store.keep_mask, record, data, self.backend, promised)
        return await self.found(mask.id)

    async def changes(self, after: int | None) -> Changes:
        """The pictures that changed since, whichever process changed them; without `after` only where the changes stand."""
        return await asyncio.to_thread(self._search.changes, after)

    def begin_indexing(self) -> None:
        """Make the search index behind whatever else is done, where it is not whole."""
        self._search.begin()

    async def sheet(self, records: list[ImageRecord], cell: int) -> Thumbnail | None:
        """One small contact sheet, numbered as the records are; None where nothing can be shown."""
        return await asyncio.to_thread(make_sheet, records, cell, self.store)

    async def close(self) -> None:
        """Wait a bounded time for what is already paid for, and begin nothing more; the journal tells the next start of
        the rest.
        """
        self._closing = True
        await self._active.drain(DRAIN_S)
        await self.noted()
        await self.uploads.drain(UPLOAD_DRAIN_S)
        await self.model.close()
        await asyncio.to_thread(self._search.close)
        await asyncio.to_thread(self.library.database.close)
        if self._made_lock is not None:
            self._made_lock.close()

    async def _reserve_and_draw(self, job: Job, request_row: RequestRow, progress: Progress) -> Created:
        """Reserves the calls and makes the pictures; it runs to its end even when the caller leaves."""
        plan = job.plan
        reservation = await asyncio.to_thread(
            self.journal.reserve, request_row, n=plan.calls, estimate_usd=reserved_usd(plan), limits=self.limits
        )
        if reservation.replay:
            return await self._repeats.answer(request_row.id, reservation, progress)
        try:
            await asyncio.to_thread(check_room, plan.room, plan.target.folder, self.places.state)
            # Another request may have entered the same picture since the plan was made: then its rows are used.
            sources = await self.sources.import_(job.sources)
        except StudioError as error:
            why = str(error)
            for call in reservation.calls:
                await asyncio.to_thread(
                    self.journal.mark_failed, call.id, reason="NEVER_SENT", message=why, cost_usd=0.0
                )
            raise
        stop = self._active.stop_of(request_row.id)
        return await self._runner.run(replace(job, sources=sources), reservation, progress, stop)

    def _check_setup(self) -> None:
        problem = self._setup_problem()
        if problem is not None:
            raise SetupError(problem)
