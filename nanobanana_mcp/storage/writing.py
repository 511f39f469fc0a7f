"""Writes files whole or not at all. A picture never replaces a file (`write_new`); the studio's own state may (`replace_durably`)."""

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.storage.safe_folder import Folder

MAX_NAMES = 10_000
_NO_ROOM_CALL = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Errors that mean that a file system has no hard links (FAT, some network drives)."""
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY


def write_new(
    folder: Path, stem: str, extension: str, data: bytes, *, key: str, written_after: float | None = None
) -> Path:
    """Write bytes under a free name: `stem.ext`, else `stem-2.ext` and so on. Raises OSError.

    A hidden temporary file is filled, flushed to the disk and then linked to its name, which fails instead of
    overwriting; the folder is flushed last. `key` is unique to what is written and names the temporary file, so that a
    repetition removes what an attempt that was cut short has left. In a repetition, `written_after` (seconds since
    1970) accepts a file with the same bytes written since then as the first attempt's own.
    """
    temporary = f".{key}.tmp"
    with Folder(folder, create=True) as held:
        held.unlink(temporary)
        mine = [temporary]
        try:
            _fill(held.open(temporary, _NEW, 0o666), data)
            for number in range(1, MAX_NAMES):
                final = f"{stem}{extension}" if number == 1 else f"{stem}-{number}{extension}"
                if _claim(held, temporary, final, data):
                    mine.append(final)
                    break
                if written_after is not None and _is_ours(held, final, data, written_after):
                    break
            else:
                raise FileExistsError(errno.EEXIST, "every numbered name is taken", str(folder / stem))
            held.unlink(temporary)
            held.sync()
        except OSError:
            for name in mine:  # a caller that catches this writes elsewhere, and the picture must not be there twice
                with suppress(OSError):
                    held.unlink(name)
            raise
    return folder / final


def write_new_in_any(
    folders: Iterable[Path], stem: str, extension: str, data: bytes, *, key: str, written_after: float | None = None
) -> Path | None:
    """Writes as `write_new` does, into the first of the folders that takes it; None when none does."""
    for folder in folders:
        try:
            return write_new(folder, stem, extension, data, key=key, written_after=written_after)
        except OSError:
            continue
    return None


def replace_durably(
    path: Path, data: bytes, *, flush: bool = True, room: Path | None = None, mode: int = 0o600
) -> None:
    """Write a file of our own state, replacing the one that was there, whole or not at all. It is private to the user
    unless `mode` says otherwise, and durable unless `flush` is false. `room` is a file in the same folder made by
    `set_room_aside`: the bytes go into it, so that a disk that has become full still takes them.
    """
    make_private(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        if room is not None and room.exists():
            temporary = room
            descriptor = os.open(room, os.O_WRONLY | flags)
            _fill(descriptor, data, flush=flush, cut=True)
        else:
            _fill(os.open(temporary, _NEW | flags, 0o600), data, flush=flush)
        if mode != 0o600:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if flush:
        with Folder(path.parent.resolve()) as held:
            held.sync()


def write_private(path: Path, data: bytes) -> None:
    """Write a new file for the user alone. Raises FileExistsError when there is one; an incomplete file is removed."""
    descriptor = os.open(path, _NEW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o600)
    try:
        _fill(descriptor, data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def set_room_aside(room: Path, size: int) -> None:
    """Make a file for `replace_durably` that reserves `size` bytes of the disk. Raises OSError when there is not so
    much space. On systems that cannot reserve space without writing it (macOS, Windows, some file systems), none is
    reserved.
    """
    make_private(room.parent)
    descriptor = os.open(room, _NEW | getattr(os, "O_CLOEXEC", 0), 0o600)
    held = False
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
            held = True
    except OSError as error:
        if error.errno not in _NO_ROOM_CALL:
            raise
    finally:
        os.close(descriptor)
        if not held:
            room.unlink(missing_ok=True)


def make_private(folder: Path) -> None:
    """Make a folder of our own state, with those above it that are missing, for the user alone."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def move_new(source: Path, folder: Path, name: str) -> Path:
    """Move a file within one disk to a free name, never over another. Raises OSError. A target that is the same file
    already, because a move was cut short between its two names, is accepted.
    """
    stem, extension = Path(name).stem, Path(name).suffix
    with Folder(folder, create=True) as held, Folder(source.parent) as left:
        for number in range(1, MAX_NAMES):
            final = name if number == 1 else f"{stem}-{number}{extension}"
            try:
                os.link(source, folder / final)
            except FileExistsError:
                if not is_same_file(source, folder / final):
                    continue
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if (folder / final).exists():
                    continue
                source.rename(folder / final)
            held.sync()
            left.unlink(source.name)
            left.sync()
            return folder / final
    raise FileExistsError(errno.EEXIST, "every numbered name is taken", str(folder / name))


def free_name(path: Path, source: Path, promised: Collection[Path] = ()) -> Path:
    """The path where `move_new` would put the file `source` now, with the names in `promised` counted as taken."""
    names = (path if number == 1 else path.with_stem(f"{path.stem}-{number}") for number in range(1, MAX_NAMES))
    free = (one for one in names if one not in promised and (not os.path.lexists(one) or is_same_file(source, one)))
    return next(free, path)


def is_same_file(one: Path, other: Path) -> bool:
    """Tells whether two names are those of one plain file."""
    try:
        first, second = one.lstat(), other.lstat()
    except OSError:
        return False
    return stat.S_ISREG(first.st_mode) and os.path.samestat(first, second)


def drop_name(path: Path, kept: Path) -> None:
    """Remove one of a file's two names once the other is durable. Raises OSError."""
    with Folder(kept.parent) as held, Folder(path.parent) as left:
        held.sync()
        left.unlink(path.name)
        left.sync()


def check_room(needed: int, folder: Path, state: Path | None = None) -> None:
    """Raise SetupError when the disk of `folder` (the pictures) or of `state` (the library) has fewer than `needed`
    bytes free or cannot be written.
    """
    _check_disk(needed, folder, "NANOBANANA_OUTPUT_DIR or output_path")
    if state is not None:
        _check_disk(needed, state, "NANOBANANA_DATABASE_URL")


def _check_disk(needed: int, folder: Path, named_by: str) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        raise SetupError(
            f"The folder {folder} cannot be made, because {existing} is a file; nothing was sent. Name another folder by "
            f"{named_by}."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SetupError(
            f"The folder {folder} cannot be written, so a picture could not be kept; nothing was sent. "
            f"Make it writable, or name another by {named_by}."
        )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SetupError(
            f"The disk that holds {folder} has {free / 1e6:.0f} MB left; {needed / 1e6:.0f} MB must be free before "
            f"a picture is paid for. Free some space, or name another folder by {named_by}."
        )


def _fill(descriptor: int, data: bytes, *, flush: bool = True, cut: bool = False) -> None:
    """Write all bytes, flush them to the disk and close; `cut` truncates a reserved file to them."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if cut:
            os.ftruncate(descriptor, len(data))
        if flush:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claim(folder: Folder, temporary: str, final: str, data: bytes) -> bool:
    """Give a finished file its name, False when the name is taken."""
    try:
        folder.link(temporary, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _claim_by_copy(folder, final, data)
    return True


def _claim_by_copy(folder: Folder, final: str, data: bytes) -> bool:
    """Takes the name exclusively, then fills the file, for disks without hard links (FAT, some network drives)."""
    try:
        descriptor = folder.open(final, _NEW, 0o666)
    except FileExistsError:
        return False
    try:
        _fill(descriptor, data)
    except OSError:
        folder.unlink(final)
        raise
    return True


def _is_ours(folder: Folder, name: str, data: bytes, written_after: float) -> bool:
    try:
        descriptor = folder.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(data) or found.st_mtime < written_after:
            return False
        return file.read() == data
