"""What a dead process left behind: finished from its raw answers where there are any, and otherwise reported."""

import logging
import threading
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nanobanana_mcp.domain import ImageRecord, is_image_id
from nanobanana_mcp.errors import SetupError, StudioError
from nanobanana_mcp.gemini.reply import NoPicture, Unreadable
from nanobanana_mcp.keeping import keep_orphan
from nanobanana_mcp.library.journal import UNSETTLED, Call, Journal, Order
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.mending import found_again, put_together
from nanobanana_mcp.plan import load_plan
from nanobanana_mcp.settling import Reading, settle
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.state import Presence, drop_spool, drop_unfinished, is_alive, spooled, spooled_calls

logger = logging.getLogger(__name__)

NEVER_SENT = "The process was ended before the request was sent; nothing was charged."
LOST = "The process was ended while Gemini was drawing, so the answer is lost; it may have been charged."


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What became of one call that was left open, in words; `record` when it was a picture."""

    call_id: str
    outcome: str
    record: ImageRecord | None = None


class Recovery:
    """Never touches what belongs to a living process."""

    def __init__(
        self, journal: Journal, places: Places, presence: Callable[[], Presence], *, running: Container[str]
    ) -> None:
        """`presence` makes this process's sign of life, which only recover() needs; `running` has the ids of its
        requests that are under way.
        """
        self._journal = journal
        self._places = places
        self._presence = presence
        self._running = running
        self._one_at_a_time = threading.Lock()

    def left_behind(self, own: str | None = None) -> list[tuple[Order, Call]]:
        """Open calls of processes that no longer run, and of this one, `own`, where it could not finish them."""
        alive: dict[str, bool] = {}
        found = []
        for order, call in self._journal.unfinished():
            if order.id in self._running:
                continue
            if order.process not in alive:
                alive[order.process] = order.process != own and is_alive(order.process, self._places)
            if not alive[order.process]:
                found.append((order, call))
        return found

    def recover(self) -> list[Recovered]:
        """Bring every call that was left behind to an end, once, whichever process does it."""
        with self._one_at_a_time:
            presence = self._presence()
            owned: set[str] = set()
            found = []
            for order, _ in self.left_behind(presence.name):
                if order.id in owned:
                    continue
                taken = self._journal.take_over(order.id, dead=order.process, process=presence.name)
                if taken is None:
                    continue
                owned.add(order.id)
                found += [self._end(taken[0], call) for call in taken[1]]
            found += [mended for order_id in owned if (mended := self._put_together(order_id)) is not None]
            found += self._adopt()
            self._sweep(presence)
            return found

    def preview(self) -> list[Recovered]:
        """What recover() would do, doing nothing."""
        return [Recovered(call_id=call.id, outcome=self._foreseen(call)) for _, call in self.left_behind()]

    def _foreseen(self, call: Call) -> str:
        if spooled(call.id, self._places) is not None:
            return "its answer is on the disk and would be kept as a picture"
        return "it was never sent; nothing was charged" if call.state == "reserved" else LOST

    def _end(self, order: Order, call: Call) -> Recovered:
        raw = spooled(call.id, self._places)
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
                    plan=load_plan(order.plan),
                    order=order,
                    call=call,
                    places=self._places,
                    journal=self._journal,
                    again=True,
                )
        except (NoPicture, Unreadable) as error:
            return Recovered(call_id=call.id, outcome=str(error))
        except StudioError as error:
            return Recovered(call_id=call.id, outcome=f"could not be finished now: {error}")
        return Recovered(call_id=call.id, outcome=f"kept as {kept.record.id} at {kept.record.path}", record=kept.record)

    def _put_together(self, order_id: str) -> Recovered | None:
        """The picture that an order's parts were meant for, where it can be made now; None where there is nothing to do."""
        order, calls = self._journal.order(order_id)
        try:
            plan = load_plan(order.plan)
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
            try:
                image = put_together(plan, record, library, self._places, cost_usd=call.cost_usd)
            except StudioError as error:
                return Recovered(call_id=call.id, outcome=f"could not be finished now: {error}")
            if image is not None:
                made = image.record
                return Recovered(call_id=call.id, outcome=f"put together as {made.id} at {made.path}", record=made)
        kept = ", ".join(f"{record.id} at {record.path}" for _, record in parts)
        return Recovered(
            call_id=parts[-1][0].id, outcome=f"its picture was not put together; its parts are kept: {kept}"
        )

    def _adopt(self) -> list[Recovered]:
        """Keep the pictures of answers that no row names, which a rebuilt library leaves in the spool."""
        found = []
        for call_id in spooled_calls(self._places):
            if self._journal.state_of(call_id) is not None or not is_image_id(f"img_{call_id}"):
                continue
            raw = spooled(call_id, self._places)
            try:
                record = keep_orphan(call_id, raw or b"", self._places, Library(self._journal.database))
            except StudioError as error:
                logger.warning("An answer in the spool that no row names cannot be kept: %s", error)
                continue
            drop_spool(call_id, self._places)
            found.append(Recovered(call_id=call_id, outcome=f"kept as {record.id} at {record.path}", record=record))
        return found

    def _sweep(self, presence: Presence) -> None:
        """Drop raw answers whose picture is kept, since a process may end between the two, and writes cut short."""
        for call_id in spooled_calls(self._places):
            state = self._journal.state_of(call_id)
            if state is not None and state not in (*UNSETTLED, "unknown"):
                drop_spool(call_id, self._places)
        if presence.sweep():
            drop_unfinished(self._places, before=presence.since)
