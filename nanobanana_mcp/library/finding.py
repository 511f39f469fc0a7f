"""Finds pictures by their facts: newest first, a bounded piece at a time, so that nobody who writes waits for a search."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select

from nanobanana_mcp.domain.finding import KIND_OF, FindRequest
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.index import Text
from nanobanana_mcp.library.pictures import read_records
from nanobanana_mcp.library.tables import annotations, calls, changes, image_sources, images, tags

PIECE, FIRST_PIECE = 20_000, 500
"""Rows that one statement looks at, at most and first: about 10 ms, for which a writer may have to wait."""

COUNTED = 250_000
"""Pictures that are counted for a total; more are told as not counted."""

_SOURCES = images.alias("sources")
_OWN = images.c.id == literal("img_").concat(images.c.call_id)
"""SQL that is true of the one picture that its call was made for, and not of further or derived ones."""


class Place(NamedTuple):
    """A picture's place among all, newest first."""

    created_ms: int
    image_id: str


@dataclass(frozen=True, kw_only=True)
class Finder:
    """Questions about the pictures of one backend, and those that belong to none."""

    database: Database
    backend: Backend

    def newest(self, wanted: FindRequest, after: Place | None, count: int) -> tuple[list[Place], bool]:
        """The places of the next pictures that are wanted, and whether these were all."""
        narrow = _narrow(wanted)
        found: list[Place] = []
        size = FIRST_PIECE
        while True:
            within, end = (None, None) if narrow is not None else self._piece(wanted, after, size)
            query = select(images.c.created_at, images.c.id).where(*self._conditions(wanted))
            if narrow is not None:
                query = query.where(images.c.id.in_(narrow))
            if within is not None:
                query = query.where(within)
            if after is not None:
                query = query.where(_below(after))
            query = query.order_by(images.c.created_at.desc(), images.c.id.desc()).limit(count - len(found))
            with self.database.read() as connection:
                found += [Place(_ms(made), image_id) for made, image_id in connection.execute(query)]
            if len(found) == count:
                return found, False
            if end is None:
                return found, True
            after, size = end, min(PIECE, 4 * size)

    def fitting(self, ids: Sequence[str], wanted: FindRequest) -> set[str]:
        """Those of some pictures that are wanted; at most 5,000."""
        query = select(images.c.id).where(images.c.id.in_(_listed(ids)), *self._conditions(wanted))
        narrow = _narrow(wanted)
        if narrow is not None:
            query = query.where(images.c.id.in_(narrow))
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def best(self, wanted: FindRequest, count: int) -> list[str]:
        """The ids of the highest rated pictures that are wanted, the newest of equals first."""
        query = (
            select(images.c.id)
            .join(annotations, annotations.c.image_id == images.c.id)
            .where(annotations.c.rating.is_not(None), *self._conditions(wanted))
            .order_by(annotations.c.rating.desc(), images.c.created_at.desc(), images.c.id.desc())
            .limit(count)
        )
        narrow = _narrow(wanted)
        if narrow is not None:
            query = query.where(images.c.id.in_(narrow))
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def count(self, wanted: FindRequest) -> int | None:
        """Counts the pictures that are wanted; None where the index by date does not tell, or they are over `COUNTED`."""
        if (wanted.tag, wanted.min_rating, wanted.made_from, wanted.min_cost_usd, wanted.max_cost_usd) != (None,) * 5:
            return None
        query = select(func.count()).select_from(
            select(images.c.id).where(*self._conditions(wanted)).limit(COUNTED + 1).subquery()
        )
        with self.database.read() as connection:
            found = connection.execute(query).scalar_one()
        return found if found <= COUNTED else None

    def landmarks(self, wanted: FindRequest, every: int) -> tuple[int, list[Place]]:
        """Counts the pictures that are wanted, and finds the place of every `every`-th, a piece of the library at a
        time.
        """
        marks: list[Place] = []
        order = (images.c.created_at.desc(), images.c.id.desc())
        conditions = self._conditions(wanted)
        narrow = _narrow(wanted)
        if narrow is not None:
            conditions.append(images.c.id.in_(narrow))
        while True:
            within = [*conditions, _below(marks[-1])] if marks else conditions
            number = func.row_number().over(order_by=order).label("number")
            piece = (
                select(images.c.created_at, images.c.id, number)
                .where(*within)
                .order_by(*order)
                .limit(PIECE // every * every)
                .subquery()
            )
            with self.database.read() as connection:
                rows = connection.execute(
                    select(piece.c.created_at, piece.c.id).where(piece.c.number % every == 0)
                ).all()
            marks += [Place(_ms(made), image_id) for made, image_id in rows]
            if len(rows) < PIECE // every:
                break
        within = [*conditions, _below(marks[-1])] if marks else conditions
        rest = select(func.count()).select_from(select(images.c.id).where(*within).limit(every).subquery())
        with self.database.read() as connection:
            return len(marks) * every + connection.execute(rest).scalar_one(), marks

    def page(self, ids: Sequence[str]) -> list[tuple[ImageRecord, float | None]]:
        """Pictures with what their calls cost, in the order of their ids; those that are gone meanwhile are left out."""
        with self.database.read() as connection:
            rows = connection.execute(select(images).where(images.c.id.in_(_listed(ids)))).all()
            records = {record.id: record for record in read_records(connection, rows)}
            paid = {one: _paid(record) for one, record in records.items()}
            wanted = sorted({call_id for some in paid.values() for call_id in some})
            prices = select(calls.c.id, calls.c.cost_usd).where(calls.c.id.in_(_listed(wanted)))
            usd = {row.id: row.cost_usd for row in connection.execute(prices)}
        return [(records[one], _sum([usd.get(call) for call in paid[one]])) for one in ids if one in records]

    def thumbnails(self, *, limit: int, size: tuple[int, int] | None = None) -> dict[str, str]:
        """The paths of the newest pictures' thumbnails by the pictures' ids; with a size, of those of so many pixels, upright or
        lying.
        """
        query = select(images.c.id, images.c.thumbnail_path).where(images.c.thumbnail_path.is_not(None))
        if size is not None:
            query = query.where(images.c.width.in_(size), images.c.height.in_(size))
        query = query.order_by(images.c.created_at.desc(), images.c.id.desc()).limit(limit)
        with self.database.read() as connection:
            return {row.id: row.thumbnail_path for row in connection.execute(query)}

    def ratings(self, ids: Sequence[str]) -> dict[str, int]:
        """The ratings of those of some pictures that have one."""
        query = select(annotations.c.image_id, annotations.c.rating).where(
            annotations.c.image_id.in_(_listed(ids)), annotations.c.rating.is_not(None)
        )
        with self.database.read() as connection:
            return {row.image_id: row.rating for row in connection.execute(query)}

    def changes_up_to(self, number: int) -> int:
        """Counts the pictures that had their latest change by then."""
        with self.database.read() as connection:
            return connection.execute(select(func.count()).where(changes.c.number <= number)).scalar_one()

    def identity(self) -> int:
        """The number that tells this library from others."""
        with self.database.read() as connection:
            return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def texts(self, above: int, up_to: int, limit: int, *, newest_first: bool = False) -> list[Text]:
        """The words to be found of the pictures whose latest change is between two numbers."""
        order = changes.c.number.desc() if newest_first else changes.c.number
        words = func.group_concat(tags.c.tag, " ")
        query = (
            select(
                changes.c.number,
                changes.c.image_id,
                images.c.created_at,
                images.c.prompt,
                images.c.path,
                annotations.c.note,
                select(words).where(tags.c.image_id == changes.c.image_id).scalar_subquery(),
                images.c.words,
            )
            .outerjoin(images, images.c.id == changes.c.image_id)
            .outerjoin(annotations, annotations.c.image_id == changes.c.image_id)
            .where(changes.c.number > above, changes.c.number <= up_to)
            .order_by(order)
            .limit(limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [
            Text(number, image_id, None if made is None else _ms(made), *rest) for number, image_id, made, *rest in rows
        ]

    def _piece(
        self, wanted: FindRequest, after: Place | None, size: int
    ) -> tuple[ColumnElement[bool] | None, Place | None]:
        """The condition for the next piece of the library, and its last place; None for its end."""
        query = select(images.c.created_at, images.c.id).order_by(images.c.created_at.desc(), images.c.id.desc())
        if after is not None:
            query = query.where(_below(after))
        elif wanted.until is not None:
            query = query.where(images.c.created_at < wanted.until)
        with self.database.read() as connection:
            row = connection.execute(query.offset(size - 1).limit(1)).first()
        if row is None:
            return None, None
        end = Place(_ms(row[0]), row[1])
        if wanted.since is not None and row[0] < wanted.since:
            return None, None
        return and_(images.c.created_at >= row[0], or_(images.c.created_at > row[0], images.c.id >= row[1])), end

    def _conditions(self, wanted: FindRequest) -> list[ColumnElement[bool]]:
        kinds = [origin for origin, kind in KIND_OF.items() if kind == wanted.kind]
        origins = kinds or [origin for origin in KIND_OF if origin != "part"]
        found: list[ColumnElement[bool]] = [
            images.c.origin.in_(origins),
            images.c.trash_path.is_not(None) if wanted.in_trash else images.c.trash_path.is_(None),
            or_(images.c.backend == self.backend, images.c.backend.is_(None)),
        ]
        if wanted.kind == "imported":  # a caller's picture belongs to no backend, whichever it was first used with
            found.pop()
        if wanted.since is not None:
            found.append(images.c.created_at >= wanted.since)
        if wanted.until is not None:
            found.append(images.c.created_at < wanted.until)
        if wanted.tier is not None:
            found.append(images.c.tier == wanted.tier)
        if wanted.mode is not None:
            found.append(images.c.mode == wanted.mode)
        if wanted.min_cost_usd is not None or wanted.max_cost_usd is not None:
            cost = _cost_of_row()
            found.append(cost >= (wanted.min_cost_usd or 0.0))
            if wanted.max_cost_usd is not None:
                found.append(cost <= wanted.max_cost_usd)
        return found


def _narrow(wanted: FindRequest) -> Select[str] | None:
    """The few pictures that a filter leaves, where it is one that leaves few."""
    parts: list[Select[str]] = []
    if wanted.tag is not None:
        parts.append(select(tags.c.image_id).where(tags.c.tag == wanted.tag))
    if wanted.min_rating is not None:
        parts.append(select(annotations.c.image_id).where(annotations.c.rating >= wanted.min_rating))
    if wanted.made_from is not None:
        walk = (
            select(image_sources.c.image_id)
            .where(image_sources.c.parent_id == wanted.made_from)
            .cte("descendants", recursive=True)
        )
        walk = walk.union(
            select(image_sources.c.image_id).where(image_sources.c.parent_id == walk.c.image_id)
        )  # UNION drops what it has seen, so that a circle in a damaged lineage ends
        parts.append(select(walk.c.image_id))
    if not parts:
        return None
    first, *others = parts
    if not others:
        return first
    return select(images.c.id).where(*(images.c.id.in_(part) for part in parts))


def _listed(ids: Sequence[str]) -> Select[str]:
    """Many ids as one value, so that the statement is the same however many they are."""
    rows = func.json_each(json.dumps(list(ids))).table_valued("value")
    return select(rows.c.value)


def _below(after: Place) -> ColumnElement[bool]:
    moment = datetime.fromtimestamp(after.created_ms / 1000, UTC)
    return and_(images.c.created_at <= moment, or_(images.c.created_at < moment, images.c.id < after.image_id))


def _cost_of_row() -> ColumnElement[float]:
    """SQL of the USD that a picture cost: those of its own call, and those of the parts that it was put together from.
    NULL, which fits no bound, where a price is not known.
    """
    own = select(calls.c.cost_usd).where(calls.c.id == images.c.call_id).correlate(images).scalar_subquery()
    parts = (
        select(func.coalesce(func.sum(calls.c.cost_usd), 0.0))
        .join(_SOURCES, _SOURCES.c.call_id == calls.c.id)
        .join(image_sources, image_sources.c.parent_id == _SOURCES.c.id)
        .where(image_sources.c.image_id == images.c.id, image_sources.c.role == "part")
        .correlate(images)
        .scalar_subquery()
    )
    return case((_OWN, own), else_=0.0) + parts


def _paid(record: ImageRecord) -> set[str]:
    """The calls that are in a picture, as _cost_of_row has them."""
    paid = {parent.image_id.removeprefix("img_") for parent in record.parents if parent.role == "part"}
    return paid | {record.call_id} if record.call_id is not None and record.id == f"img_{record.call_id}" else paid


def _sum(prices: Sequence[float | None]) -> float | None:
    """None where a price is not known."""
    known = [one for one in prices if one is not None]
    return round(sum(known), 9) if len(known) == len(prices) else None


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def fingerprint(wanted: FindRequest) -> str:
    """The same for every page of one search."""
    asked = {name: str(value) for name, value in vars(wanted).items() if name not in ("cursor", "limit")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
