"""The bench: the emulator, a folder to work in, and servers that take turns."""

import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import bare, ours, peer
from benchmarks.gemini import Gemini
from benchmarks.server import Contestant, Server


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The settings that every job of a run is given; `quick` asks for the fewest rounds that still give a figure."""

    gemini: Gemini
    folder: Path
    quick: bool
    with_peer: bool

    def contestants(self, *, with_bare: bool = False) -> list[Contestant]:
        """Ours first, then those it is compared with."""
        found = [ours(self.gemini.url)]
        if with_bare:
            found.append(bare())
        if self.with_peer:
            found.append(peer(self.gemini.url))
        return found

    def rounds(self, full: int, quick: int) -> range:
        return range(quick if self.quick else full)

    @contextmanager
    def servers(self, job: str, contestants: Iterable[Contestant]) -> Iterator[dict[str, Server]]:
        """Servers that have listed their tools, by name; closed at the end."""
        with ExitStack() as stack:
            running = {}
            for one in contestants:
                running[one.name] = stack.enter_context(Server(one, self.folder / job / one.name))
                running[one.name].greet()
            yield running


def medians(figures: dict[str, list[float]], *, scale: float = 1000) -> dict[str, float]:
    """The median of each list; seconds become milliseconds."""
    return {name: statistics.median(values) * scale for name, values in figures.items() if values}


def alternate(rounds: range, turns: dict[str, Callable[[int], float]]) -> dict[str, list[float]]:
    """Let everyone take a turn in each round, and keep what each turn returned; the first round warms up."""
    figures: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(-1, rounds.stop):
        for name, turn in turns.items():
            figure = turn(number)
            if number >= 0:
                figures[name].append(figure)
    return figures
