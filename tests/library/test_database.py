"""The library's file while it is open: shared by threads and processes, and never written to when it is not itself."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import Library, insert_image
from nanobanana_mcp.library.totals import totals
from tests.support.rooms import at_once, close_all, dump, opened, record, rows, tree, upload


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


def test_what_was_added_is_there_after_the_next_start(tmp_path: Path) -> None:
    kept = record(prompt="Bananen für Zoë 🍌")
    database = opened(tmp_path)
    Library(database).add(kept)
    database.close()
    found = Library(opened(tmp_path)).get(kept.id)
    assert found is not None
    assert found.prompt == kept.prompt
    assert abs(found.created_at - kept.created_at).total_seconds() < 0.001
    assert found.created_at.utcoffset() == kept.created_at.utcoffset()


@pytest.mark.parametrize("name", ["with space", "100%41", "a#b", "what?", "ünïcode-猫", "semi;colon&and=more"])
def test_the_library_lies_where_the_path_says_whatever_is_in_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "library.db"
    database = Database.open(path)
    Library(database).add(record())
    database.close()
    assert rows(path, "SELECT count(*) FROM images") == [(1,)]
    assert [child.name for child in tmp_path.iterdir()] == [name]


def test_a_moved_library_stops_writes_and_says_what_to_do(tmp_path: Path) -> None:
    database = opened(tmp_path)
    library = Library(database)
    library.add(record())
    database.path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(SetupError, match=r"moved or replaced.*Restart the server; nothing was written"):
        library.add(record())
    assert not database.path.exists()
    assert rows(tmp_path / "elsewhere.db", "SELECT count(*) FROM images") == [(1,)]


def test_a_replaced_library_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = opened(tmp_path / "other")
    other.close()
    library = Library(opened(tmp_path))
    library.add(record())
    other.path.replace(library.database.path)
    before = dump(library.database.path)
    with pytest.raises(SetupError, match="replaced"):
        library.add_upload(upload("img_x"))
    assert dump(library.database.path) == before


def test_a_library_that_another_program_holds_is_said_to_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.database._PRAGMAS", ("busy_timeout=50",))
    holder, other = opened(tmp_path), opened(tmp_path)
    with holder.write(), pytest.raises(SetupError, match="locked by another program"):
        Library(other).add(record())
    Library(other).add(record())
    assert rows(holder.path, "SELECT count(*) FROM images") == [(1,)]


def test_a_transaction_that_fails_leaves_neither_picture_nor_lineage_nor_totals(tmp_path: Path) -> None:
    library = Library(opened(tmp_path))
    known = record()
    library.add(known)
    before = dump(library.database.path)
    with pytest.raises(ZeroDivisionError), library.database.write() as connection:
        connection.exec_driver_sql("UPDATE images SET prompt = 'gone'")
        connection.exec_driver_sql("DELETE FROM days")
        raise ZeroDivisionError
    assert dump(library.database.path) == before


def test_reading_takes_no_lock_that_would_stop_a_writer(tmp_path: Path) -> None:
    reader, writer = opened(tmp_path), opened(tmp_path)
    with reader.read() as connection:
        connection.exec_driver_sql("SELECT 1").fetchall()
        Library(writer).add(record())


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    before = tree(tmp_path)
    with pytest.raises(SetupError, match="NANOBANANA_DATABASE_URL"):
        Database.open(tmp_path / "file" / "library.db")
    assert tree(tmp_path) == before


def test_a_folder_in_the_place_of_the_library_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "library.db").mkdir()
    with pytest.raises(SetupError, match=r"library\.db"):
        opened(tmp_path)


@pytest.mark.parametrize("torn", [b"\xa5", b"\0"])
def test_a_library_with_torn_pages_is_refused_and_left_as_it_is(torn: bytes, tmp_path: Path) -> None:
    database = opened(tmp_path)
    with database.write() as connection:
        for _ in range(200):
            insert_image(connection, record(prompt="x" * 500))
    database.close()
    body = bytearray(database.path.read_bytes())
    last = len(body) - 4096
    body[last:] = torn * 4096
    database.path.write_bytes(body)
    before = tree(tmp_path)
    with pytest.raises(SetupError, match=r"damaged and was left as it is.*rebuild"):
        opened(tmp_path)
    assert tree(tmp_path) == before


def test_eight_threads_lose_no_picture_and_no_count(tmp_path: Path) -> None:
    library = Library(opened(tmp_path))
    start = threading.Barrier(8)

    def add(_number: int) -> None:
        start.wait()
        for _ in range(5):
            library.add(record(bytes=7))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(8)))
    whole = totals(library.database, "gemini")[""]
    assert (whole.pictures, whole.bytes) == (40, 280)
    assert rows(library.database.path, "SELECT count(*) FROM images") == [(40,)]


@pytest.mark.slow
def test_four_processes_lose_no_picture_and_no_count(tmp_path: Path) -> None:
    database = opened(tmp_path)
    code = """
library = Library(Database.open(Path(sys.argv[2])))
for _ in range(25):
    library.add(record(bytes=7))
"""
    at_once(4, code, database.path)
    whole = totals(database, "gemini")[""]
    assert (whole.pictures, whole.bytes) == (100, 700)
    assert rows(database.path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_a_process_killed_while_it_writes_harms_nothing_and_holds_no_lock(tmp_path: Path) -> None:
    library = Library(opened(tmp_path))
    library.add(record())
    code = """
import os, signal
database = Database.open(Path(sys.argv[2]))
with database.write() as connection:
    connection.exec_driver_sql("DELETE FROM images")
    sys.stdout.flush()
    if os.fork() == 0:
        os.kill(os.getppid(), signal.SIGKILL)
        os._exit(0)
    signal.pause()
"""
    with pytest.raises(AssertionError):
        at_once(1, code, library.database.path)
    library.add(record())
    assert rows(library.database.path, "SELECT count(*) FROM images") == [(2,)]
    assert rows(library.database.path, "PRAGMA integrity_check") == [("ok",)]
