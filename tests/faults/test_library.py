"""A library that is damaged, replaced, gone, too new, cut short by a kill, or rebuilt."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.server.app import open_from
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.rebuild import rebuild
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support.fakes import FakeModel, photo, picture
from tests.support.rooms import dump, tree


def library_of(places: Places) -> Path:
    """The file that the state folder is named after, beside it."""
    return places.state.with_name(places.state.name.removesuffix(".state"))


async def a_family(studio: Studio, folder: Path) -> None:
    """Pictures of every origin with their lineage, one of them in the trash."""
    mine = photo(folder / "mine.png")
    first = (await studio.create(ImageRequest(prompt="first"))).images[0].record
    second = (await studio.create(ImageRequest(prompt="bluer", inputs=(first.id,)))).images[0].record
    await studio.create(ImageRequest(prompt="together", inputs=(second.id, str(mine), first.id)))
    await studio.create(ImageRequest(prompt="mine edited", inputs=(str(mine),)))
    await studio.model.upload("files/elsewhere", picture(), "image/png", None)
    await studio.create(ImageRequest(prompt="known only from the Files API", file_id="files/elsewhere"))
    await studio.maintain("cleanup_local", dry_run=False, max_age_hours=0, keep_count=3)


def lineage(database: Path) -> tuple[list[tuple[object, ...]], ...]:
    with closing(sqlite3.connect(database)) as connection:
        return tuple(
            connection.execute(query).fetchall()
            for query in ("SELECT * FROM images ORDER BY id", "SELECT * FROM image_sources ORDER BY image_id, position")
        )


@pytest.mark.slow
async def test_a_rebuilt_library_has_the_rows_and_the_lineage_of_the_lost_one(
    make_studio: Callable[..., Studio], places: Places, tmp_path: Path
) -> None:
    studio = make_studio()
    await a_family(studio, tmp_path / "photos")
    await studio.close()
    database = library_of(places)
    before, pictures = lineage(database), tree(places.output)
    assert len(before[0]) == 7
    assert len(before[1]) == 6
    database.write_bytes(b"lost")
    found = rebuild(database, places)
    assert lineage(database) == before
    assert tree(places.output) == pictures
    assert found.aside is not None
    assert found.aside.read_bytes() == b"lost"
    again = rebuild(database, places)
    assert again.aside is not None
    assert again.aside != found.aside, "an earlier library that was put aside has been overwritten"
    assert found.aside.read_bytes() == b"lost"
    assert lineage(database) == before


async def test_pictures_of_one_name_in_the_trash_are_told_apart_by_a_rebuild(
    make_studio: Callable[..., Studio], places: Places
) -> None:
    studio = make_studio()
    for folder in ("a", "b"):
        await studio.create(ImageRequest(prompt=folder, output_path=str(places.output / folder / "cat.jpg")))
    await studio.maintain("cleanup_local", dry_run=False, max_age_hours=0, keep_count=0)
    await studio.close()
    database = library_of(places)
    before = lineage(database)
    with closing(sqlite3.connect(database)) as connection:
        (trashed,) = connection.execute("SELECT count(DISTINCT trash_path) FROM images").fetchone()
    assert trashed == 2, "both are in the trash under names of their own"
    rebuild(database, places)
    assert lineage(database) == before


async def test_without_records_a_rebuild_changes_nothing(places: Places) -> None:
    library_of(places).parent.mkdir(parents=True)
    library_of(places).write_bytes(b"damaged")
    with pytest.raises(SetupError, match="nothing was changed"):
        rebuild(library_of(places), places)
    assert library_of(places).read_bytes() == b"damaged"


def _zeroed(path: Path) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def _page_of_noise(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + os.urandom(4096) + data[8192:])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _a_picture(path: Path) -> None:
    path.write_bytes(picture())


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _emptied(database: Path) -> None:
    os.truncate(database, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_zeroed, "damaged"),
        (_page_of_noise, "damaged"),
        (_half, "damaged"),
        (_a_picture, "damaged"),
        (_newer, "newer version"),
        (_folder, "cannot be"),
        (Path.unlink, "is missing.*nanobanana rebuild"),
        (_emptied, "empty.*nanobanana rebuild"),
    ],
)
async def test_a_library_that_cannot_be_trusted_stops_writes_in_words_and_is_left_as_it_is(
    make_studio: Callable[..., Studio],
    connect: Connect,
    model: FakeModel,
    settings: Settings,
    places: Places,
    damage: Callable[[Path], None],
    why: str,
) -> None:
    studio = make_studio()
    await studio.create(ImageRequest(prompt="before"))
    await studio.close()
    database = library_of(places)
    damage(database)
    kept = database.read_bytes() if database.is_file() else None
    asked, pictures = len(model.requests), tree(places.output)
    emulated = settings.model_copy(update={"backend": "emulator"})
    async with connect(open_it=open_from(emulated)) as client:
        for tool, arguments in (("generate_image", {"prompt": "after"}), ("output_stats", {})):
            with pytest.raises(ToolError, match=why):
                await client.call_tool(tool, arguments)
        assert len(await client.list_tools()) >= 4
    assert (database.read_bytes() if database.is_file() else None) == kept
    assert len(model.requests) == asked
    assert tree(places.output) == pictures


async def test_a_library_whose_last_write_was_cut_short_by_a_kill_opens_again(
    make_studio: Callable[..., Studio], places: Places
) -> None:
    studio = make_studio()
    await studio.create(ImageRequest(prompt="before"))
    await studio.close()
    database = library_of(places)
    kept = dump(database)
    cut_short = (
        "import os, sqlite3, sys\n"
        "library = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for pragma in ('journal_mode=TRUNCATE', 'synchronous=FULL', 'cache_size=1'):\n"
        "    library.execute(f'PRAGMA {pragma}')\n"
        "library.execute('BEGIN IMMEDIATE')\n"
        "for number in range(500):\n"
        "    library.execute('INSERT INTO policy_calls (rule, made_at) VALUES (?, 0)', ('x' * 3000,))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", cut_short, str(database)], check=False)
    assert Path(f"{database}-journal").stat().st_size > 0
    studio = make_studio()
    assert len(studio.library.recent(10, studio.backend)) == 1
    await studio.create(ImageRequest(prompt="after"))
    await studio.close()
    assert {line for line in kept if '"images"' in line} <= set(dump(database))


async def test_a_library_moved_away_while_the_server_runs_stops_writes_and_is_not_made_anew(
    make_studio: Callable[..., Studio], connect: Connect, model: FakeModel, places: Places
) -> None:
    studio = make_studio()
    database = library_of(places)
    async with connect(open_it=lambda: studio) as client:
        await client.call_tool("generate_image", {"prompt": "before"})
        await studio.noted()
        kept = dump(database)
        database.rename(database.with_name("moved.db"))
        with pytest.raises(ToolError, match="moved or replaced"):
            await client.call_tool("generate_image", {"prompt": "after"})
        assert not database.exists()
        assert len(model.requests) == 1
        database.with_name("moved.db").rename(database)
        assert await client.call_tool("generate_image", {"prompt": "back again"})
    rows = {line for line in kept if line.startswith(('INSERT INTO "images"', 'INSERT INTO "calls"'))}
    assert len(rows) == 2
    assert rows <= set(dump(database))


async def test_a_library_that_fills_its_disk_says_so_and_nothing_is_sent(
    make_studio: Callable[..., Studio], connect: Connect, model: FakeModel
) -> None:
    studio = make_studio()
    async with connect(open_it=lambda: studio) as client:
        await client.call_tool("generate_image", {"prompt": "before"})
        with studio.library.database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(ToolError, match="full"):
            for number in range(50):
                await client.call_tool("generate_image", {"prompt": f"{number} " + "x" * 4000})
        assert await client.call_tool("output_stats", {})
        assert len(model.requests) < 50


DOORS = {
    "convert_image": lambda path: {"image": path, "width": 10},
    "upload_file": lambda path: {"path": path},
    "edit_region": lambda path: {"image": path, "instruction": "a hat", "box": [0, 0, 1, 1]},
    "generate_image": lambda path: {"prompt": "a hat", "input_images": [path]},
}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="locks that belong to a process and a file are POSIX's")
@pytest.mark.parametrize("way", ["hard link", "mask", "renamed in the output folder"])
async def test_no_door_opens_the_library_under_another_name_and_drops_its_locks(
    studio: Studio, connect: Connect, places: Places, tmp_path: Path, way: str
) -> None:
    database = library_of(places)
    link = (places.output if way.startswith("renamed") else tmp_path) / "innocent.png"
    if way.startswith("renamed"):  # as long as a picture that is missing, so that hygiene would compare their bytes
        gone = (await studio.create(ImageRequest(prompt="gone"))).images[0].record
        Path(str(gone.path)).unlink()
        with studio.library.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE images SET bytes = {database.stat().st_size}")
    os.link(database, link)
    mine = photo(tmp_path / "mine.png")
    lock = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with closing(sqlite3.connect(database, isolation_level=None)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        async with connect(open_it=lambda: studio) as client:
            if way == "hard link":
                for tool, arguments in DOORS.items():
                    with pytest.raises(ToolError, match="studio's own records"):
                        await client.call_tool(tool, arguments(str(link)))
            elif way == "mask":
                edit = {"image": str(mine), "instruction": "a hat", "mask": str(link)}
                with pytest.raises(ToolError, match="studio's own records"):
                    await client.call_tool("edit_region", edit)
            else:
                await client.call_tool("maintenance", {"operation": "database_hygiene", "dry_run": True})
        other = subprocess.run([sys.executable, "-c", lock, str(database)], capture_output=True, text=True)
        assert "database is locked" in other.stderr
