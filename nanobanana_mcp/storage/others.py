"""Changes a file of another program, whole or not at all and one change at a time, and keeps a copy of what was there
before.
"""

import errno
import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from nanobanana_mcp.storage.writing import make_private, replace_durably, write_private

_TRIES = 20


class LeftAlone(Exception):
    """A file that is not changed, with the reason in words."""


def read_other(path: Path) -> bytes:
    """The bytes of a file, none where there is no file. Raises LeftAlone where something else is in its place."""
    try:
        if path.is_dir():
            raise LeftAlone(f"{path} is a folder, where a file belongs")
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LeftAlone(f"{path} cannot be read ({error.strerror})") from None


def change_other(path: Path, change: Callable[[bytes], bytes], *, lock: Path, secret: bool = False) -> Path | None:
    """Replace the bytes of a file by what `change` makes of them, and return the path of the copy of what was there,
    None without one.

    Links are followed and kept, and so is the file's mode; the copy is for this user alone, since other programs keep keys
    in such files. A `secret` is for this user alone, too, and of what it was before no copy is left. `lock` is a file that
    all who change files of others wait for. Raises LeftAlone.
    """
    try:
        where = path.resolve()
    except (OSError, RuntimeError):
        raise LeftAlone(f"{path} is a link that leads in a circle") from None
    try:
        make_private(lock.parent)
        with FileLock(lock, mode=0o600):
            for _ in range(_TRIES):
                before = read_other(where)
                after = change(before)
                if after == before:
                    return None
                mode = _writable_mode(where)
                copy = _keep_copy(where, before) if before and not secret else None
                if read_other(where) == before:  # the other program may write it meanwhile, and then it is read again
                    replace_durably(where, after, mode=0o600 if secret else mode)
                    return copy
                if copy is not None:
                    copy.unlink()
    except OSError as error:
        raise LeftAlone(f"{error.filename or where} cannot be written ({error.strerror})") from None
    raise LeftAlone(f"{path} is changed by another program all the time; end that program first")


def copy_of_other(path: Path) -> Path | None:
    """Keep what a file has now beside it, before its own program changes it; None where there is nothing. Raises LeftAlone."""
    data = read_other(path)
    try:
        return _keep_copy(path.resolve(), data) if data else None
    except OSError as error:
        raise LeftAlone(f"{path.parent} cannot be written ({error.strerror})") from None


def _writable_mode(path: Path) -> int:
    """The mode that the new file gets. A file that nobody may write was made so on purpose, and root could still replace it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0o600
    if not mode & 0o222:
        raise LeftAlone(f"{path} is read-only")
    return mode


def _keep_copy(path: Path, data: bytes) -> Path:
    """Write what was there beside it, under a name with the time of day, readable for this user alone."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d_%H%M%S")
    for number in range(1, 1000):
        copy = path.with_name(f"{path.name}.{stamp}{'' if number == 1 else f'-{number}'}.bak")
        try:
            write_private(copy, data)
        except FileExistsError:
            continue
        return copy
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(copy))
