"""Long searches and lineages are read in pieces, between which other processes write to the library."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from nanobanana_mcp.domain.finding import FindRequest
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.finding import Finder
from nanobanana_mcp.library.index import Hit, Index
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support.finding import a_picture, find, prompts
from tests.support.rooms import record


async def test_a_search_under_way_holds_no_lock_on_the_library(
    studio: Studio, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_picture(studio, "a panda")
    search, written = Index.search, []

    def beside_a_writer(index: Index, *arguments: Any, **options: Any) -> list[Hit]:
        with closing(sqlite3.connect(settings.database_path, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            written.append(other.execute("COMMIT"))
        return search(index, *arguments, **options)

    monkeypatch.setattr(Index, "search", beside_a_writer)
    for order in ("newest", "best"):
        assert await find(studio, "panda", order=order) == ["a panda"]
    assert len(written) >= 2


@pytest.fixture
def pieces(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each time that the library was let go of, when another process wrote to it at once."""
    sizes = {"finding.PIECE": 4, "finding.FIRST_PIECE": 4, "finding.LOOKED_UP": 2, "pictures.LOOKED_UP": 2}
    for name, rows_ in sizes.items():
        monkeypatch.setattr(f"nanobanana_mcp.library.{name}", rows_)
    read, found = Database.read, list[object]()

    @contextmanager
    def counted(database: Database) -> Iterator[Connection]:
        with read(database) as connection:
            yield connection
        if getattr(database._held, "connection", None) is None:  # the last of those that share a turn
            with closing(sqlite3.connect(settings.database_path, timeout=0, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                found.append(other.execute("COMMIT"))

    monkeypatch.setattr(Database, "read", counted)
    return found


async def test_a_long_list_is_read_in_pieces_between_which_others_write(studio: Studio, pieces: list[object]) -> None:
    for number in range(20):
        studio.library.add(record(prompt=str(number), tier="pro" if number == 0 else "flash"))
    assert await find(studio, tier="pro") == ["0"]
    assert len(pieces) > 8


@pytest.mark.parametrize("many", ["children of one", "children of many", "a chain"])
async def test_many_descendants_are_read_in_pieces_between_which_others_write(
    studio: Studio, pieces: list[object], many: str
) -> None:
    root = record(prompt="root")
    studio.library.add(root)
    made = [record(prompt=str(number), created_at=now() - timedelta(minutes=number)) for number in range(21)]
    for number, one in enumerate(made):
        of = {
            "children of one": root.id,
            "children of many": root.id if number < 7 else made[number % 7].id,
            "a chain": made[number - 1].id if number else root.id,
        }[many]
        parents = (Parent(image_id=of, role="base"), Parent(image_id=of, role="input"))
        studio.library.add(replace(one, parents=parents))
    pieces.clear()
    page = await studio.find_images(FindRequest(made_from=root.id, limit=15))
    assert prompts(page) == [str(number) for number in range(15)] and page.total == 21
    assert len(pieces) > 21 // 2
    pieces.clear()
    page = await studio.find_images(FindRequest(made_from=root.id, limit=15, cursor=page.cursor))
    assert prompts(page) == [str(number) for number in range(15, 21)] and page.cursor is None
    assert len(pieces) < 10  # what was read is known as long as nothing changes


async def test_pictures_that_a_damaged_lineage_has_made_from_each_other_are_followed_once(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = [record(prompt=str(number), created_at=now() - timedelta(minutes=number)) for number in range(3)]
    studio.library.add_all(ring)
    with studio.library.database.write() as connection:
        for one, other in zip(ring, [*ring[1:], ring[0]], strict=True):
            connection.exec_driver_sql("INSERT INTO image_sources VALUES (?, 0, ?, 'base')", (one.id, other.id))
    children, asked = Finder._children, list[Sequence[str]]()

    def counted(finder: Finder, parents: Sequence[str]) -> Iterator[str]:
        asked.append(parents)
        assert len(asked) < 10
        return children(finder, parents)

    monkeypatch.setattr(Finder, "_children", counted)
    assert await find(studio, made_from=ring[0].id) == ["0", "1", "2"]


async def test_the_many_children_of_a_lineage_are_read_in_pieces_between_which_others_write(
    studio: Studio, pieces: list[object]
) -> None:
    root = record()
    studio.library.add(root)
    made = [record(prompt=str(number), created_at=now() - timedelta(minutes=number)) for number in range(101)]
    parents = (Parent(image_id=root.id, role="base"), Parent(image_id=root.id, role="input"))
    for one in made:
        studio.library.add(replace(one, parents=parents))
    pieces.clear()
    lineage = await studio.lineage(root.id)
    assert [one.prompt for one in lineage.children] == [str(number) for number in range(99, -1, -1)]
    assert lineage.child_count == 101
    assert len(pieces) > 101


async def test_many_pictures_of_a_tag_or_a_rating_are_read_in_pieces_between_which_others_write(
    studio: Studio, pieces: list[object]
) -> None:
    for number in range(20):
        made = a_picture(studio, str(number), days=20 - number)
        await studio.annotate(made.id, tags=["even"] if number % 2 == 0 else ["odd"], rating=1 + number % 5)
    for wanted, found in (
        ({"tag": "even"}, [18, 16, 14, 12, 10, 8, 6, 4, 2, 0]),
        ({"min_rating": 4}, [19, 18, 14, 13, 9, 8, 4, 3]),
        ({"min_rating": 4, "tag": "even"}, [18, 14, 8, 4]),
        ({"min_rating": 4, "tag": "even", "order": "best"}, [14, 4, 18, 8]),
    ):
        pieces.clear()
        assert await find(studio, **wanted) == [str(number) for number in found], wanted
        assert len(pieces) > 5
