"""Finishes what a dead process left behind, from its raw answers where there are any, and reports the rest."""

import logging
import threading
import traceback
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from nanobanana_mcp.domain.errors import SetupError, StudioError
from nanobanana_mcp.domain.ids import child_id, is_image_id
from nanobanana_mcp.domain.plan import load_plan
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.gemini.response import NoPicture, Unreadable
from nanobanana_mcp.jobs.mending import exact_again, found_again, put_together
from nanobanana_mcp.jobs.settle import Reading, settle, undecodable
from nanobanana_mcp.jobs.store import keep_orphan
from nanobanana_mcp.library.journal import UNSETTLED, Call, Journal, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.processes import ProcessLock

logger = logging.getLogger(__name__)

NEVER_SENT = "The process was ended before the request was sent; nothing was charged."
LONGEST_WRITE_S = 3600
"""A temporary file that nobody wrote to for longer is of no living process."""

TRIES = 5
"""How often an answer is worked on before it is set aside: a start may be cut short by the one before it."""

MAX_TRACE = 4000
LOST = "The process was ended while Gemini was drawing, so the answer is lost; it may have been charged."


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """Tells in words how one call ended that was left open; `record` when it was a picture. A move that was cut short
    has the picture's id in place of a call's.
    """

    call_id: str
    outcome: str
    record: ImageRecord | None = None
    stumbled: bool = False
    """Whether an error of the program kept it from being finished."""


def _some(one: Recovered | None) -> list[Recovered]:
    return [one] if one is not None else []


class Recovery:
    """Never touches what belongs to a living process."""

    def __init__(
        self,
        journal: Journal,
        disk: Disk,
        presence: Callable[[], ProcessLock],
        *,
        running: Container[str],
        mend: Callable[[], list[tuple[str, str]]],
    ) -> None:
        """`presence` makes this process's sign of life, which only recover() needs; `running` has the ids of its
        requests that are under way; `mend` ends moves of pictures that were cut short, and says of each what became of it.
        """
        self._mend = mend
        self._journal = journal
        self._disk = disk
        self._process_lock = presence
        self._running = running
        self._one_at_a_time = threading.Lock()

    def left_behind(self, own: str | None) -> list[tuple[RequestRow, Call]]:
        """Open calls of processes that no longer run, and of this one, `own`, where it could not finish them."""
        alive: dict[str, bool] = {}
        found = []
        for request_row, call in self._journal.unfinished():
            if request_row.id in self._running:
                continue
            if request_row.process not in alive:
                alive[request_row.process] = request_row.process != own and self._disk.is_alive(request_row.process)
            if not alive[request_row.process]:
                found.append((request_row, call))
        return found

    def recover(self, *, asked: bool = False) -> list[Recovered]:
        """Bring every call that was left behind to an end, once, whichever process does it; each by itself, so that what
        befalls one keeps no other from coming home.

        `asked`, by a person and not by a start, tries again what was set aside.
        """
        with self._one_at_a_time:
            presence = self._process_lock()
            owned: set[str] = set()
            found = []
            for request_row, _ in self.left_behind(presence.name):
                if request_row.id in owned:
                    continue
                taken = self._journal.take_over(request_row.id, dead=request_row.process, process=presence.name)
                if taken is None:
                    continue
                owned.add(request_row.id)
                found += [self._end(taken[0], call, asked=asked) for call in taken[1]]
            if asked:
                for request_row, call in self._aside(presence.name):
                    if (
                        self._journal.take_over(request_row.id, dead=request_row.process, process=presence.name)
                        is not None
                    ):
                        owned.add(request_row.id)
                        found.append(self._end(request_row, call, asked=True))
            for request_id in owned:
                found += _some(self._by_itself(request_id, partial(self._put_together, request_id)))
            for request_row, call in self._undelivered(presence.name):
                found += _some(self._by_itself(call.id, partial(self._exact_file, request_row, call)))
            found += self._adopt(asked=asked)
            return found + self._sweep(presence, asked=asked)

    def preview(self, own: str | None) -> list[Recovered]:
        """List what recover() would do, and do nothing; `own` is this process's name if it has one."""
        left = [*self.left_behind(own), *self._aside(own)]
        return [Recovered(call_id=call.id, outcome=self._foreseen(call)) for _, call in left]

    def _aside(self, own: str | None) -> list[tuple[RequestRow, Call]]:
        """Calls that could not be finished and whose raw answers are kept, of processes that no longer run or our own."""
        found = []
        for call_id in self._disk.spool.calls():
            known = self._journal.with_call(call_id)
            if known is None or known[1].state != "unknown" or known[0].id in self._running:
                continue
            if known[0].process == own or not self._disk.is_alive(known[0].process):
                found.append(known)
        return found

    def _foreseen(self, call: Call) -> str:
        if self._disk.spool.path(call.id) is not None:
            again = "could not be finished before and would be tried again" if call.state == "unknown" else ""
            return f"its answer is on the disk and {again or 'would be kept as a picture'}"
        return "it was never sent; nothing was charged" if call.state == "reserved" else LOST

    def _by_itself(self, call_id: str, finish: Callable[[], Recovered | None]) -> Recovered | None:
        """Do one thing, whatever befalls it: `stumbled` when that was nothing that anybody foresaw."""
        try:
            return finish()
        except StudioError as error:
            return Recovered(call_id=call_id, outcome=f"could not be finished now: {error}")
        except OSError as error:
            return Recovered(call_id=call_id, outcome=f"could not be finished now ({error.strerror})")
        except Exception as error:  # noqa: BLE001 - else the next start meets it first again, and finishes nothing behind
            place = "".join(traceback.format_exception(error, limit=-20))[-MAX_TRACE:]
            logger.error("Finishing %s ended in an error of the program:\n%s", call_id, place)
            outcome = f"could not be finished: the program stumbled ({type(error).__name__}; its log has the place)"
            return Recovered(call_id=call_id, outcome=outcome, stumbled=True)

    def _end(self, request_row: RequestRow, call: Call, *, asked: bool) -> Recovered:
        """Settle one call. After TRIES attempts that stumbled, or that ended their process, it is set aside."""
        tried = self._disk.spool.count_try(call.id)  # beforehand, since it may be this process's end
        if tried <= TRIES or asked:
            found = self._by_itself(call.id, partial(self._settle, request_row, call))
            assert found is not None
            if not found.stumbled:
                self._disk.spool.forget_tries(call.id)
            if not found.stumbled or tried < TRIES:
                return found
        aside = self._by_itself(call.id, partial(self._set_aside, call))
        assert aside is not None
        return aside

    def _set_aside(self, call: Call) -> Recovered:
        path = self._disk.spool.path(call.id)
        message = f"It could not be finished in {TRIES} attempts and was set aside; it may have been charged."
        if path is not None:
            message += (
                f" Its raw answer is kept at {path}; maintenance with operation 'recover' tries it again, which a newer "
                "version may bring off."
            )
        self._journal.unknown(call.id, message=message)
        return Recovered(call_id=call.id, outcome=message, stumbled=True)

    def _settle(self, request_row: RequestRow, call: Call) -> Recovered:
        raw = self._disk.spool.read(call.id)
        if raw is None and call.state == "reserved":
            self._journal.failed(call.id, reason="NEVER_SENT", message=NEVER_SENT, cost_usd=0.0)
            return Recovered(call_id=call.id, outcome=NEVER_SENT)
        if raw is None:
            self._journal.unknown(call.id, message=LOST)
            return Recovered(call_id=call.id, outcome=LOST)
        try:
            with ThreadPoolExecutor(2, "read") as readers:
                kept = settle(
                    Reading(raw, readers),
                    plan=load_plan(request_row.plan),
                    request_row=request_row,
                    call=call,
                    disk=self._disk,
                    journal=self._journal,
                    again=True,
                )
        except (NoPicture, Unreadable) as error:
            return Recovered(call_id=call.id, outcome=str(error))
        record = kept.record
        told = f"kept as {record.id} at {record.path}" if record.width else str(undecodable(record))
        return Recovered(call_id=call.id, outcome=told, record=record)

    def _put_together(self, request_id: str) -> Recovered | None:
        """The picture that a request's parts were meant for, where it can be made now; None where there is nothing to do."""
        request_row, calls = self._journal.request(request_id)
        try:
            plan = load_plan(request_row.plan)
        except SetupError:
            return None  # its calls have said so
        library = Library(self._journal.database)
        records = [library.get(call.image_id) if call.image_id is not None else None for call in calls]
        parts = [(call, record) for call, record in zip(calls, records, strict=True) if record is not None]
        if plan.recipe is None or not parts:
            return None
        if any(found_again(plan, record, library, cost_usd=call.cost_usd) for call, record in parts):
            return None
        for call, record in reversed(parts):
            image = put_together(plan, record, library, self._disk, cost_usd=call.cost_usd)
            if image is not None:
                made = image.record
                return Recovered(call_id=call.id, outcome=f"put together as {made.id} at {made.path}", record=made)
        kept = ", ".join(f"{record.id} at {record.path}" for _, record in parts)
        return Recovered(
            call_id=parts[-1][0].id, outcome=f"its picture was not put together; its parts are kept: {kept}"
        )

    def _undelivered(self, own: str) -> list[tuple[RequestRow, Call]]:
        """Kept pictures of processes that ended before they answered."""
        return [
            (request_row, call)
            for request_row, call in self._journal.undelivered_requests()
            if request_row.id not in self._running
            and request_row.process != own
            and not self._disk.is_alive(request_row.process)
        ]

    def _exact_file(self, request_row: RequestRow, call: Call) -> Recovered | None:
        """The exact file beside a picture, where a kill came between the two: written perhaps, and not recorded."""
        library = Library(self._journal.database)
        record = library.get(call.image_id) if call.image_id is not None else None
        try:
            plan = load_plan(request_row.plan)
        except SetupError:
            return None
        wanted = record is not None and plan.recipe is None and record.width and plan.exact_of(record.mime_type)
        if record is None or not wanted or library.get(child_id(record.id, "exact")) is not None:
            return None
        image = KeptImage(record=record, upload=None, cost_usd=call.cost_usd)
        number = call.position + 1 if plan.request.n > 1 else None
        made, _ = exact_again(plan, image, library, self._disk, number=number)
        if made.master is None:
            return None  # the picture itself is there, and whoever asks for it again is told why the file is not
        return Recovered(call_id=call.id, outcome=f"its exact file is kept as {made.record.id} at {made.record.path}")

    def _adopt(self, *, asked: bool) -> list[Recovered]:
        """Keep the pictures of answers that no row names, which a rebuilt library leaves in the spool."""
        found = []
        for call_id in self._disk.spool.calls():
            if self._journal.state_of(call_id) is not None or not is_image_id(f"img_{call_id}"):
                continue
            if self._disk.spool.count_try(call_id) > TRIES and not asked:
                continue
            adopted = self._by_itself(call_id, partial(self._adopted, call_id))
            assert adopted is not None
            if not adopted.stumbled:
                self._disk.spool.forget_tries(call_id)
            if adopted.record is None:
                logger.warning("An answer in the spool that no row names cannot be kept: %s", adopted.outcome)
            if adopted.record is not None or asked:
                found.append(adopted)
        return found

    def _adopted(self, call_id: str) -> Recovered:
        record = keep_orphan(
            call_id, self._disk.spool.read(call_id) or b"", self._disk, Library(self._journal.database)
        )
        self._disk.spool.drop(call_id)
        return Recovered(call_id=call_id, outcome=f"kept as {record.id} at {record.path}", record=record)

    def _sweep(self, presence: ProcessLock, *, asked: bool) -> list[Recovered]:
        """Drop raw answers whose picture is kept, since a process may end between the two, and writes cut short."""
        for call_id in self._disk.spool.calls():
            state = self._journal.state_of(call_id)
            if state is not None and state not in (*UNSETTLED, "unknown"):
                self._disk.spool.drop(call_id)
        alone_or_old = presence.since
        others, dead = presence.others()
        if others:
            alone_or_old -= LONGEST_WRITE_S
        if not (dead or asked):  # nobody was killed, so nothing is half done
            return []
        self._disk.drop_unfinished(before=alone_or_old)
        try:
            mended = self._mend()
        except StudioError as error:
            logger.warning("Moves to and from the trash could not be looked at: %s", error)
            return []
        if not others:
            presence.sweep(dead)
        return [Recovered(call_id=image_id, outcome=outcome) for image_id, outcome in mended]
