"""Reads a file that a caller named: by descriptor, so that what was checked is what is read."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from nanobanana_mcp.domain.errors import NotAllowed, SourceNotFound
from nanobanana_mcp.domain.terms import MADE_BYTES, MAX_FILE_BYTES
from nanobanana_mcp.domain.text import printable, shorten
from nanobanana_mcp.storage.paths import Places, absolute, check_readable, is_database
from nanobanana_mcp.storage.safe_folder import Folder

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe is refused below, never waited on
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_input(
    text: str, places: Places, *, may_be_made: Callable[[int], bool] = lambda _size: False
) -> tuple[Path, bytes]:
    """The resolved path and the bytes of a picture that a caller named.

    Symbolic links are followed once, the rules are applied to where they lead, and the file is then opened component
    by component without following any: a link that is swapped in meanwhile is refused, not read. `may_be_made` says
    whether a picture of so many bytes was made here: then it may be as large as that, and its content has to tell.
    Raises SourceNotFound, NotAllowed or RequestError.
    """
    path = absolute(text, places.base)
    try:
        resolved = Path(os.path.realpath(path, strict=True))  # Path.resolve reports a circle as RuntimeError
    except OSError as error:
        raise _not_found(text, path, error) from error
    check_readable(resolved, places)
    try:
        descriptor = _open_without_links(resolved)
    except OSError as error:
        raise _not_found(text, resolved, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, socket or device"
            raise SourceNotFound(f"{printable(resolved)} is a {kind}; name an image file.")
        most = MAX_FILE_BYTES
        if most < found.st_size <= MADE_BYTES and may_be_made(found.st_size):
            most = found.st_size
        if found.st_size > most:
            raise too_large(resolved, found.st_size)
        data = _read_bounded(descriptor, most + 1)
    except OSError as error:
        raise _not_found(text, resolved, error) from error
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise NotAllowed(f"{printable(resolved)} grew beyond {most // 2**20} MiB while it was read.")
    if not data:
        raise SourceNotFound(f"{printable(resolved)} is empty.")
    return resolved, data


def too_large(path: Path, size: int) -> NotAllowed:
    return NotAllowed(
        f"{printable(path)} has {size / 1e6:.0f} MB; at most {MAX_FILE_BYTES // 2**20} MiB are read. Make it smaller first."
    )


def read_own(path: Path, places: Places) -> bytes | None:
    """The bytes of a picture of the library, None when it is no longer there or is no plain file."""
    if is_database(path, places):  # its name now leads there; opening and closing it would drop our locks on it
        return None
    try:
        descriptor = os.open(path, _FLAGS | _NO_FOLLOW)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MADE_BYTES:
            return None
        return _read_bounded(descriptor, found.st_size + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _read_bounded(descriptor: int, limit: int) -> bytes:
    parts = bytearray()
    while len(parts) < limit:
        part = os.read(descriptor, min(limit - len(parts), 1 << 22))
        if not part:
            break
        parts += part
    return bytes(parts)


def _open_without_links(path: Path) -> int:
    if len(path.parts) < 2:
        return os.open(path, _FLAGS)
    with Folder(path.parent) as folder:
        return folder.open(path.name, _FLAGS)


def _not_found(text: str, path: Path, error: OSError) -> SourceNotFound | NotAllowed:
    shown = shorten(text)
    if error.errno in (errno.EACCES, errno.EPERM):
        return SourceNotFound(
            f"The image {shown} may not be read by this user; check the permissions of {printable(path)}."
        )
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return NotAllowed(
            f"The image {shown} leads through a symbolic link that changed or loops; name the file itself."
        )
    if error.errno == errno.ENAMETOOLONG:
        return SourceNotFound(f"The image {shown} has a name that is too long to exist.")
    if error.errno == errno.EINVAL:
        return SourceNotFound(f"The image {shown} is not a usable path; name an image file.")
    if error.errno in (errno.ENXIO, errno.ENODEV):
        return SourceNotFound(f"{printable(path)} is a pipe, socket or device; name an image file.")
    if error.errno == errno.ENOENT:
        where = f" (looked at {printable(path)})" if str(path) != text else ""
        return SourceNotFound(
            f"There is no image {shown}{where}. Give an absolute path, a files/... id or an img_... id."
        )
    return SourceNotFound(f"The image {shown} cannot be read: {error.strerror}.")
