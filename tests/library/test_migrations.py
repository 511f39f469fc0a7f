"""Opening a library of any age: upgraded whole with all its rows, or refused and left as it was."""

import io
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from nanobanana_mcp.domain.errors import SetupError, StudioError
from nanobanana_mcp.library import HEAD
from nanobanana_mcp.library import database as database_module
from nanobanana_mcp.library.database import Database, migrations_folder, upgrade
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.library.totals import totals
from tests.support.rooms import at_once, dump, record, rows, tree

FIRST_ROWS = """
INSERT INTO images (id, created_at, origin, path, mime_type, width, height, bytes, sha256, prompt, mode, tier, backend)
VALUES ('img_photo', 1760000000000, 'imported', '/home/me/cat.jpg', 'image/jpeg', 4000, 3000, 900, 'a', NULL, NULL, NULL, NULL),
       ('img_one', 1760000001000, 'generated', '/p/1.png', 'image/png', 10, 10, 100, 'b', 'one', 'generate', 'flash', 'gemini'),
       ('img_two', 1760000002000, 'edited', '/p/2.png', 'image/png', 10, 10, 200, 'c', 'two', 'edit', 'pro', 'gemini'),
       ('img_three', 1760000003000, 'edited', '/p/3.png', 'image/png', 10, 10, 300, 'd', 'three', 'edit', 'pro', 'gemini');
INSERT INTO image_sources (image_id, position, parent_id, role)
VALUES ('img_two', 0, 'img_photo', 'base'), ('img_two', 1, 'img_one', 'reference'), ('img_three', 0, 'img_two', 'base');
INSERT INTO uploads (id, image_id, name, mime_type, bytes, sha256, state, created_at, backend)
VALUES ('u1', 'img_two', 'files/nb1', 'image/png', 200, 'c', 'active', 1760000002000, 'gemini');
"""
JOURNAL_ROWS = """
INSERT INTO requests (id, created_at, process, mode, tier, model_id, backend, plan, fingerprint, idempotency_key)
VALUES ('r1', 1760000001000, '1-a', 'generate', 'flash', 'm', 'gemini', '{}', 'f1', 'k1');
INSERT INTO calls (id, request_id, position, state, estimate_usd, reserved_at)
VALUES ('c1', 'r1', 0, 'sent', 0.04, 1760000001000);
INSERT INTO days (day, backend, tier, mode, pictures, bytes, usd)
VALUES ('2025-01-01', 'gemini', 'flash', 'generate', 3, 300, 0.12);
"""
POLICY_ROWS = "INSERT INTO policy_calls (id, rule, made_at) VALUES (1, 'generate_image#1', 1760000001000);"
PAID_ROWS = """
INSERT INTO requests (id, created_at, process, mode, tier, model_id, backend, plan, fingerprint)
VALUES ('r2', 1760000002000, '1-a', 'edit', 'pro', 'm', 'gemini', '{}', 'f2'),
       ('r3', 1760000002000, '1-a', 'edit', 'pro', 'm', 'emulator', '{}', 'f3');
INSERT INTO calls (id, request_id, position, state, estimate_usd, cost_usd, reserved_at, reason)
VALUES ('c2', 'r2', 0, 'done', 0.2, 0.134, 1760000002000, NULL),
       ('c3', 'r2', 1, 'done', 0.2, -1260.0, 1760000002500, NULL),
       ('c4', 'r2', 2, 'failed', 0.2, 0.0, 1760000003000, 'NOT_NEEDED'),
       ('c5', 'r2', 3, 'unknown', 0.2, NULL, 1760000063000, 'UNKNOWN_OUTCOME'),
       ('c6', 'r3', 0, 'done', 0.2, 0.134, 1760000002000, NULL);
UPDATE days SET usd = -1259.666 WHERE day = '2025-10-09' AND tier = 'pro';
"""
ANNOTATED_ROWS = """
INSERT INTO annotations (image_id, note, rating) VALUES ('img_two', 'the better one', 4);
INSERT INTO tags (tag, image_id) VALUES ('hero', 'img_two');
"""
ROWS_OF = {
    "0001": FIRST_ROWS,
    "0002": JOURNAL_ROWS,
    "0003": POLICY_ROWS,
    "0004": PAID_ROWS,
    "0005": "",
    "0006": ANNOTATED_ROWS,
}
"""Rows for the tables that each step has made, so that the next one is never tried on an empty library only."""

NEXT = '''"""A step that is not there yet."""
import sqlalchemy as sa
from alembic import op
revision = "9999"
down_revision = {head!r}
branch_labels = None
depends_on = None
def upgrade() -> None:
    with op.batch_alter_table("images") as batch:
        batch.add_column(sa.Column("stars", sa.Integer, nullable=False, server_default="3"))
    op.create_table("albums", sa.Column("id", sa.String, primary_key=True))
    {end}
'''


def _steps() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    found = ScriptDirectory.from_config(config)
    assert len(found.get_heads()) == 1, f"Two steps follow the same one: {found.get_heads()}."
    return [step.revision for step in reversed(list(found.walk_revisions()))]


def _library_at(path: Path, step: str) -> Path:
    """A library as a version of the program left it that knew no later step, with rows in every table it had."""
    done = _steps()[: _steps().index(step) + 1]
    for revision in done:
        upgrade(path, target=revision)
        with _connected(path) as connection:
            connection.executescript(ROWS_OF.get(revision, ""))
    for copy in path.parent.glob("*.before-*"):
        copy.unlink()
    return path


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def _lineage(path: Path) -> list[tuple[object, ...]]:
    return rows(path, "SELECT image_id, position, parent_id, role FROM image_sources ORDER BY 1, 2")


@pytest.fixture
def with_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The steps with one more, whose last line is what the test appends to the list."""
    end: list[str] = []
    folder = tmp_path / "steps"
    shutil.copytree(migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))

    def folder_with_next() -> Path:
        text = NEXT.format(head=HEAD, end="\n    ".join(end) or "pass")
        (folder / "versions" / "9999_next.py").write_text(text)
        return folder

    monkeypatch.setattr(database_module, "migrations_folder", folder_with_next)
    yield end


def test_the_steps_lead_in_one_line_to_what_the_program_expects() -> None:
    assert _steps()[-1] == HEAD
    assert _steps() == sorted(_steps())


def test_the_steps_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    upgrade(path)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.check(config)
    engine.dispose()


def test_every_step_has_rows_to_be_tried_on() -> None:
    assert list(ROWS_OF) == _steps(), "Give the new step's tables a few rows in ROWS_OF."


@pytest.mark.parametrize("step", _steps())
def test_a_library_of_any_age_is_upgraded_with_every_row(step: str, tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", step)
    tables = [name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    counts = {table: rows(path, f"SELECT count(*) FROM {table}") for table in tables if table != "alembic_version"}
    lineage = _lineage(path)
    Database.open(path).close()
    assert rows(path, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert {table: rows(path, f"SELECT count(*) FROM {table}") for table in counts} == counts
    assert _lineage(path) == lineage
    assert len(lineage) == 3
    assert rows(path, "PRAGMA foreign_key_check") == []
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_library_of_the_first_version_keeps_its_pictures_and_gets_its_totals(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", "0001")
    database = Database.open(path)
    library = Library(database)
    third = library.get("img_three")
    assert third is not None
    assert (third.prompt, third.bytes, third.trash_path, third.call_id) == ("three", 300, None, None)
    assert [(a.record.id, a.depth) for a in library.ancestors("img_three")] == [
        ("img_two", 1),
        ("img_photo", 2),
        ("img_one", 2),
    ]
    found = library.find_by_upload("files/nb1")
    assert found is not None
    assert found[0].id == "img_two"
    assert totals(database, "gemini", "tier")["pro"].pictures == 2
    whole = totals(database, "gemini")[""]
    assert (whole.pictures, whole.bytes) == (3, 600)
    library.add(record(id="img_four", path="/p/4.png", bytes=50))
    assert totals(database, "gemini")[""].bytes == 650
    database.close()


def test_what_was_spent_before_an_upgrade_counts_after_it_and_nothing_is_below_zero(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", "0004")
    database = Database.open(path)
    assert totals(database, "gemini", "tier")["pro"].usd == pytest.approx(0.534)
    assert rows(path, "SELECT start, calls, microusd FROM spent WHERE span = 60000 AND backend = 'gemini'") == [
        (1759999980000, 3, 40_000 + 134_000 + 200_000),
        (1760000040000, 1, 200_000),
    ]
    assert rows(path, "SELECT calls, microusd FROM spent WHERE span = 86400000 ORDER BY backend") == [
        (1, 134_000),
        (4, 574_000),
    ]
    database.close()


def test_what_an_older_program_beside_this_one_enters_and_settles_counts_and_keeps_its_date(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", HEAD)
    spent = "SELECT sum(calls), sum(microusd) FROM spent WHERE span = 1000 AND backend = 'gemini'"
    before = rows(path, spent)[0]
    with _connected(path) as old:
        old.execute(
            "INSERT INTO calls (id, request_id, position, state, estimate_usd, reserved_at)"
            " VALUES ('c9', 'r1', 9, 'reserved', 0.3, 1990000000000)"
        )
        old.execute("INSERT INTO policy_calls (rule, made_at) VALUES ('*#1', 1990000000000)")
        old.execute("UPDATE calls SET reserved_at = 1760000000000 WHERE reserved_at > 1760000000000")
        old.execute("UPDATE policy_calls SET made_at = 1760000000000 WHERE made_at > 1760000000000")
    assert rows(path, spent)[0] == (before[0] + 1, before[1] + 300_000)
    with _connected(path) as old:
        old.execute("UPDATE calls SET state = 'saved', cost_usd = 0.1 WHERE id = 'c9'")
    assert rows(path, spent)[0] == (before[0] + 1, before[1] + 100_000)
    assert rows(path, "SELECT reserved_at FROM calls WHERE id = 'c9'") == [(1990000000000,)]
    assert rows(path, "SELECT max(made_at) FROM policy_calls") == [(1990000000000,)]


def test_an_older_program_can_go_back_to_the_copy_made_before_an_upgrade(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", "0001")
    before = dump(path)
    Database.open(path).close()
    copies = list(tmp_path.glob("library.db.before-*"))
    assert len(copies) == 1
    assert dump(copies[0]) == before
    assert copies[0].stat().st_mode & 0o077 == 0
    assert dump(path) != before


def test_a_new_library_and_one_that_is_up_to_date_leave_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    Database.open(path).close()
    Database.open(path).close()
    assert list(tmp_path.glob("*before*")) == []
    assert path.stat().st_mode & 0o077 == 0


def test_a_step_after_todays_keeps_rows_and_lineage(tmp_path: Path, with_next_step: list[str]) -> None:
    path = _library_at(tmp_path / "library.db", HEAD)
    lineage = _lineage(path)
    upgrade(path, target="9999")
    assert rows(path, "SELECT id, stars FROM images WHERE id = 'img_one'") == [("img_one", 3)]
    assert _lineage(path) == lineage


@pytest.mark.parametrize(
    "end",
    ["raise RuntimeError('half way')", "op.execute('INSERT INTO images (id) VALUES (1)')", "op.execute('nonsense')"],
)
def test_a_step_that_fails_half_way_leaves_nothing(end: str, tmp_path: Path, with_next_step: list[str]) -> None:
    path = _library_at(tmp_path / "library.db", HEAD)
    before = dump(path)
    with_next_step.append(end)
    with pytest.raises((RuntimeError, StudioError)):
        upgrade(path, target="9999")
    assert dump(path) == before
    with_next_step.clear()
    upgrade(path, target="9999")
    assert rows(path, "SELECT count(*) FROM albums") == [(0,)]


def test_a_step_that_would_tear_the_lineage_is_not_done(tmp_path: Path, with_next_step: list[str]) -> None:
    path = _library_at(tmp_path / "library.db", HEAD)
    before = dump(path)
    with_next_step.append("op.execute(\"DELETE FROM images WHERE id = 'img_two'\")")
    with pytest.raises(SetupError, match="nothing was changed"):
        upgrade(path, target="9999")
    assert dump(path) == before


def test_a_first_start_that_was_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    path.touch()
    database = Database.open(path)
    Library(database).add(record())
    database.close()


def test_a_library_of_a_newer_version_is_refused_in_words_and_not_changed(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", HEAD)
    with _connected(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = tree(tmp_path)
    with pytest.raises(SetupError, match=r"newer version of nanobanana.*Upgrade nanobanana-studio"):
        Database.open(path)
    assert tree(tmp_path) == before


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "firefox.sqlite"
    with _connected(path) as connection:
        connection.execute("CREATE TABLE moz_places (id INTEGER)")
    before = tree(tmp_path)
    with pytest.raises(SetupError, match=r"another program.*moz_places.*NANOBANANA_DATABASE_URL"):
        Database.open(path)
    assert tree(tmp_path) == before


def test_another_programs_database_with_steps_of_its_own_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with _connected(path) as connection:
        connection.executescript(
            "CREATE TABLE users (id INTEGER); CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('0001')"
        )
    before = dump(path)
    with pytest.raises(SetupError):
        Database.open(path)
    assert dump(path) == before


@pytest.mark.parametrize(
    "junk", [b"my notes\n", b"not a database at all\n" * 500, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_file_of_garbage_is_refused_and_left_as_it_is(junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    path.write_bytes(junk)
    before = tree(tmp_path)
    with pytest.raises(SetupError, match=r"damaged and was left as it is.*rebuild"):
        Database.open(path)
    assert tree(tmp_path) == before


def test_a_library_cut_off_in_the_middle_is_refused_or_read_but_never_begun_again(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", HEAD)
    whole = path.read_bytes()
    for length in range(512, len(whole), len(whole) // 7):
        path.write_bytes(whole[:length])
        try:
            database = Database.open(path)
        except SetupError as error:
            assert "left as it is" in str(error) or "cannot be used" in str(error)
        else:
            database.close()
        assert path.stat().st_size == length


def test_the_steps_can_be_read_as_sql_before_they_are_run() -> None:
    config = Config(output_buffer=io.StringIO())
    config.set_main_option("script_location", str(migrations_folder()))
    command.upgrade(config, HEAD, sql=True)
    script = config.output_buffer.getvalue()
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(script)
    assert fresh.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    fresh.close()


@pytest.mark.slow
def test_six_first_starts_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "library.db"
    code = "database = Database.open(Path(sys.argv[2])); Library(database).add(record()); database.close()"
    at_once(6, code, path)
    assert rows(path, "SELECT count(*) FROM images") == [(6,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.slow
def test_six_upgrades_at_once_all_succeed(tmp_path: Path) -> None:
    path = _library_at(tmp_path / "library.db", "0001")
    before = dump(path)
    code = "database = Database.open(Path(sys.argv[2])); Library(database).add(record()); database.close()"
    at_once(6, code, path)
    assert rows(path, "SELECT count(*) FROM images") == [(10,)]
    assert len(_lineage(path)) == 3
    assert [dump(copy) for copy in tmp_path.glob("*.before-*")] == [before]
