"""Tidies up: lists actions from the library's rows and, unless it is a dry run, takes exactly those actions."""

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import Literal

from nanobanana_mcp.domain.errors import RequestError, SetupError
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.provider import ImageModel
from nanobanana_mcp.domain.records import ImageRecord, Upload
from nanobanana_mcp.domain.terms import KEEP_COUNT, MAX_AGE_HOURS, Backend, Operation
from nanobanana_mcp.domain.text import counted, printable, shorten
from nanobanana_mcp.jobs.files import no_such_picture
from nanobanana_mcp.library.pictures import KeptFile, Library
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.storage.paths import is_utf8
from nanobanana_mcp.storage.writing import drop_name, free_name, is_same_file, move_new

UNTOUCHED_S = 60
"""Seconds. A file is written just before its row; if it was changed later than this, somebody else wrote to it."""

QUOTA_BYTES = 20 * 10**9
STALE_UPLOAD = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that maintenance does or would do."""

    kind: Literal["forget_upload", "to_trash", "restore", "relink", "note_trash", "put_back", "drop_link"]
    subject: str
    """An image id or a files/... name."""
    path: str | None
    bytes: int
    why: str
    upload: Upload | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The actions that were taken (in a dry run: would be), what was left alone and why, and findings."""

    operation: Operation
    dry_run: bool
    actions: tuple[Action, ...] = ()
    left: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(action.bytes for action in self.actions)


@dataclass(kw_only=True)
class _Findings:
    actions: list[Action] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


class Maintenance:
    """Works from rows, never from a folder's listing: a file without a row is reported at most."""

    def __init__(self, library: Library, model: ImageModel, disk: Disk, backend: Backend) -> None:
        self._library = library
        self._model = model
        self._disk = disk
        self._backend: Backend = backend

    async def run(
        self, operation: Operation, *, dry_run: bool, max_age_hours: float, keep_count: int, image_ids: tuple[str, ...]
    ) -> Report:
        """Raises RequestError, or SetupError when the output folder is not there: an unplugged disk does not mean that
        its pictures were deleted.
        """
        survey = _Findings()
        if operation in ("cleanup_local", "database_hygiene", "full_cleanup", "restore"):
            self._check_reachable()
        if operation in ("cleanup_expired", "full_cleanup"):
            await asyncio.to_thread(self._expired_uploads, survey)
        if operation in ("cleanup_local", "full_cleanup"):
            await asyncio.to_thread(self._old_pictures, survey, max_age_hours, keep_count)
        if operation in ("database_hygiene", "full_cleanup"):
            await asyncio.to_thread(self._hygiene, survey)
        if operation == "restore":
            await asyncio.to_thread(self._restorable, survey, image_ids)
        if operation == "check_quota":
            await self._quota(survey)
        if not dry_run:
            await asyncio.to_thread(self._do, survey)
        return Report(
            operation=operation,
            dry_run=dry_run,
            actions=tuple(survey.actions),
            left=tuple(survey.left),
            findings=tuple(survey.findings),
        )

    def trash(self, image_ids: Sequence[str]) -> Report:
        """Move some pictures to the trash that a person chose, by the same rules as old ones. Raises SourceNotFound, SetupError."""
        self._check_reachable()
        survey = _Findings()
        folders: dict[str, str | None] = {}
        for image_id in dict.fromkeys(image_ids):
            record = self._library.get(image_id)
            if record is None:
                raise no_such_picture(image_id, self._library)
            if record.origin == "imported" or record.path is None:
                why_not: str | None = "is your own file, which is never moved"
            elif record.trash_path is not None:
                why_not = "is in the trash already"
            else:
                why_not = self._why_untouchable(_file_of(record), folders)
            if why_not:
                survey.left.append(f"{record.id} {record.path}: {why_not}")
                continue
            action = Action(kind="to_trash", subject=record.id, path=record.path, bytes=record.bytes, why="was chosen")
            survey.actions.append(action)
        self._do(survey)
        return Report(operation="cleanup_local", dry_run=False, actions=tuple(survey.actions), left=tuple(survey.left))

    def _check_reachable(self) -> None:
        if not self._disk.places.output.is_dir() and self._library.has_files():
            raise SetupError(
                f"The output folder {self._disk.places.output} does not exist although the library has pictures in "
                "it. Mount or restore it; nothing was changed."
            )

    def _expired_uploads(self, survey: _Findings) -> None:
        at = now()
        for upload in self._library.expired_uploads(at, self._backend):
            if upload.expires_at is None and at - upload.created_at < STALE_UPLOAD:
                continue
            why = "expired in the Files API" if upload.expires_at else "never finished"
            survey.actions.append(
                Action(kind="forget_upload", subject=upload.name, path=None, bytes=0, why=why, upload=upload)
            )

    def _old_pictures(self, survey: _Findings, max_age_hours: float, keep_count: int) -> None:
        limit = now() - timedelta(hours=max_age_hours)
        newest = self._library.staying_ids(keep_count, str(self._disk.places.output))
        staying_sources = self._library.sources_of(limit, keep_count, str(self._disk.places.output))
        folders: dict[str, str | None] = {}
        for file in self._library.files():
            if file.made_at > limit.timestamp() or file.id in newest:
                continue
            why_not = (
                "a newer picture that stays was made from it"
                if file.id in staying_sources
                else self._why_untouchable(file, folders)
            )
            if why_not:
                survey.left.append(f"{file.id} {file.path}: {why_not}")
                continue
            survey.actions.append(
                Action(
                    kind="to_trash",
                    subject=file.id,
                    path=file.path,
                    bytes=file.bytes,
                    why=f"older than {max_age_hours:g} h"
                    + (f" and not among the newest {keep_count}" if keep_count else ""),
                )
            )

    def _why_untouchable(self, file: KeptFile, folders: dict[str, str | None], *, thorough: bool = False) -> str | None:
        """The reason why a file with a row may still not be moved; None when it is ours and unchanged. Without
        `thorough`, a file of the right size that was not written to since is not read; before a move it always is.
        `folders` remembers what was found out about each folder.
        """
        folder, _, _ = file.path.rpartition(os.sep)
        if folder not in folders:
            folders[folder] = self._why_not_there(Path(folder))
        if folders[folder] is not None:
            return folders[folder]
        try:
            found = os.lstat(file.path)
        except OSError:
            return "the file is gone already"
        if stat.S_ISLNK(found.st_mode):
            return "is a link now"
        if found.st_size != file.bytes:
            return "was changed since it was made"
        if not thorough and found.st_mtime <= file.made_at + UNTOUCHED_S:
            return None
        data = self._disk.read_own(Path(file.path))
        if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
            return "was changed since it was made"
        return None

    def _why_not_there(self, folder: Path) -> str | None:
        if not folder.is_relative_to(self._disk.places.output):
            return "outside the output folder, where you put it yourself"
        return "is reached through a link now" if Path(os.path.realpath(folder)) != folder else None

    def _hygiene(self, survey: _Findings) -> None:
        untracked = untracked_files(self._library, self._disk)
        loose = _Loose(lambda: untracked, self._disk)
        self._half_moved(survey, loose)
        settled = {action.subject for action in survey.actions}
        for file in self._library.files():
            if file.id in settled or os.path.lexists(file.path):
                continue
            found = loose.take(file.bytes, file.sha256)
            if found is None:
                survey.findings.append(f"{file.id}: its file {file.path} is missing; its record and lineage stay.")
                continue
            survey.actions.append(
                Action(
                    kind="relink",
                    subject=file.id,
                    path=file.path,
                    bytes=0,
                    why="the file was renamed or moved within the output folder",
                    target=str(found),
                )
            )
        relinked = {action.target for action in survey.actions if action.kind in ("relink", "put_back")}
        others = [str(path) for path in untracked if str(path) not in relinked]
        if others:
            survey.findings.append(
                f"{counted(len(others), 'file')} in the output folder {'was' if len(others) == 1 else 'were'} not "
                f"made by the studio and will not be touched, such as {printable(others[0])}."
            )

    def mend(self, *, dry_run: bool) -> list[tuple[str, str]]:
        """Finish moves to and from the trash that were cut short; returns each picture's id and what became of it.
        Raises SetupError when another process takes too long to tidy up.
        """
        survey = _Findings()
        if self._disk.places.output.is_dir():
            self._half_moved(survey, _Loose(lambda: untracked_files(self._library, self._disk), self._disk))
        if not dry_run:
            self._do(survey)
        doing = {
            "put_back": "its file is at",
            "note_trash": "its file is in the trash at",
            "drop_link": "left the trash:",
        }
        return [
            (action.subject, f"{doing[action.kind]} {action.target or action.path} ({action.why})")
            for action in survey.actions
        ]

    def _half_moved(self, survey: _Findings, loose: "_Loose") -> None:
        """The pictures whose file and row disagree about the trash: after a kill between two steps, or because somebody
        moved the file by hand.
        """
        gone, named = 0, set()
        for record in (record for page in self._library.in_trash() for record in page):
            trashed = Path(str(record.trash_path))
            named.add(trashed)
            back = self._back(record, trashed) or (
                None if is_plain(trashed) else loose.take(record.bytes, record.sha256)
            )
            if back is not None:
                survey.actions.append(_put_back(record, back))
            elif not is_plain(trashed):
                gone += 1
        if gone:
            survey.findings.append(
                f"{counted(gone, 'picture')} in the trash {'has' if gone == 1 else 'have'} lost "
                f"{'its' if gone == 1 else 'their'} file; records and lineage stay."
            )
        taken: set[str] = set()
        for path in sorted(set(_plain_files(self._disk.places.trash)) - named):
            data = self._disk.read_own(path)
            alike = self._library.with_content(hashlib.sha256(data).hexdigest()) if data is not None else []
            for record in (record for record in alike if record.id not in taken):
                place = Path(str(record.path))
                twin = is_same_file(path, place)
                if not twin and os.path.lexists(place):
                    continue
                taken.add(record.id)
                why = "the cleanup that put it there was interrupted"
                kind: Literal["drop_link", "note_trash"] = "drop_link" if twin else "note_trash"
                action = Action(kind=kind, subject=record.id, path=record.path, bytes=0, why=why, target=str(path))
                survey.actions.append(action)
                break

    def _back(self, record: ImageRecord, trashed: Path) -> Path | None:
        """The place where a picture is although its row says that it is in the trash: its own, or a numbered one."""
        place = Path(str(record.path))
        numbered = (place.with_stem(f"{place.stem}-{number}") for number in count(2))
        names = chain((place,), takewhile(os.path.lexists, numbered))
        in_trash = is_plain(trashed)
        if in_trash and trashed.lstat().st_nlink > 1:
            return next((one for one in names if is_same_file(one, trashed)), None)
        for one in (place,) if in_trash else names:
            if _size(one) == record.bytes and not self._library.holds(one) and self._disk.has(one, record.sha256):
                return one
        return None

    def _restorable(self, survey: _Findings, image_ids: tuple[str, ...]) -> None:
        found = [record for page in self._library.in_trash() for record in page]
        unknown = set(image_ids) - {record.id for record in found}
        if unknown:
            raise RequestError(f"Not in the trash: {shorten(', '.join(sorted(unknown)), 1000)[1:-1]}.")
        promised: set[Path] = set()
        loose = _Loose(lambda: untracked_files(self._library, self._disk), self._disk)
        for record in found:
            if image_ids and record.id not in image_ids:
                continue
            trashed = Path(str(record.trash_path))
            back = self._back(record, trashed) or (
                None if is_plain(trashed) else loose.take(record.bytes, record.sha256)
            )
            if back is not None:
                survey.actions.append(_put_back(record, back))
                continue
            if not is_plain(trashed):
                survey.left.append(f"{record.id}: {record.trash_path} is no longer in the trash")
                continue
            place = free_name(Path(str(record.path)), trashed, promised)
            promised.add(place)
            if str(place) != record.path:
                survey.findings.append(f"{record.path} is taken, so {record.id} comes back as {place}.")
            survey.actions.append(
                Action(
                    kind="restore",
                    subject=record.id,
                    path=record.path,
                    bytes=record.bytes,
                    why="is in the trash",
                    target=str(place),
                )
            )

    async def _quota(self, survey: _Findings) -> None:
        """Count what the Files API really holds, not what the library says was sent."""
        files = await self._model.files()
        total = sum(file.bytes for file in files)
        ours = sum(1 for file in files if file.name.startswith("files/nb"))
        survey.findings.append(
            f"The Files API holds {counted(len(files), 'file')} with {total / 1e6:.1f} MB, {_share(total)} of 20 "
            f"GB; {ours} of them were uploaded by this studio. Google deletes each after 48 hours."
        )

    def _do(self, survey: _Findings) -> None:
        done = []
        with self._disk.tidying() if survey.actions else nullcontext():
            for action in survey.actions:
                try:
                    self._do_one(action, survey)
                except OSError as error:
                    survey.left.append(f"{action.subject} {action.path}: {error.strerror}")
                else:
                    done.append(action)
        survey.actions = done

    def _do_one(self, action: Action, survey: _Findings) -> None:
        """Move the file first and change the row last: `_half_moved` finds what was cut short in between."""
        if action.upload is not None:
            self._library.settle_upload(action.upload, state="deleted", error=action.why)
            return
        record = self._library.get(action.subject)
        assert record is not None and record.path is not None
        if (record.trash_path is not None) != (action.kind in ("restore", "put_back")):
            raise OSError(0, "another window was quicker")
        place, target = Path(record.path), Path(str(action.target))
        if action.kind == "to_trash":
            changed = self._why_untouchable(_file_of(record), {}, thorough=True)
            if changed:
                raise OSError(0, changed)
            self._library.move_to_trash(record, move_new(place, self._disk.places.trash, place.name))
        elif action.kind == "restore":
            back = move_new(Path(str(record.trash_path)), place.parent, place.name)
            self._came_back(record, back)
            if str(back) != action.target:  # another file has taken that name since the list was made
                survey.findings.append(f"{action.target} is taken, too, so {action.subject} came back as {back}.")
        elif action.kind == "put_back":
            if self._library.holds(target) or not self._disk.has(target, record.sha256):
                raise OSError(0, "was changed or moved again")
            trashed = Path(str(record.trash_path))
            if is_same_file(trashed, target) or self._disk.has(trashed, record.sha256):
                drop_name(trashed, target)
            self._came_back(record, target)
        elif action.kind == "drop_link":
            if is_same_file(target, place):
                drop_name(target, place)
        elif action.kind == "note_trash":
            self._library.move_to_trash(record, target)
        else:
            self._relink(record, target)

    def _came_back(self, record: ImageRecord, path: Path) -> None:
        if str(path) != record.path:
            self._disk.sidecars.write_record(replace(record, path=str(path), trash_path=None))
        self._library.came_back(record, path)

    def _relink(self, record: ImageRecord, path: Path) -> None:
        self._library.relink(record.id, path)
        self._disk.sidecars.write_record(replace(record, path=str(path), trash_path=None))


class _Loose:
    """Files of the output folder that no row names, by content; each is given out once, and a file is read only when a
    picture of its size is looked for.
    """

    def __init__(self, files: Callable[[], list[Path]], disk: Disk) -> None:
        self._files, self._disk = files, disk
        self._by_size: dict[int | None, list[Path]] | None = None

    def take(self, size: int, sha256: str) -> Path | None:
        if self._by_size is None:
            self._by_size = {}
            for path in self._files():
                self._by_size.setdefault(_size(path), []).append(path)
        alike = self._by_size.get(size, [])
        for path in alike:
            if is_utf8(path) and self._disk.has(path, sha256):
                alike.remove(path)
                return path
        return None


def _put_back(record: ImageRecord, place: Path) -> Action:
    why = "was taken out of the trash, by hand or by a restore that was interrupted"
    return Action(kind="put_back", subject=record.id, path=record.path, bytes=record.bytes, why=why, target=str(place))


def is_plain(path: Path) -> bool:
    """Tells whether a plain file is there, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def _plain_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_plain(path) and is_utf8(path)] if folder.is_dir() else []


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def _file_of(record: ImageRecord) -> KeptFile:
    return KeptFile(record.id, str(record.path), record.bytes, record.sha256, record.created_at.timestamp())


def check_options(operation: Operation, *, max_age_hours: float, keep_count: int, image_ids: tuple[str, ...]) -> None:
    """Raise RequestError for an option that would do nothing."""
    if image_ids and operation != "restore":
        raise RequestError("image_ids is for operation 'restore' only.")
    if (max_age_hours, keep_count) != (MAX_AGE_HOURS, KEEP_COUNT) and operation not in (
        "cleanup_local",
        "full_cleanup",
    ):
        raise RequestError("max_age_hours and keep_count are for operations 'cleanup_local' and 'full_cleanup' only.")


def untracked_files(library: Library, disk: Disk, *, limit: int | None = None) -> list[Path]:
    """Files in the output folder and its folders, hidden ones aside, that no row names; at most the first `limit` files
    are looked at.
    """
    paths = list(islice(_files_in(str(disk.places.output)), limit))
    known = library.known_paths(paths)
    return sorted(Path(path) for path in paths if path not in known)


def _files_in(top: str) -> Iterator[str]:
    """Those of a folder before those of its folders; links are not followed."""
    folders = deque([top])
    while folders:
        try:
            with os.scandir(folders.popleft()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path
        except OSError:  # not there, or not for us to read
            continue


def _share(total: int) -> str:
    share = total / QUOTA_BYTES
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"
