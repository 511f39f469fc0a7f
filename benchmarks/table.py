"""Prints how answers of each kind come out on photographs, at each level of drift; the tables of three benchmarks."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.photographs import Photograph, files
from nanobanana_mcp.emulator.drift import LEVELS


class Row(Protocol):
    """One answer and what became of it; `tuned` says that its photograph is of the half to set thresholds by."""

    @property
    def kind(self) -> str: ...
    @property
    def level(self) -> str: ...
    @property
    def tuned(self) -> bool: ...


R = TypeVar("R", bound=Row)
Tried = Callable[[Photograph, Photograph, Sequence[str], Sequence[str]], Iterator[R]]
"""Tries a photograph, with another one at hand, at levels and with kinds of answers."""


def run(name: str, about: str | None, kinds: Sequence[str], tried: Tried[R], *, heading: str, line: Callable[[list[R]], str]) -> None:  # fmt: skip
    """Read the command line, try each photograph, and print one line for each kind and level, the two halves apart."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", help="a photograph by name; may be given several times")
    parser.add_argument("--half", choices=("tuned", "other"), help="one half of the photographs alone")
    parser.add_argument("--level", action="append", choices=LEVELS)
    parser.add_argument("--kind", action="append", choices=kinds)
    parser.add_argument("--each", action="store_true", help="a line for each answer as well")
    asked = parser.parse_args()
    levels, wanted = asked.level or list(LEVELS), asked.kind or kinds
    found = files(asked.folder)
    rows: list[R] = []
    for number, photograph in enumerate(found):
        if asked.only and photograph.name not in asked.only:
            continue
        if asked.half and photograph.tuned != (asked.half == "tuned"):
            continue
        for row in tried(photograph, found[(number + 5) % len(found)], levels, wanted):
            rows.append(row)
            if asked.each:
                sys.stderr.write(f"{photograph.name}: {row}\n")
        sys.stderr.write(f"{photograph.name}\n")
        sys.stderr.flush()
    sys.stdout.write(f"{heading}\n")
    for tuned in (True, False):
        sys.stdout.write("The half to set thresholds by\n" if tuned else "The other half\n")
        for kind in wanted:
            for level in levels:
                some = [row for row in rows if (row.kind, row.level, row.tuned) == (kind, level, tuned)]
                if some:
                    sys.stdout.write(f"{line(some)}\n")
