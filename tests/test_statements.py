"""How many statements and transactions the library takes: the same for one row and for a thousand."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from nanobanana_mcp.budget import Limits
from nanobanana_mcp.domain import Parent, now
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.journal import Journal
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.stats import collect
from tests.rooms import close_all, folders, opened, record, rows


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    folder = tmp_path / "state"
    folder.mkdir()
    yield opened(folder)
    close_all()


def statements(work: Callable[[], object]) -> list[str]:
    """What is sent to SQLite while `work` runs."""
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


def test_statistics_take_the_same_statements_however_many_pictures_there_are(
    database: Database, tmp_path: Path
) -> None:
    places, library, journal = folders(tmp_path), Library(database), Journal(database)

    def work() -> None:
        collect(library, journal, places, "gemini", Limits(), 10)

    grow(database, 1)
    few = statements(work)
    grow(database, 60)
    assert len(statements(work)) == len(few) <= 18


def test_statistics_ask_for_the_library_twice(database: Database, tmp_path: Path) -> None:
    grow(database, 1)
    places = folders(tmp_path)
    sent = statements(lambda: collect(Library(database), Journal(database), places, "gemini", Limits(), 10))
    assert sum(one.startswith("BEGIN") for one in sent) <= 2


def test_adding_a_picture_takes_the_same_statements_however_many_there_are(database: Database) -> None:
    library = Library(database)
    grow(database, 1)
    first = statements(lambda: library.add(record()))
    grow(database, 60)
    assert statements(lambda: library.add(record())) == first
    assert len(first) <= 4


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
