"""A library that is damaged, replaced, gone, too new or rebuilt; folders that vanish and fill; clocks that run back."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from conftest import Connect
from fakes import FakeModel, jpeg, photo, picture, reply
from fastmcp.exceptions import ToolError
from faults.checker import check
from faults.processes import Forge, Server, recovered, wait_until
from faults.world import World, world
from rooms import dump, tree

from nanobanana_mcp.budget import Limits
from nanobanana_mcp.domain import ImageRequest, now
from nanobanana_mcp.emulator.control import Delay
from nanobanana_mcp.errors import BudgetExceeded, SetupError, StudioError
from nanobanana_mcp.library import counts, journal
from nanobanana_mcp.policy import Limit, PolicyViolation
from nanobanana_mcp.rebuild import rebuild
from nanobanana_mcp.storage import writing
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio import Studio


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


async def a_family(studio: Studio, folder: Path) -> None:
    """Pictures of every origin with their lineage, one of them in the trash."""
    mine = photo(folder / "mine.png")
    first = (await studio.create(ImageRequest(prompt="first"))).images[0].record
    second = (await studio.create(ImageRequest(prompt="bluer", inputs=(first.id,)))).images[0].record
    await studio.create(ImageRequest(prompt="together", inputs=(second.id, str(mine), first.id)))
    await studio.create(ImageRequest(prompt="mine edited", inputs=(str(mine),)))
    await studio.maintain("cleanup_local", dry_run=False, max_age_hours=0, keep_count=3)


def lineage(database: Path) -> tuple[list[tuple[object, ...]], ...]:
    with closing(sqlite3.connect(database)) as connection:
        return tuple(
            connection.execute(query).fetchall()
            for query in ("SELECT * FROM images ORDER BY id", "SELECT * FROM image_sources ORDER BY image_id, position")
        )


async def test_a_rebuilt_library_has_the_rows_and_the_lineage_of_the_lost_one(
    make_studio: Callable[..., Studio], places: Places, tmp_path: Path
) -> None:
    studio = make_studio()
    await a_family(studio, tmp_path / "photos")
    await studio.close()
    database = places.state / "library.db"
    before, pictures = lineage(database), tree(places.output)
    assert len(before[0]) == 5
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
    database = places.state / "library.db"
    before = lineage(database)
    assert len({row[-1] for row in before[0]}) == 2, "both are in the trash under names of their own"
    rebuild(database, places)
    assert lineage(database) == before


async def test_without_records_a_rebuild_changes_nothing(places: Places) -> None:
    places.state.mkdir(parents=True)
    (places.state / "library.db").write_bytes(b"damaged")
    with pytest.raises(SetupError, match="nothing was changed"):
        rebuild(places.state / "library.db", places)
    assert (places.state / "library.db").read_bytes() == b"damaged"


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


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_zeroed, "damaged"),
        (_page_of_noise, "damaged"),
        (_half, "damaged"),
        (_a_picture, "damaged"),
        (_newer, "newer version"),
        (_folder, "cannot be"),
    ],
)
async def test_a_library_that_cannot_be_trusted_stops_writes_in_words_and_is_left_as_it_is(
    make_studio: Callable[..., Studio],
    connect: Connect,
    model: FakeModel,
    places: Places,
    damage: Callable[[Path], None],
    why: str,
) -> None:
    studio = make_studio()
    await studio.create(ImageRequest(prompt="before"))
    await studio.close()
    database = places.state / "library.db"
    damage(database)
    kept = database.read_bytes() if database.is_file() else None
    asked, pictures = len(model.requests), tree(places.output)
    async with connect() as client:
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
    database = places.state / "library.db"
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
    assert len(studio.library.recent(10)) == 1
    await studio.create(ImageRequest(prompt="after"))
    await studio.close()
    assert {line for line in kept if '"images"' in line} <= set(dump(database))


async def test_a_library_moved_away_while_the_server_runs_stops_writes_and_is_not_made_anew(
    make_studio: Callable[..., Studio], connect: Connect, model: FakeModel, places: Places
) -> None:
    studio = make_studio()
    database = places.state / "library.db"
    async with connect(open_it=lambda: studio) as client:
        await client.call_tool("generate_image", {"prompt": "before"})
        kept = dump(database)
        database.rename(places.state / "moved.db")
        with pytest.raises(ToolError, match="moved or replaced"):
            await client.call_tool("generate_image", {"prompt": "after"})
        assert not database.exists()
        assert len(model.requests) == 1
        (places.state / "moved.db").rename(database)
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


async def test_a_full_disk_is_noticed_before_anything_is_paid(
    studio: Studio, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(SetupError, match=r"1 MB left.*NANOBANANA_OUTPUT_DIR"):
        await studio.create(ImageRequest(prompt="a banana"))
    assert model.requests == []
    assert studio.journal.spending("gemini").hour_usd == 0


async def test_a_folder_that_vanishes_while_a_picture_is_drawn_does_not_lose_it(
    make_studio: Callable[..., Studio], model: FakeModel, places: Places
) -> None:
    async def gone() -> bytes:
        shutil.rmtree(places.output)
        places.output.write_text("in the way")
        return reply(jpeg())

    studio = make_studio()
    places.output.mkdir(parents=True)
    model.answers.append(gone)
    created = await studio.create(ImageRequest(prompt="a banana"))
    path = Path(str(created.images[0].record.path))
    assert path.is_relative_to(places.state / "rescued")
    assert path.read_bytes() == jpeg()
    assert any(str(path) in warning for warning in created.warnings)
    places.output.unlink()
    await studio.close()


async def test_recover_in_the_same_server_finishes_what_no_disk_took(
    studio: Studio, model: FakeModel, places: Places
) -> None:
    async def gone() -> bytes:
        shutil.rmtree(places.output, ignore_errors=True)
        for folder in (places.output, places.state / "rescued"):
            folder.write_text("in the way")
        return reply(jpeg())

    model.answers.append(gone)
    with pytest.raises(StudioError, match="operation 'recover'"):
        await studio.create(ImageRequest(prompt="a banana"))
    for folder in (places.output, places.state / "rescued"):
        folder.unlink()
    report = await studio.maintain("recover", dry_run=False)
    assert any("kept as" in finding for finding in report.findings), report.findings
    assert len(studio.library.recent(10)) == 1
    assert len(model.requests) == 1


async def test_a_clock_set_back_opens_no_window_of_spending(
    make_studio: Callable[..., Studio], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio(limits=Limits(per_hour_usd=0.1, calls_per_minute=50))
    with pytest.raises(BudgetExceeded):
        for number in range(10):
            await studio.create(ImageRequest(prompt=f"banana {number}"))
    paid = len(model.requests)
    for back in (timedelta(minutes=90), timedelta(days=3), timedelta(days=400)):
        monkeypatch.setattr(journal, "now", lambda back=back: now() - back)
        with pytest.raises(BudgetExceeded, match="NANOBANANA_MAX_USD_PER_HOUR"):
            await studio.create(ImageRequest(prompt="another"))
    assert len(model.requests) == paid
    await studio.close()


async def test_a_clock_set_back_gives_no_rate_limit_back(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [Limit(key="generate_image#1", maximum=2, window_s=60, rolling=True)]
    for _ in range(2):
        await studio.take(limits, "generate_image")
    for back in (timedelta(0), timedelta(minutes=5), timedelta(days=5)):
        moment: Callable[[], datetime] = lambda back=back: now() - back  # noqa: E731
        monkeypatch.setattr(counts, "now", moment)
        with pytest.raises(PolicyViolation, match="resets in"):
            await studio.take(limits, "generate_image")


@pytest.mark.slow
def test_eight_looping_processes_never_spend_more_than_the_hour_allows(at: World) -> None:
    with Forge(at) as forge:
        outcomes = forge.run(*({"act": "spend", "limits": {"per_hour_usd": 0.6}} for _ in range(8)))
        assert [outcome["error"] for outcome in outcomes] == [None] * 8, outcomes
        assert sum(int(outcome["text"]) for outcome in outcomes) == len(at.emulator.charges)
        forge.recover()
    assert 0.5 < sum(charge.usd for charge in at.emulator.charges) <= 0.6
    check(at)


@pytest.mark.slow
def test_a_project_policy_only_tightens_and_a_broken_one_stops_paid_tools_only(at: World) -> None:
    mine, projects = at.root / "policy.yaml", at.project / "nanobanana-policy.yaml"
    mine.write_text(
        'version: "1"\ndefault: allow\nhide: [maintenance]\n'
        "tools:\n  generate_image:\n    rules:\n"
        "      - {action: allow, rate_limit: {max: 3, window: 3600}, validate: {required_args: true}}\n"
        '      - {action: deny, conditions: [{path: "args.resolution", op: eq, value: "4k"}], on_deny: Ask for 2k.}\n'
    )
    projects.write_text("default: allow\ntools: {generate_image: {rules: [{rate_limit: 2/hour}]}}\n")
    with Server(at, NANOBANANA_POLICY=str(mine)).greet() as one, Server(at, NANOBANANA_POLICY=str(mine)) as two:
        two.greet()
        names = {tool["name"] for tool in one.answer(one.ask("tools/list"))["result"]["tools"]}
        assert "generate_image" in names
        assert "maintenance" not in names
        assert not one.call("maintenance", operation="recover")[0]
        well, words = one.call("generate_image", prompt="a", resolution="4k")
        assert not well
        assert "Ask for 2k." in words
        assert one.call("generate_image", prompt="a")[0]
        assert two.call("generate_image", prompt="b")[0]
        well, words = one.call("generate_image", prompt="c")
        assert not well
        assert "Policy violation" in words
        assert "resets in" in words
        projects.unlink()
        assert one.call("generate_image", prompt="c")[0], "the user's own limit is three"
        assert not two.call("generate_image", prompt="d")[0]
        mine.write_text("defaults: allow\n")
        well, words = two.call("generate_image", prompt="e")
        assert not well
        assert "defaults" in words
        assert two.call("output_stats")[0]
        mine.write_text("default: deny\ntools: {output_stats: {rules: []}}\n")
        assert not one.call("generate_image", prompt="f")[0]
        mine.unlink()
        assert not one.call("generate_image", prompt="g")[0], "a policy that is gone allows nothing"
    assert len(at.emulator.charges) == 3
    check(at)


def fill(path: Path) -> None:
    """Take all the room there is on a disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_fills_after_paying_does_not_lose_the_picture(at: World) -> None:
    at.emulator.control.queue.extend([None, Delay(seconds=2)])
    at.output.mkdir()
    if os.system(f"mount -t tmpfs -o size=256m tmpfs {at.output}") != 0:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with Server(at).greet() as server:
            assert server.call("generate_image", prompt="one")[0]
            number = server.begin("generate_image", prompt="two")
            wait_until(lambda: len(at.emulator.requests) == 2, "the request reached Gemini")
            fill(at.output / ".filling")
            well, words = server.outcome(number)
            assert well, words
            assert "No space left" in words
            assert str(at.database.parent / "rescued") in words
            well, words = server.call("generate_image", prompt="three")
            assert not well
            assert "Free some space" in words
            assert len(at.emulator.charges) == 2
            (at.output / ".filling").unlink(missing_ok=True)
            server.hang_up()
            server.ended()
        recovered(at)
        check(at)
    finally:
        os.system(f"umount -l {at.output}")
