"""The studio: its methods are the verbs. It puts the parts together and alone knows the order of things."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nanobanana_mcp.budget import Limits, check
from nanobanana_mcp.domain import (
    MAX_INPUTS,
    Backend,
    Created,
    ImageRecord,
    ImageRequest,
    is_image_id,
    new_id,
    now,
)
from nanobanana_mcp.drawing import Drawing, Progress, Sleep, silent
from nanobanana_mcp.errors import BudgetExceeded, NotAllowed, RequestError, SetupError, SourceNotFound, StudioError
from nanobanana_mcp.exact import shape_request
from nanobanana_mcp.job import Job, Quote, Uploaded, parents_of, ratio_to_send
from nanobanana_mcp.library.counts import Counts
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.journal import Journal, Order, Reservation
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.maintenance import Maintenance, Operation, Report
from nanobanana_mcp.model import ImageModel
from nanobanana_mcp.pixels.previews import Thumbnail
from nanobanana_mcp.plan import Plan
from nanobanana_mcp.policy import Limit
from nanobanana_mcp.previews import make_previews
from nanobanana_mcp.pricing import estimate, highest_known
from nanobanana_mcp.recovery import Recovered, Recovery
from nanobanana_mcp.replay import read_back
from nanobanana_mcp.selector import choose, find_mode
from nanobanana_mcp.sources import Source, Sources
from nanobanana_mcp.stats import Stats, collect
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.reading import read_own
from nanobanana_mcp.storage.state import Presence
from nanobanana_mcp.storage.writing import check_room, plan_target
from nanobanana_mcp.tiers import ModelSpec, TierName
from nanobanana_mcp.uploads import Uploads

ROOM = 200_000_000
"""Bytes a disk must have free before a picture is paid for: several 4K PNGs with their raw answers."""

DRAIN_S = 20.0
"""How long an ending process waits for pictures that are being drawn; most take less."""

UPLOAD_DRAIN_S = 2.0
REPLAY_POLL_S = 0.25


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
        setup_problem: str | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.library = Library(database)
        self.journal = Journal(database)
        self.places = places
        self.backend: Backend = backend
        self.models = models
        self.limits = limits or Limits()
        self.model = model
        self.uploading = uploading
        self._setup_problem = setup_problem
        self.uploads = Uploads(model, self.library, backend)
        self.sources = Sources(model, self.library, self.uploads, places, backend, uploading=uploading != "never")
        self._maintenance = Maintenance(self.library, model, places, backend)
        self._presence = Presence(places)
        self._running: dict[str, asyncio.Task[Created]] = {}
        """Requests of this process that are under way, from before their row is written."""
        self._recovery = Recovery(self.journal, places, self._presence, running=self._running)
        self._counts = Counts(database=database)
        self._sleep = sleep
        self._drawing = Drawing(
            model=model,
            journal=self.journal,
            library=self.library,
            sources=self.sources,
            uploads=self.uploads,
            places=places,
            upload_always=uploading == "always",
            max_concurrency=max_concurrency,
            sleep=sleep,
        )

    async def plan(
        self, request: ImageRequest, *, offline: bool = False, sources: list[Source] | None = None
    ) -> tuple[Plan, list[Source]]:
        """Decide everything that can be decided for nothing; `offline` asks not even the Files API. `sources` are the
        inputs where they were found already.

        Raises RequestError and its kin.
        """
        given = tuple(one for one in (request.continue_from, request.file_id) if one is not None) + request.inputs
        if not request.prompt.strip():
            raise RequestError("The prompt is empty; say what the picture should show.")
        if request.file_id is not None and not request.file_id.startswith("files/"):
            raise RequestError(
                "file_id takes a Files API id such as 'files/abc123'; give paths and img_... ids as inputs."
            )
        if len(given) > MAX_INPUTS:
            raise RequestError(f"{len(given)} input images were given; at most {MAX_INPUTS} are taken.")
        if len(request.input_roles) > len(given):
            raise RequestError(f"input_roles names {len(request.input_roles)} roles for {len(given)} input images.")
        if request.continue_from is not None and not is_image_id(request.continue_from):
            raise RequestError("continue_from takes the img_... id of a picture made here; others can only be inputs.")
        mode = find_mode(request) if sources is None else "edit"
        request, notes = shape_request(request, self.models)
        choice = choose(request, self.models)
        target = await asyncio.to_thread(plan_target, request.output_path, self.places)
        if sources is None:
            sources = [await self.sources.find(one, offline=offline) for one in given]
        characters = len(request.prompt) + len(request.negative_prompt or "") + len(request.system_instruction or "")
        ratio, warnings = ratio_to_send(request, mode, choice.spec, sources)
        plan = Plan(
            request=request,
            mode=mode,
            choice=choice,
            aspect_ratio=ratio,
            parents=parents_of(mode, sources),
            target=target,
            estimate_usd=estimate(choice, inputs=len(sources), prompt_characters=characters),
            warnings=(*notes, *warnings, *(note for source in sources for note in source.notes)),
        )
        return plan, sources

    async def create(self, request: ImageRequest, *, key: str | None = None, progress: Progress = silent) -> Created:
        """Make or edit pictures. What was begun is finished and kept even when the caller goes away.

        Raises a StudioError when there is no picture at all.
        """
        plan, sources = await self.plan(request)
        return await self.carry_out(Job(plan=plan, sources=sources, calls=request.n), key=key, progress=progress)

    async def carry_out(self, job: Job, *, key: str | None = None, progress: Progress = silent) -> Created:
        """Reserve what a job may cost, do it, and answer; or answer for an earlier one that it repeats."""
        self._check_setup()
        plan, sources = job.plan, job.sources
        await asyncio.to_thread(check_room, plan.target.folder, ROOM)
        await asyncio.to_thread(check_room, self.places.state, ROOM)
        sources = await self.sources.enter(sources)
        plan = replace(plan, parents=parents_of(plan.mode, sources))
        reserved_usd = self._reserved_usd(plan, len(sources))
        order = Order(
            id=new_id(),
            created_at=now(),
            process=self._presence.name,
            mode=plan.mode,
            tier=plan.choice.spec.tier,
            model_id=plan.choice.spec.id,
            backend=self.backend,
            plan=plan.dump(),
            fingerprint=plan.fingerprint(tuple(s.record.sha256 or s.record.id for s in sources)),
            idempotency_key=key,
        )
        task = asyncio.create_task(self._reserve_and_draw(job, order, plan, sources, reserved_usd, progress))
        self._running[order.id] = task
        task.add_done_callback(lambda done: self._ended(order.id, done))
        return await self._answer(order.id, task)

    async def delivered(self, request_id: str) -> None:
        await asyncio.to_thread(self.journal.delivered, request_id)

    async def upload(self, path: str, display_name: str | None = None) -> Uploaded:
        """Put a picture into the Files API, unless the same content is alive there already."""
        self._check_setup()
        if self.uploading == "never":
            raise NotAllowed(
                "Uploading is switched off (NANOBANANA_UPLOAD=never, or Vertex AI, which has no Files API). "
                "generate_image takes the path itself."
            )
        source = await self.sources.find(path)
        (source,) = await self.sources.enter([source])
        known = await asyncio.to_thread(self.library.newest_upload, source.record.id, self.backend)
        if known is not None:
            known = await self.uploads.finish(known)
        if known is not None and known.alive(now()) and await self.model.look_up(known.name) is not None:
            return Uploaded(record=source.record, upload=known, reused=True, notes=source.notes)
        if source.data is None:
            raise SourceNotFound(f"{path} is in the Files API already, under that name.")
        upload = await self.uploads.begin(source.record, source.data, source.mime_type, display_name)
        upload = await self.uploads.finish(upload)
        return Uploaded(record=source.record, upload=upload, reused=False, notes=source.notes)

    async def stats(self, recent: int = 10) -> Stats:
        return await asyncio.to_thread(
            collect, self.library, self.journal, self.places, self.backend, self.limits, recent
        )

    async def recover(self) -> list[Recovered]:
        """Finish or report what dead processes left behind; at every start, and when asked."""
        found = await asyncio.to_thread(self._recovery.recover)
        await asyncio.to_thread(self._presence.sweep)
        return found

    async def take(self, limits: Sequence[Limit], tool: str) -> None:
        """Use a policy's limits once. Raises PolicyViolation when one of them is used up."""
        await asyncio.to_thread(self._counts.take, limits, tool)

    async def quote(self, request: ImageRequest) -> Quote:
        """What a request would be and cost. Sends nothing, writes nothing."""
        plan, sources = await self.plan(request, offline=True)
        return await self.quote_job(Job(plan=plan, sources=sources, calls=request.n))

    async def quote_job(self, job: Job) -> Quote:
        plan, sources = job.plan, job.sources
        spending = await asyncio.to_thread(self.journal.spending, self.backend)
        reserved = self._reserved_usd(plan, len(sources))
        refusal = None
        try:
            check(self.limits, spending, wanted_usd=job.calls * reserved, calls=job.calls, at=now())
        except BudgetExceeded as error:
            refusal = str(error)
        return Quote(
            plan=plan,
            calls=job.calls,
            inputs=tuple(source.record for source in sources),
            spending=spending,
            refusal=refusal,
        )

    async def maintain(
        self,
        operation: Operation,
        *,
        dry_run: bool = True,
        max_age_hours: float = 168,
        keep_count: int = 10,
        image_ids: tuple[str, ...] = (),
    ) -> Report:
        """Tidy up; a dry run lists the very deeds that the real run does."""
        if operation == "recover":
            found = await asyncio.to_thread(self._recovery.preview) if dry_run else await self.recover()
            return Report(
                operation=operation,
                dry_run=dry_run,
                findings=tuple(f"Call {one.call.id}: {one.outcome}" for one in found),
            )
        return await self._maintenance.run(
            operation, dry_run=dry_run, max_age_hours=max_age_hours, keep_count=keep_count, image_ids=image_ids
        )

    async def picture(self, image_id: str, *, thumbnail: bool = False) -> tuple[bytes, str]:
        """The bytes and mime type of a kept picture or its thumbnail, for reading as a resource."""
        record = await asyncio.to_thread(self.library.get, image_id)
        if record is None:
            raise SourceNotFound(f"The library has no picture {image_id}.")
        path = record.thumbnail_path if thumbnail else record.trash_path or record.path
        data = await asyncio.to_thread(read_own, Path(path)) if path else None
        if data is None:
            raise SourceNotFound(f"The file of {image_id} is not there ({path or 'it never was on this machine'}).")
        if not thumbnail:
            return data, record.mime_type
        return data, {".jpg": "image/jpeg", ".webp": "image/webp"}.get(Path(str(path)).suffix, "image/png")

    async def previews(self, records: list[ImageRecord], long_side: int) -> list[Thumbnail]:
        """One preview a picture; beyond four pictures one numbered contact sheet of all of them."""
        return await asyncio.to_thread(make_previews, records, long_side)

    @property
    def busy(self) -> bool:
        """Whether a request is under way that may be paid for already."""
        return bool(self._running)

    async def close(self) -> None:
        """Let what is paid for come home, within a bound; the journal tells the next start of the rest."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=DRAIN_S)
        await self.uploads.drain(UPLOAD_DRAIN_S)
        await self.model.close()
        await asyncio.to_thread(self.library.database.close)
        self._presence.close()

    async def _reserve_and_draw(
        self, job: Job, order: Order, plan: Plan, sources: list[Source], reserved_usd: float, progress: Progress
    ) -> Created:
        """Everything from the first row on, which no caller's leaving can break off."""
        reservation = await asyncio.to_thread(
            self.journal.reserve, order, n=job.calls, estimate_usd=reserved_usd, limits=self.limits
        )
        if reservation.replay:
            return await self._replay(reservation, progress)
        plan = replace(plan, warnings=(*plan.warnings, *reservation.warnings))
        return await self._drawing.carry_out(plan, sources, order, reservation.calls, progress, job.recipe)

    async def _answer(self, request_id: str, task: asyncio.Task[Created]) -> Created:
        """Wait for a request without owning it: a caller that goes away leaves it running. A failure that is told
        counts as delivered.
        """
        try:
            return await asyncio.shield(task)
        except StudioError:
            await self.delivered(request_id)
            raise

    async def _replay(self, reservation: Reservation, progress: Progress) -> Created:
        """The answer to a request that was made before: waited for, recovered or read back; never paid twice."""
        order = reservation.order
        await progress(0, len(reservation.calls), "This request was made before; waiting for its pictures")
        running = self._running.get(order.id)
        if running is not None:
            return await self._answer(order.id, running)
        while True:
            order, calls = await asyncio.to_thread(self.journal.order, order.id)
            if not any(call.state in ("reserved", "sent", "spooled") for call in calls):
                break
            if not await asyncio.to_thread(self._presence.is_alive, order.process):
                await asyncio.to_thread(self._recovery.recover)
                continue
            await self._sleep(REPLAY_POLL_S)
        try:
            return await asyncio.to_thread(read_back, order, calls, self.library, self.backend)
        except StudioError:
            await self.delivered(order.id)
            raise

    def _reserved_usd(self, plan: Plan, inputs: int) -> float:
        """What one picture may cost; where nobody knows, what the dearest known model would take."""
        if plan.estimate_usd is not None:
            return plan.estimate_usd
        return highest_known(plan.choice, inputs=inputs, prompt_characters=len(plan.request.prompt))

    def _check_setup(self) -> None:
        if self._setup_problem is not None:
            raise SetupError(self._setup_problem)

    def _ended(self, request_id: str, task: asyncio.Task[Created]) -> None:
        self._running.pop(request_id, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; when nobody did, the journal does
