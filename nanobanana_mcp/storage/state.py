"""Keeps what the studio needs for itself: raw answers, thumbnails, records beside them, and signs of life."""

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.ids import ALPHABET, is_image_id, new_id
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.terms import Backend, Mode, Origin, Role
from nanobanana_mcp.storage.paths import Places, is_text
from nanobanana_mcp.storage.reading import read_own
from nanobanana_mcp.storage.writing import make_private, replace_durably, set_room_aside

_UNFINISHED = re.compile(r"\..*\.tmp", re.DOTALL)
_UNFINISHED_PICTURE = re.compile(rf"\.img_[{ALPHABET}]{{16}}\.tmp")
"""The file that `write_new` fills before it has a name, perhaps in a folder with files of the user's own."""

MAX_RECORD_BYTES = 1_000_000

_PLAINLY = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)

TIDY_S = 30
"""How long one process waits for another that is tidying up."""


def take_room(call_id: str, size: int, places: Places) -> None:
    """Hold so many bytes of the spool's disk for a call's raw answer, before it is asked for and paid. Raises OSError.

    The disk may fill while Gemini draws, with the pictures' folder and the spool on it: the answer still has its place.
    """
    set_room_aside(_room_path(call_id, places), size)


def give_room_back(call_id: str, places: Places) -> None:
    with suppress(OSError):  # the sweep of a later start tries again
        _room_path(call_id, places).unlink(missing_ok=True)


def spool(call_id: str, raw: bytes, places: Places) -> Path:
    """Put a raw answer on the disk before anything is done with it: into the room that is held for it, else beside the
    pictures, else into a folder of temporary files that only this user can enter.

    Raises the OSError of the first place when none takes it.
    """
    first, *others = _spool_paths(call_id, places)
    try:
        replace_durably(first, raw, room=_room_path(call_id, places))
    except OSError as error:
        for path in others:
            with suppress(OSError):
                replace_durably(path, raw)
                give_room_back(call_id, places)
                return path
        raise error from None
    return first


def spooled(call_id: str, places: Places) -> bytes | None:
    path = spool_path(call_id, places)
    return path.read_bytes() if path is not None else None


def spooled_calls(places: Places) -> list[str]:
    """Ids of the calls whose raw answer is on the disk."""
    folders = {path.parent for path in _spool_paths("any", places)}
    return [path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.json") if path.stem[0] != "."]


def drop_spool(call_id: str, places: Places) -> None:
    for path in _spool_paths(call_id, places):
        with suppress(OSError):  # the picture is kept; the sweep of a later start tries again
            path.unlink(missing_ok=True)
    forget_tries(call_id, places)


def count_try(call_id: str, places: Places) -> int:
    """Note that an answer is about to be worked on by a recovery, which may be its end; how often it was noted so far,
    this time included. Where nothing can be noted it counts as the first time.
    """
    path = _tries_path(call_id, places)
    try:
        make_private(path.parent)
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | _PLAINLY, 0o600)
        try:
            os.write(descriptor, b".")
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError:
        return 1


def forget_tries(call_id: str, places: Places) -> None:
    with suppress(OSError):  # a few bytes more than needed; the sweep of a later start tries again
        _tries_path(call_id, places).unlink(missing_ok=True)


def spool_path(call_id: str, places: Places) -> Path | None:
    """Where a call's raw answer is."""
    return next((path for path in _spool_paths(call_id, places) if path.is_file()), None)


def drop_unfinished(places: Places, *, before: float) -> None:
    """Remove the temporary files of writes that were cut short before a time in seconds since 1970, in our own folders and
    beside the pictures in the output folder and in every folder of `note_folder`.

    Only for a time after which every process that wrote then has ended.
    """
    folders = [places.spool, places.own / "spool", *(path for path in _entries(places.own) if path.is_dir())]
    left = [path for folder in dict.fromkeys(folders) for path in _entries(folder) if _UNFINISHED.fullmatch(path.name)]
    for folder, inner, names in os.walk(places.output):
        inner[:] = [name for name in inner if not name.startswith(".")]
        left += [Path(folder, name) for name in names if _UNFINISHED_PICTURE.fullmatch(name)]
    for note in _entries(_noted_folders(places)):
        with suppress(OSError):  # a folder that is gone has nothing, and one that is closed keeps it
            folder = os.fsdecode(note.read_bytes())
            left += [path for path in Path(folder).iterdir() if _UNFINISHED_PICTURE.fullmatch(path.name)]
    for path in left:
        with suppress(OSError):
            if path.lstat().st_mtime < before:
                path.unlink()


def begin(image_id: str, places: Places) -> bool:
    """Note that a file is about to be made; whether that was noted before, by an attempt that was cut short."""
    note = _begun(image_id, places)
    try:
        make_private(note.parent)
        os.close(os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return True
    return False


def ended(image_id: str, places: Places) -> None:
    with suppress(OSError):  # at worst a later attempt looks twice at a file of the same bytes
        _begun(image_id, places).unlink(missing_ok=True)


def _begun(image_id: str, places: Places) -> Path:
    return places.state / "begun" / image_id


def note_folder(folder: Path, places: Places) -> None:
    """Remember that something is about to be written into a folder that is not ours. Raises OSError.

    A kill may leave a temporary file there, beside the user's own files, and nothing else would ever look for it.
    """
    if folder.is_relative_to(places.output):
        return
    note = _noted_folders(places) / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not note.exists():
        make_private(note.parent)
        replace_durably(note, os.fsencode(folder))


def _noted_folders(places: Places) -> Path:
    return places.state / "folders"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _spool_paths(call_id: str, places: Places) -> list[Path]:
    last = _last_place(places)
    folders = [places.spool, places.own / "spool", *([last] if last is not None else [])]
    return [folder / f"{call_id}.json" for folder in folders]


def _last_place(places: Places) -> Path | None:
    """This library's folder among the temporary files; None where somebody else could look into it or has made it."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    library = hashlib.sha256(os.fsencode(places.state)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"nanobanana-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and (os.name == "nt" or (found.st_uid == user and not found.st_mode & 0o077))
    return folder / library if private else None


def _room_path(call_id: str, places: Places) -> Path:
    return places.spool / f".{call_id}.room.tmp"


def _tries_path(call_id: str, places: Places) -> Path:
    return places.spool / f"{call_id}.tries"


def write_thumbnail(image_id: str, data: bytes, extension: str, places: Places) -> Path:
    path = places.thumbnails / f"{image_id}{extension}"
    replace_durably(path, data, flush=False)  # a power cut may take it: it can be made again from the picture
    return path


def write_turn(image_id: str, body: bytes, places: Places) -> None:
    """The model's turn of a picture, so that its conversation can go on later and elsewhere."""
    replace_durably(places.own / "turns" / f"{image_id}.json", body, flush=False)  # without it an edit begins afresh


def read_turn(image_id: str, places: Places) -> bytes | None:
    path = places.own / "turns" / f"{image_id}.json"
    return path.read_bytes() if path.is_file() else None


def write_record(record: ImageRecord, places: Places, *, extra: dict[str, Any] | None = None) -> None:
    """The picture's own record: what a new library is rebuilt from when the database is lost."""
    body = asdict(record) | {"created_at": record.created_at.isoformat()} | (extra or {})
    replace_durably(places.records / f"{record.id}.json", json.dumps(body, ensure_ascii=False, indent=1).encode())


def has_record(image_id: str, places: Places) -> bool:
    return (places.records / f"{image_id}.json").is_file()


def read_record(path: Path) -> ImageRecord | None:
    """The record in a file, None when it is not one of ours."""
    try:
        body = json.loads(_record_bytes(path))
        parents = tuple(Parent(**parent) for parent in body.pop("parents"))
        body["created_at"] = datetime.fromisoformat(body["created_at"])
        known = {name: body[name] for name in ImageRecord.__dataclass_fields__ if name in body}
        record = ImageRecord(**known, parents=parents)
        return record if _is_sound(record) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


def _record_bytes(path: Path) -> bytes:
    """Bounded, and of a plain file only: a pipe would be waited on for ever. Raises OSError or ValueError."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_RECORD_BYTES:
        raise ValueError(f"{path} is no record")
    return path.read_bytes()


def find_in_trash(path: str | None, sha256: str, places: Places) -> Path | None:
    """Where in the trash a picture of this path is: its name may have been numbered there, its bytes are its own."""
    if path is None or not places.trash.is_dir():
        return None
    name = Path(path)
    for found in sorted(places.trash.glob(f"{escape(name.stem)}*{escape(name.suffix)}")):
        data = read_own(found, places)
        if data is not None and hashlib.sha256(data).hexdigest() == sha256:
            return found
    return None


def _is_sound(record: ImageRecord) -> bool:
    """Whether a record read from a file has what the library demands: anybody may have edited the file."""
    words = (record.mime_type, record.sha256, *(parent.image_id for parent in record.parents))
    optional = (record.path, record.thumbnail_path, record.prompt, record.tier, record.model_id, record.call_id)
    chosen = (
        (record.origin, get_args(Origin)),
        (record.mode, (*get_args(Mode), None)),
        (record.backend, (*get_args(Backend), None)),
        *((parent.role, get_args(Role)) for parent in record.parents),
    )
    return (
        isinstance(record.id, str)
        and is_image_id(record.id)
        and all(isinstance(word, str) for word in words)
        and all(word is None or isinstance(word, str) for word in optional)
        and all(word in known for word, known in chosen)
        and all(type(number) is int and 0 <= number < 2**40 for number in (record.width, record.height, record.bytes))
        and record.created_at.tzinfo is not None
        and 2000 < record.created_at.year < 3000
        and "\0" not in (record.path or "")
        and all(is_text(Path(word)) for word in (*words, *(word for word in optional if word)))
    )


@contextmanager
def making(places: Places) -> Iterator[None]:
    """Be the only one, in all processes, that puts files made of other pictures in their place. Raises SetupError."""
    with _only(places, "making.lock", "converting pictures"):
        yield


@contextmanager
def tidying(places: Places) -> Iterator[None]:
    """Held while files move between their places and the trash, by one process at a time: a move half done by another
    looks like one that was cut short. Raises SetupError when another takes too long, or nothing can be written.
    """
    with _only(places, "tidying.lock", "tidying up"):
        yield


@contextmanager
def _only(places: Places, name: str, doing: str) -> Iterator[None]:
    try:
        make_private(places.state)
        lock = FileLock(places.state / name, timeout=TIDY_S, mode=0o600)
        lock.acquire()
    except Timeout as error:
        raise SetupError(f"Another window is {doing}; nothing was changed. Try again when it is done.") from error
    except OSError as error:
        raise SetupError(
            f"The library's folder {places.state} cannot be written ({error.strerror}); nothing was changed."
        ) from error
    try:
        yield
    finally:
        lock.release()


def anybody_alive(places: Places) -> bool:
    """Whether some process has this library open."""
    return how_many_alive(places) > 0


def how_many_alive(places: Places) -> int:
    """How many processes have this library open."""
    return sum(_is_alive(path) for path in (places.state / "processes").glob("*.lock"))


def is_alive(process: str, places: Places) -> bool:
    """Whether the process that called itself so still runs."""
    return _is_alive(places.state / "processes" / f"{process}.lock")


def _is_alive(sign: Path) -> bool:
    """Whether the process of a sign of life still runs."""
    if not sign.exists():
        return _runs(sign.stem)
    try:
        with FileLock(sign, timeout=0, mode=0o600):
            return False
    except Timeout:
        return True
    except OSError as error:
        return error.errno != errno.ENOENT  # on a read-only disk nobody can tell, and nothing is taken over


def _runs(name: str) -> bool:
    """Whether another process that called itself so runs although its sign is gone, which something that cleans up may
    have removed; known where the system tells when a process began, which one that has its number later did not.
    """
    process, _, rest = name.partition("-")
    born = rest.partition("-")[0]
    return process.isdecimal() and int(process) != os.getpid() and born == _born(int(process)) != ""


def _born(process: int) -> str:
    """When a process began, in ticks since the machine did; "" where that cannot be told."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _remove_dead(sign: Path) -> None:
    """Remove the sign of a dead process while it is locked: a process that is just beginning may be about to lock it."""
    with suppress(Timeout, OSError):
        with FileLock(sign, timeout=0, mode=0o600), suppress(OSError):
            sign.unlink()
        if os.name == "nt":  # where a file that is open stays
            sign.unlink()


class ProcessLock:
    """This process's sign of life: a lock that the kernel frees however the process ends.

    `since` is when it began, by the clock of its disk. Raises SetupError where nothing can be written.
    """

    def __init__(self, places: Places) -> None:
        self._folder = places.state / "processes"
        self.name = f"{os.getpid()}-{_born(os.getpid())}-{new_id()}"
        self._sign = self._folder / f"{self.name}.lock"
        self._lock = FileLock(self._sign, mode=0o600)
        try:
            make_private(self._folder)
            self._lock.acquire(timeout=5)
            self.renew()  # another start may have taken the new file for a dead process's before it was locked
            self.since = self._sign.stat().st_mtime
        except OSError as error:
            raise SetupError(
                f"The library's folder {places.state} cannot be written ({error.strerror}); nothing was sent. Make it "
                "writable and make room, or set NANOBANANA_DATABASE_URL to another place."
            ) from error

    def is_alive(self, name: str) -> bool:
        """Whether the process that called itself so still runs."""
        return name == self.name or _is_alive(self._folder / f"{name}.lock")

    def renew(self) -> str:
        """Put the sign back where something that cleans up has removed it; the process's name."""
        if not self._sign.exists():
            self._lock.release()
            with suppress(Timeout, OSError):  # nothing is begun less safely for that than it was until now
                self._lock.acquire(timeout=5)
        return self.name

    def others(self) -> tuple[bool, list[Path]]:
        """Whether other processes run, and the signs of those that were killed."""
        signs = [path for path in self._folder.glob("*.lock") if path != self._sign]
        dead = [path for path in signs if not _is_alive(path)]
        return len(dead) < len(signs), dead

    def sweep(self, dead: list[Path]) -> None:
        """Remove the signs of processes that are gone."""
        for sign in dead:
            _remove_dead(sign)

    def close(self) -> None:
        self._lock.release()
        with suppress(OSError):  # the sweep of a later start tries again
            self._sign.unlink(missing_ok=True)
