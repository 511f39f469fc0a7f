"""Writes for the verbs: data on stdout, words and progress on stderr."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from nanobanana_mcp.domain.text import printable


def write_lines(lines: Iterable[str]) -> None:
    """Writes each as one line on stdout: a path in the very bytes of its name, and what the locale cannot spell as
    UTF-8. Raises OSError when stdout takes nothing more.
    """
    write_data("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def write_json(structure: Mapping[str, Any]) -> None:
    write_data(f"{json.dumps(structure, indent=2, ensure_ascii=False)}\n".encode(errors="replace"))


def write_data(data: bytes) -> None:
    sys.stdout.flush()
    if not hasattr(sys.stdout, "buffer"):  # replaced where the output is captured
        sys.stdout.write(data.decode())
        return
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def shown(text: str) -> str:
    """The text as a terminal may have it: line by line, without what would move the cursor or change its colours."""
    return "\n".join(printable(line) for line in text.split("\n"))


def tell(text: str) -> None:
    """Writes words for a person on stderr; letters that it cannot spell are escaped, and a closed stderr is no error."""
    try:
        sys.stderr.write(f"{shown(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def let_go_of_stdout() -> None:
    """Keeps Python from complaining at its exit that the reader of stdout has left."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.close(sink)


def progress_bar(console: Console, last: ProgressColumn) -> Progress:
    """A bar that moves and vanishes at its end; nothing where `console` is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        last,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Bar:
    """A moving bar on stderr from the first news of a call on; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._bar = progress_bar(Console(stderr=True), TimeElapsedColumn())
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    async def report(self, done: float, total: float, words: str) -> None:
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total, description=printable(words))

    def say(self, text: str) -> None:
        """Says words beside the bar."""
        self._bar.stop()
        tell(text)
