"""Finishes the requests that a killed process left behind, from their raw answers where there are any.

Every request goes through one function, `finish`, whether a start finds it abandoned, its caller asks again, or
maintenance is told to look. The first one does the work, and nothing is paid for twice. `sweep` keeps answers that
belong to no request.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TypeVar

from nanobanana_mcp.domain.errors import NoPicture, StudioError, Unreadable
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.plan import Plan, RegionRecipe, load_plan
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.jobs.origins import PaidCall
from nanobanana_mcp.jobs.outcomes import Problem, problem_of, remembered_problem, undecodable
from nanobanana_mcp.jobs.recipes.rejoin import rejoin
from nanobanana_mcp.jobs.store import PictureStore, other_id
from nanobanana_mcp.library.journal import UNSETTLED, Call, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.processes import ProcessLock

logger = logging.getLogger(__name__)

T = TypeVar("T")

NEVER_SENT = "The process ended before the request was sent; nothing was charged."
LOST = "The process ended while Gemini was drawing, so the answer is lost; it may have been charged."
LONGEST_WRITE_S = 3600
"""Seconds. No living process leaves a temporary file untouched for longer."""

TRIES = 5
"""The number of times that an answer is tried before it is set aside: it may be what killed the process each time."""

MAX_TRACE = 4000


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """Says how one abandoned call ended; `record` when it became a picture. `call_id` is a picture's id for a move that
    was cut short, and a request's id for an error that concerns no single call.
    """

    call_id: str
    outcome: str
    record: ImageRecord | None = None
    is_bug: bool = False
    """True when a bug in the program stopped it."""


@dataclass(kw_only=True)
class Finished:
    """The result of a request once all its calls have ended."""

    request_row: RequestRow
    plan: Plan
    inputs: tuple[ImageRecord, ...] = ()
    images: list[KeptImage] = field(default_factory=list)
    parts: list[KeptImage] = field(default_factory=list)
    """The model's answers from which a recipe composed its pictures, or still has to."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Recovery:
    """Finishes requests of dead processes, and those that this one failed to finish; never another living one's."""

    def __init__(
        self,
        store: PictureStore,
        process_lock: Callable[[], ProcessLock],
        *,
        running: Container[str],
        mend: Callable[[], list[tuple[str, str]]],
    ) -> None:
        """`process_lock` creates this process's lock file, which only a recovery needs; `running` are the ids of this
        process's own requests under way; `mend` ends moves of pictures that were cut short and says what became of
        each.
        """
        self._store = store
        self._journal = store.journal
        self._disk = store.disk
        self._process_lock = process_lock
        self._running = running
        self._mend = mend
        self._one_at_a_time = threading.Lock()

    def recover(self, *, asked: bool = False) -> list[Recovered]:
        """Finish every abandoned request once, whichever process gets to it first. Each is handled by itself, so that a
        bad one does not hold up the others.

        `asked` means that a person asked for it: then answers that were set aside are tried again.
        """
        with self._one_at_a_time:
            here = self._process_lock()
            found: list[Recovered] = []
            for request_row in self._left_behind(here.name, asked=asked):
                # Two servers may start at once and see the same dead process: the one whose change of the row counts does it.
                if self._journal.take_over(request_row.id, dead=request_row.process, process=here.name) is None:
                    continue
                self._finish_one(request_row.id, found, asked=asked)
            for request_row in self._undelivered(here.name):
                self._finish_one(request_row.id, found, at_start=True)
            return found + self.sweep(here, asked=asked)

    def preview(self, own: str | None) -> list[Recovered]:
        """List what recover() would do, and do nothing; `own` is this process's name if it has one."""
        found: list[Recovered] = []
        for request_row in self._left_behind(own, asked=True):
            _, calls = self._journal.request(request_row.id)
            left = self._to_settle(calls, asked=True)
            found += [Recovered(call_id=call.id, outcome=self._foreseen(call)) for call in left]
        return found

    def finish(
        self,
        request_id: str,
        *,
        asked: bool = False,
        at_start: bool = False,
        told: list[Recovered] | None = None,
    ) -> Finished:
        """Bring a request of ours, or of a dead process, to its end, and say what it came to. What is done now is added
        to `told`.

        `at_start` limits how often a request is tried that fails each time. Raises SetupError for a plan of a newer
        version, and what keeping a picture may raise.
        """
        told = [] if told is None else told
        request_row, calls = self._journal.request(request_id)
        left = self._to_settle(calls, asked=asked)
        if left:
            told += [self._end(request_row, call, asked=asked) for call in left]
            request_row, calls = self._journal.request(request_id)
        done = Finished(request_row=request_row, plan=load_plan(request_row.plan))
        done.inputs = tuple(self._inputs(done.plan))
        kept, done.problems = self._ended(request_row, calls)
        if done.plan.recipe is None:
            done.images = [image for call, record in kept for image in self._pictures(done, call, record, told)]
        else:
            done.parts = [KeptImage(record=record, cost_usd=call.cost_usd) for call, record in kept]
            done.images = self._put_together(done, told, is_new=bool(left), at_start=at_start)
        done.notes += [note for image in done.images for note in image.notes]
        return done

    def sweep(self, here: ProcessLock, *, asked: bool = False) -> list[Recovered]:
        """Tidy up after dead processes: adopt answers in the spool that no row names, drop those whose picture is kept,
        and end writes and moves that were cut short.
        """
        found = self._adopt(asked=asked)
        # Scenario: killed between a picture's row and the removal of its raw answer.
        for call_id in self._disk.spool.calls():
            state = self._journal.state_of(call_id)
            if state is not None and state not in (*UNSETTLED, "unknown"):
                self._disk.spool.drop(call_id)
        alone_or_old = here.since
        others, dead = here.others()
        if others:
            alone_or_old -= LONGEST_WRITE_S
        if not (dead or asked):  # no process died, so nothing is half done
            return found
        self._disk.drop_unfinished(before=alone_or_old)
        try:
            mended = self._mend()
        except StudioError as error:
            logger.warning("Unfinished moves to and from the trash could not be checked: %s", error)
            return found
        if not others:
            here.sweep(dead)
        return found + [Recovered(call_id=image_id, outcome=outcome) for image_id, outcome in mended]

    def _left_behind(self, own: str | None, *, asked: bool) -> list[RequestRow]:
        """Requests with open calls of dead processes, and of this one, `own`, where it failed to finish them; with
        `asked` also those whose answer was set aside.
        """
        rows = [request_row for request_row, _ in self._journal.unfinished()]
        if asked:
            known = [self._journal.with_call(call_id) for call_id in self._disk.spool.calls()]
            rows += [row_and_call[0] for row_and_call in known if row_and_call and row_and_call[1].state == "unknown"]
        return self._abandoned(rows, own, ours_too=True)

    def _undelivered(self, own: str) -> list[RequestRow]:
        """Requests whose pictures are kept, of processes that ended before they answered: something may be missing still."""
        rows = [request_row for request_row, _ in self._journal.undelivered_requests()]
        return self._abandoned(rows, own, ours_too=False)

    def _abandoned(self, rows: list[RequestRow], own: str | None, *, ours_too: bool) -> list[RequestRow]:
        gone: dict[str, bool] = {}
        found: dict[str, RequestRow] = {}
        for row in rows:
            if row.id in self._running:
                continue
            if row.process not in gone:
                gone[row.process] = ours_too if row.process == own else not self._disk.is_alive(row.process)
            if gone[row.process]:
                found.setdefault(row.id, row)
        return list(found.values())

    def _to_settle(self, calls: tuple[Call, ...], *, asked: bool) -> list[Call]:
        """The calls that were cut short; with `asked` also those whose answer was set aside.

        Scenario: killed before its picture had a row. Its answer, if one arrived, is in the spool.
        """
        return [call for call in calls if call.state in UNSETTLED or (asked and self._is_aside(call))]

    def _is_aside(self, call: Call) -> bool:
        return call.state == "unknown" and self._disk.spool.path(call.id) is not None

    def _ended(
        self, request_row: RequestRow, calls: tuple[Call, ...]
    ) -> tuple[list[tuple[Call, ImageRecord]], list[Problem]]:
        """The calls whose picture is kept, with its record, and the problems of the others."""
        kept: list[tuple[Call, ImageRecord]] = []
        problems: list[Problem] = []
        for call in calls:
            record = self._store.library.get(call.image_id) if call.image_id is not None else None
            if record is None:
                if call.reason != "NOT_NEEDED":
                    problems.append(remembered_problem(call, request_row))
            elif record.width or self._store.library.get(other_id(call.id, 2)) is not None:
                kept.append((call, record))
            else:
                broken = undecodable(record)
                problems.append(problem_of(call, broken, broken.reason, call.cost_usd))
        return kept, problems

    def _foreseen(self, call: Call) -> str:
        if self._disk.spool.path(call.id) is not None:
            again = "could not be finished before and would be tried again" if call.state == "unknown" else ""
            return f"its answer is on the disk and {again or 'would be kept as a picture'}"
        return "it was never sent; nothing was charged" if call.state == "reserved" else LOST

    def _finish_one(
        self, request_id: str, found: list[Recovered], *, asked: bool = False, at_start: bool = False
    ) -> None:
        """Finish one request, and report an error in `found` instead of raising it. An error that was already reported
        for one of its calls is not repeated.
        """
        before = len(found)
        outcome = self._contained(
            request_id, partial(self.finish, request_id, asked=asked, at_start=at_start, told=found)
        )
        if isinstance(outcome, Recovered) and (outcome.is_bug or len(found) == before):
            found.append(outcome)

    def _contained(self, call_id: str, step: Callable[[], T]) -> T | Recovered:
        """Do one step, and turn its error into a Recovered, so that the other calls are still finished."""
        try:
            return step()
        except StudioError as error:
            return Recovered(call_id=call_id, outcome=f"could not be finished now: {error}")
        except OSError as error:
            return Recovered(call_id=call_id, outcome=f"could not be finished now ({error.strerror})")
        except Exception as error:  # noqa: BLE001 - else every later start fails at this one and finishes nothing after it
            place = "".join(traceback.format_exception(error, limit=-20))[-MAX_TRACE:]
            logger.error("A bug stopped the recovery of %s:\n%s", call_id, place)
            outcome = f"could not be finished because of a bug ({type(error).__name__}; the log has the traceback)"
            return Recovered(call_id=call_id, outcome=outcome, is_bug=True)

    def _end(self, request_row: RequestRow, call: Call, *, asked: bool) -> Recovered:
        """Settle one call. After TRIES attempts that hit a bug or killed their process, it is set aside."""
        tried = self._disk.spool.count_try(call.id)  # counted first, since this attempt may kill the process
        if tried <= TRIES or asked:
            found = self._contained(call.id, partial(self._settle, request_row, call))
            if not found.is_bug:
                self._disk.spool.forget_tries(call.id)
            if not found.is_bug or tried < TRIES:
                return found
        return self._contained(call.id, partial(self._set_aside, call))

    def _set_aside(self, call: Call) -> Recovered:
        path = self._disk.spool.path(call.id)
        message = f"It could not be finished in {TRIES} attempts and was set aside; it may have been charged."
        if path is not None:
            message += (
                f" Its raw answer is kept at {path}; maintenance with operation 'recover' tries it again, and a "
                "newer version may succeed."
            )
        self._journal.mark_unknown(call.id, message=message)
        return Recovered(call_id=call.id, outcome=message, is_bug=True)

    def _settle(self, request_row: RequestRow, call: Call) -> Recovered:
        raw = self._disk.spool.read(call.id)
        if raw is None and call.state == "reserved":
            self._journal.mark_failed(call.id, reason="NEVER_SENT", message=NEVER_SENT, cost_usd=0.0)
            return Recovered(call_id=call.id, outcome=NEVER_SENT)
        if raw is None:
            self._journal.mark_unknown(call.id, message=LOST)
            return Recovered(call_id=call.id, outcome=LOST)
        plan = load_plan(request_row.plan)
        paid = PaidCall(
            plan=plan, request_row=request_row, call=call, parents=self._parents(plan), continues=plan.continues
        )
        try:
            with ThreadPoolExecutor(2, "read") as readers:
                kept = self._store.keep(self._store.reading(raw, readers), paid, again=True)
        except (NoPicture, Unreadable) as error:
            return Recovered(call_id=call.id, outcome=str(error))
        record = kept.delivered
        told = f"kept as {record.id} at {record.path}" if record.width else str(undecodable(record))
        return Recovered(call_id=call.id, outcome=told, record=record)

    def _inputs(self, plan: Plan) -> Iterator[ImageRecord]:
        """The inputs' records: by the planned id, or by content where another request entered the same picture first."""
        for one in plan.inputs:
            record = _input(one.image_id, one.sha256, self._store.library)
            if record is not None:
                yield record

    def _parents(self, plan: Plan) -> tuple[Parent, ...]:
        found = [(one, _input(one.image_id, one.sha256, self._store.library)) for one in plan.inputs]
        return tuple(Parent(image_id=record.id, role=one.role) for one, record in found if record is not None)

    def _pictures(self, done: Finished, call: Call, record: ImageRecord, told: list[Recovered]) -> Iterator[KeptImage]:
        """A call's picture, with its exact file where one was asked for, and the further pictures of the same answer."""
        library, backend, plan = self._store.library, done.request_row.backend, done.plan
        image = KeptImage(record=record, cost_usd=call.cost_usd, upload=library.newest_upload(record.id, backend))
        if record.width:
            yield self._with_exact(image, plan, told, number=plan.number(call.position))
        else:
            done.notes.append(str(undecodable(record)))
        for number in count(2):
            other = library.get(other_id(call.id, number))
            if other is None:
                return
            cost = 0.0 if record.width or number > 2 else call.cost_usd
            yield KeptImage(record=other, cost_usd=cost, upload=library.newest_upload(other.id, backend))

    def _put_together(self, done: Finished, told: list[Recovered], *, is_new: bool, at_start: bool) -> list[KeptImage]:
        """The pictures that a recipe composed of its answers, or that can be composed now.

        Scenario: the process was killed between the last answer and the composed picture. A region edit is then joined
        from the kept answer. `is_new` says that an answer was recovered just now; else the caller was told before what
        could not be composed.
        """
        parts, store = done.parts, self._store
        found = [store.find_composed(part.record, cost_usd=part.cost_usd) for part in parts]
        images = [image for image in found if image is not None]
        if images:
            return [
                image if image.master is not None else self._with_exact(image, done.plan, told, number=None)
                for image in images
            ]
        can_be_joined = isinstance(done.plan.recipe, RegionRecipe)
        if can_be_joined and at_start and self._disk.spool.count_try(done.request_row.id) > TRIES:
            return []
        for part in reversed(parts) if can_be_joined else ():
            joined = rejoin(done.plan, part.record, store, cost_usd=part.cost_usd)
            if joined is not None:
                made = joined.record
                told.append(_told(part.record, f"put together as {made.id} at {made.path}", made))
                self._disk.spool.forget_tries(done.request_row.id)
                return [joined]
        if parts and is_new:
            kept = ", ".join(f"{part.record.id} at {part.record.path}" for part in parts)
            told.append(_told(parts[-1].record, f"its picture was not put together; its parts are kept: {kept}"))
        return []

    def _with_exact(self, image: KeptImage, plan: Plan, told: list[Recovered], *, number: int | None) -> KeptImage:
        """Scenario: killed between a picture and its exact file, which may be written but has no row."""
        known = self._store.find_exact(image.record)
        made = self._store.ensure_exact(image, plan, number=number)
        if known is None and made.master is not None:
            outcome = f"its exact file is kept as {made.record.id} at {made.record.path}"
            told.append(_told(image.record, outcome, made.record))
        return made

    def _adopt(self, *, asked: bool) -> list[Recovered]:
        """Keep the pictures of spooled answers that no row names, as they remain after the library was rebuilt."""
        found = []
        for call_id in self._disk.spool.calls():
            if self._journal.state_of(call_id) is not None or not is_image_id(f"img_{call_id}"):
                continue
            if self._disk.spool.count_try(call_id) > TRIES and not asked:
                continue
            adopted = self._contained(call_id, partial(self._adopted, call_id))
            if not adopted.is_bug:
                self._disk.spool.forget_tries(call_id)
            if adopted.record is None:
                logger.warning("A spooled answer that no row names cannot be kept: %s", adopted.outcome)
            if adopted.record is not None or asked:
                found.append(adopted)
        return found

    def _adopted(self, call_id: str) -> Recovered:
        record = self._store.adopt(call_id)
        return Recovered(call_id=call_id, outcome=f"kept as {record.id} at {record.path}", record=record)


def _input(image_id: str, sha256: str, library: Library) -> ImageRecord | None:
    return library.get(image_id) or (library.find_by_content(sha256) if sha256 else None)


def _told(part: ImageRecord, outcome: str, made: ImageRecord | None = None) -> Recovered:
    return Recovered(call_id=part.call_id or part.id, outcome=outcome, record=made)
