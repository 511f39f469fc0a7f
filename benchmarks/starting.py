"""Measures how fast a server starts, the memory it then holds, how fast it leaves, and the first picture of all."""

import time
from collections.abc import Iterator

from benchmarks.bench import Bench, medians
from benchmarks.contestants import wish
from benchmarks.results import Goal, Result
from benchmarks.server import Server

SETTLED_S = 3.0
"""Seconds without a request after which everything that a server does behind its list of tools is done."""


def spawn(bench: Bench) -> Iterator[Result]:
    """Measures the time from the birth of the process to the list of its tools, its idle memory, and the time from the
    end of stdin to the end.
    """
    contestants = bench.contestants(with_bare=True)
    names = [one.name for one in contestants]
    listed: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    resident: dict[str, list[float]] = {name: [] for name in names}
    settled: dict[str, list[float]] = {name: [] for name in names}
    leaving: dict[str, list[float]] = {name: [] for name in names}
    at_once: dict[str, list[float]] = {name: [] for name in names}
    rounds = bench.rounds(15, 2)
    for number in range(-1, rounds.stop):
        for one in contestants:
            server = Server(one, bench.folder / "spawn" / one.name)
            seconds, used = server.greet().seconds, server.cpu_s
            early = server.resident
            if number < 0 or number % 3 == 0:
                time.sleep(SETTLED_S)
                late, left = server.resident, server.leave()
                if number >= 0:
                    settled[one.name].append(late)
                    leaving[one.name].append(left)
            else:
                left = server.leave()
                at_once[one.name].append(left)
            if number >= 0:
                listed[one.name].append(seconds)
                cpu[one.name].append(used)
                resident[one.name].append(early)
    figures = medians(listed)
    yield Result(
        job="spawn to tools/list",
        unit="ms",
        ours=figures.pop("ours"),
        beside=figures,
        goals=(Goal(most=0.8, of="bare"), Goal(most=0.5, of="peer")),
        detail={"cpu_ms": medians(cpu), "all": listed},
    )
    for job, values in (("memory when listed", resident), ("memory idle after 3 s", settled)):
        figures = medians(values, scale=1e-6)
        yield Result(job=job, unit="MB", ours=figures.pop("ours"), beside=figures, goals=(Goal(most=1.1, of="bare"),))
    figures = medians(leaving)
    yield Result(
        job="exit after stdin closes, idle",
        unit="ms",
        ours=figures.pop("ours"),
        beside=figures,
        goals=(Goal(most=60),),
        detail={"right_after_the_list_ms": medians(at_once)},
    )


def first_picture(bench: Bench) -> Iterator[Result]:
    """Measures the time from the birth of the process to the first picture, in a library that exists."""
    bench.gemini.answer_with("1K JPEG")
    contestants = bench.contestants()
    figures: dict[str, list[float]] = {one.name: [] for one in contestants}
    cpu: dict[str, list[float]] = {one.name: [] for one in contestants}
    for number in range(-1, bench.rounds(9, 2).stop):
        for one in contestants:
            with Server(one, bench.folder / "first" / one.name) as server:
                server.greet()
                server.call("generate_image", dict(wish(one.name, "1K JPEG", number)))
                seconds = time.perf_counter() - server.born
                if number >= 0:
                    figures[one.name].append(seconds)
                    cpu[one.name].append(server.cpu_s)
    middle = medians(figures)
    yield Result(
        job="first picture after a cold start",
        unit="ms",
        ours=middle.pop("ours"),
        beside=middle,
        goals=(Goal(most=0.75, of="peer"),),
        detail={"cpu_ms": medians(cpu), "all": figures},
    )
