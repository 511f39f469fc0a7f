"""Measures pictures one at a time, several in one call, several calls at once, and hundreds in a row."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bench import Bench, alternate, medians
from benchmarks.contestants import wish
from benchmarks.floor import STEPS, keep_one
from benchmarks.results import Goal, Result
from benchmarks.samples import Sample, sample
from benchmarks.server import Server

LATENCY_S = 1.0
STATISTICS = {"ours": "output_stats", "peer": "show_output_stats"}


def one_picture(bench: Bench) -> Iterator[Result]:
    """One picture of each kind at latency 0: a whole call of the tool, beside the peer and the floor."""
    kinds: dict[Sample, tuple[int, tuple[Goal, ...]]] = {
        "1K JPEG": (31, (Goal(most=1.3, of="peer"), Goal(most=3.0, of="floor"))),
        "4K JPEG": (11, (Goal(most=0.8, of="peer"), Goal(most=1.3, of="floor"))),
        "4K PNG": (7, (Goal(most=0.8, of="peer"), Goal(most=1.3, of="floor"))),
    }
    with bench.servers("one", bench.contestants()) as servers:
        for kind, (rounds, goals) in kinds.items():
            bench.gemini.answer_with(kind)
            cpu: dict[str, list[float]] = {name: [] for name in servers}
            steps: dict[str, list[float]] = {step: [] for step in STEPS}
            turns = {name: _turn(server, kind, cpu[name]) for name, server in servers.items()}
            turns["floor"] = _floor(bench, kind, steps)
            figures = alternate(bench.rounds(rounds, 2), turns)
            middle = medians(figures)
            detail = {"cpu_ms": medians(cpu), "floor_ms": medians(steps), "all": figures}
            detail["megabytes"] = len(sample(kind).data) / 1e6
            yield Result(
                job=f"one {kind} picture", unit="ms", ours=middle.pop("ours"), beside=middle, goals=goals, detail=detail
            )


def several(bench: Bench) -> Iterator[Result]:
    """n pictures in one call at one second of latency."""
    bench.gemini.answer_with("1K JPEG", latency_s=LATENCY_S)
    with bench.servers("several", bench.contestants()) as servers:
        for n in (4, 8):
            able = [server for name, server in servers.items() if name == "ours" or n <= 4]
            turns = {server.name: _turn(server, "1K JPEG", [], n=n) for server in able}
            middle = medians(alternate(bench.rounds(5, 1), turns))
            yield Result(
                job=f"n = {n} at 1 s latency",
                unit="ms",
                ours=middle.pop("ours"),
                beside=middle,
                goals=(Goal(most=1150),),
            )


def at_once(bench: Bench) -> Iterator[Result]:
    """Eight calls at once at one second of latency, and what else the server answers meanwhile."""
    bench.gemini.answer_with("1K JPEG", latency_s=LATENCY_S)
    with bench.servers("at_once", bench.contestants()) as servers:
        waits: dict[str, dict[str, list[float]]] = {name: {} for name in servers}
        turns = {name: _crowd(server, waits[name]) for name, server in servers.items()}
        middle = medians(alternate(bench.rounds(5, 1), turns))
    yield Result(
        job="8 calls at once at 1 s latency",
        unit="ms",
        ours=middle.pop("ours"),
        beside=middle,
        goals=(Goal(most=1250),),
    )
    for what in ("tools/list", "output_stats"):
        worst = {name: 1000 * max(found[what]) for name, found in waits.items() if found.get(what)}
        usual = {name: sorted(found[what])[len(found[what]) // 2] * 1000 for name, found in waits.items()}
        yield Result(
            job=f"{what} meanwhile, the slowest",
            unit="ms",
            ours=worst.pop("ours"),
            beside=worst,
            goals=(Goal(most=50),),
            detail={"median_ms": usual},
        )


def many(bench: Bench) -> Iterator[Result]:
    """Memory over hundreds of pictures in a library that exists: each stretch's peak, and how it grew after ten."""
    with bench.servers("many", bench.contestants()) as servers:
        for name, server in servers.items():
            server.call(STATISTICS[name], {})
    with bench.servers("many", bench.contestants()) as servers:
        stretches: dict[Sample, int] = {"4K JPEG": 50, "4K PNG": 50, "1K JPEG": 500}
        for kind, full in stretches.items():
            bench.gemini.answer_with(kind)
            peaks: dict[str, float] = {}
            growth: dict[str, float] = {}
            cpu: dict[str, list[float]] = {name: [] for name in servers}
            count = bench.rounds(full, 12).stop
            for name, server in servers.items():
                server.forget_peak()
                turn = _turn(server, kind, cpu[name])
                for number in range(count):
                    turn(number)
                    if number == 9:
                        early = server.peak
                peaks[name], growth[name] = server.peak / 1e6, server.peak / early
            ours = peaks.pop("ours")
            yield Result(
                job=f"memory, {count} x {kind}",
                unit="MB",
                ours=ours,
                beside=peaks,
                goals=(Goal(most=1.0, of="peer"),),
                detail={"cpu_ms": medians(cpu)},
            )
            grown = growth.pop("ours")
            yield Result(
                job="   growth after the first ten", unit="x", ours=grown, beside=growth, goals=(Goal(most=1.05),)
            )


def _turn(server: Server, kind: Sample, cpu: list[float], *, n: int = 1) -> Callable[[int], float]:
    def turn(number: int) -> float:
        before = server.cpu_s
        seconds = server.call("generate_image", dict(wish(server.name, kind, number, n=n))).seconds
        cpu.append(server.cpu_s - before)
        return seconds

    return turn


def _floor(bench: Bench, kind: Sample, steps: dict[str, list[float]]) -> Callable[[int], float]:
    def turn(number: int) -> float:
        taken = keep_one(bench.gemini, bench.folder / "floor" / kind, sample(kind).size, number + 1)
        for step, seconds in taken.items():
            steps[step].append(seconds)
        return sum(taken.values())

    return turn


def _crowd(server: Server, waits: dict[str, list[float]]) -> Callable[[int], float]:
    def turn(number: int) -> float:
        done = threading.Event()
        kept = waits if number >= 0 else {}

        def ask_meanwhile() -> None:
            while not done.is_set():
                kept.setdefault("tools/list", []).append(server.ask("tools/list", {}).seconds)
                kept.setdefault("output_stats", []).append(server.call(STATISTICS[server.name], {}).seconds)
                done.wait(0.05)

        with ThreadPoolExecutor(9) as threads:
            begun = time.perf_counter()
            wishes = [dict(wish(server.name, "1K JPEG", number * 8 + each)) for each in range(8)]
            answers = [threads.submit(server.call, "generate_image", one) for one in wishes]
            asking = threads.submit(ask_meanwhile)
            for answer in answers:
                answer.result()
            seconds = time.perf_counter() - begun
            done.set()
            asking.result()
        return seconds

    return turn
