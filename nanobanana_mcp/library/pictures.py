"""The library: pictures, what each was made from, and their uploads to the Files API."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from heapq import nlargest
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
    update,
)

from nanobanana_mcp.domain.records import ImageRecord, Parent, Upload
from nanobanana_mcp.domain.terms import Backend, Origin, UploadState
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.glance import NEWEST, Glimpse, glimpses
from nanobanana_mcp.library.tables import annotations, image_sources, images, tags, uploads
from nanobanana_mcp.library.totals import count_picture

_MANY = 30_000
"""Values that one statement may carry (SQLite takes 32,766): each statement reads every row."""

_ADD_IMAGE, _ADD_SOURCES = insert(images), insert(image_sources)
_COLUMNS = tuple(column.name for column in images.columns)
_ON_DISK = and_(images.c.origin != "imported", images.c.path.is_not(None), images.c.trash_path.is_(None))
_SHOWN = images.c.origin.not_in(("imported", "part", "mask"))
_MADE = images.c.origin.in_(("generated", "edited"))
_OURS_FIRST = (images.c.origin == "imported", images.c.created_at)


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One step of a lineage: `depth` edges up from the picture that was asked about."""

    record: ImageRecord
    child_id: str
    depth: int


CHILDREN = 100
"""The most pictures made from one that are read whole: a picture may have thousands."""

LOOKED_UP = 2000
"""Rows that one statement looks up one by one: in a library of a million about 10 ms, for which a reservation waits."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A picture with what it was made from, nearest first, and the newest of what was made from it, oldest first."""

    record: ImageRecord
    ancestors: tuple[Ancestor, ...]
    children: tuple[ImageRecord, ...]
    child_count: int


class KeptFile(NamedTuple):
    """The facts of a picture that tell whether its file is there as it was; `made_at` in seconds since 1970."""

    id: str
    path: str
    bytes: int
    sha256: str
    made_at: float


class Library:
    """Queries and additions. It takes and returns plain records, none of which stays attached to the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, record: ImageRecord) -> None:
        """Keep a record with its lineage, in one transaction."""
        with self.database.write() as connection:
            insert_image(connection, record)

    def add_all(self, records: Iterable[ImageRecord]) -> None:
        """Keep many records, parents before their children, in one transaction."""
        with self.database.write() as connection:
            for record in records:
                insert_image(connection, record)

    def ids(self) -> frozenset[str]:
        """The ids of every picture it knows."""
        with self.database.read() as connection:
            return frozenset(connection.execute(select(images.c.id)).scalars())

    def add_import(self, record: ImageRecord) -> ImageRecord:
        """Keep a caller's own picture unless its content is known already; returns the record for that content."""
        with self.database.write() as connection:
            if record.sha256:
                row = connection.execute(
                    select(images).where(images.c.sha256 == record.sha256).order_by(*_OURS_FIRST).limit(1)
                ).first()
                if row is not None:
                    return read_records(connection, [row])[0]
            insert_image(connection, record)
        return record

    def get(self, image_id: str) -> ImageRecord | None:
        return self._first(images.c.id == image_id)

    def find_by_content(self, sha256: str) -> ImageRecord | None:
        """The picture with these bytes: one that we made before one that was imported, the oldest first."""
        return self._first(images.c.sha256 == sha256, order=_OURS_FIRST)

    def has_made(self, size: int) -> bool:
        """Tells whether a picture of exactly so many bytes was made here; asked for very large files only."""
        return self._first((images.c.bytes == size) & (images.c.origin != "imported")) is not None

    def find_by_upload(self, name: str) -> tuple[ImageRecord, Upload] | None:
        with self.database.read() as connection:
            row = connection.execute(select(uploads).where(uploads.c.name == name)).first()
            if row is None:
                return None
            found = _upload(row)
            record = read_records(
                connection, [connection.execute(select(images).where(images.c.id == found.image_id)).one()]
            )
            return record[0], found

    def recent(self, count: int, backend: Backend) -> list[ImageRecord]:
        """The newest pictures that one backend drew or edited; files derived from pictures are not counted."""
        mine = or_(images.c.backend == backend, images.c.backend.is_(None))
        query = select(images).where(_MADE, mine).order_by(images.c.created_at.desc()).limit(count)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
            return read_records(connection, rows)

    def derived(self, count: int, backend: Backend) -> tuple[int, list[ImageRecord]]:
        """Counts the files that were made of pictures here, such as icons and conversions, and are not in the trash,
        and returns the newest.
        """
        mine = or_(images.c.backend == backend, images.c.backend.is_(None))
        wanted = (images.c.origin == literal_column("'derived'"), images.c.trash_path.is_(None), mine)
        newest = select(images).where(*wanted).order_by(images.c.created_at.desc()).limit(count)
        with self.database.read() as connection:
            total = connection.execute(select(func.count()).select_from(images).where(*wanted)).scalar_one()
            return total, read_records(connection, connection.execute(newest).all())

    def glimpses(self, count: int, backend: Backend, beginning: str = "") -> list[Glimpse]:
        """The same as glance(), over the open connection."""
        with self.database.read() as connection:
            return glimpses(connection.exec_driver_sql(NEWEST, (backend, beginning, beginning, count)).all())

    def files(self) -> Iterator[KeptFile]:
        """The files of every picture that we made and that is not in the trash, oldest first."""
        last = ""
        while True:
            found = self._files(images.c.id > last, order=images.c.id, limit=10_000)
            yield from found
            if not found:
                return
            last = found[-1].id

    def newest_files(self, count: int, backend: Backend) -> list[KeptFile]:
        """The files of the newest pictures that one backend made and that are not in the trash."""
        mine = or_(images.c.backend == backend, images.c.backend.is_(None))
        return self._files(mine, order=images.c.created_at.desc(), limit=count)

    def _files(self, condition: ColumnElement[bool], *, order: ColumnElement[Any], limit: int) -> list[KeptFile]:
        columns = (
            images.c.id,
            images.c.path,
            images.c.bytes,
            images.c.sha256,
            type_coerce(images.c.created_at, Integer),
        )
        with self.database.read() as connection:
            rows = connection.execute(select(*columns).where(_ON_DISK, condition).order_by(order).limit(limit)).all()
        return [KeptFile(image_id, path, size, sha256, made / 1000) for image_id, path, size, sha256, made in rows]

    def is_empty(self) -> bool:
        with self.database.read() as connection:
            return connection.execute(select(images.c.id).limit(1)).first() is None

    def has_files(self) -> bool:
        with self.database.read() as connection:
            return connection.execute(select(images.c.id).where(_ON_DISK).limit(1)).first() is not None

    def newest_ids(self, count: int) -> set[str]:
        """The ids of the newest pictures that any backend made for us, derived files among them."""
        query = select(images.c.id).where(_SHOWN).order_by(images.c.created_at.desc()).limit(count)
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def staying_ids(self, count: int, folder: str) -> set[str]:
        """The ids of the newest pictures in a folder that any backend drew or edited for us, and of the files derived from them."""
        newest = _newest(count, folder)
        derived = (
            select(images.c.id)
            .join(image_sources, images.c.id == image_sources.c.image_id)
            .where(images.c.origin.in_(("derived", "mask")), image_sources.c.parent_id.in_(newest))
        )
        with self.database.read() as connection:
            return {*connection.execute(newest).scalars(), *connection.execute(derived).scalars()}

    def sources_of(self, made_after: datetime, newest: int, folder: str) -> set[str]:
        """Ids of the sources of those pictures on the disk that are newer than a date or among the newest."""
        query = (
            select(image_sources.c.parent_id)
            .join(images, images.c.id == image_sources.c.image_id)
            .where(_ON_DISK, or_(images.c.created_at > made_after, images.c.id.in_(_newest(newest, folder))))
            .distinct()
        )
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())

    def in_trash(self) -> Iterator[list[ImageRecord]]:
        yield from self._pages(images.c.trash_path.is_not(None))

    def with_content(self, sha256: str) -> list[ImageRecord]:
        """The pictures that we made with these bytes and that are not in the trash, oldest first."""
        query = select(images).where(_ON_DISK, images.c.sha256 == sha256).order_by(images.c.created_at)
        with self.database.read() as connection:
            return read_records(connection, connection.execute(query).all())

    def all_with_content(self, sha256: str) -> list[ImageRecord]:
        """Every picture with these bytes: those that we made before those that were imported, the oldest first."""
        query = select(images).where(images.c.sha256 == sha256).order_by(*_OURS_FIRST)
        with self.database.read() as connection:
            return read_records(connection, connection.execute(query).all())

    def holds(self, path: Path) -> bool:
        """Tells whether a picture that is not in the trash has its file there."""
        query = select(images.c.id).where(images.c.path == str(path), images.c.trash_path.is_(None)).limit(1)
        with self.database.read() as connection:
            return connection.execute(query).first() is not None

    def known_paths(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that some record names. The library is in UTF-8, so a path that is not UTF-8 is never among
        them.
        """
        wanted = [path for path in paths if path.isascii() or path.encode(errors="ignore").decode() == path]
        found: set[str] = set()
        with self.database.read() as connection:
            for start in range(0, len(wanted), _MANY):
                part = wanted[start : start + _MANY]
                rows = connection.execute(select(images.c.path).where(images.c.path.in_(part)))
                found.update(path for (path,) in rows)
        return found

    def ancestors(self, image_id: str, *, limit: int = 1000) -> list[Ancestor]:
        """A picture's sources, and theirs, nearest first, in one query."""
        walk = (
            select(image_sources.c.parent_id, image_sources.c.image_id, literal(1).label("depth"))
            .where(image_sources.c.image_id == image_id)
            .cte("walk", recursive=True)
        )
        walk = walk.union(
            select(image_sources.c.parent_id, image_sources.c.image_id, walk.c.depth + 1)
            .where(image_sources.c.image_id == walk.c.parent_id)
            .where(walk.c.depth < limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(
                select(images, walk.c.image_id.label("child_id"), walk.c.depth)
                .join(walk, images.c.id == walk.c.parent_id)
                .order_by(walk.c.depth, images.c.created_at)
            ).all()
            records = read_records(connection, rows)
        return [
            Ancestor(record=record, child_id=row.child_id, depth=row.depth)
            for record, row in zip(records, rows, strict=True)
        ]

    def lineage(self, image_id: str) -> Lineage | None:
        places = self._children(image_id)
        with self.database.read():
            record = self.get(image_id)
            if record is None:
                return None
            return Lineage(
                record=record,
                ancestors=tuple(self.ancestors(image_id)),
                children=tuple(self._newest_of(places, CHILDREN)),
                child_count=len(places),
            )

    def children(self, image_id: str, *, origin: Origin | None = None, most: int = CHILDREN) -> list[ImageRecord]:
        """The newest pictures made from this one, oldest first."""
        return self._newest_of(self._children(image_id, origin), most)

    def child_count(self, image_id: str) -> int:
        """Counts the pictures that were made from this one."""
        return len(self._children(image_id))

    def _children(self, image_id: str, origin: Origin | None = None) -> set[tuple[int, str]]:
        """The dates, in milliseconds since 1970, and ids of the pictures that were made from this one."""
        query = (
            select(type_coerce(images.c.created_at, Integer), images.c.id)
            .select_from(image_sources.join(images, images.c.id == image_sources.c.image_id))
            .where(image_sources.c.parent_id == image_id)
        )
        if origin is not None:
            query = query.where(images.c.origin == origin)
        return {(made, child) for made, child, _ in self.database.by_row(image_sources, query, LOOKED_UP)}

    def _newest_of(self, places: set[tuple[int, str]], most: int) -> list[ImageRecord]:
        ids = [child for _, child in nlargest(most, places)]
        query = select(images).where(images.c.id.in_(ids)).order_by(images.c.created_at, images.c.id)
        with self.database.read() as connection:
            return read_records(connection, connection.execute(query).all())

    def move_to_trash(self, record: ImageRecord, trash_path: Path) -> None:
        """Note where the file went, and update the day's totals; doing it again changes nothing."""
        self._moved(record, images.c.trash_path.is_(None), trash_path=str(trash_path))

    def came_back(self, record: ImageRecord, path: Path) -> None:
        """Note where the file is that came back from the trash, and update the day's totals; doing it again changes
        nothing.
        """
        self._moved(record, images.c.trash_path.is_not(None), trash_path=None, path=str(path))

    def _moved(self, record: ImageRecord, unless_noted: ColumnElement[bool], **values: str | None) -> None:
        sign = 1 if values["trash_path"] is None else -1
        with self.database.write() as connection:
            changed = connection.execute(update(images).where(images.c.id == record.id, unless_noted).values(**values))
            if changed.rowcount == 1 and _is_drawn(record):
                count_picture(connection, replace(record, bytes=sign * record.bytes), pictures=0)

    def note_thumbnail(self, image_id: str, path: Path) -> None:
        """Note where a picture's thumbnail is."""
        with self.database.write() as connection:
            connection.execute(update(images).where(images.c.id == image_id).values(thumbnail_path=str(path)))

    def relink(self, image_id: str, path: Path) -> None:
        """Note where a picture's file is now."""
        with self.database.write() as connection:
            connection.execute(update(images).where(images.c.id == image_id).values(path=str(path)))

    def forget(self, image_id: str) -> None:
        """Take a picture out of the library, with its stays in the Files API, its notes and every line of its lineage. What was
        spent on it stays in the journal, and in the days' totals that it was made.
        """
        with self.database.write() as connection:
            for column in (
                uploads.c.image_id,
                annotations.c.image_id,
                tags.c.image_id,
                image_sources.c.image_id,
                image_sources.c.parent_id,
                images.c.id,
            ):
                connection.execute(delete(column.table).where(column == image_id))

    def add_upload(self, upload: Upload) -> None:
        with self.database.write() as connection:
            connection.execute(insert(uploads).values(asdict(upload)))

    def settle_upload(
        self,
        upload: Upload,
        *,
        state: UploadState,
        uri: str | None = None,
        expires_at: datetime | None = None,
        error: str | None = None,
    ) -> Upload:
        """Note the new state of an upload. Its name never changes: a renewal is a new row."""
        changed = replace(
            upload, state=state, uri=uri or upload.uri, expires_at=expires_at or upload.expires_at, error=error
        )
        with self.database.write() as connection:
            connection.execute(
                update(uploads)
                .where(uploads.c.id == upload.id)
                .values(state=state, uri=changed.uri, expires_at=changed.expires_at, error=error)
            )
        return changed

    def newest_upload(self, image_id: str, backend: Backend) -> Upload | None:
        """The latest upload of a picture that did not fail; it may have expired."""
        with self.database.read() as connection:
            row = connection.execute(
                select(uploads)
                .where(uploads.c.image_id == image_id, uploads.c.backend == backend)
                .where(uploads.c.state.in_(("active", "pending")))
                .order_by(uploads.c.state, uploads.c.expires_at.desc(), uploads.c.created_at.desc())
                .limit(1)
            ).first()
            return _upload(row) if row is not None else None

    def live_uploads(self, at: datetime, backend: Backend) -> tuple[int, int]:
        """The number of uploads that have not expired, and the sum of their bytes."""
        with self.database.read() as connection:
            row = connection.execute(
                select(func.count(), func.coalesce(func.sum(uploads.c.bytes), 0)).where(
                    uploads.c.state == "active", uploads.c.expires_at > at, uploads.c.backend == backend
                )
            ).one()
        return int(row[0]), int(row[1])

    def expired_uploads(self, at: datetime, backend: Backend) -> list[Upload]:
        """Uploads that count as active or pending although Google has deleted them."""
        with self.database.read() as connection:
            rows = connection.execute(
                select(uploads).where(
                    uploads.c.state.in_(("active", "pending")),
                    uploads.c.backend == backend,
                    or_(uploads.c.expires_at <= at, uploads.c.expires_at.is_(None)),
                )
            ).all()
            return [_upload(row) for row in rows]

    def _first(self, condition: Any, *, order: Sequence[Any] = ()) -> ImageRecord | None:
        with self.database.read() as connection:
            row = connection.execute(select(images).where(condition).order_by(*order).limit(1)).first()
            return read_records(connection, [row])[0] if row is not None else None

    def _pages(self, condition: Any) -> Iterator[list[ImageRecord]]:
        last = ""
        while True:
            with self.database.read() as connection:
                rows = connection.execute(
                    select(images).where(condition, images.c.id > last).order_by(images.c.id).limit(1000)
                ).all()
                page = read_records(connection, rows)
            if not page:
                return
            yield page
            last = page[-1].id


def insert_image(connection: Connection, record: ImageRecord) -> None:
    """Add a picture, its parents and the day's totals within an open transaction."""
    connection.execute(_ADD_IMAGE, {name: getattr(record, name) for name in _COLUMNS})
    if record.parents:
        connection.execute(
            _ADD_SOURCES,
            [
                {"image_id": record.id, "position": position, "parent_id": parent.image_id, "role": parent.role}
                for position, parent in enumerate(record.parents)
            ],
        )
    if _is_drawn(record):
        is_picture = record.origin in ("generated", "edited") and record.width > 0  # 0: kept bytes that do not decode
        count_picture(connection, record, pictures=int(is_picture))


def _is_drawn(record: ImageRecord) -> bool:
    """Tells whether the days' totals count it: a conversion of a caller's own picture was not drawn by anybody."""
    return record.origin != "imported" and record.tier is not None


def _newest(count: int, folder: str) -> Select[str]:
    inside = func.substr(images.c.path, 1, len(folder) + 1) == folder + os.sep
    return select(images.c.id).where(_MADE, _ON_DISK, inside).order_by(images.c.created_at.desc()).limit(count)


def read_records(connection: Connection, rows: Sequence[Row[Any]]) -> list[ImageRecord]:
    if not rows:
        return []
    parents: dict[str, list[Parent]] = {}
    ids = list({row[0] for row in rows})
    for start in range(0, len(ids), 1000):
        edges = connection.execute(
            select(image_sources)
            .where(image_sources.c.image_id.in_(ids[start : start + 1000]))
            .order_by(image_sources.c.image_id, image_sources.c.position)
        )
        for edge in edges:
            parents.setdefault(edge.image_id, []).append(Parent(image_id=edge.parent_id, role=edge.role))
    return [  # by position, which is half the time: the columns of `images` come first in every query, `id` before all
        ImageRecord(**dict(zip(_COLUMNS, row, strict=False)), parents=tuple(parents.get(row[0], ()))) for row in rows
    ]


def _upload(row: Row[Any]) -> Upload:
    return Upload(**{column.name: getattr(row, column.name) for column in uploads.columns})
