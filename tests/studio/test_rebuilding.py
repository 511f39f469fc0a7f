"""A new library from the pictures' own records: what comes back, what is refused, and what no bad record can stop."""

import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.cli.main import run
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.ids import new_id
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.processes import ProcessLock
from nanobanana_mcp.storage.spool import Spool
from nanobanana_mcp.studio.rebuild import Rebuilt, rebuild
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import Died, FakeModel, jpeg, refusal, reply
from tests.support.rooms import dump, rows


async def _filled(make_studio: Callable[..., Studio], *prompts: str) -> list[str]:
    """The ids of new pictures, in a library that nobody has open any more."""
    studio = make_studio()
    made = [(await studio.create(ImageRequest(prompt=prompt))).images[0].record.id for prompt in prompts]
    await studio.close()
    return made


def _lost(settings: Settings, places: Places) -> Rebuilt:
    """A new library once the old one is gone, from the records alone."""
    settings.database_path.unlink()
    rebuilt = rebuild(settings.database_path, places)
    assert rebuilt is not None and not rebuilt.kept
    return rebuilt


def _known(database_path: Path) -> set[str]:
    return {found for (found,) in rows(database_path, "SELECT id FROM images")}


async def test_a_library_that_a_server_has_open_is_not_rebuilt(
    make_studio: Callable[..., Studio], settings: Settings, places: Places, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await _filled(make_studio, "a cat")
    before, server = dump(settings.database_path), ProcessLock(places)
    monkeypatch.setenv("NANOBANANA_OUTPUT_DIR", str(settings.output_dir))
    monkeypatch.setenv("NANOBANANA_DATABASE_URL", settings.database_url)
    assert run(["rebuild"]) == 2
    assert "End every window that uses it" in capsys.readouterr().err
    assert dump(settings.database_path) == before
    assert not list(settings.database_path.parent.glob("*.aside-*"))
    server.close()
    assert run(["rebuild", "--yes"]) == 0


async def test_an_answer_that_waited_while_the_library_was_rebuilt_becomes_a_picture(
    make_studio: Callable[..., Studio], settings: Settings, places: Places, model: FakeModel
) -> None:
    await _filled(make_studio, "a cat")
    studio = make_studio()
    model.answers.append(Died())
    with pytest.raises(Died):
        await studio.create(ImageRequest(prompt="a dog"))
    ((call_id,),) = rows(settings.database_path, "SELECT id FROM calls WHERE state = 'sent'")
    Spool(places).put(call_id, reply(jpeg(comment="the dog")))
    await studio.close()
    _lost(settings, places)
    studio = make_studio()
    (found,) = await studio.recover()
    assert found.record is not None and Path(str(found.record.path)).read_bytes() == jpeg(comment="the dog")
    assert Spool(places).calls() == []
    assert found.record.id in [record.id for record in studio.library.recent(5, studio.backend)]
    assert await studio.recover() == []
    await studio.close()


@pytest.mark.parametrize("junk", [b"", b"{", refusal("NO_IMAGE"), reply(b"no picture at all")])
async def test_what_lies_in_the_spool_and_is_no_picture_stops_no_start(
    junk: bytes, make_studio: Callable[..., Studio], places: Places
) -> None:
    studio = make_studio()
    whole, broken = new_id(), new_id()
    Spool(places).put(broken, junk)
    Spool(places).put("not-one-of-ours", junk)
    Spool(places).put(whole, reply(jpeg()))
    assert f"img_{whole}" in [found.record.id for found in await studio.recover() if found.record is not None]
    await studio.close()


BAD: dict[str, dict[str, Any]] = {
    "path": {"path": 5},
    "width": {"width": None},
    "time": {"created_at": "yesterday"},
    "zone": {"created_at": "2026-11-20T12:00:00"},
    "id": {"id": "../../x"},
    "parents": {"parents": [{"image_id": 5, "role": "base"}]},
    "origin": {"origin": None},
    "no such origin": {"origin": "stolen"},
    "role": {"parents": [{"image_id": "img_0123456789abcdef", "role": "thief"}]},
    "bytes": {"bytes": 10**30},
    "negative": {"width": -1},
    "age": {"created_at": "0001-01-01T00:00:00+14:00"},
    "half an emoji": {"prompt": "\ud83d"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
async def test_a_record_that_was_tampered_with_is_left_out_and_the_others_come_back(
    name: str, make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    good, bad = await _filled(make_studio, "a cat", "a dog")
    file = places.records / f"{bad}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | BAD[name]))
    rebuilt = _lost(settings, places)
    assert (rebuilt.pictures, rebuilt.unreadable) == (1, (file,))
    assert _known(settings.database_path) == {good}


@pytest.mark.parametrize("there", [False, True], ids=["nothing is there", "another file is there"])
async def test_a_planted_record_leads_to_no_file_outside_the_output_folder(
    there: bool, make_studio: Callable[..., Studio], settings: Settings, places: Places, tmp_path: Path
) -> None:
    good, planted = await _filled(make_studio, "a cat", "a dog")
    file, outside = places.records / f"{planted}.json", tmp_path / "home" / ".config" / "start.jpg"
    outside.parent.mkdir(parents=True)
    body = json.loads(file.read_text())
    if there:
        outside.write_bytes(b"secret")
    file.write_text(json.dumps(body | {"path": str(outside), "thumbnail_path": str(tmp_path / "home" / "secret.txt")}))
    places.trash.mkdir(parents=True)
    Path(body["path"]).rename(places.trash / outside.name)
    assert _lost(settings, places).pictures == 2
    database = Database.open(settings.database_path)
    found = Library(database).get(planted)
    database.close()
    assert found is not None and found.path == str(places.output / outside.name)
    assert found.thumbnail_path == str(places.thumbnails / "secret.txt")
    studio = make_studio()
    await studio.maintain("restore", dry_run=False)
    await studio.close()
    assert outside.exists() == there
    assert (places.output / outside.name).is_file()
    assert _known(settings.database_path) == {good, planted}


async def test_a_picture_that_a_caller_had_put_elsewhere_is_rebuilt_where_it_is(
    make_studio: Callable[..., Studio], settings: Settings, places: Places, tmp_path: Path
) -> None:
    studio = make_studio()
    made = await studio.create(ImageRequest(prompt="a cat", output_path=str(tmp_path / "art" / "cat.jpg")))
    await studio.close()
    _lost(settings, places)
    ((path,),) = rows(settings.database_path, "SELECT path FROM images")
    assert path == made.images[0].record.path == str(tmp_path / "art" / "cat.jpg")


async def test_two_records_of_one_picture_are_one_picture(
    make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    (made,) = await _filled(make_studio, "a cat")
    (places.records / "copy.json").write_bytes((places.records / f"{made}.json").read_bytes())
    assert _lost(settings, places).pictures == 1
    assert _known(settings.database_path) == {made}


async def test_the_old_library_stays_in_force_until_the_new_one_is_whole(
    make_studio: Callable[..., Studio], settings: Settings, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await _filled(make_studio, "a cat", "a dog")
    before = dump(settings.database_path)

    def full(*_given: Any) -> None:
        raise SetupError("The disk that holds the library is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Library, "add_all", full)
        with pytest.raises(SetupError, match="full"):
            rebuild(settings.database_path, places)
    assert dump(settings.database_path) == before
    assert _lost(settings, places).pictures == 2
    assert _known(settings.database_path) == set(made)


async def test_a_picture_that_was_found_again_is_rebuilt_where_it_is(
    make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    (made,) = await _filled(make_studio, "a cat")
    studio = make_studio()
    record = studio.library.get(made)
    assert record is not None
    moved = Path(str(record.path)).rename(places.output / "renamed.jpg")
    await studio.maintain("database_hygiene", dry_run=False)
    await studio.close()
    _lost(settings, places)
    database = Database.open(settings.database_path)
    found = Library(database).get(made)
    database.close()
    assert found is not None and found.path == str(moved)


async def test_a_library_that_can_be_read_keeps_its_spending_and_pictures_elsewhere(
    make_studio: Callable[..., Studio], settings: Settings, places: Places, tmp_path: Path
) -> None:
    studio = make_studio()
    made = [
        (await studio.create(ImageRequest(prompt=prompt, output_path=where))).images[0].record
        for prompt, where in (("a cat", None), ("a dog", str(tmp_path / "art" / "dog.jpg")))
    ]
    spent = studio.journal.spending("gemini")
    assert spent.hour_usd > 0
    await studio.close()
    for file in places.records.glob("*.json"):
        file.unlink()
    (places.records / f"{made[0].id}.json").write_text("{")
    rebuilt = rebuild(settings.database_path, places)
    assert rebuilt is not None and (rebuilt.kept, rebuilt.pictures, rebuilt.added) == (True, 2, 0)
    assert rebuilt.aside is not None and rebuilt.aside.is_file()
    again = make_studio()
    assert again.journal.spending("gemini") == spent
    found = again.library.get(made[1].id)
    assert found is not None and found.path == str(tmp_path / "art" / "dog.jpg")
    await again.close()


async def test_a_record_that_a_readable_library_forgot_is_added_with_its_lineage(
    make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    studio = make_studio()
    first = (await studio.create(ImageRequest(prompt="a cat"))).images[0].record
    edit = (await studio.create(ImageRequest(prompt="in a hat", inputs=(first.id,)))).images[0].record
    await studio.close()
    with closing(sqlite3.connect(settings.database_path)) as connection, connection:
        connection.execute("DELETE FROM image_sources")
        connection.execute("DELETE FROM images WHERE id = ?", (edit.id,))
    rebuilt = rebuild(settings.database_path, places)
    assert rebuilt is not None and (rebuilt.pictures, rebuilt.added) == (2, 1)
    again = make_studio()
    assert [step.record.id for step in again.library.ancestors(edit.id)] == [first.id]
    await again.close()


@pytest.mark.parametrize("state", ["healthy", "header", "half", "page"])
async def test_a_rebuild_says_what_it_would_lose_and_does_nothing_unasked(
    state: str, make_studio: Callable[..., Studio], settings: Settings, places: Places,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (made,) = await _filled(make_studio, "a cat")
    path = settings.database_path
    data = bytearray(path.read_bytes())
    match state:
        case "header":
            data[:100] = bytes(100)
        case "half":
            del data[len(data) // 2 :]
        case "page":
            data[4096:8192] = bytes(range(256)) * 16
    path.write_bytes(data)
    monkeypatch.setenv("NANOBANANA_OUTPUT_DIR", str(settings.output_dir))
    monkeypatch.setenv("NANOBANANA_DATABASE_URL", settings.database_url)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["rebuild"]) == 2
    said = capsys.readouterr().err
    assert ("its spending" in said) == (state == "healthy")
    assert ("limits of the hour and the day begin anew" in said) == (state != "healthy")
    assert "rebuild --yes" in said and path.read_bytes() == bytes(data)
    assert not list(path.parent.glob("*.aside-*")) and not list(path.parent.glob("*.rebuilding*"))
    assert run(["rebuild", "--yes"]) == 0
    assert _known(path) == {made}
    (aside,) = [one for one in path.parent.glob("*.aside-*") if not one.name.endswith("-journal")]
    assert aside.read_bytes() == bytes(data)


async def test_a_full_disk_is_no_damage_and_forgets_no_spending(
    make_studio: Callable[..., Studio], settings: Settings, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _filled(make_studio, "a cat")
    before = dump(settings.database_path)

    class Full:
        """A connection whose disk is full as soon as something is copied."""

        def __init__(self, *given: Any, **named: Any) -> None:
            self._real = real(*given, **named)

        def execute(self, sql: str, *more: Any) -> Any:
            if sql.startswith("VACUUM"):
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise error
            return self._real.execute(sql, *more)

        def close(self) -> None:
            self._real.close()

    real = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr("nanobanana_mcp.library.database.sqlite3.connect", Full)
        with pytest.raises(SetupError, match="is full"):
            rebuild(settings.database_path, places)
    assert dump(settings.database_path) == before
    assert not list(settings.database_path.parent.glob("*.rebuilding*"))


async def test_a_picture_that_is_made_while_a_person_thinks_is_not_lost(
    make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    await _filled(make_studio, "a cat")

    def meanwhile(_found: Rebuilt) -> bool:
        with closing(sqlite3.connect(settings.database_path)) as connection, connection:
            connection.execute("UPDATE images SET prompt = 'a dog'")
        return True

    with pytest.raises(SetupError, match="in the meantime, so nothing was changed"):
        rebuild(settings.database_path, places, agree=meanwhile)
    assert rows(settings.database_path, "SELECT prompt FROM images") == [("a dog",)]


async def test_two_rebuilds_at_once_are_one(
    make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    await _filled(make_studio, "a cat")

    def another(_found: Rebuilt) -> bool:
        with pytest.raises(SetupError, match="Another process is rebuilding"):
            rebuild(settings.database_path, places)
        return True

    rebuilt = rebuild(settings.database_path, places, agree=another)
    assert rebuilt is not None and rebuilt.pictures == 1


@pytest.mark.parametrize(("said", "done"), [("y\n", True), ("n\n", False), ("", False)])
async def test_a_person_is_asked_and_the_answer_counts(
    said: str, done: bool, make_studio: Callable[..., Studio], settings: Settings,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await _filled(make_studio, "a cat")
    monkeypatch.setenv("NANOBANANA_OUTPUT_DIR", str(settings.output_dir))
    monkeypatch.setenv("NANOBANANA_DATABASE_URL", settings.database_url)
    terminal = io.StringIO(said)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert run(["rebuild"]) == (0 if done else 2)
    assert "its 1 picture, its spending" in capsys.readouterr().err
    assert bool(list(settings.database_path.parent.glob("*.aside-*"))) == done
