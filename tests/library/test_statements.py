"""The library takes as many statements and transactions for a thousand rows as for one."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from benchmarks.shelf import fill
from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.studio.stats import collect
from tests.support.rooms import close_all, folders, opened, order, record, rows


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    folder = tmp_path / "state"
    folder.mkdir()
    yield opened(folder)
    close_all()


def statements(work: Callable[[], object]) -> list[str]:
    """The statements that are sent to SQLite while `work` runs."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return found


def grow(database: Database, count: int) -> None:
    for number in range(count):
        Library(database).add(record(created_at=now() - timedelta(minutes=number)))


@pytest.mark.slow
def test_statistics_take_the_same_statements_however_many_pictures_there_are(
    database: Database, tmp_path: Path
) -> None:
    places, library, journal = folders(tmp_path), Library(database), Journal(database)

    def work() -> None:
        collect(library, journal, Disk(places), "gemini", Limits(), 10)

    grow(database, 1)
    few = statements(work)
    grow(database, 60)
    assert len(statements(work)) == len(few) <= 18


@pytest.mark.slow
def test_a_day_of_thousands_of_calls_makes_neither_a_reservation_nor_statistics_dearer(
    database: Database, tmp_path: Path
) -> None:
    places, library, journal = folders(tmp_path), Library(database), Journal(database)
    every = Limits(per_hour_usd=1e6, per_day_usd=1e6, calls_per_minute=10**6)
    steps = 0

    def work() -> int:
        nonlocal steps
        steps = 0
        journal.reserve(order(), n=1, estimate_usd=0.01, limits=every)
        collect(library, journal, Disk(places), "gemini", every, 10)
        return steps

    def count() -> None:
        nonlocal steps
        steps += 1

    raw = database._engine.raw_connection()
    assert raw.driver_connection is not None
    raw.driver_connection.set_progress_handler(count, 100)  # of SQLite's instructions
    raw.close()
    fill(database, tmp_path, count=1100, every=timedelta(seconds=70))
    few = work()
    with database.write() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO calls"
            " (id, request_id, position, state, estimate_usd, cost_usd, reserved_at, settled_at)"
            " SELECT 'more' || i, request_id, i, state, estimate_usd, cost_usd, reserved_at, settled_at"
            " FROM n JOIN calls ON calls.id = printf('%016d', i % 1100)"
        )
    assert work() < 2 * few


def test_statistics_ask_for_the_library_twice(database: Database, tmp_path: Path) -> None:
    grow(database, 1)
    places = folders(tmp_path)
    sent = statements(lambda: collect(Library(database), Journal(database), Disk(places), "gemini", Limits(), 10))
    assert sum(one.startswith("BEGIN") for one in sent) <= 2


@pytest.mark.slow
def test_adding_a_picture_takes_the_same_statements_however_many_there_are(database: Database) -> None:
    library = Library(database)
    grow(database, 1)
    first = statements(lambda: library.add(record()))
    grow(database, 60)
    assert statements(lambda: library.add(record())) == first
    assert len(first) <= 4


@pytest.mark.slow
def test_a_lineage_is_walked_in_one_query(database: Database) -> None:
    library, parent = Library(database), record()
    library.add(parent)
    for _ in range(30):
        child = record(parents=(Parent(image_id=parent.id, role="base"),))
        library.add(child)
        parent = child
    sent = statements(lambda: library.ancestors(parent.id))
    assert sum("RECURSIVE" in one for one in sent) == 1
    assert len(sent) == 3


@pytest.mark.parametrize(
    "ask",
    [lambda journal: journal.unfinished(), lambda journal: journal.undelivered("gemini")],
    ids=["unfinished", "undelivered"],
)
def test_open_calls_are_found_without_reading_every_call(ask: Callable[[Journal], object], database: Database) -> None:
    plans = []

    def explain(connection: object, cursor: object, statement: str, values: object, *_rest: object) -> None:
        if "FROM calls" in statement:
            plans.append((statement, values))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        ask(Journal(database))
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    assert plans
    for statement, values in plans:
        assert isinstance(values, tuple)
        filled = statement
        for value in values:
            filled = filled.replace("?", repr(value), 1)
        steps = [step[3] for step in rows(database.path, f"EXPLAIN QUERY PLAN {filled}")]
        assert any("ix_calls_open" in step for step in steps), steps
        assert "SCAN calls" not in steps
