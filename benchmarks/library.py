"""A library of a hundred thousand pictures beside small ones: statistics, maintenance, adding, lineage."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from sqlalchemy import Engine, event

from benchmarks.bench import Bench, alternate, medians
from benchmarks.contestants import ours, wish
from benchmarks.results import Goal, Result
from benchmarks.server import Server
from benchmarks.shelf import chain, fill
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import Library

OPERATIONS = (
    "cleanup_expired",
    "cleanup_local",
    "check_quota",
    "database_hygiene",
    "full_cleanup",
    "restore",
    "recover",
)
FILES = 2000
"""The number of the large library's newest pictures that have a file."""


def library(bench: Bench) -> Iterator[Result]:
    """Asks, through the server, the same questions of libraries of 0, 1,000 and 100,000 pictures, and of as many made
    today.
    """
    bench.gemini.answer_with("1K JPEG")
    many = 10_000 if bench.quick else 100_000
    sizes = {"empty": 0, "small": 1000, "large": many, "today": many}
    contestant = ours(bench.gemini.url)
    servers: dict[str, Server] = {}
    try:
        for name, count in sizes.items():
            folder = bench.folder / "library" / name
            output = folder / "pictures"
            output.mkdir(parents=True)
            if count:
                database = Database.open(folder / "home" / ".local" / "share" / "nanobanana-mcp" / "library.db")
                files = FILES if name in ("large", "today") else count // 10
                every = timedelta(minutes=10) if name != "today" else timedelta(hours=23) / count
                fill(database, output, count=count, files=files, every=every)
                database.close()
            servers[name] = Server(contestant, folder)
            servers[name].greet()
        yield from _questions(bench, servers, sizes)
    finally:
        for server in servers.values():
            server.leave()


def _questions(bench: Bench, servers: dict[str, Server], sizes: dict[str, int]) -> Iterator[Result]:
    large = f"{sizes['large']:,}"
    asked = {name: _statistics(server) for name, server in servers.items()}
    stats = medians(alternate(bench.rounds(9, 2), asked))
    yield Result(
        job=f"output_stats, {large} pictures",
        unit="ms",
        ours=stats["large"],
        beside={"at 1,000": stats["small"]},
        goals=(Goal(most=3.0, of="at 1,000"),),
    )
    yield Result(
        job=f"output_stats, {large} pictures today",
        unit="ms",
        ours=stats["today"],
        beside={"at 1,000": stats["small"]},
        goals=(Goal(most=3.0, of="at 1,000"),),
    )
    slowest, named = 0.0, ""
    detail = {}
    for operation in OPERATIONS:
        begun = {
            name: servers[name].call("maintenance", {"operation": operation, "dry_run": True}).seconds * 1000
            for name in ("small", "large")
        }
        detail[operation] = begun
        if begun["large"] > slowest:
            slowest, named = begun["large"], operation
    yield Result(
        job=f"slowest dry run ({named}), {large}", unit="ms", ours=slowest, goals=(Goal(most=2000),), detail=detail
    )
    turns = {name: _addition(servers[name]) for name in ("empty", "large", "today")}
    added = medians(alternate(bench.rounds(21, 2), turns))
    yield Result(
        job=f"one more 1K picture, {large}",
        unit="ms",
        ours=added["large"],
        beside={"empty": added["empty"]},
        goals=(Goal(most=1.15, of="empty"),),
    )
    yield Result(
        job=f"one more 1K picture, {large} today",
        unit="ms",
        ours=added["today"],
        beside={"empty": added["empty"]},
        goals=(Goal(most=1.15, of="empty"),),
    )


def _statistics(server: Server) -> Callable[[int], float]:
    return lambda _number: server.call("output_stats", {}).seconds


def _addition(server: Server) -> Callable[[int], float]:
    return lambda number: server.call("generate_image", dict(wish("ours", "1K JPEG", number))).seconds


def lineage(bench: Bench) -> Iterator[Result]:
    """A thousand edits in a row, traced back in this process; statements are counted."""
    database = Database.open(bench.folder / "lineage" / "library.db")
    try:
        last = chain(database, 1000)
        statements: list[str] = []

        def count(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            statements.append(statement)

        event.listen(Engine, "before_cursor_execute", count)
        try:
            begun = time.perf_counter()
            found = Library(database).ancestors(last, limit=1000)
            taken = time.perf_counter() - begun
        finally:
            event.remove(Engine, "before_cursor_execute", count)
    finally:
        database.close()
    if len(found) != 1000:
        raise RuntimeError(f"The lineage has {len(found)} steps and not 1000.")
    walks = [one for one in statements if "RECURSIVE" in one.upper()]
    yield Result(
        job="lineage 1,000 deep: walking queries",
        unit="",
        ours=len(walks),
        goals=(Goal(most=1),),
        detail={"milliseconds": taken * 1000, "all_statements": len(statements)},
    )
