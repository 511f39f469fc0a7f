"""Notes, tags and ratings of pictures, and which pictures changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from nanobanana_mcp.domain.finding import Annotation, Changes
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.tables import annotations, changes, tags

MOST = 1000
"""The most changes that are returned at once."""


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The notes, tags and ratings of pictures, by their ids."""

    database: Database

    def of(self, ids: Iterable[str]) -> dict[str, Annotation]:
        """The notes of those pictures that have any; at most 1,000 ids."""
        wanted = list(ids)
        with self.database.read() as connection:
            rows = connection.execute(select(annotations).where(annotations.c.image_id.in_(wanted))).all()
            words = connection.execute(
                select(tags.c.image_id, tags.c.tag).where(tags.c.image_id.in_(wanted)).order_by(tags.c.tag)
            ).all()
        tagged: dict[str, tuple[str, ...]] = {}
        for image_id, tag in words:
            tagged[image_id] = (*tagged.get(image_id, ()), tag)
        found = {row.image_id: (row.note, row.rating) for row in rows}
        return {
            one: Annotation(
                note=found.get(one, (None, None))[0], rating=found.get(one, (None, None))[1], tags=tagged.get(one, ())
            )
            for one in {*found, *tagged}
        }

    def put(self, noted: Mapping[str, Annotation]) -> None:
        """Writes the notes of these pictures, in one transaction."""
        with self.database.write() as connection:
            for image_id, annotation in noted.items():
                _put(connection, image_id, annotation)

    def change(self, image_id: str, changed: Mapping[str, Any]) -> Annotation:
        """Changes some fields of a picture's notes, and returns all of them. Reads and writes in one transaction, so
        that two windows that change different fields both have their way.
        """
        with self.database.write() as connection:
            row = connection.execute(select(annotations).where(annotations.c.image_id == image_id)).first()
            words = connection.execute(select(tags.c.tag).where(tags.c.image_id == image_id).order_by(tags.c.tag))
            was = Annotation(
                note=row.note if row is not None else None,
                rating=row.rating if row is not None else None,
                tags=tuple(words.scalars()),
            )
            annotation = replace(was, **changed)
            _put(connection, image_id, annotation)
        return annotation

    def all_tags(self) -> tuple[tuple[str, int], ...]:
        """Every tag with the number of pictures that have it, the most used first."""
        count = func.count()
        query = select(tags.c.tag, count).group_by(tags.c.tag).order_by(count.desc(), tags.c.tag)
        with self.database.read() as connection:
            return tuple((tag, number) for tag, number in connection.execute(query))

    def changes(self, after: int | None) -> Changes:
        """The pictures that changed since change number `after`, at most `MOST`; without `after` only the number of the
        last change.
        """
        with self.database.read() as connection:
            last = connection.execute(select(func.coalesce(func.max(changes.c.number), 0))).scalar_one()
            if after is None or last <= after:
                return Changes(last=last)
            rows = connection.execute(
                select(changes).where(changes.c.number > after).order_by(changes.c.number).limit(MOST)
            ).all()
        return Changes(
            last=rows[-1].number,
            ids=tuple(row.image_id for row in rows if not row.gone),
            gone=tuple(row.image_id for row in rows if row.gone),
        )


def _put(connection: Connection, image_id: str, annotation: Annotation) -> None:
    connection.execute(delete(annotations).where(annotations.c.image_id == image_id))
    connection.execute(delete(tags).where(tags.c.image_id == image_id))
    if annotation.note is not None or annotation.rating is not None:
        row = {"image_id": image_id, "note": annotation.note, "rating": annotation.rating}
        connection.execute(insert(annotations).values(row))
    if annotation.tags:
        connection.execute(insert(tags), [{"tag": tag, "image_id": image_id} for tag in annotation.tags])
