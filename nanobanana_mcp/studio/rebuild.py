"""Makes a new library from the pictures' own records when the database is lost or damaged."""

import hashlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from nanobanana_mcp.domain.errors import RequestError, SetupError
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.library.annotations import Annotations
from nanobanana_mcp.library.database import Database, copy_library, rebuild_lock
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import Places, check_writable
from nanobanana_mcp.storage.processes import anybody_alive
from nanobanana_mcp.storage.safe_folder import Folder
from nanobanana_mcp.storage.sidecars import read_record
from nanobanana_mcp.studio.search import read_annotation


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A new library: `pictures` are all that it knows, `added` those that the old one did not; `kept` says whether the
    old one could be read, so that its spending, uploads and pictures in other folders stay. `aside` is where the old
    file is, which is never deleted; None where there was none.
    """

    pictures: int
    added: int
    kept: bool
    replaces: bool
    """True when there is an old file."""
    unreadable: tuple[Path, ...]
    aside: Path | None = None


def agreed(_found: Rebuilt) -> bool:
    """Agree without asking anybody."""
    return True


def rebuild(database_path: Path, places: Places, *, agree: Callable[[Rebuilt], bool] = agreed) -> Rebuilt | None:
    """Make a library from the old one, as far as it can be read, and from every record that it does not have, sources
    before their edits; then put the old file aside.

    `agree` is asked when the new library is complete and before it replaces the old one; if it says no, nothing is
    changed and None is returned. When the old library cannot be read, its spending and uploads are lost, since no
    record has them. Answers that were paid for and wait in the spool become pictures at the next start.

    Raises SetupError when there is nothing to make a library from, a server still runs, or the old file is of a newer
    version. A kill before the new file takes the name leaves the old library; the replacement is one step. If a server
    used the old library meanwhile, as it may while a person thinks about the question, nothing is changed.
    """
    database_path.parent.mkdir(parents=True, exist_ok=True)
    with rebuild_lock(database_path):
        return _rebuild(database_path, Disk(places), agree)


def _rebuild(database_path: Path, disk: Disk, agree: Callable[[Rebuilt], bool]) -> Rebuilt | None:
    if anybody_alive(disk.places):
        raise SetupError("A server has this library open. End every window that uses it, then rebuild.")
    records, unreadable = _read_records(disk)
    fresh = database_path.with_name(f"{database_path.name}.rebuilding")
    _drop(fresh)
    before = _state(database_path)
    try:
        kept = copy_library(database_path, fresh)
        if not records and not kept:
            raise SetupError(
                f"There are no records in {disk.places.records}, so nothing can be rebuilt and nothing was changed. "
                "Is NANOBANANA_OUTPUT_DIR the folder your pictures are in?"
            )
        library = Library(Database.open(fresh))
        try:
            known = library.ids()
            new = in_order({name: record for name, record in records.items() if name not in known}, known)
            library.add_all(new)
            noted = {record.id: read_annotation(disk.sidecars.read_notes(record.id)) for record in new}
            Annotations(database=library.database).put(
                {one: found for one, found in noted.items() if found is not None}
            )
        finally:
            library.database.close()
        found = Rebuilt(
            pictures=len(known) + len(new),
            added=len(new),
            kept=kept,
            replaces=database_path.exists(),
            unreadable=unreadable,
        )
        if not agree(found):
            return None
        if anybody_alive(disk.places) or _state(database_path) != before:
            raise SetupError("A server used this library in the meantime, so nothing was changed. Rebuild once more.")
        _flush(fresh)
        aside = _put_aside(database_path, readable=kept)
        fresh.replace(database_path)
        with Folder(database_path.parent.resolve()) as held:
            held.sync()
        return replace(found, aside=aside)
    finally:
        _drop(fresh)


def _drop(fresh: Path) -> None:
    """Remove what a rebuild makes beside the library, and SQLite and an upgrade beside that."""
    for left in fresh.parent.glob(f"{escape(fresh.name)}*"):
        left.unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, ...]:
    """Facts about a file that change when somebody writes to it or replaces it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _flush(path: Path) -> None:
    """Flush the copy to the disk, which SQLite does not do: else a power cut could leave half a library under the old
    one's name.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_records(disk: Disk) -> tuple[dict[str, ImageRecord], tuple[Path, ...]]:
    """The records beside the pictures by their id, and the files that are none."""
    records: dict[str, ImageRecord] = {}
    unreadable = []
    for path in sorted(disk.places.records.glob("*.json")) if disk.places.records.is_dir() else []:
        record = read_record(path)
        if record is None:
            unreadable.append(path)
        else:
            record = _in_its_place(record, disk)
            records[record.id] = replace(record, trash_path=_trash_path(record, disk))
    return records, tuple(unreadable)


def in_order(records: dict[str, ImageRecord], known: Collection[str] = ()) -> list[ImageRecord]:
    """Parents first; a parent that is neither among them nor `known` is left out of its children's lineage."""
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
            kept = tuple(parent for parent in record.parents if parent.image_id in found or parent.image_id in known)
            found[record.id] = replace(record, parents=kept)
            waiting.pop()
    return list(found.values())


def _in_its_place(record: ImageRecord, disk: Disk) -> ImageRecord:
    """A record with only such paths as it may have, since anybody can put a record beside the pictures.

    A caller's own picture must be readable by the rules for callers. One of ours must be in the output folder, or be a
    file with exactly its bytes where a caller could have put it; else it is looked for by name in the output folder. A
    thumbnail has one folder only.
    """
    small = disk.places.thumbnails / Path(record.thumbnail_path).name if record.thumbnail_path else None
    record = replace(record, thumbnail_path=str(small) if small is not None else None)
    if record.origin == "imported" or record.path is None:
        return record
    path = Path(record.path)
    folder = Path(os.path.realpath(path.parent))
    inside = path.parent.is_relative_to(disk.places.output) and folder == path.parent
    return (
        record
        if inside or _is_at(path, folder, record, disk)
        else replace(record, path=str(disk.places.output / path.name))
    )


def _is_at(path: Path, folder: Path, record: ImageRecord, disk: Disk) -> bool:
    try:
        check_writable(folder, disk.places)
    except RequestError:
        return False
    data = disk.read_own(path) if folder == path.parent else None
    return data is not None and hashlib.sha256(data).hexdigest() == record.sha256


def _trash_path(record: ImageRecord, disk: Disk) -> str | None:
    if record.path is None or Path(record.path).exists():
        return None
    found = disk.find_in_trash(record.path, record.sha256)
    return str(found) if found is not None else None


def _put_aside(path: Path, *, readable: bool) -> Path | None:
    """Give the old file a second name; the new one takes its place in the next step.

    Files that SQLite left beside a damaged library are moved with it, or they would be taken for the new library's. The
    journal of a library that was read has already been rolled back.
    """
    stamp = f"{now():%Y%m%d-%H%M%S}"
    names = (f"{path.name}.aside-{stamp}", *(f"{path.name}.aside-{stamp}-{number}" for number in range(2, 1000)))
    new = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    aside = None
    if path.exists():
        aside = new
        try:
            os.link(path, new)
        except OSError:  # without hard links there is no library for a moment; a start says so
            path.rename(new)
    for suffix in ("-journal", "-wal", "-shm"):
        old = path.with_name(f"{path.name}{suffix}")
        if old.exists() and readable:
            old.unlink()
        elif old.exists():
            old.rename(new.with_name(f"{new.name}{suffix}"))
    return aside
