"""Tells which processes have this library open, also after one of them was killed."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.ids import new_id
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.writing import make_private


def anybody_alive(places: Places) -> bool:
    """Tells whether some process has this library open."""
    return how_many_alive(places) > 0


def how_many_alive(places: Places) -> int:
    """Counts the processes that have this library open."""
    return sum(_is_alive(path) for path in (places.state / "processes").glob("*.lock"))


def is_alive(process: str, places: Places) -> bool:
    """Tells whether the process with this name still runs."""
    return _is_alive(places.state / "processes" / f"{process}.lock")


def _is_alive(sign: Path) -> bool:
    """Tells whether the process of a lock file still runs."""
    if not sign.exists():
        return _runs(sign.stem)
    try:
        with FileLock(sign, timeout=0, mode=0o600):
            return False
    except Timeout:
        return True
    except OSError as error:
        return error.errno != errno.ENOENT  # on a read-only disk it cannot be told; as if alive, nothing is taken over


def _runs(name: str) -> bool:
    """Tells whether another process with this name runs although its lock file is gone, as a cleaner of temporary files
    may remove it. Known where the system tells when a process began, so that a later process with the same number is
    not mistaken for it.
    """
    process, _, rest = name.partition("-")
    born = rest.partition("-")[0]
    return process.isdecimal() and int(process) != os.getpid() and born == _born(int(process)) != ""


def _born(process: int) -> str:
    """The moment a process began, in clock ticks since the system started; "" where that cannot be told."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _remove_dead(sign: Path) -> None:
    """Remove the lock file of a dead process while holding its lock: a process that is just starting may be about to
    lock it.
    """
    with suppress(Timeout, OSError):
        with FileLock(sign, timeout=0, mode=0o600), suppress(OSError):
            sign.unlink()
        if os.name == "nt":  # Windows does not remove a file that is open
            sign.unlink()


class ProcessLock:
    """This process's lock file; the kernel frees the lock however the process ends. `since` is when it began, by the
    clock of its disk. Raises SetupError where nothing can be written.
    """

    def __init__(self, places: Places) -> None:
        self._folder = places.state / "processes"
        self.name = f"{os.getpid()}-{_born(os.getpid())}-{new_id()}"
        self._sign = self._folder / f"{self.name}.lock"
        self._lock = FileLock(self._sign, mode=0o600)
        try:
            make_private(self._folder)
            self._lock.acquire(timeout=5)
            self.renew()  # another start may have removed the new file as a dead process's, before it was locked
            self.since = self._sign.stat().st_mtime
        except OSError as error:
            raise SetupError(
                f"The library's folder {places.state} cannot be written ({error.strerror}); nothing was sent. Make it "
                "writable and make room, or set NANOBANANA_DATABASE_URL to another place."
            ) from error

    def is_alive(self, name: str) -> bool:
        """Tells whether the process that called itself so still runs."""
        return name == self.name or _is_alive(self._folder / f"{name}.lock")

    def renew(self) -> str:
        """Put the lock file back where a cleaner has removed it; returns the process's name."""
        if not self._sign.exists():
            self._lock.release()
            with suppress(Timeout, OSError):  # without it, this is no less safe than before
                self._lock.acquire(timeout=5)
        return self.name

    def others(self) -> tuple[bool, list[Path]]:
        """Tells whether other processes run, and returns the lock files of those that were killed."""
        signs = [path for path in self._folder.glob("*.lock") if path != self._sign]
        dead = [path for path in signs if not _is_alive(path)]
        return len(dead) < len(signs), dead

    def sweep(self, dead: list[Path]) -> None:
        """Remove the lock files of dead processes."""
        for sign in dead:
            _remove_dead(sign)

    def close(self) -> None:
        self._lock.release()
        with suppress(OSError):  # the sweep of a later start tries again
            self._sign.unlink(missing_ok=True)
