"""The library remembers pictures, what each was made from, their stays in the Files API, and the totals."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.library.totals import Total, totals
from tests.support.rooms import NOON, close_all, journal, opened, order, record, rows, upload


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(opened(tmp_path))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """One library for all examples of a property: making a new one takes longer than the example."""
    made = Library(opened(tmp_path_factory.mktemp("shared")))
    yield made
    made.database.close()


@contextmanager
def _counted() -> Iterator[list[str]]:
    """The SELECTs that are run meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "SELECT" in statement:
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _child(of: str, *others: str, **changes: object) -> ImageRecord:
    parents = (Parent(image_id=of, role="base"), *(Parent(image_id=one, role="reference") for one in others))
    return record(origin="edited", mode="edit", parents=parents, **changes)


def test_a_picture_comes_back_as_it_was_added(library: Library) -> None:
    photo = record(origin="imported", prompt=None, mode=None, tier=None, model_id=None, backend=None, created_at=NOON)
    made = _child(photo.id, thumbnail_path="/t.jpg", call_id="c1", created_at=NOON)
    library.add(photo)
    library.add(made)
    assert library.get(photo.id) == photo
    assert library.get(made.id) == made
    assert library.get("img_0000000000000000") is None


def test_a_picture_remembers_fourteen_parents_with_their_roles_in_order(library: Library) -> None:
    parents = [record() for _ in range(14)]
    for parent in parents:
        library.add(parent)
    shuffled = [parents[index] for index in (7, 3, 13, 0, 1, 12, 2, 11, 4, 10, 5, 9, 6, 8)]
    made = _child(*(parent.id for parent in shuffled))
    library.add(made)
    found = library.get(made.id)
    assert found is not None
    assert found.parents == made.parents
    assert {one.record.id for one in library.ancestors(made.id)} == {parent.id for parent in parents}


def test_one_picture_may_be_given_twice(library: Library) -> None:
    parent = record()
    library.add(parent)
    made = _child(parent.id, parent.id)
    library.add(made)
    found = library.get(made.id)
    assert found is not None
    assert [one.role for one in found.parents] == ["base", "reference"]
    assert [child.id for child in library.children(parent.id)] == [made.id]


def test_a_lineage_of_a_thousand_edits_is_one_walk(library: Library) -> None:
    newest = record()
    library.add(newest)
    first = newest.id
    with library.database.write() as connection:
        for number in range(1000):
            made = record(id=f"img_{number:016d}")
            connection.exec_driver_sql(
                "INSERT INTO images (id, created_at, origin, mime_type, width, height, bytes, sha256) "
                "VALUES (?, 0, 'edited', 'image/png', 1, 1, 1, ?)",
                (made.id, made.sha256),
            )
            connection.exec_driver_sql("INSERT INTO image_sources VALUES (?, 0, ?, 'base')", (made.id, newest.id))
            newest = made
    with _counted() as statements:
        found = library.ancestors(newest.id)
    assert [one.depth for one in found] == list(range(1, 1001))
    assert found[-1].record.id == first
    assert found[0].child_id == newest.id
    assert sum("RECURSIVE" in statement for statement in statements) == 1
    assert len(statements) <= 4


def test_the_nearest_ancestors_come_first_through_every_branch(library: Library) -> None:
    photo, style = record(origin="imported"), record()
    first = _child(photo.id)
    second = _child(first.id, style.id, photo.id)
    for one in (photo, style, first, second):
        library.add(one)
    found = [(one.record.id, one.child_id, one.depth) for one in library.ancestors(second.id)]
    assert [depth for _, _, depth in found] == [1, 1, 1, 2]
    assert set(found) == {
        (first.id, second.id, 1),
        (style.id, second.id, 1),
        (photo.id, second.id, 1),
        (photo.id, first.id, 2),
    }
    assert {child.id for child in library.children(photo.id)} == {first.id, second.id}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_in_a_damaged_lineage_does_not_hang(length: int, library: Library) -> None:
    ring = [record() for _ in range(length)]
    for one in ring:
        library.add(one)
    with library.database.write() as connection:
        for one, other in zip(ring, [*ring[1:], ring[0]], strict=True):
            connection.exec_driver_sql("INSERT INTO image_sources VALUES (?, 0, ?, 'base')", (one.id, other.id))
    found = library.ancestors(ring[0].id)
    assert {one.record.id for one in found} == {one.id for one in ring}
    assert len(found) <= 1000


def test_a_parent_that_nobody_knows_is_refused_whole(library: Library) -> None:
    with pytest.raises(IntegrityError):
        library.add(_child("img_0000000000000000"))
    assert rows(library.database.path, "SELECT count(*) FROM images") == [(0,)]
    assert totals(library.database, "gemini")[""].pictures == 0


def test_found_by_content_our_own_picture_comes_before_an_imported_copy(library: Library) -> None:
    copy = record(origin="imported", sha256="same", created_at=NOON)
    ours = record(sha256="same", created_at=NOON + timedelta(hours=1))
    later = record(sha256="same", created_at=NOON + timedelta(hours=2))
    for one in (copy, later, ours):
        library.add(one)
    found = library.find_by_content("same")
    assert found is not None
    assert found.id == ours.id
    assert library.find_by_content("other") is None


def test_the_newest_pictures_are_ours_only_and_newest_first(library: Library) -> None:
    made = [record(created_at=NOON + timedelta(minutes=minute)) for minute in range(5)]
    for one in (*made, record(origin="imported", created_at=NOON + timedelta(days=1))):
        library.add(one)
    assert [one.id for one in library.recent(3, "gemini")] == [one.id for one in reversed(made[2:])]
    assert library.recent(0, "gemini") == []


def test_files_are_told_of_every_picture_once_across_pages(library: Library) -> None:
    with library.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO images (id, created_at, origin, path, mime_type, width, height, bytes, sha256) "
            "SELECT printf('img_%016d', value), 0, 'generated', '/p', 'image/png', 1, 1, 1, value FROM "
            "(WITH RECURSIVE n(value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n WHERE value < 24999) SELECT value FROM n)"
        )
    ids = [one.id for one in library.files()]
    assert len(ids) == len(set(ids)) == 25_000


def test_known_paths_are_told_from_others_among_thousands(library: Library) -> None:
    ours = [record() for _ in range(3)]
    for one in ours:
        library.add(one)
    paths = [f"/elsewhere/{number}.png" for number in range(1500)] + [str(one.path) for one in ours]
    assert library.known_paths(paths) == {one.path for one in ours}


def test_an_upload_is_found_by_its_name_with_its_picture(library: Library) -> None:
    kept, stay = record(), upload("")
    library.add(kept)
    stay = replace(stay, image_id=kept.id, state="pending", expires_at=None, uri=None)
    library.add_upload(stay)
    library.settle_upload(stay, state="active", uri="https://x", expires_at=NOON)
    found = library.find_by_upload(stay.name)
    assert found is not None
    assert found[0].id == kept.id
    assert (found[1].state, found[1].uri, found[1].expires_at) == ("active", "https://x", NOON)
    assert library.find_by_upload("files/unknown") is None


def test_the_newest_upload_is_the_longest_living_of_the_same_backend(library: Library) -> None:
    kept = record()
    library.add(kept)
    old = upload(kept.id, expires_at=NOON)
    new = upload(kept.id, expires_at=NOON + timedelta(hours=5))
    for one in (old, new, upload(kept.id, backend="emulator", expires_at=NOON + timedelta(hours=9))):
        library.add_upload(one)
    for state in ("failed", "deleted"):
        library.add_upload(upload(kept.id, state=state, expires_at=NOON + timedelta(hours=9)))
    found = library.newest_upload(kept.id, "gemini")
    assert found is not None
    assert found.id == new.id


def test_uploads_are_live_until_their_expiry_and_expired_after_it(library: Library) -> None:
    kept = record()
    library.add(kept)
    gone = upload(kept.id, expires_at=NOON, bytes=5)
    for one in (gone, upload(kept.id, expires_at=NOON + timedelta(hours=1), bytes=7), upload(kept.id, state="failed")):
        library.add_upload(one)
    assert library.live_uploads(NOON - timedelta(minutes=1), "gemini") == (2, 12)
    assert library.live_uploads(NOON, "gemini") == (1, 7)
    assert [one.id for one in library.expired_uploads(NOON, "gemini")] == [gone.id]
    assert library.live_uploads(NOON, "emulator") == (0, 0)


def test_totals_are_right_after_every_addition_and_removal(library: Library) -> None:
    database = library.database
    flash = record(bytes=100, created_at=NOON)
    pro = record(bytes=30, tier="pro", mode="edit", origin="edited", created_at=NOON - timedelta(days=1))
    for one in (flash, pro, record(origin="imported", bytes=999), record(backend="emulator", bytes=999)):
        library.add(one)
    assert totals(database, "gemini") == {"": Total(pictures=2, bytes=130, usd=0.0)}
    assert totals(database, "gemini", "tier") == {
        "flash": Total(pictures=1, bytes=100, usd=0.0),
        "pro": Total(pictures=1, bytes=30, usd=0.0),
    }
    assert list(totals(database, "gemini", "mode")) == ["edit", "generate"]
    assert list(totals(database, "gemini", "day")) == ["2026-11-20", "2026-11-19"]
    library.move_to_trash(flash, Path("/trash/1.png"))
    assert totals(database, "gemini")[""] == Total(pictures=2, bytes=30, usd=0.0)
    assert [one.id for page in library.in_trash() for one in page] == [flash.id]
    library.came_back(flash, Path(str(flash.path)))
    assert totals(database, "gemini")[""] == Total(pictures=2, bytes=130, usd=0.0)
    assert list(library.in_trash()) == []


def test_days_are_counted_in_utc(library: Library) -> None:
    last = NOON.replace(hour=23, minute=59, second=59)
    for at in (last, last + timedelta(seconds=2)):
        library.add(record(created_at=at))
    found = totals(library.database, "gemini", "day")
    assert {day: total.pictures for day, total in found.items()} == {"2026-11-20": 1, "2026-11-21": 1}


def test_an_empty_library_has_totals_of_nothing(library: Library) -> None:
    assert totals(library.database, "gemini") == {"": Total(pictures=0, bytes=0, usd=0.0)}
    assert totals(library.database, "gemini", "day") == {}


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["flash", "pro", "import", "trash", "back"]), st.integers(0, 9999)), max_size=10
    )
)
def test_totals_always_agree_with_the_rows(shared: Library, steps: list[tuple[str, int]]) -> None:
    before = totals(shared.database, "gemini")[""]
    here: list[ImageRecord] = []
    trash: list[ImageRecord] = []
    for kind, size in steps:
        if kind in ("flash", "pro", "import"):
            one = record(bytes=size, **({"tier": kind} if kind != "import" else {"origin": "imported"}))
            shared.add(one)
            if kind != "import":
                here.append(one)
        elif kind == "trash" and here:
            trash.append(here.pop(size % len(here)))
            shared.move_to_trash(trash[-1], Path("/trash/x"))
        elif kind == "back" and trash:
            here.append(trash.pop(size % len(trash)))
            shared.came_back(here[-1], Path(str(here[-1].path)))
    after = totals(shared.database, "gemini")[""]
    assert after.pictures - before.pictures == len(here) + len(trash)
    assert after.bytes - before.bytes == sum(one.bytes for one in here)


def test_what_a_call_costs_is_in_the_totals_at_once(tmp_path: Path) -> None:
    ledger = journal(tmp_path)
    reserved = ledger.reserve(order(tier="pro"), n=3, estimate_usd=0.2, limits=Limits())
    one, two, three = reserved.calls
    assert totals(ledger.database, "gemini")[""].usd == 0
    ledger.mark_saved(one.id, record(tier="pro", bytes=9), 0.15)
    ledger.mark_unknown(two.id, message="lost")
    ledger.mark_failed(three.id, reason="SAFETY", message="no", cost_usd=0.01)
    assert totals(ledger.database, "gemini", "tier")["pro"] == Total(pictures=1, bytes=9, usd=0.36)
