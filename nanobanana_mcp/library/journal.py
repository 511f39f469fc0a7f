"""The journal of paid calls: a row before a call is sent, and an update after every step, shared by all processes."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import Boolean, Connection, Row, bindparam, func, insert, literal_column, or_, select, update

from nanobanana_mcp.domain.budget import HOUR, MINUTE, Dated, Limits, Spending, check, day_start
from nanobanana_mcp.domain.errors import BudgetExceeded, RequestError
from nanobanana_mcp.domain.ids import new_id, now
from nanobanana_mcp.domain.plan import without_words
from nanobanana_mcp.domain.records import ImageRecord, Upload
from nanobanana_mcp.domain.terms import Backend, Mode
from nanobanana_mcp.library.clock import was_moved
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import insert_image
from nanobanana_mcp.library.tables import calls, requests, spent, uploads
from nanobanana_mcp.library.totals import count_cost

CallState = Literal["reserved", "sent", "spooled", "saved", "done", "failed", "unknown"]
OPEN: tuple[CallState, ...] = ("reserved", "sent", "spooled", "saved")
UNSETTLED: tuple[CallState, ...] = ("reserved", "sent", "spooled")
_IS_OPEN = calls.c.state.in_([literal_column(f"'{state}'") for state in OPEN])
"""The condition of the index ix_calls_open, word for word: SQLite uses the index only for a query with the same text.
"""

UNKNOWN_FOR = timedelta(days=30)
"""An unknown outcome is reported for this time; after that Google's monthly bill has shown whether it was charged."""

DELETED = "DELETED"
"""The reason of a call whose picture a person deleted for good."""

REPLAY_FOR = timedelta(hours=24)
"""An undelivered answer waits this time for a caller who asks for it again."""

# Statements that every picture needs are built once: SQLAlchemy takes longer to build one than SQLite to run it.
_REQUEST_COLUMNS = tuple(column.name for column in requests.columns)
_CALL_COLUMNS = tuple(column.name for column in calls.columns)
_ADD_REQUEST = insert(requests)
_ADD_CALLS = insert(calls)
_CHANGE_REQUEST = update(requests).where(requests.c.id == bindparam("which"))
_CHANGE_CALL = update(calls).where(calls.c.id == bindparam("which"))
_SENT = update(calls).where(calls.c.id.in_(bindparam("which", expanding=True))).values(state="sent")
_SPOOLED = (
    update(calls)
    .where(calls.c.id.in_(bindparam("which", expanding=True)), calls.c.state.in_(UNSETTLED))
    .values(state="spooled")
)
_DELIVERED = (
    update(calls).where(calls.c.request_id == bindparam("which"), calls.c.state == "saved").values(state="done")
)
_TAKEN_BACK = update(requests).where(requests.c.id == bindparam("which"), requests.c.delivered_at == bindparam("at"))
_UNDONE = update(calls).where(calls.c.request_id == bindparam("which"), calls.c.state == "done").values(state="saved")
_DELIVERED_AT = select(requests.c.delivered_at).where(requests.c.id == bindparam("which"))
_OF_REQUEST = select(calls).where(calls.c.request_id == bindparam("which")).order_by(calls.c.position)
_WITH_REQUEST = (
    select(calls, requests.c.backend, requests.c.tier, requests.c.mode)
    .join(requests, requests.c.id == calls.c.request_id)
    .where(calls.c.id == bindparam("which"))
)
_CHARGE = func.coalesce(calls.c.cost_usd, calls.c.estimate_usd)
_COSTLY = (
    select(calls.c.id).where(calls.c.request_id == requests.c.id, or_(calls.c.state != "failed", _CHARGE > 0)).exists()
)
"""True for a request with calls that are under way, or that cost or may have cost something."""
_SAME_KEY = requests.c.idempotency_key == bindparam("key")
_WITH_KEY = select(requests).where(_SAME_KEY)
_WITH_COSTLY_KEY = select(requests.c.id).where(_SAME_KEY, _COSTLY)
_UNANSWERED = (
    select(requests)
    .where(requests.c.fingerprint == bindparam("fingerprint"))
    .where(func.coalesce(requests.c.idempotency_key, "") == "")  # "is null" would read every such row
    .where(requests.c.delivered_at.is_(None), requests.c.created_at > bindparam("since"))
    .where(_COSTLY)
    .order_by(requests.c.created_at.desc())
    .limit(1)
)
DAY = timedelta(days=1)
_A_MOMENT = timedelta(milliseconds=1)
SPANS = (timedelta(seconds=1), MINUTE, DAY)
_IN_SPAN = (
    spent.c.backend == bindparam("whose"),
    spent.c.span == bindparam("which"),
    spent.c.start > bindparam("after"),
)
_SPENT = select(spent.c.latest, spent.c.seen_at, spent.c.calls, spent.c.microusd).where(*_IN_SPAN)
_SEEN_AHEAD = (
    update(spent)
    .where(*_IN_SPAN, spent.c.latest > bindparam("at"))
    .where(or_(spent.c.seen_at.is_(None), spent.c.seen_at > bindparam("at"), bindparam("again", type_=Boolean)))
    .values(seen_at=bindparam("at"))
)


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One request as the journal keeps it; `plan` is JSON that suffices to finish it from a raw answer."""

    id: str
    created_at: datetime
    process: str
    mode: Mode
    tier: str
    model_id: str
    backend: Backend
    plan: str
    fingerprint: str
    idempotency_key: str | None = None
    delivered_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call to the model, for one picture. `cost_usd` is None until the call is settled; for an unknown outcome the
    estimate counts.
    """

    id: str
    request_id: str
    position: int
    state: CallState
    estimate_usd: float
    cost_usd: float | None
    reserved_at: datetime
    sent_at: datetime | None = None
    settled_at: datetime | None = None
    image_id: str | None = None
    reason: str | None = None
    message: str | None = None


class Delivery(NamedTuple):
    """Says that an answer reached a client; `before` is when the same request was answered the last time."""

    request_id: str
    at: datetime
    before: datetime | None


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """The result of reserve(): calls to make, or an earlier request whose answer this one gets."""

    request_row: RequestRow
    calls: tuple[Call, ...]
    replay: bool
    warnings: tuple[str, ...] = ()


class Journal:
    """Every method that changes something is one transaction, durable when it returns."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def reserve(self, request_row: RequestRow, *, n: int, estimate_usd: float, limits: Limits) -> Reservation:
        """Enter a request and reserve the most it may cost, unless it repeats an earlier one.

        Raises BudgetExceeded, or RequestError for an idempotency key that was used for another request.
        """
        refusal: BudgetExceeded | None = None
        with self.database.write() as connection:
            at = _clock(connection, request_row.backend)
            earlier = _earlier(connection, request_row)
            if earlier is not None:
                found = connection.execute(_OF_REQUEST, {"which": earlier.id})
                return Reservation(request_row=earlier, calls=tuple(_call(row) for row in found), replay=True)
            spending = _spending(connection, request_row.backend, at)
            rows: list[dict[str, Any]] = []
            warnings: list[str] = []
            try:
                warnings = check(limits, spending, wanted_usd=n * estimate_usd, calls=n, at=at)
            except BudgetExceeded as error:
                refusal = error  # raised after the commit: entries seen ahead of the clock are noted
            else:
                connection.execute(_ADD_REQUEST, {name: getattr(request_row, name) for name in _REQUEST_COLUMNS})
                rows = [
                    {
                        "id": new_id(),  # the picture's own id will be this with "img_" before it
                        "request_id": request_row.id,
                        "position": position,
                        "state": "reserved",
                        "estimate_usd": estimate_usd,
                        "reserved_at": at,
                    }
                    for position in range(n)
                ]
                connection.execute(_ADD_CALLS, rows)
        if refusal is not None:
            raise refusal
        made = tuple(Call(**row, cost_usd=None) for row in rows)
        return Reservation(request_row=request_row, calls=made, replay=False, warnings=tuple(warnings))

    def knows(self, key: str) -> bool:
        """Tells whether a request with this idempotency key was made and cost, or may have cost, something."""
        with self.database.read() as connection:
            return connection.execute(_WITH_COSTLY_KEY, {"key": key}).first() is not None

    def mark_sent(self, *call_ids: str) -> None:
        with self.database.write() as connection:
            connection.execute(_SENT, {"which": call_ids, "sent_at": now()})

    def mark_spooled(self, *call_ids: str) -> None:
        """Note that answers are on the disk, except for calls that have ended meanwhile: this runs beside the work on
        the answer, not before it.
        """
        with self.database.write() as connection:
            connection.execute(_SPOOLED, {"which": call_ids})

    def mark_saved(
        self, call_id: str, record: ImageRecord, cost_usd: float | None, *, upload: Upload | None = None
    ) -> None:
        """Enter the picture, its lineage, its price and the upload that begins with it, in one transaction."""
        with self.database.write() as connection:
            insert_image(connection, record)
            if upload is not None:
                connection.execute(insert(uploads).values(asdict(upload)))
            _settle(connection, call_id, state="saved", cost_usd=cost_usd, image_id=record.id)

    def mark_failed(self, call_id: str, *, reason: str, message: str, cost_usd: float | None) -> None:
        """End a call without a picture. `cost_usd` None: it was charged, and nobody knows how much; the estimate counts
        as spent.
        """
        with self.database.write() as connection:
            _settle(connection, call_id, state="failed", cost_usd=cost_usd, reason=reason, message=message)

    def mark_unknown(self, call_id: str, *, message: str) -> None:
        """End a call that was sent and whose answer was lost; the estimate counts as spent."""
        with self.database.write() as connection:
            _settle(connection, call_id, state="unknown", cost_usd=None, reason="UNKNOWN_OUTCOME", message=message)

    def mark_delivered(self, request_id: str) -> Delivery:
        """Note that the answer has gone to the client."""
        at = now()
        with self.database.write() as connection:
            before = connection.execute(_DELIVERED_AT, {"which": request_id}).scalar()
            connection.execute(_CHANGE_REQUEST, {"which": request_id, "delivered_at": at})
            connection.execute(_DELIVERED, {"which": request_id})
        return Delivery(request_id, at, before)

    def take_back(self, delivery: Delivery) -> None:
        """Undo a delivery whose answer the client never read. Deliveries of the same request before or since still
        count.
        """
        which = {"which": delivery.request_id}
        with self.database.write() as connection:
            changed = connection.execute(_TAKEN_BACK, which | {"at": delivery.at, "delivered_at": delivery.before})
            if changed.rowcount == 1 and delivery.before is None:
                connection.execute(_UNDONE, which)

    def request(self, request_id: str) -> tuple[RequestRow, tuple[Call, ...]]:
        with self.database.read() as connection:
            row = connection.execute(select(requests).where(requests.c.id == request_id)).one()
            found = connection.execute(_OF_REQUEST, {"which": request_id})
            return _request_row(row), tuple(_call(call) for call in found)

    def unfinished(self) -> list[tuple[RequestRow, Call]]:
        """Calls that a process has begun and not ended."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(calls).where(_IS_OPEN, calls.c.state != "saved").order_by(calls.c.reserved_at)
            ).all()
            found = []
            for row in rows:
                request_row = connection.execute(select(requests).where(requests.c.id == row.request_id)).one()
                found.append((_request_row(request_row), _call(row)))
            return found

    def undelivered_requests(self) -> list[tuple[RequestRow, Call]]:
        """Calls whose picture is kept and whose request has not been answered."""
        with self.database.read() as connection:
            rows = connection.execute(select(calls).where(_IS_OPEN, calls.c.state == "saved")).all()
            return [
                (
                    _request_row(connection.execute(select(requests).where(requests.c.id == row.request_id)).one()),
                    _call(row),
                )
                for row in rows
            ]

    def with_call(self, call_id: str) -> tuple[RequestRow, Call] | None:
        with self.database.read() as connection:
            row = connection.execute(select(calls).where(calls.c.id == call_id)).first()
            if row is None:
                return None
            request_row = connection.execute(select(requests).where(requests.c.id == row.request_id)).one()
            return _request_row(request_row), _call(row)

    def take_over(self, request_id: str, *, dead: str, process: str) -> tuple[RequestRow, tuple[Call, ...]] | None:
        """Make a dead process's request ours; returns it and its calls that are still open. None when another process
        was quicker.
        """
        with self.database.write() as connection:
            changed = connection.execute(
                update(requests).where(requests.c.id == request_id, requests.c.process == dead).values(process=process)
            )
            if changed.rowcount != 1:
                return None
            request_row = connection.execute(select(requests).where(requests.c.id == request_id)).one()
            left = connection.execute(
                select(calls)
                .where(calls.c.request_id == request_id, calls.c.state.in_(UNSETTLED))
                .order_by(calls.c.position)
            )
            return _request_row(request_row), tuple(_call(row) for row in left)

    def state_of(self, call_id: str) -> CallState | None:
        with self.database.read() as connection:
            return connection.execute(select(calls.c.state).where(calls.c.id == call_id)).scalar()

    def unknown_outcomes(self, backend: Backend, *, limit: int = 20) -> list[Call]:
        with self.database.read() as connection:
            rows = connection.execute(
                select(calls)
                .join(requests, requests.c.id == calls.c.request_id)
                .where(calls.c.reserved_at > now() - UNKNOWN_FOR)
                .where(literal_column("calls.state = 'unknown'"), requests.c.backend == backend)
                .order_by(calls.c.reserved_at.desc())
                .limit(limit)
            )
            return [_call(row) for row in rows]

    def undelivered(self, backend: Backend, *, limit: int = 20) -> list[str]:
        """Ids of pictures that were paid for and never reached the client that asked, of requests that have ended."""
        still = select(calls.c.request_id).where(_IS_OPEN, calls.c.state.in_(UNSETTLED))
        settled_before = now() - timedelta(minutes=1)  # a request still under way has lost nothing
        with self.database.read() as connection:
            rows = connection.execute(
                select(calls.c.image_id)
                .join(requests, requests.c.id == calls.c.request_id)
                .where(_IS_OPEN, calls.c.state == "saved", requests.c.backend == backend)
                .where(calls.c.request_id.not_in(still), calls.c.settled_at < settled_before)
                .order_by(calls.c.reserved_at.desc())
                .limit(limit)
            )
            return [image_id for (image_id,) in rows if image_id]

    def forget_words(self, call_id: str) -> None:
        """Note that a call's picture was deleted for good; once that is so of all pictures of its request, the request's own
        words go, too. What it cost stays.
        """
        with self.database.write() as connection:
            row = connection.execute(select(calls).where(calls.c.id == call_id)).first()
            if row is None:
                return
            gone = {"image_id": None, "reason": DELETED, "message": "Its picture was deleted for good."}
            state = "done" if row.state == "saved" else row.state
            connection.execute(_CHANGE_CALL, {"which": call_id, "state": state, **gone})
            of_request = calls.c.request_id == row.request_id
            if connection.execute(select(calls.c.id).where(of_request, calls.c.image_id.is_not(None))).first() is None:
                plan = connection.execute(select(requests.c.plan).where(requests.c.id == row.request_id)).scalar_one()
                connection.execute(_CHANGE_REQUEST, {"which": row.request_id, "plan": without_words(plan)})

    def cost_of(self, call_id: str) -> float | None:
        with self.database.read() as connection:
            return connection.execute(select(calls.c.cost_usd).where(calls.c.id == call_id)).scalar()

    def spending(self, backend: Backend) -> Spending:
        with self.database.read() as connection:
            return _spending(connection, backend, now())


def _settle(
    connection: Connection,
    call_id: str,
    *,
    state: CallState,
    cost_usd: float | None,
    image_id: str | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> None:
    """End a call. Its cost, or its estimate where the cost is not known, goes into the statistics; triggers of migration
    0005 take it into `spent`, which the limits read. A call that has ended stays as it is, except that a picture found later
    replaces an unknown outcome.
    """
    row = connection.execute(_WITH_REQUEST, {"which": call_id}).one()
    counted = cost_usd if cost_usd is not None else row.estimate_usd
    if row.state == "unknown" and state == "saved":
        counted -= row.estimate_usd
    elif row.state not in UNSETTLED:
        return
    outcome = {"state": state, "cost_usd": cost_usd, "image_id": image_id, "reason": reason, "message": message}
    connection.execute(_CHANGE_CALL, {"which": call_id, "settled_at": now(), **outcome})
    if counted:
        count_cost(connection, day=row.reserved_at, backend=row.backend, tier=row.tier, mode=row.mode, usd=counted)


def _earlier(connection: Connection, request_row: RequestRow) -> RequestRow | None:
    """The request that this one repeats: one with the same key, or, without a key, the same request whose answer was
    never delivered.

    A request whose calls all failed without cost is not repeated but made again.
    """
    if request_row.idempotency_key is not None:
        key = {"key": request_row.idempotency_key}
        row = connection.execute(_WITH_KEY, key).first()
        if row is None:
            return None
        if row.fingerprint != request_row.fingerprint:
            if request_row.idempotency_key.startswith("key:"):
                raise RequestError(
                    "This idempotency_key was used before for a different request. Use a new key for a new request."
                )
            raise RequestError("This use of the tool was answered before, with other arguments. Make a new call.")
        if connection.execute(_WITH_COSTLY_KEY, key).first() is not None:
            return _request_row(row)
        connection.execute(_CHANGE_REQUEST, {"which": row.id, "idempotency_key": None})
        return None
    wish = {"fingerprint": request_row.fingerprint, "since": request_row.created_at - REPLAY_FOR}
    row = connection.execute(_UNANSWERED, wish).first()
    return _request_row(row) if row is not None else None


def _clock(connection: Connection, backend: Backend) -> datetime:
    """The time to reserve at. When the clock was set back, the entries that now lie ahead of it keep their dates, and
    the moment when they were first seen ahead is noted beside them.
    """
    at = now()
    seen = {"whose": backend, "at": at, "again": was_moved(connection, at)}
    connection.execute(_SEEN_AHEAD, [{**seen, "which": _milliseconds(span), "after": at - span} for span in SPANS])
    return at


def _spending(connection: Connection, backend: Backend, at: datetime) -> Spending:
    second, minute, day = SPANS
    midnight = day_start(at)
    since = at - MINUTE + _A_MOMENT
    made = _spent(connection, backend, second, since=since, at=at, near=at + MINUTE)
    since = at - HOUR + _A_MOMENT
    paid = _spent(connection, backend, minute, since=since, at=at, near=at + HOUR)
    today = _spent(connection, backend, day, since=midnight, at=at, near=midnight + DAY - _A_MOMENT)
    return Spending(
        hour=tuple((moment, usd / 1e6) for moment, _, usd in paid),
        minute=tuple((moment, calls) for moment, calls, _ in made),
        day_usd=sum(usd for _, _, usd in today) / 1e6,
    )


def _spent(
    connection: Connection, backend: Backend, span: timedelta, *, since: datetime, at: datetime, near: datetime
) -> list[tuple[datetime, int, int]]:
    """The spending that counts in a window, oldest first: the moment it counts from, the number of calls, and
    millionths of a dollar.
    """
    asked = {"whose": backend, "which": _milliseconds(span), "after": since - span}
    found = []
    for latest, seen_at, made, usd in connection.execute(_SPENT, asked):
        moment = Dated(made_at=latest, seen_at=seen_at).counts_from(at, since, near)
        if moment is not None:
            found.append((moment, made, usd))
    return sorted(found)


def _milliseconds(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


def _request_row(row: Row[Any]) -> RequestRow:
    return RequestRow(**{name: getattr(row, name) for name in _REQUEST_COLUMNS})


def _call(row: Row[Any]) -> Call:
    return Call(**{name: getattr(row, name) for name in _CALL_COLUMNS})
