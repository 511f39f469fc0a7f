"""The search index: the words about pictures in a file of its own, beside the library.

It is apart from the library so that a search, however long, never holds up a process that writes there, and so that
damage to it costs nothing: an index that is damaged, of another version or of another library is made again from the
library. Processes share the file; each change is entered once, by the process that comes first.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.library.database import DAMAGE

VERSION = 1
BUSY_S = 10
COLUMNS = ("prompt", "name", "note", "tags", "words")
"""The columns of an entry. An expression can name one, as in `tags: hero`."""

PLACES_A_MS = 1024
"""The numbers that each millisecond has for its pictures: a picture's number sorts by when it was made."""

_TEXTS = f"CREATE VIRTUAL TABLE texts USING fts5({', '.join(COLUMNS)}, tokenize='unicode61 remove_diacritics 2', prefix='2 3')"
_SCHEMA = f"""
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER, library INTEGER, prompts INTEGER,
                    top INTEGER, bottom INTEGER);
CREATE TABLE entries (number INTEGER PRIMARY KEY, image_id TEXT NOT NULL UNIQUE);
CREATE TABLE looks (image_id TEXT PRIMARY KEY, look INTEGER NOT NULL) WITHOUT ROWID;
{_TEXTS};
"""
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\uac00-\ud7af]")
"""Scripts that are written without spaces, or with particles that stick to a word: each character is a word of its own."""


class Text(NamedTuple):
    """The words about a picture as of its change `number`; `created_ms` is None for a picture that was deleted."""

    number: int
    image_id: str
    created_ms: int | None
    prompt: str | None = None
    path: str | None = None
    note: str | None = None
    tags: str | None = None
    words: str | None = None


class Hit(NamedTuple):
    """A picture that matches an expression; the smaller its `rank`, the better it matches."""

    number: int
    image_id: str
    rank: float


@dataclass(frozen=True)
class Standing:
    """The part of the library's changes that is in the index: those from `bottom` to `top`."""

    top: int
    bottom: int

    @property
    def is_whole(self) -> bool:
        return self.bottom <= 1


class Index:
    """The index in the file `path`; `prompts` says whether prompts, and what models wrote, are in it."""

    def __init__(self, path: Path, *, library: int, prompts: bool = True) -> None:
        self.path = path
        self._library = library
        self._prompts = prompts

    def begin(self, newest: int) -> Standing:
        """Says which changes are in the index, after making an empty one where there is none that fits.

        `newest` is the library's last change, from which a new index works back to the first.
        """
        with self._connected() as connection:
            standing = _standing(connection, self._library, prompts=self._prompts)
            if standing is not None and standing.top <= newest:
                return standing
            is_other = _has_prompts(connection) not in (None, self._prompts)
        if is_other:  # prompts that nobody may find must not stay in free pages of the file
            self.drop()
        with self._connected() as connection, _transaction(connection):
            standing = _standing(connection, self._library, prompts=self._prompts)
            # A mark above the newest change: the library was put back to an earlier day.
            if standing is None or standing.top > newest:
                _make(connection)
                row = (VERSION, self._library, self._prompts, newest, newest + 1)
                connection.execute("INSERT INTO state VALUES (1, ?, ?, ?, ?, ?)", row)
                standing = Standing(newest, newest + 1)
        return standing

    def add(self, texts: Sequence[Text], *, was: Standing, now: Standing) -> bool:
        """Enters the texts and moves the marks, unless another process did meanwhile. Returns whether it did so."""
        with self._connected() as connection, _transaction(connection):
            if _standing(connection, self._library, prompts=self._prompts) != was:
                return False
            for text in texts:
                _enter(connection, text, prompts=self._prompts)
            connection.execute("UPDATE state SET top = ?, bottom = ?", (now.top, now.bottom))
        return True

    def search(self, expression: str, *, before: int | None, limit: int, ranked: bool = False) -> list[Hit]:
        """The newest pictures that match a valid expression, of those with numbers below `before`."""
        rank = "rank" if ranked else "0.0"
        query = (
            f"SELECT rowid, (SELECT image_id FROM entries WHERE number = texts.rowid), {rank} FROM texts"  # noqa: S608 - of two words
            " WHERE texts MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
        )
        with self._connected() as connection:
            rows = connection.execute(query, (expression, before if before is not None else 2**62, limit))
            return [Hit(*row) for row in rows]

    def forget_deleted(self) -> None:
        """Takes the words of deleted pictures out of the file: FTS5 only marks them until its parts are merged."""
        with self._connected() as connection, _transaction(connection):
            connection.execute("INSERT INTO texts(texts) VALUES('optimize')")

    def looks(self, ids: Iterable[str]) -> dict[str, int]:
        """The fingerprints of how pictures look, by their ids; see pixels.outputs.likeness."""
        with self._connected() as connection:
            query = "SELECT look FROM looks WHERE image_id = ?"
            found = ((one, connection.execute(query, (one,)).fetchone()) for one in ids)
            return {one: row[0] for one, row in found if row is not None}

    def add_looks(self, looks: dict[str, int]) -> None:
        with self._connected() as connection, _transaction(connection):
            connection.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?)", looks.items())

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Opens the file for one use, so that a file that another process has replaced is noticed.

        Raises SetupError, and removes a damaged file, so that the next use makes a new one.
        """
        try:
            with closing(_connect(self.path)) as connection:
                yield connection
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith((*DAMAGE, "SQLITE_ERROR")):  # also a table that is missing or has other columns
                self.drop()
                raise SetupError(
                    f"The search index {self.path} was damaged and is being made anew. Search again in a moment; nothing of "
                    "your library is lost."
                ) from error
            raise SetupError(f"The search index {self.path} cannot be used: {error}") from error

    def drop(self) -> None:
        for suffix in ("", "-journal"):
            with suppress(OSError):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    made = not path.exists()
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if made:
            with suppress(OSError):
                path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=TRUNCATE")
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the index, never the library
        connection.execute("PRAGMA secure_delete=ON")
    except sqlite3.Error:  # a damaged file is noticed here
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back
        yield


def _standing(connection: sqlite3.Connection, library: int, *, prompts: bool) -> Standing | None:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone() is None:
        return None
    row = connection.execute("SELECT version, library, prompts, top, bottom FROM state").fetchone()
    if row is None or tuple(row[:3]) != (VERSION, library, int(prompts)):
        return None
    return Standing(row[3], row[4])


def _has_prompts(connection: sqlite3.Connection) -> bool | None:
    """Tells whether the index has prompts; None where there is none that says so."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone() is None:
        return None
    row = connection.execute("SELECT prompts FROM state").fetchone()
    return None if row is None else bool(row[0])


def _make(connection: sqlite3.Connection) -> None:
    for name in ("texts", "entries", "looks", "state"):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)


def _enter(connection: sqlite3.Connection, text: Text, *, prompts: bool) -> None:
    """Enters a picture's words in place of those that it had; takes a deleted picture out."""
    row = connection.execute("SELECT number FROM entries WHERE image_id = ?", (text.image_id,)).fetchone()
    if row is not None:
        connection.execute("DELETE FROM texts WHERE rowid = ?", row)
    if text.created_ms is None:
        connection.execute("DELETE FROM entries WHERE image_id = ?", (text.image_id,))
        connection.execute("DELETE FROM looks WHERE image_id = ?", (text.image_id,))
        return
    number = row[0] if row is not None else _free_number(connection, text.created_ms)
    if row is None:
        connection.execute("INSERT INTO entries VALUES (?, ?)", (number, text.image_id))
    name = re.split(r"[/\\]", text.path or "")[-1]
    said = (text.prompt if prompts else None, name, text.note, text.tags, text.words if prompts else None)
    values = (number, *(spaced(one) if one else None for one in said))
    connection.execute("INSERT INTO texts (rowid, prompt, name, note, tags, words) VALUES (?, ?, ?, ?, ?, ?)", values)


def _free_number(connection: sqlite3.Connection, created_ms: int) -> int:
    first = created_ms * PLACES_A_MS
    query = "SELECT max(number) FROM entries WHERE number >= ? AND number < ?"
    (taken,) = connection.execute(query, (first, first + PLACES_A_MS)).fetchone()
    number = first if taken is None else taken + 1
    while connection.execute("SELECT 1 FROM entries WHERE number = ?", (number,)).fetchone():
        number += 1
    return int(number)


def spaced(text: str) -> str:
    """A text in which every character of a script without spaces stands alone, as the tokenizer needs it."""
    return _CJK.sub(lambda found: f" {found[0]} ", text)


def is_expression(expression: str) -> bool:
    """Tells whether FTS5 can parse an expression. It asks an empty table, so that an error of the index does not count.

    Raises SetupError where this Python's SQLite has no FTS5.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute(_TEXTS)
        except sqlite3.OperationalError as error:
            raise SetupError("This Python's SQLite has no FTS5, so there is no search by words.") from error
        try:
            connection.execute("SELECT 1 FROM texts WHERE texts MATCH ?", (expression,)).fetchall()
        except sqlite3.OperationalError:
            return False
    return True


def as_expression(query: str) -> str:
    """Turns what somebody typed into an expression, which need not be a valid one; quoted parts stay phrases."""
    parts = query.split('"')
    return '"'.join(spaced(part) if number % 2 else _phrased(part) for number, part in enumerate(parts))


def as_words(query: str) -> str:
    """Turns what somebody typed into plain words, all of which have to occur: quoted parts as phrases, a word with * at
    its end as a prefix.
    """
    found = []
    for number, part in enumerate(query.split('"')):
        for word in [part] if number % 2 else part.split():
            bare = spaced(word.replace('"', "")).strip()
            if any(character.isalnum() for character in bare):
                found.append(f'"{bare.rstrip("*").strip()}"{" *" if word.endswith("*") else ""}')
    return " ".join(found)


def _phrased(text: str) -> str:
    run = re.compile(f"(?:{_CJK.pattern})+")
    return run.sub(lambda found: f' "{" ".join(found[0])}" ', text)
