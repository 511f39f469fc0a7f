"""The connection: one SQLite file that many processes share, upgraded when it is opened."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, Integer, Row, Select, Table, create_engine, event, literal_column
from sqlalchemy.exc import DatabaseError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.library import HEAD

BUSY_S = 30
"""Seconds that a statement waits for another process's transaction."""

DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
"""The first letters of SQLite's error names for a file that is damaged or never was a database."""

_upgrading = threading.Lock()  # alembic keeps its context in module globals

_PRAGMAS = (
    f"busy_timeout={BUSY_S * 1000}",
    "journal_mode=TRUNCATE",  # immune to the WAL-reset bug of SQLite before 3.51.3; one file; readable on read-only disks
    "synchronous=FULL",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "secure_delete=ON",  # a prompt that is deleted for good leaves the file, not only the table
)


class Database:
    """An opened library file. Writing takes the write lock at once (BEGIN IMMEDIATE), so no update is ever lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _engine(path, pragmas=_PRAGMAS)
        self._identity: tuple[int, int] | None = None
        self._held = threading.local()
        self._closed = False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Connect and bring the schema up to date. Raises SetupError when it cannot, and changes nothing then."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            upgrade(path)
            database = cls(path)
            with database.read() as connection:
                damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if damage != "ok":
                database.close()
                raise _damaged(path)
            database._identity = _identity(path)
        except OSError as error:
            raise SetupError(
                f"The library's folder {path.parent} cannot be used: {error.strerror}. Set NANOBANANA_DATABASE_URL "
                "to a place that is writable."
            ) from error
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read one consistent state of the library. Reads nested inside it, in the same thread, share its transaction."""
        held = getattr(self._held, "connection", None)
        if held is not None:
            yield held
            return
        with self._translated(), self._engine.execution_options(read_only=True).begin() as connection:
            self._held.connection = connection
            try:
                yield connection
            finally:
                self._held.connection = None

    def by_row(self, table: Table, query: Select[*tuple[Any, ...]], piece: int) -> Iterator[Row[*tuple[Any, ...]]]:
        """Yield the rows of a query in the order in which those of `table` were entered, with the number of the row of `table`
        as their last column. Each read takes `piece` rows, so that no writer waits for all. The query asks for one value of
        an index of `table`, which keeps that order: else each piece would sort the rest.
        """
        number, last = literal_column(f"{table.name}.rowid", Integer), 0
        while True:
            part = query.add_columns(number).where(number > last).order_by(number).limit(piece)
            with self.read() as connection:
                rows = connection.execute(part).all()
            yield from rows
            if len(rows) < piece:
                return
            last = rows[-1][-1]

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One short write transaction: never held during a request, a decode or a file operation."""
        if self._identity is not None and _identity(self.path) != self._identity:
            raise SetupError(
                f"The library {self.path} was moved or replaced while the server runs. Restart the server; "
                "nothing was written."
            )
        with self._translated(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the connection. A later read or write fails at once instead of waiting for a connection that nobody
        gives back.
        """
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise SetupError("The library is closed because the server is shutting down.")
        try:
            yield
        except PoolTimeout as error:
            raise _locked(self.path) from error
        except DatabaseError as error:
            if isinstance(error, IntegrityError | ProgrammingError):
                raise
            raise _explained(self.path, error.orig) from error


def upgrade(path: Path, *, target: str = HEAD) -> None:
    """Bring a library file to `target` in one transaction; do nothing when it is there already.

    A library that has rows is first copied beside itself, so that an older program can go back to it.
    """
    try:
        current = _revision(path)
        if current == target:
            return
        if not os.access(path.parent, os.W_OK | os.X_OK):  # no lock file: looks like a held lock
            raise SetupError(
                f"The library's folder {path.parent} is not writable. Set NANOBANANA_DATABASE_URL to a place that is."
            )
        lock = FileLock(f"{path}.upgrade", timeout=BUSY_S, mode=0o600)
        with _upgrading, lock:
            current = _revision(path)
            if current == target:
                return
            if current is not None:
                _backup(path, current)
            _run_steps(path, target)
    except Timeout as error:
        raise SetupError(
            f"Another process has been upgrading {path} for over {BUSY_S} s. Wait for it, or end it, and try again."
        ) from error
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    except DatabaseError as error:
        raise _explained(path, error.orig) from error


def copy_library(path: Path, copy: Path) -> bool:
    """Copy a library into a new file, private to the user; False when there is none, or it is damaged or not a
    database.

    Raises SetupError for a library of a newer version and for another program's file, which must not be replaced.
    """
    try:
        if _revision(path) is None:
            return False
        connection = sqlite3.connect(path, timeout=BUSY_S)
        try:
            if connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
                return False
            connection.execute("VACUUM INTO ?", (str(copy),))
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        copy.unlink(missing_ok=True)
        if getattr(error, "sqlite_errorname", "").startswith(DAMAGE):
            return False
        raise _explained(path, error) from error  # a full disk is no damage, and a rebuild would forget what was spent
    copy.chmod(0o600)
    return True


@contextmanager
def rebuild_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the one process that may replace the library file. Raises SetupError while another process holds
    it.
    """
    try:
        with FileLock(f"{path}.rebuild", timeout=0, mode=0o600):
            yield
    except Timeout as error:
        raise SetupError(f"Another process is rebuilding {path}. Wait for it, or end it, and try again.") from error


def migrations_folder() -> Path:
    """The folder of the migrations: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _engine(path: Path, *, pragmas: tuple[str, ...]) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),  # a path may contain ? and %, which mean something in a URL
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=2 * BUSY_S,  # as long as a statement may wait for the file
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only")
        connection.exec_driver_sql("BEGIN DEFERRED" if read_only else "BEGIN IMMEDIATE")

    return engine


def _revision(path: Path) -> str | None:
    """The migration that a file stands at, None for a new file. Read without SQLAlchemy, since every start pays for it."""
    if not path.exists():
        return None
    # Not mode=ro: after a kill in mid-commit the file can only be read once its journal is rolled back. Where the file
    # is write-protected, SQLite opens it for reading by itself.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_S)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" not in tables:
            if tables:
                raise SetupError(
                    f"{path} is another program's SQLite file (tables: {', '.join(sorted(tables)[:5])}). Set "
                    "NANOBANANA_DATABASE_URL to a file of its own."
                )
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    if row is None:
        return None
    if row[0] > HEAD:
        raise SetupError(
            f"The library {path} was made by a newer version of nanobanana (schema {row[0]}, this one knows "
            f"{HEAD}). Upgrade nanobanana-studio; nothing was changed."
        )
    return str(row[0])


def _backup(path: Path, revision: str) -> None:
    copy = path.with_name(f"{path.name}.before-{revision}-upgrade")
    if copy.exists():
        return
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_S)
    try:
        connection.execute("VACUUM INTO ?", (str(partial),))
    finally:
        connection.close()
    partial.chmod(0o600)
    partial.replace(copy)


def _run_steps(path: Path, target: str) -> None:
    """Run the whole chain of migrations in one IMMEDIATE transaction: alembic alone would leave half a step behind when
    one fails.

    Foreign keys are off while tables are rebuilt (rebuilding a parent would delete its children) and checked before the
    commit.
    """
    from alembic import command  # 115 ms that only an upgrade pays
    from alembic.config import Config

    _create_private(path)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    engine = _engine(path, pragmas=(f"busy_timeout={BUSY_S * 1000}", "synchronous=FULL", "foreign_keys=OFF"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, target)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise SetupError(f"Upgrading {path} would have broken {len(broken)} references; nothing was changed.")
    finally:
        engine.dispose()


def _create_private(path: Path) -> None:
    if not path.exists():  # closing a second descriptor would drop this process's own SQLite locks
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _locked(path: Path) -> SetupError:
    return SetupError(f"The library {path} has been locked by another program for over {BUSY_S} s. Try again.")


def _damaged(path: Path) -> SetupError:
    return SetupError(
        f"The library {path} is damaged and was left as it is. Your pictures are not affected. Run "
        "'nanobanana rebuild' to make a new library from the pictures' own records."
    )


def _explained(path: Path, error: BaseException | None) -> SetupError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return _locked(path)
    if name == "SQLITE_FULL":
        return SetupError(f"The disk that holds the library {path} is full. Free some space; nothing is lost.")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return SetupError(
            f"The library {path} cannot be written. Check its permissions, or set NANOBANANA_DATABASE_URL to "
            "another place."
        )
    if name.startswith(DAMAGE):
        return _damaged(path)
    return SetupError(f"The library {path} cannot be used: {error}")
