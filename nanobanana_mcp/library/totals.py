"""Totals per day, kept while pictures are added, so that statistics never read every row."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, literal, select
from sqlalchemy.dialects.sqlite import insert

from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.tables import days

_ROW = insert(days)
_ADD = _ROW.on_conflict_do_update(
    index_elements=["day", "backend", "tier", "mode"],
    set_={name: days.c[name] + _ROW.excluded[name] for name in ("pictures", "bytes", "usd")},
)


def _sums(name: ColumnElement[str], order: ColumnElement[str] | None = None) -> Select[str, int, int, float]:
    nothing = {"pictures": 0, "bytes": 0, "usd": 0.0}
    sums = (func.coalesce(func.sum(days.c[column]), none) for column, none in nothing.items())
    query = select(name, *sums).where(days.c.backend == bindparam("whose"), days.c.tier != "")
    return query if order is None else query.group_by(name).order_by(order)


_SUMS = {
    None: _sums(literal("")),
    "tier": _sums(days.c.tier, days.c.tier),
    "mode": _sums(days.c.mode, days.c.mode),
    "day": _sums(days.c.day, days.c.day.desc()),
}


@dataclass(frozen=True, kw_only=True)
class Total:
    """Pictures made, the bytes of those whose file is still kept, and USD spent."""

    pictures: int
    bytes: int
    usd: float


def count_picture(connection: Connection, record: ImageRecord, *, pictures: int) -> None:
    _add(
        connection,
        day=record.created_at,
        backend=record.backend or "gemini",
        tier=record.tier or "",
        mode=record.mode or "",
        pictures=pictures,
        bytes_=record.bytes,
        usd=0.0,
    )


def count_cost(connection: Connection, *, day: datetime, backend: str, tier: str, mode: str, usd: float) -> None:
    _add(connection, day=day, backend=backend, tier=tier, mode=mode, pictures=0, bytes_=0, usd=usd)


def totals(database: Database, backend: str, by: str | None = None) -> dict[str, Total]:
    """Totals of one backend by "tier", "mode" or "day" (newest first); with no `by`, one entry named "".

    A library of before 2026-11-29 may have rows of no tier: conversions of callers' own pictures that were moved to the
    trash were taken off, although they had never been added. They are left out.
    """
    with database.read() as connection:
        rows = connection.execute(_SUMS[by], {"whose": backend})
        return {
            name: Total(pictures=made, bytes=max(0, kept), usd=round(usd, 6))
            for name, made, kept, usd in rows
            if name or by is None
        }


def _add(
    connection: Connection,
    *,
    day: datetime,
    backend: str,
    tier: str,
    mode: str,
    pictures: int,
    bytes_: int,
    usd: float,
) -> None:
    row = {
        "day": day.astimezone(UTC).date().isoformat(),
        "backend": backend,
        "tier": tier,
        "mode": mode,
        "pictures": pictures,
        "bytes": bytes_,
        "usd": usd,
    }
    connection.execute(_ADD, row)
