"""Totals a day, kept while pictures are added, so that statistics never read every row."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from nanobanana_mcp.domain import ImageRecord
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.tables import days

_ROW = insert(days)
_ADD = _ROW.on_conflict_do_update(
    index_elements=["day", "backend", "tier", "mode"],
    set_={name: days.c[name] + _ROW.excluded[name] for name in ("pictures", "bytes", "usd")},
)


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
    """Totals of one backend by "tier", "mode" or "day" (newest first); with no `by`, one entry named ""."""
    sums = (func.sum(days.c.pictures), func.sum(days.c.bytes), func.sum(days.c.usd))
    with database.read() as connection:
        if by is None:
            row = connection.execute(select(*sums).where(days.c.backend == backend)).one()
            return {"": Total(pictures=row[0] or 0, bytes=row[1] or 0, usd=round(row[2] or 0.0, 6))}
        column = days.c[by]
        order = column.desc() if by == "day" else column
        query = select(column, *sums).where(days.c.backend == backend).group_by(column).order_by(order)
        return {row[0]: Total(pictures=row[1], bytes=row[2], usd=round(row[3], 6)) for row in connection.execute(query)}


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
