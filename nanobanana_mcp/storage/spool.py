"""Keeps raw answers until their pictures are in the library, so that a paid answer is on the disk however the program
ends.
"""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.writing import make_private, replace_durably, set_room_aside

_PLAINLY = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


class Spool:
    """Raw answers by the id of their call, one file each, and beside it how often recovery has tried it."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def take_room(self, call_id: str, size: int) -> None:
        """Reserve so many bytes on the spool's disk for a call's raw answer, before the call is paid. Raises OSError.

        Scenario: the disk fills while Gemini draws, with the pictures' folder and the spool on it. The answer still has
        its space.
        """
        set_room_aside(self._room(call_id), size)

    def give_room_back(self, call_id: str) -> None:
        with suppress(OSError):  # the sweep of a later start tries again
            self._room(call_id).unlink(missing_ok=True)

    def put(self, call_id: str, raw: bytes) -> Path:
        """Put a raw answer on the disk before anything else is done with it: into its reserved space, else beside the
        pictures, else into a folder of temporary files that only this user can enter.

        Raises the OSError of the first place when none takes it.
        """
        first, *others = self._paths(call_id)
        try:
            replace_durably(first, raw, room=self._room(call_id))
        except OSError as error:
            for path in others:
                with suppress(OSError):
                    replace_durably(path, raw)
                    self.give_room_back(call_id)
                    return path
            raise error from None
        return first

    def path(self, call_id: str) -> Path | None:
        """The file of a call's raw answer; None where there is none."""
        return next((path for path in self._paths(call_id) if path.is_file()), None)

    def read(self, call_id: str) -> bytes | None:
        path = self.path(call_id)
        return path.read_bytes() if path is not None else None

    def calls(self) -> list[str]:
        """Ids of the calls whose raw answer is on the disk."""
        folders = {path.parent for path in self._paths("any")}
        return [
            path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.json") if path.stem[0] != "."
        ]

    def drop(self, call_id: str) -> None:
        for path in self._paths(call_id):
            with suppress(OSError):  # the picture is kept; the sweep of a later start tries again
                path.unlink(missing_ok=True)
        self.forget_tries(call_id)

    def count_try(self, call_id: str) -> int:
        """Count one more attempt of recovery at an answer, since the attempt may kill the process; returns how many
        there were, this one included. Where nothing can be written it counts as the first.
        """
        path = self._tries(call_id)
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

    def forget_tries(self, call_id: str) -> None:
        with suppress(OSError):  # a few bytes more than needed; the sweep of a later start tries again
            self._tries(call_id).unlink(missing_ok=True)

    def folders(self) -> list[Path]:
        """The folders where answers are put, without the one for temporary files."""
        return [self._places.spool, self._places.own / "spool"]

    def _paths(self, call_id: str) -> list[Path]:
        last = self._last_place()
        folders = [*self.folders(), *([last] if last is not None else [])]
        return [folder / f"{call_id}.json" for folder in folders]

    def _last_place(self) -> Path | None:
        """This library's folder for temporary files; None where another user can look into it or has made it."""
        user = os.getuid() if hasattr(os, "getuid") else 0
        library = hashlib.sha256(os.fsencode(self._places.state)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"nanobanana-{user}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
        except OSError:
            return None
        private = stat.S_ISDIR(found.st_mode) and (
            os.name == "nt" or (found.st_uid == user and not found.st_mode & 0o077)
        )
        return folder / library if private else None

    def _room(self, call_id: str) -> Path:
        return self._places.spool / f".{call_id}.room.tmp"

    def _tries(self, call_id: str) -> Path:
        return self._places.spool / f"{call_id}.tries"
