"""Reads the words and the pictures that a verb is given: an argument, a file, stdin or an editor."""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.terms import MAX_FILE_BYTES
from nanobanana_mcp.domain.text import printable, shorten

STDIN = "/dev/stdin"
"""Stands for a lone - on the command line; cyclopts would take that for an option."""

MAX_TEXT_BYTES = 1_000_000
"""The most bytes of a file with words; a prompt has 8192 characters at most, and says so itself."""


def words_from(given: str | None, file: str | None, *, name: str, stdin_is_free: bool, wanted: bool) -> str | None:
    """The words that were given in one of four ways; None when there are none and they are not `wanted`.

    Raises RequestError for two ways at once, for none, and for what is no text.
    """
    if given is not None and file is not None:
        raise RequestError(f"Give {name} as an argument or by --file, not both.")
    if STDIN in (given, file):
        if not stdin_is_free:
            raise RequestError(f"stdin cannot hold both a picture and {name}; give one of them in another way.")
        return _text(sys.stdin.buffer.read(MAX_TEXT_BYTES + 1), f"{name} on stdin")
    if file is not None:
        try:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise RequestError(f"--file {shorten(file)} cannot be read: {error.strerror}.") from error
        return _text(data, f"--file {shorten(file)}")
    if given is not None or not wanted:
        return given
    if sys.stdin is not None and not sys.stdin.isatty() and stdin_is_free:
        return _text(sys.stdin.buffer.read(MAX_TEXT_BYTES + 1), f"{name} on stdin")
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if editor and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        return _edited(editor, name)
    raise RequestError(f"There is no {name}: give it as an argument, by --file or on stdin, or set EDITOR to write it.")


def _text(data: bytes, what: str) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise RequestError(f"{what} is longer than {MAX_TEXT_BYTES} bytes.")
    try:
        found = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise RequestError(f"{what} is no text in UTF-8.") from None
    if not found:
        raise RequestError(f"{what} is empty; nothing was sent.")
    return found


def _edited(editor: str, name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="nanobanana-") as folder:
        path = Path(folder, f"{name}.txt")
        path.touch(0o600)
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)  # noqa: S603  # the person's own editor
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise RequestError(
                f"The editor {shorten(editor)} failed ({printable(error)}); nothing was sent."
            ) from error
        return _text(path.read_bytes(), f"The {name} in the editor")


class Piped:
    """The picture on stdin, kept in the output folder under the name of its content, so that pictures made of it can
    name it as their source.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: Path | None = None

    def keep(self) -> str:
        """Keeps the picture and returns its path. Raises RequestError for no bytes, or more than a picture has."""
        if sys.stdin.isatty():
            raise RequestError("- means the picture on stdin, and stdin is a terminal; send it there: - < picture.png")
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        if not data:
            raise RequestError("- means the picture on stdin, and nothing came there.")
        if len(data) > MAX_FILE_BYTES:
            raise RequestError(
                f"What came on stdin has more than {MAX_FILE_BYTES // 2**20} MiB; make it smaller first."
            )
        path = self._folder / "stdin" / f"picture-{hashlib.sha256(data).hexdigest()[:16]}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self._made = path
                with path.open("xb") as opened:
                    opened.write(data)
                    opened.flush()
                    os.fsync(opened.fileno())
        except OSError as error:
            self.drop()
            raise RequestError(f"The picture on stdin cannot be kept as {path}: {error.strerror}.") from error
        return str(path)

    def drop(self) -> None:
        """Deletes the file again when nothing was made of it."""
        if self._made is not None:
            with suppress(OSError):
                self._made.unlink()
                self._made.parent.rmdir()
