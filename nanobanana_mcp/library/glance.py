"""Reads a library file with SQLite alone, without opening it as the studio does: its newest pictures and its state."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.library import HEAD

WAIT_S = 0.5
"""Seconds to wait for another process's transaction; when that takes longer, the list is empty this once."""

NEWEST = """
SELECT id, mime_type, width, height, bytes FROM images
WHERE origin IN ('generated', 'edited') AND path IS NOT NULL AND trash_path IS NULL AND width > 0
AND (backend = ? OR backend IS NULL) AND substr(id, 1, length(?)) = ? ORDER BY created_at DESC LIMIT ?
"""


class Glimpse(NamedTuple):
    """One picture as a list shows it, without any text that somebody wrote."""

    id: str
    mime_type: str
    width: int
    height: int
    bytes: int


def glance(path: Path, backend: Backend, count: int, beginning: str = "") -> list[Glimpse]:
    """The newest pictures that one backend drew or edited, that are not in the trash and whose ids begin with a text;
    none when the file is missing, locked, damaged, of another schema or no library.

    Changes nothing, not even after a process was killed during a commit.
    """
    try:
        if not path.is_file():
            return []
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=WAIT_S)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            if connection.execute("SELECT version_num FROM alembic_version").fetchall() != [(HEAD,)]:
                return []
            return glimpses(connection.execute(NEWEST, (backend, beginning, beginning, count)))
        finally:
            connection.close()
    except (sqlite3.Error, OSError):
        return []


Condition = Literal["missing", "current", "older", "newer", "strange", "damaged", "busy"]


def condition(path: Path) -> tuple[Condition, int]:
    """The state of a library file and how many pictures it has; opening it instead would upgrade it."""
    if not path.exists():
        return "missing", 0
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=WAIT_S)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"alembic_version", "images"} <= tables:
                return "strange" if tables else "missing", 0
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return "damaged", 0
            (pictures,) = connection.execute("SELECT count(*) FROM images").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return ("busy" if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) else "damaged"), 0
    except sqlite3.Error:
        return "damaged", 0
    return ("current" if revision == HEAD else "older" if str(revision) < HEAD else "newer"), int(pictures)


def glimpses(rows: Iterable[Any]) -> list[Glimpse]:
    """The rows of NEWEST; values that a damaged file has in place of the right ones are left out."""
    found = (Glimpse(*row) for row in rows)
    return [one for one in found if _is_whole(one)]


def _is_whole(one: Glimpse) -> bool:
    named = isinstance(one.id, str) and is_image_id(one.id) and str(one.mime_type).startswith("image/")
    return named and all(isinstance(number, int) and number > 0 for number in one[2:])
