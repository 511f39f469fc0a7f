"""Searching the library: by words and facts, newest or best first, whatever state the index, the files and the disk are in."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.errors import RequestError, SetupError, SourceNotFound
from nanobanana_mcp.domain.finding import FindRequest
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.annotations import Annotations
from nanobanana_mcp.library.finding import fingerprint
from nanobanana_mcp.library.pictures import CHILDREN
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.rebuild import rebuild
from nanobanana_mcp.studio.search import Search
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel, jpeg, photo, reply
from tests.support.finding import a_picture, all_pages, find, prompts
from tests.support.rooms import record, rows


@pytest.fixture
async def studio(make_studio: Callable[..., Studio]) -> AsyncIterator[Studio]:
    made = make_studio()
    made.places.output.mkdir(exist_ok=True)
    yield made
    await made.close()


async def test_words_are_found_in_prompts_file_names_notes_tags_and_what_the_model_said(studio: Studio) -> None:
    a_picture(studio, "a red panda in a café")
    a_picture(studio, "by its name", name="autumn-harbour_02.png")
    noted = a_picture(studio, "by its note")
    a_picture(studio, "by the model", words="Here is your lighthouse.")
    await studio.annotate(noted.id, note="for the Christmas card", tags=["Hero shot"])
    assert await find(studio, "panda") == ["a red panda in a café"]
    assert await find(studio, "CAFE red") == ["a red panda in a café"]
    assert await find(studio, "harbour") == ["by its name"]
    assert await find(studio, "christmas") == await find(studio, "hero") == ["by its note"]
    assert await find(studio, "lighthouse") == ["by the model"]
    assert await find(studio, "tags: hero") == ["by its note"]
    assert await find(studio, "prompt: hero") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("pan*", {"a red panda", "a blue panda"}),
        ('"red panda"', {"a red panda"}),
        ('"panda red"', set()),
        ("panda NOT blue", {"a red panda"}),
        ("red OR whale", {"a red panda", "a whale"}),
        ("パンダ", {"赤いパンダの絵"}),
        ('"赤いパンダ"', {"赤いパンダの絵"}),
        ("red-panda", {"a red panda"}),
        ("it's a whale", set()),
        ("a whale, please?", set()),
        ("whale!", {"a whale"}),
        ("*reads", {"a fox reads"}),  # a leading star asks FTS5 about itself
    ],
)
async def test_expressions_and_plain_words_find_what_they_say(query: str, found: set[str], studio: Studio) -> None:
    for number, prompt in enumerate(["a red panda", "a blue panda", "a whale", "赤いパンダの絵", "a fox reads"], 1):
        a_picture(studio, prompt, days=number)
    assert set(await find(studio, query)) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("red AND", []),
        ("(red", ["a red panda"]),
        ('red "panda', ["a red panda"]),
        ("colour: red", []),
        ("red -blue", []),
        ("(pan*", ["a red panda"]),
        ("NEAR(", []),
    ],
)
async def test_a_query_that_is_no_expression_is_searched_as_words_which_is_said(
    query: str, found: list[str], studio: Studio
) -> None:
    a_picture(studio, "a red panda")
    page = await studio.find_images(FindRequest(query=query))
    assert prompts(page) == found and "not a valid expression and was searched as plain words" in page.notes[0]


async def test_a_query_without_a_word_is_refused_and_a_long_one_is_searched_for(studio: Studio) -> None:
    a_picture(studio, "a red panda")
    with pytest.raises(RequestError, match="no word that could be searched for"):
        await studio.find_images(FindRequest(query="^"))
    page = await studio.find_images(FindRequest(query="a" * 999 + "*"))
    assert prompts(page) == [] and page.notes == ()


async def test_every_filter_leaves_just_what_it_says_with_words_and_without(studio: Studio) -> None:
    old = a_picture(studio, "old panda", days=40, tier="pro", mode="edit", origin="edited")
    new = a_picture(studio, "new panda", days=1, parents=(Parent(image_id=old.id, role="base"),))
    icon = a_picture(
        studio, "icon of a panda", days=0.5, origin="derived", parents=(Parent(image_id=new.id, role="base"),)
    )
    a_picture(studio, "a caller's panda", days=0.4, origin="imported", tier=None, mode=None, backend=None)
    a_picture(studio, "a part of a panda", days=0.3, origin="part")
    a_picture(studio, "an emulated panda", days=0.2, backend="emulator")
    await studio.annotate(old.id, tags=["keep"], rating=4)
    month = now() - timedelta(days=30)
    for query in (None, "panda"):
        assert await find(studio, query) == ["new panda", "old panda"]
        assert await find(studio, query, since=month) == ["new panda"]
        assert await find(studio, query, until=month) == ["old panda"]
        assert await find(studio, query, tier="pro") == ["old panda"]
        assert await find(studio, query, mode="edit") == ["old panda"]
        assert await find(studio, query, tag="keep") == ["old panda"]
        assert await find(studio, query, min_rating=4) == ["old panda"]
        assert await find(studio, query, min_rating=5) == []
        assert await find(studio, query, made_from=old.id) == ["new panda"]
        assert await find(studio, query, made_from=old.id, kind="derived") == [icon.prompt]
        assert await find(studio, query, kind="imported") == ["a caller's panda"]
        assert await find(studio, query, kind="part") == ["a part of a panda"]
        assert set(await find(studio, query, kind="all")) == {
            "new panda", "old panda", "icon of a panda", "a caller's panda",
        }  # fmt: skip


async def test_pages_tell_every_picture_once_in_order_even_those_of_one_moment(studio: Studio) -> None:
    at = now() - timedelta(days=1)
    for number in range(25):
        made = record(prompt=f"panda {number}", created_at=at - timedelta(seconds=number // 10))
        studio.library.add(made)
    for wanted in ({}, {"query": "panda"}, {"order": "best"}, {"query": "panda", "order": "best"}):
        found = await all_pages(studio, limit=4, **wanted)
        assert len({one.id for one in found}) == len(found) == 25
        if "order" not in wanted:
            assert [one.record.created_at for one in found] == sorted(
                (one.record.created_at for one in found), reverse=True
            )
        total = (await studio.find_images(FindRequest(limit=4, **wanted))).total
        assert total == 25 or (total is None and wanted == {"query": "panda"}), (
            "of words only what was looked at counts"
        )


async def test_the_best_come_first_by_rating_then_by_words(studio: Studio) -> None:
    a_picture(studio, "panda", days=3)
    liked = a_picture(studio, "one panda among many other things in a long prompt", days=4)
    a_picture(studio, "another panda among many other things in a longer prompt still", days=1)
    await studio.annotate(liked.id, rating=5)
    assert await find(studio, "panda", order="best") == [
        "one panda among many other things in a long prompt",
        "panda",
        "another panda among many other things in a longer prompt still",
    ]
    assert (await find(studio, order="best"))[0] == "one panda among many other things in a long prompt"


async def test_what_a_picture_cost_is_told_and_can_be_searched_for(studio: Studio, model: FakeModel) -> None:
    made = await studio.create(ImageRequest(prompt="a panda", n=2))
    page = await studio.find_images(FindRequest())
    assert [found.cost_usd for found in page.pictures] == [made.images[0].cost_usd] * 2
    usd = made.images[0].cost_usd or 0
    assert len(await find(studio, min_cost_usd=usd - 0.001)) == 2
    assert await find(studio, min_cost_usd=usd + 0.001) == []
    assert len(await find(studio, max_cost_usd=usd)) == 2


async def test_a_picture_whose_file_is_gone_is_still_told_and_said_to_be_missing(studio: Studio) -> None:
    kept = a_picture(studio, "a panda")
    assert (await studio.found(kept.id)).state == "present"
    Path(str(kept.path)).unlink()
    (found,) = (await studio.find_images(FindRequest(query="panda"))).pictures
    assert (found.id, found.state) == (kept.id, "missing")


async def test_notes_tags_and_rating_stay_and_change_one_by_one(studio: Studio) -> None:
    kept = a_picture(studio, "a panda")
    await studio.annotate(kept.id, note="  first  ", tags=["B", "a b", "b"], rating=3)
    await studio.annotate(kept.id, rating=5)
    found = await studio.found(kept.id)
    assert (found.note, found.tags, found.rating) == ("first", ("a b", "b"), 5)
    assert await studio.tags() == (("a b", 1), ("b", 1))
    await studio.annotate(kept.id, note=None, tags=(), rating=None)
    found = await studio.found(kept.id)
    assert (found.note, found.tags, found.rating) == (None, (), None)
    assert await find(studio, "first") == []


@pytest.mark.parametrize(
    "wrong",
    [{"rating": 6}, {"rating": 0}, {"tags": ["a,b"]}, {"tags": ["x" * 41]}, {"tags": [" "]}, {"note": "x" * 4001},
     {"note": "\ud800"}, {"tags": [str(n) for n in range(21)]}],
)  # fmt: skip
async def test_a_note_that_cannot_be_kept_is_refused_and_changes_nothing(wrong: dict[str, Any], studio: Studio) -> None:
    kept = a_picture(studio, "a panda")
    await studio.annotate(kept.id, note="mine", tags=["one"], rating=2)
    with pytest.raises(RequestError):
        await studio.annotate(kept.id, **wrong)
    found = await studio.found(kept.id)
    assert (found.note, found.tags, found.rating) == ("mine", ("one",), 2)


async def test_notes_come_back_when_the_library_is_lost_and_rebuilt(
    make_studio: Callable[..., Studio], settings: Settings, places: Places
) -> None:
    studio = make_studio()
    made = (await studio.create(ImageRequest(prompt="a panda"))).images[0].record
    await studio.annotate(made.id, note="the one", tags=["hero"], rating=5)
    assert await find(studio, "hero") == ["a panda"]
    await studio.close()
    settings.database_path.unlink()
    assert rebuild(settings.database_path, places) is not None
    again = make_studio()
    found = await again.found(made.id)
    assert (found.note, found.tags, found.rating) == ("the one", ("hero",), 5)
    assert await find(again, "hero") == ["a panda"]
    await again.close()


async def test_what_changed_is_told_also_of_another_process_and_nothing_twice(
    studio: Studio, make_studio: Callable[..., Studio]
) -> None:
    first = a_picture(studio, "a panda")
    start = await studio.changes(None)
    assert (await studio.changes(start.last)).ids == ()
    other = make_studio()
    second = (await other.create(ImageRequest(prompt="another"))).images[0].record
    await other.annotate(first.id, rating=3)
    told = await studio.changes(start.last)
    assert told.ids == (second.id, first.id)
    for change in (other.trash, other.restore):
        await change([second.id])
        before, told = told, await studio.changes(told.last)
        assert told.ids == (second.id,) and told.last > before.last
    await other.close()
    assert (await studio.changes(told.last)).ids == ()


async def test_a_picture_with_very_many_children_is_told_with_their_number_and_the_newest(studio: Studio) -> None:
    root = a_picture(studio, "root", days=900)
    for number in range(CHILDREN + 5):
        a_picture(studio, f"child {number}", days=800 - number, parents=(Parent(image_id=root.id, role="base"),))
    found = await studio.lineage(root.id)
    assert found.child_count == CHILDREN + 5
    assert [one.prompt for one in found.children] == [f"child {number}" for number in range(5, CHILDREN + 5)]


async def test_the_thumbnail_of_a_callers_photo_is_kept_at_the_first_look(studio: Studio, tmp_path: Path) -> None:
    taken = photo(tmp_path / "photo.jpg")
    image_id = (await studio.upload(str(taken))).record.id
    first = await studio.picture(image_id, thumbnail=True)
    taken.unlink()
    assert await studio.picture(image_id, thumbnail=True) == first


@pytest.mark.parametrize(
    "wanted",
    [
        {"query": '"x\0y'},
        {"tag": "\ud800"},
        {"made_from": "img_\ud800"},
        {"query": "panda", "cursor": "w.{}.9999999999999999999"},
        {"query": "panda", "cursor": "w.{}.\u00b2"},
        {"cursor": "n.{}.\u00b2.img_0000000000000000"},
    ],
)
async def test_what_no_search_can_mean_is_refused_in_words(studio: Studio, wanted: dict[str, str]) -> None:
    a_picture(studio, "a panda")
    request = FindRequest(**wanted)
    if request.cursor is not None:
        request = replace(request, cursor=request.cursor.format(fingerprint(request)))
    with pytest.raises(RequestError):
        await studio.find_images(request)


async def test_an_index_whose_tables_are_gone_or_of_another_form_is_made_anew(studio: Studio) -> None:
    a_picture(studio, "a panda")
    beside = studio.library.database.path.with_name(f"{studio.library.database.path.name}.search")
    for damage in ("DROP TABLE texts", "ALTER TABLE state RENAME COLUMN top TO highest"):
        assert await find(studio, "panda") == ["a panda"]
        with closing(sqlite3.connect(beside)) as connection:
            connection.execute(damage)
            connection.commit()
        with pytest.raises(SetupError, match="made anew"):
            await find(studio, "panda")
    assert await find(studio, "panda") == ["a panda"]


@pytest.mark.parametrize("at", [(Annotations, "change"), (Search, "told")], ids=["before its file", "after it"])
async def test_a_note_on_a_picture_that_is_deleted_meanwhile_says_that_there_is_none(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, at: tuple[type, str]
) -> None:
    made = a_picture(studio, "a panda")
    real = getattr(*at)

    def late(*arguments: Any) -> Any:
        """Delete the picture after its row is changed, or before it is read again."""
        noted = real(*arguments) if at[0] is Annotations else None
        studio.library.forget(made.id)
        return noted or real(*arguments)

    monkeypatch.setattr(*at, late)
    with pytest.raises(SourceNotFound):
        await studio.annotate(made.id, note="late")
    assert studio.disk.sidecars.read_notes(made.id) is None


async def test_a_note_that_another_window_changes_while_its_file_is_written_is_the_one_in_the_file(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = a_picture(studio, "a panda")
    sidecars = studio.disk.sidecars
    write = sidecars.write_notes

    def slow(image_id: str, said: Any) -> None:
        write(image_id, said)
        if said["note"] == "first":
            studio._search.annotations.change(image_id, {"note": "second"})

    monkeypatch.setattr(sidecars, "write_notes", slow)
    await studio.annotate(made.id, note="first", rating=3)
    kept = sidecars.read_notes(made.id)
    assert kept is not None and (kept["note"], kept["rating"]) == ("second", 3)


async def test_prompts_stay_out_of_the_index_where_the_setting_says_so(
    make_studio: Callable[..., Studio], settings: Settings
) -> None:
    studio = make_studio()
    a_picture(studio, "a secret panda", name="harbour.png", words="a secret answer")
    assert await find(studio, "secret") == ["a secret panda"]
    await studio.close()
    silent = make_studio(index_prompts=False)
    assert await find(silent, "secret") == []
    assert await find(silent, "harbour") == ["a secret panda"]
    await silent.close()
    beside = settings.database_path.with_name(f"{settings.database_path.name}.search")
    with closing(sqlite3.connect(beside)) as connection:
        assert rows(beside, "SELECT count(*) FROM entries") == [(1,)]
        assert "secret" not in "\n".join(line for line in connection.iterdump() if "texts_content" in line)
    assert b"secret" not in beside.read_bytes()


async def test_an_index_that_is_damaged_or_gone_or_of_another_library_is_made_anew(
    make_studio: Callable[..., Studio], settings: Settings
) -> None:
    beside = settings.database_path.with_name(f"{settings.database_path.name}.search")
    studio = make_studio()
    a_picture(studio, "a panda")
    assert await find(studio, "panda") == ["a panda"]
    beside.unlink()
    assert await find(studio, "panda") == ["a panda"]
    beside.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(SetupError, match="made anew"):
        await find(studio, "panda")
    assert await find(studio, "panda") == ["a panda"]
    with closing(sqlite3.connect(beside)) as connection:
        connection.execute("UPDATE state SET library = 1")
        connection.execute("DELETE FROM texts")
        connection.commit()
    assert await find(studio, "panda") == ["a panda"]
    await studio.close()


async def test_while_a_long_index_is_being_made_the_newest_are_found_and_the_rest_is_told(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.studio.search.BATCH", 2)
    monkeypatch.setattr("nanobanana_mcp.studio.search.AT_ONCE_S", -1.0)
    monkeypatch.setattr("nanobanana_mcp.studio.search.Search.begin", lambda _self: None)
    for number in range(6):
        a_picture(studio, f"panda {number}", days=10 - number)
    page = await studio.find_images(FindRequest(query="panda"))
    assert prompts(page) == [] and "6 older pictures" in page.notes[0]
    search = studio._search
    steps = iter([False, True])
    search.follow(lambda: next(steps))
    page = await studio.find_images(FindRequest(query="panda"))
    assert prompts(page) == ["panda 5", "panda 4"]
    assert "4 older pictures not searched yet" in page.notes[0]
    assert len(await find(studio)) == 6
    a_picture(studio, "a new panda", days=0)
    monkeypatch.setattr("nanobanana_mcp.studio.search.AT_ONCE_S", 60.0)
    page = await studio.find_images(FindRequest(query="panda"))
    assert page.notes == () and len(page.pictures) == 7


async def test_what_was_made_last_is_found_or_told_however_long_the_machine_stands_still(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_picture(studio, "panda 0", days=9)
    assert await find(studio, "panda") == ["panda 0"]
    monkeypatch.setattr("nanobanana_mcp.studio.search.BATCH", 2)
    monkeypatch.setattr("nanobanana_mcp.studio.search.AT_ONCE_S", -1.0)
    monkeypatch.setattr("nanobanana_mcp.studio.search.Search.begin", lambda _self: None)
    for number in range(1, 4):
        a_picture(studio, f"panda {number}", days=9 - number)
    page = await studio.find_images(FindRequest(query="panda"))
    assert prompts(page) == ["panda 2", "panda 1", "panda 0"]
    assert page.notes == ("The search index is still being made: 1 newer picture not searched yet.",)
    page = await studio.find_images(FindRequest(query="panda"))
    assert len(page.pictures) == 4 and page.notes == ()


async def test_a_cursor_of_another_search_is_refused(studio: Studio) -> None:
    for number in range(3):
        a_picture(studio, f"panda {number}", days=number)
    cursor = (await studio.find_images(FindRequest(query="panda", limit=1))).cursor
    assert cursor is not None
    for wanted in (
        FindRequest(query="other", limit=1, cursor=cursor),
        FindRequest(limit=1, cursor=cursor),
        FindRequest(query="panda", cursor=cursor + "x"),
        FindRequest(query="panda", cursor="w"),
    ):
        with pytest.raises(RequestError):
            await studio.find_images(wanted)
    assert len((await studio.find_images(FindRequest(query="panda", limit=2, cursor=cursor))).pictures) == 2


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0}, {"limit": 201}, {"min_rating": 9}, {"query": "a" * 1001}, {"min_cost_usd": 2, "max_cost_usd": 1},
     {"made_from": "img_0000000000000000"}, {"made_from": "nonsense"}],
)  # fmt: skip
async def test_what_could_find_nothing_is_said_to_be_wrong(wrong: dict[str, Any], studio: Studio) -> None:
    with pytest.raises(RequestError):
        await studio.find_images(FindRequest(**wrong))


async def test_what_a_model_wrote_beside_a_picture_is_kept_with_it(studio: Studio, model: FakeModel) -> None:
    model.answers.append(reply(jpeg(), text="I drew a lighthouse for you."))
    made = (await studio.create(ImageRequest(prompt="something"))).images[0].record
    assert made.words == "I drew a lighthouse for you."
    assert await find(studio, "lighthouse") == ["something"]
