"""Holds a folder open by its descriptor, so that a link swapped in meanwhile cannot lead an operation elsewhere."""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

BY_DESCRIPTOR = {os.open, os.mkdir, os.unlink, os.link, os.stat} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_PASSING = getattr(os, "O_PATH", os.O_RDONLY)
"""Passing through a folder needs no permission to list it."""

_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class Folder:
    """An open folder. `path` must be resolved: no component may be a symbolic link, now or when it is opened. On
    Windows, which has no such calls, the same operations work by path. Raises OSError.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._descriptor: int | None = None
        if BY_DESCRIPTOR:
            self._descriptor = _descend(path, create=create)
        elif create:
            path.mkdir(parents=True, exist_ok=True)

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return os.open(self._name(name), flags, mode, dir_fd=self._descriptor)

    def link(self, old: str, new: str) -> None:
        if self._descriptor is None:
            os.link(self._name(old), self._name(new))
        else:
            os.link(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def unlink(self, name: str) -> None:
        """Remove a name; no error when it is not there."""
        try:
            os.unlink(self._name(name), dir_fd=self._descriptor)
        except FileNotFoundError:
            return

    def sync(self) -> None:
        """Make names durable. Windows has no such call, and journals names itself."""
        if self._descriptor is None:
            return
        readable = os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=self._descriptor)
        try:
            os.fsync(readable)
        finally:
            os.close(readable)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _name(self, name: str) -> str:
        return name if self._descriptor is not None else str(self.path / name)


def _descend(path: Path, *, create: bool) -> int:
    """Open a folder component by component, following no link, making what is missing."""
    folder = os.open(path.anchor, _PASSING | _DIRECTORY)
    for part in path.parts[1:]:
        try:
            inner = _open_or_make(part, folder) if create else os.open(part, _PASSING | _DIRECTORY, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _open_or_make(part: str, folder: int) -> int:
    try:
        return os.open(part, _PASSING | _DIRECTORY, dir_fd=folder)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another process may be quicker
            os.mkdir(part, dir_fd=folder)
        return os.open(part, _PASSING | _DIRECTORY, dir_fd=folder)
