"""A look at the newest pictures that opens no library: where anything is amiss it sees none, and it changes nothing."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nanobanana_mcp.library.glance import glance
from nanobanana_mcp.library.pictures import Library
from tests.support.rooms import close_all, opened, record


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A library with one picture."""
    library = Library(opened(tmp_path))
    library.add(record())
    yield library.database.path
    close_all()


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_library_in_use_is_seen(path: Path) -> None:
    assert len(glance(path, "gemini", 20)) == 1


def test_no_library_is_made_where_there_is_none(tmp_path: Path) -> None:
    assert glance(tmp_path / "none" / "library.db", "gemini", 20) == []
    assert glance(tmp_path / "library.db", "gemini", 20) == []
    assert glance(tmp_path, "gemini", 20) == []
    assert list(tmp_path.iterdir()) == []


def test_a_locked_library_is_not_waited_for_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.glance.WAIT_S", 0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert glance(path, "gemini", 20) == []
        other.execute("ROLLBACK")
    assert len(glance(path, "gemini", 20)) == 1


def test_a_library_of_another_version_is_not_read(path: Path) -> None:
    run(path, "UPDATE alembic_version SET version_num = '9999'")
    assert glance(path, "gemini", 20) == []


@pytest.mark.parametrize("data", [b"", b"no library at all" * 500])
def test_what_is_no_library_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "library.db"
    path.write_bytes(data)
    assert glance(path, "gemini", 20) == []
    assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


def test_a_damaged_library_shows_nothing_and_is_left_as_it_is(path: Path) -> None:
    close_all()
    data = path.read_bytes()
    damaged = data[:4096] + os.urandom(len(data) - 4096)
    path.write_bytes(damaged)
    assert glance(path, "gemini", 20) == []
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "change", ["id = 'img_<b>'", "id = x'00'", "width = 'wide'", "bytes = -1", "mime_type = 'a b'"]
)
def test_a_row_that_is_none_of_ours_is_left_out(path: Path, change: str) -> None:
    Library(opened(path.parent)).add(record(id="img_0000000000000001"))
    run(path, f"UPDATE images SET {change} WHERE id = 'img_0000000000000001'")
    assert len(glance(path, "gemini", 20)) == 1


def test_what_a_kill_in_mid_commit_left_is_not_touched(path: Path) -> None:
    close_all()
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("PRAGMA journal_mode=TRUNCATE")
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE images SET prompt = 'half written'")
connection.execute("CREATE TABLE filler AS WITH RECURSIVE c(n, t) AS (SELECT 1, hex(randomblob(500)) UNION ALL "
                   "SELECT n + 1, hex(randomblob(500)) FROM c WHERE n < 500) SELECT * FROM c")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 9
    journal = path.with_name(f"{path.name}-journal")
    before = path.read_bytes(), journal.read_bytes()
    assert before[1].strip(b"\0"), "there is a journal to roll back"
    assert glance(path, "gemini", 20) == []
    assert (path.read_bytes(), journal.read_bytes()) == before


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX belong to a process")
def test_a_look_drops_no_lock_of_the_open_library(path: Path) -> None:
    library = Library(opened(path.parent))
    code = f"""
import sqlite3
try:
    sqlite3.connect({str(path)!r}, timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
    print("taken")
except sqlite3.OperationalError:
    print("locked")
"""
    with library.database.write():
        assert len(glance(path, "gemini", 20)) == 1
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert other.stdout == "locked\n"
