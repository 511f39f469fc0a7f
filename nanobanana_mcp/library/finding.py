"""Finds pictures by their facts, newest first, a bounded piece at a time, so that no writer waits for a search."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, Table, and_, case, func, literal, or_, select

from nanobanana_mcp.domain.finding import KIND_OF, MAX_RATING, FindRequest
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.index import Text
from nanobanana_mcp.library.pictures import LOOKED_UP, read_records
from nanobanana_mcp.library.tables import annotations, calls, changes, image_sources, images, tags

PIECE, FIRST_PIECE = 20_000, 500
"""Rows that one statement looks at: the most, which take about 10 ms and may hold up a writer, and those of the first.
"""

COUNTED = 250_000
"""The most pictures that are counted for a total; of more, no total is told."""

_NEWEST = (images.c.created_at.desc(), images.c.id.desc())
_SOURCES = images.alias("sources")
_OWN = images.c.id == literal("img_").concat(images.c.call_id)
"""The SQL that is true of the one picture that its call was made for, and not of further or derived ones."""


class Place(NamedTuple):
    """A picture's place in the order of all, newest first."""

    created_ms: int
    image_id: str


@dataclass(frozen=True, kw_only=True)
class Finder:
    """Answers questions about the pictures of one backend, and about those that belong to none."""

    database: Database
    backend: Backend

    def newest(self, wanted: FindRequest, after: Place | None, count: int) -> tuple[list[Place], bool]:
        """The places of the next `count` pictures that are wanted, and whether there are no more."""
        found: list[Place] = []
        for piece in self._pieces(wanted, after, FIRST_PIECE):
            query = select(images.c.created_at, images.c.id).where(*self._conditions(wanted), *piece)
            query = query.order_by(*_NEWEST).limit(count - len(found))
            with self.database.read() as connection:
                found += [Place(_ms(made), image_id) for made, image_id in connection.execute(query)]
            if len(found) == count:
                return found, False
        return found, True

    def few(self, wanted: FindRequest) -> list[Place] | None:
        """Returns the places of all pictures that are wanted, the oldest first, where a tag, a rating or `made_from` is
        asked for; else None.
        """
        members = self._members(wanted)
        return None if members is None else sorted(self._places(sorted(members), wanted))

    def fitting(self, ids: Sequence[str], wanted: FindRequest) -> set[str]:
        """Returns the ones of these ids, at most 5,000, that fit; it leaves to `few` the filters that `few` answers."""
        query = select(images.c.id).where(images.c.id.in_(_listed(ids)), *self._conditions(wanted))
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def best(self, wanted: FindRequest, among: set[str] | None, count: int) -> list[str]:
        """The ids of the highest rated pictures that are wanted, `among` some or all, the newest of equals first."""
        found: list[str] = []
        for rating in range(MAX_RATING, 0, -1):
            rated = [one for one in self._rated(rating) if among is None or one in among]
            found += [place.image_id for place in sorted(self._places(rated, wanted), reverse=True)]
            if len(found) >= count:
                break
        return found[:count]

    def count(self, wanted: FindRequest) -> int | None:
        """Counts the pictures that are wanted, in a search that `few` does not answer; None where a cost is asked for,
        or they are more than COUNTED.
        """
        if (wanted.min_cost_usd, wanted.max_cost_usd) != (None, None):
            return None
        found = 0
        for piece in self._pieces(wanted, None, PIECE):
            query = select(func.count()).select_from(images).where(*self._conditions(wanted), *piece)
            with self.database.read() as connection:
                found += connection.execute(query).scalar_one()
            if found > COUNTED:
                return None
        return found

    def landmarks(self, wanted: FindRequest, every: int) -> tuple[int, list[Place]]:
        """Counts the pictures that are wanted, in a search that `few` does not answer, and finds the place of every
        `every`-th.
        """
        total, marks = 0, list[Place]()
        for within in self._pieces(wanted, None, PIECE):
            conditions = [*self._conditions(wanted), *within]
            number = func.row_number().over(order_by=_NEWEST).label("number")
            piece = select(images.c.created_at, images.c.id, number).where(*conditions).subquery()
            query = select(piece).where((piece.c.number + total) % every == 0).order_by(piece.c.number)
            there = select(func.count()).select_from(images).where(*conditions)
            with self.database.read() as connection:
                marks += [Place(_ms(row.created_at), row.id) for row in connection.execute(query)]
                total += connection.execute(there).scalar_one()
        return total, marks

    def page(self, ids: Sequence[str]) -> list[tuple[ImageRecord, float | None]]:
        """The records and costs (USD) of pictures in the order of their ids, without those that are gone meanwhile."""
        with self.database.read() as connection:
            rows = connection.execute(select(images).where(images.c.id.in_(_listed(ids)))).all()
            records = {record.id: record for record in read_records(connection, rows)}
            paid = {one: _paid(record) for one, record in records.items()}
            wanted = sorted({call_id for some in paid.values() for call_id in some})
            prices = select(calls.c.id, calls.c.cost_usd).where(calls.c.id.in_(_listed(wanted)))
            usd = {row.id: row.cost_usd for row in connection.execute(prices)}
        return [(records[one], _sum([usd.get(call) for call in paid[one]])) for one in ids if one in records]

    def thumbnails(self, *, limit: int, size: tuple[int, int] | None = None) -> dict[str, str]:
        """The paths of the newest pictures' thumbnails by the pictures' ids; with `size`, only of pictures with so many
        pixels, upright or lying.
        """
        query = select(images.c.id, images.c.thumbnail_path).where(images.c.thumbnail_path.is_not(None))
        if size is not None:
            query = query.where(images.c.width.in_(size), images.c.height.in_(size))
        query = query.order_by(*_NEWEST).limit(limit)
        with self.database.read() as connection:
            return {row.id: row.thumbnail_path for row in connection.execute(query)}

    def ratings(self, ids: Sequence[str]) -> dict[str, int]:
        """The ratings of pictures by their ids, without those that have none."""
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
        """The texts of at most `limit` pictures whose latest change is after `above` and not after `up_to`."""
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

    def _pieces(self, wanted: FindRequest, after: Place | None, size: int) -> Iterator[list[ColumnElement[bool]]]:
        """Yields the conditions of one piece of the library after the other, the newest first."""
        while True:
            end = self._end(wanted, after, size)
            below = [_below(after)] if after is not None else []
            if end is None:
                yield below
                return
            yield [*below, _not_below(end)]
            after, size = end, min(PIECE, 4 * size)

    def _end(self, wanted: FindRequest, after: Place | None, size: int) -> Place | None:
        """The last place of the next piece of the library; None where that is the last piece that matters."""
        query = select(images.c.created_at, images.c.id).order_by(*_NEWEST)
        if after is not None:
            query = query.where(_below(after))
        elif wanted.until is not None:
            query = query.where(images.c.created_at < wanted.until)
        with self.database.read() as connection:
            row = connection.execute(query.offset(size - 1).limit(1)).first()
        if row is None or (wanted.since is not None and row[0] < wanted.since):
            return None
        return Place(_ms(row[0]), row[1])

    def _members(self, wanted: FindRequest) -> set[str] | None:
        """The ids that a tag, a rating and `made_from` leave, whatever else is wanted; None where none of them is
        given.
        """
        found: list[set[str]] = []
        if wanted.tag is not None:
            found.append(set(self._tagged(wanted.tag)))
        if wanted.min_rating is not None:
            found.append({one for rating in range(wanted.min_rating, MAX_RATING + 1) for one in self._rated(rating)})
        if wanted.made_from is not None:
            found.append(self._descendants(wanted.made_from))
        return set.intersection(*found) if found else None

    def _places(self, ids: Sequence[str], wanted: FindRequest) -> Iterator[Place]:
        """The places of the ones of these pictures that fit the other conditions."""
        for start in range(0, len(ids), LOOKED_UP):
            query = select(images.c.created_at, images.c.id).where(
                images.c.id.in_(_listed(ids[start : start + LOOKED_UP])), *self._conditions(wanted)
            )
            with self.database.read() as connection:
                rows = connection.execute(query).all()
            yield from (Place(_ms(made), image_id) for made, image_id in rows)

    def _tagged(self, tag: str) -> Iterator[str]:
        last = ""
        while True:
            query = select(tags.c.image_id).where(tags.c.tag == tag, tags.c.image_id > last)
            with self.database.read() as connection:
                ids = connection.execute(query.order_by(tags.c.image_id).limit(LOOKED_UP)).scalars().all()
            yield from ids
            if len(ids) < LOOKED_UP:
                return
            last = ids[-1]

    def _rated(self, rating: int) -> Iterator[str]:
        yield from self._by_row(annotations, annotations.c.rating == rating)

    def _descendants(self, image_id: str) -> set[str]:
        """The ids of all generations that were made from a picture. No picture is followed twice, so that a circle in a
        damaged lineage ends.
        """
        found: set[str] = set()
        generation = [image_id]
        while generation:
            children = set(self._children(generation)) - found
            found |= children
            generation = sorted(children)
        return found

    def _children(self, parents: Sequence[str]) -> Iterator[str]:
        """Yields the ids of the pictures that were made from these; asks about many at once while their children fit
        into one piece.
        """
        start, at_once = 0, LOOKED_UP // 2
        while start < len(parents):
            some = parents[start : start + at_once]
            query = select(image_sources.c.image_id).where(image_sources.c.parent_id.in_(_listed(some)))
            with self.database.read() as connection:
                ids = connection.execute(query.limit(LOOKED_UP)).scalars().all()
            if len(ids) == LOOKED_UP and len(some) > 1:
                at_once = len(some) // 2
                continue
            yield from (
                ids if len(ids) < LOOKED_UP else self._by_row(image_sources, image_sources.c.parent_id == some[0])
            )
            start += len(some)

    def _by_row(self, table: Table, condition: ColumnElement[bool]) -> Iterator[str]:
        """Yields the ids in the rows of a table that fit one value of an index, which has them in the rows' order."""
        query = select(table.c.image_id).where(condition)
        return (row.image_id for row in self.database.by_row(table, query, LOOKED_UP))

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


def _listed(ids: Sequence[str]) -> Select[str]:
    """The ids as one value, so that the statement is the same however many they are."""
    rows = func.json_each(json.dumps(list(ids))).table_valued("value")
    return select(rows.c.value)


def _below(after: Place) -> ColumnElement[bool]:
    moment = datetime.fromtimestamp(after.created_ms / 1000, UTC)
    return and_(images.c.created_at <= moment, or_(images.c.created_at < moment, images.c.id < after.image_id))


def _not_below(end: Place) -> ColumnElement[bool]:
    moment = datetime.fromtimestamp(end.created_ms / 1000, UTC)
    return and_(images.c.created_at >= moment, or_(images.c.created_at > moment, images.c.id >= end.image_id))


def _cost_of_row() -> ColumnElement[float]:
    """The SQL of a picture's cost in USD: of its own call, and of those of the parts that it was put together from. It
    is NULL, which fits no bound, where a price is not known.
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
    """The ids of the calls that a picture cost, the same that `_cost_of_row` adds up."""
    paid = {parent.image_id.removeprefix("img_") for parent in record.parents if parent.role == "part"}
    return paid | {record.call_id} if record.call_id is not None and record.id == f"img_{record.call_id}" else paid


def _sum(prices: Sequence[float | None]) -> float | None:
    """The sum of the prices in USD; None where one is not known."""
    known = [one for one in prices if one is not None]
    return round(sum(known), 9) if len(known) == len(prices) else None


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def fingerprint(wanted: FindRequest) -> str:
    """A hash of the question, the same for every page of one search."""
    asked = {name: str(value) for name, value in vars(wanted).items() if name not in ("cursor", "limit")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
