"""The files of one installation: the pictures' folder and the library's, and all reading and writing there.

All of the program's own files go through a `Disk`. A path that a caller names is judged in `paths`; `reading` reads
there and `writing` writes there.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.ids import ALPHABET
from nanobanana_mcp.domain.plan import Target
from nanobanana_mcp.storage.paths import Places, plan_target
from nanobanana_mcp.storage.processes import ProcessLock, is_alive
from nanobanana_mcp.storage.reading import read_input, read_own
from nanobanana_mcp.storage.sidecars import Sidecars
from nanobanana_mcp.storage.spool import Spool
from nanobanana_mcp.storage.writing import make_private, replace_durably

_UNFINISHED = re.compile(r"\..*\.tmp", re.DOTALL)
_UNFINISHED_PICTURE = re.compile(rf"\.img_[{ALPHABET}]{{16}}\.tmp")
"""The temporary file that `write_new` fills before the picture gets its name; it may lie among the user's own files."""

TIDY_S = 30
"""Seconds that one process waits for another that is tidying up."""


class Disk:
    """`places` are the folders, `spool` the raw answers, `sidecars` what lies beside each picture."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.spool = Spool(places)
        self.sidecars = Sidecars(places)

    def target(self, output_path: str | None) -> Target:
        """The target that a caller's output_path names; see `plan_target`."""
        return plan_target(output_path, self.places)

    def read_input(self, text: str, *, may_be_made: Callable[[int], bool] = lambda _size: False) -> tuple[Path, bytes]:
        """A picture that a caller named; see `reading.read_input`."""
        return read_input(text, self.places, may_be_made=may_be_made)

    def read_own(self, path: Path) -> bytes | None:
        """The bytes of a picture of the library, None when it is no longer there or is no plain file."""
        return read_own(path, self.places)

    def has(self, path: Path, sha256: str) -> bool:
        """Tells whether a plain file with these contents is there."""
        data = self.read_own(path)
        return data is not None and hashlib.sha256(data).hexdigest() == sha256

    def process_lock(self) -> ProcessLock:
        """Create this process's lock file. Raises SetupError where nothing can be written."""
        return ProcessLock(self.places)

    def is_alive(self, process: str) -> bool:
        """Tells whether the process with this name still runs."""
        return is_alive(process, self.places)

    def find_in_trash(self, path: str | None, sha256: str) -> Path | None:
        """Finds the file in the trash of the picture that had this path: its name may have got a number there, so its
        bytes decide.
        """
        trash = self.places.trash
        if path is None or not trash.is_dir():
            return None
        name = Path(path)
        alike = sorted(trash.glob(f"{escape(name.stem)}*{escape(name.suffix)}"))
        return next((found for found in alike if self.has(found, sha256)), None)

    def note_folder(self, folder: Path) -> None:
        """Remember that something is about to be written into a folder that is not ours. Raises OSError.

        Scenario: a kill leaves a temporary file there beside the user's files, and nothing else would ever look for it.
        """
        if folder.is_relative_to(self.places.output):
            return
        note = self._noted_folders / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        if not note.exists():
            make_private(note.parent)
            replace_durably(note, os.fsencode(folder))

    def drop_unfinished(self, *, before: float) -> None:
        """Remove temporary files older than a time (seconds since 1970): in our own folders, beside the pictures in the
        output folder, and in every folder of `note_folder`. Every process that wrote
        before that time must have ended.
        """
        own = [path for path in _entries(self.places.own) if path.is_dir()]
        folders = dict.fromkeys([*self.spool.folders(), *own])
        left = [path for folder in folders for path in _entries(folder) if _UNFINISHED.fullmatch(path.name)]
        for folder, inner, names in os.walk(self.places.output):
            inner[:] = [name for name in inner if not name.startswith(".")]
            left += [Path(folder, name) for name in names if _UNFINISHED_PICTURE.fullmatch(name)]
        for note in _entries(self._noted_folders):
            with suppress(OSError):  # a folder that is gone needs nothing; one we may not enter is left alone
                noted = Path(os.fsdecode(note.read_bytes()))
                left += [path for path in noted.iterdir() if _UNFINISHED_PICTURE.fullmatch(path.name)]
        for path in left:
            with suppress(OSError):
                if path.lstat().st_mtime < before:
                    path.unlink()

    @contextmanager
    def making(self) -> Iterator[None]:
        """Hold the lock, over all processes, for writing files derived from other pictures. Raises SetupError."""
        with self._only("making.lock", "converting pictures"):
            yield

    @contextmanager
    def tidying(self) -> Iterator[None]:
        """Hold the lock, over all processes, for moving files to and from the trash: a move that another process has
        half done looks like one that was cut short.

        Raises SetupError when another process takes too long, or nothing can be written.
        """
        with self._only("tidying.lock", "tidying up"):
            yield

    @contextmanager
    def _only(self, name: str, doing: str) -> Iterator[None]:
        state = self.places.state
        try:
            make_private(state)
            lock = FileLock(state / name, timeout=TIDY_S, mode=0o600)
            lock.acquire()
        except Timeout as error:
            raise SetupError(f"Another window is {doing}; nothing was changed. Try again when it is done.") from error
        except OSError as error:
            raise SetupError(
                f"The library's folder {state} cannot be written ({error.strerror}); nothing was changed."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def _noted_folders(self) -> Path:
        return self.places.state / "folders"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
