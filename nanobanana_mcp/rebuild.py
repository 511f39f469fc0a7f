"""A new library from the pictures' own records, for when the database is lost or damaged."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from nanobanana_mcp.domain import ImageRecord, now
from nanobanana_mcp.errors import RequestError, SetupError
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.paths import Places, check_writable
from nanobanana_mcp.storage.reading import read_own
from nanobanana_mcp.storage.state import anybody_alive, find_in_trash, read_record


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What came back; `aside` is where the old database went, which is never deleted."""

    pictures: int
    unreadable: tuple[Path, ...]
    aside: Path | None


def rebuild(database_path: Path, places: Places) -> Rebuilt:
    """Put an old database aside, damaged or not, and enter every record into a new one, sources before their edits.

    Spending and uploads are not in the records: they begin anew. Answers that were paid for and wait in the spool
    become pictures at the next start. Raises SetupError when there are no records or a server still runs.
    """
    if anybody_alive(places):
        raise SetupError("A server has this library open. End every window that uses it, then rebuild.")
    records: dict[str, ImageRecord] = {}
    unreadable = []
    for path in sorted(places.records.glob("*.json")) if places.records.is_dir() else []:
        record = read_record(path)
        if record is None:
            unreadable.append(path)
        else:
            record = _in_its_place(record, places)
            records[record.id] = replace(record, trash_path=_trash_path(record, places))
    if not records:
        raise SetupError(
            f"There are no records in {places.records}, so nothing can be rebuilt and nothing was changed. "
            "Is NANOBANANA_OUTPUT_DIR the folder your pictures are in?"
        )
    fresh = database_path.with_name(f"{database_path.name}.rebuilding")
    leftovers = [fresh.with_name(f"{fresh.name}{suffix}") for suffix in ("", "-journal", ".upgrade")]
    for left in leftovers:
        left.unlink(missing_ok=True)
    library = Library(Database.open(fresh))
    try:
        library.add_all(in_order(records))
    finally:
        library.database.close()
    aside = _put_aside(database_path)
    fresh.rename(database_path)
    for left in leftovers:
        left.unlink(missing_ok=True)
    return Rebuilt(pictures=len(records), unreadable=tuple(unreadable), aside=aside)


def in_order(records: dict[str, ImageRecord]) -> list[ImageRecord]:
    """Parents first; a parent without a record of its own is left out of its children's lineage."""
    found: dict[str, ImageRecord] = {}
    for start in records.values():
        waiting = [start]
        while waiting:
            record = waiting[-1]
            if record.id in found:
                waiting.pop()
                continue
            missing = [
                records[parent.image_id]
                for parent in record.parents
                if parent.image_id in records and parent.image_id not in found
            ]
            if missing and len(waiting) <= len(records):
                waiting += missing
                continue
            kept = tuple(parent for parent in record.parents if parent.image_id in found)
            found[record.id] = replace(record, parents=kept)
            waiting.pop()
    return list(found.values())


def _in_its_place(record: ImageRecord, places: Places) -> ImageRecord:
    """A record with paths that it may have, since anybody can put one beside the pictures.

    A caller's own picture is read by the rules for callers, wherever its path leads. One of ours is in the output folder,
    or where a caller could have had it put and its very bytes are; else it is looked for in the output folder, by its
    name. A thumbnail is in its one folder.
    """
    small = places.thumbnails / Path(record.thumbnail_path).name if record.thumbnail_path else None
    record = replace(record, thumbnail_path=str(small) if small is not None else None)
    if record.origin == "imported" or record.path is None:
        return record
    path = Path(record.path)
    folder = Path(os.path.realpath(path.parent))
    inside = path.parent.is_relative_to(places.output) and folder == path.parent
    return (
        record
        if inside or _is_at(path, folder, record, places)
        else replace(record, path=str(places.output / path.name))
    )


def _is_at(path: Path, folder: Path, record: ImageRecord, places: Places) -> bool:
    try:
        check_writable(folder, places)
    except RequestError:
        return False
    data = read_own(path, places) if folder == path.parent else None
    return data is not None and hashlib.sha256(data).hexdigest() == record.sha256


def _trash_path(record: ImageRecord, places: Places) -> str | None:
    if record.path is None or Path(record.path).exists():
        return None
    found = find_in_trash(record.path, record.sha256, places)
    return str(found) if found is not None else None


def _put_aside(path: Path) -> Path | None:
    stamp = f"{now():%Y%m%d-%H%M%S}"
    names = (f"{path.name}.aside-{stamp}", *(f"{path.name}.aside-{stamp}-{number}" for number in range(2, 1000)))
    new = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    aside = None
    for suffix in ("", "-journal", "-wal", "-shm"):
        old = path.with_name(f"{path.name}{suffix}")
        if old.exists():
            target = new.with_name(f"{new.name}{suffix}")
            old.rename(target)
            aside = aside or target
    return aside
