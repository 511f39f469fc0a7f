"""Tidying up: only what the studio made and nobody changed is touched, it comes back, and a dry run tells the truth."""

import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from nanobanana_mcp.domain.errors import RequestError, SetupError, StudioError
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.provider import RemoteFile
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.terms import Operation
from nanobanana_mcp.library.tables import images
from nanobanana_mcp.library.totals import totals
from nanobanana_mcp.studio.maintenance import Maintenance, Report
from nanobanana_mcp.studio.studio import Studio
from tests.support.rooms import clutter, dump, hang, holiday, png, record, tree, upload

OPERATIONS: tuple[Operation, ...] = get_args(Operation)


def for_old(operation: Operation, **options: Any) -> dict[str, Any]:
    """Options of the operations that tidy old pictures away; the others would refuse them."""
    return options if operation in ("cleanup_local", "full_cleanup") else {}


@pytest.fixture
async def studio(make_studio: Callable[..., Studio]) -> AsyncIterator[Studio]:
    made = make_studio()
    made.places.output.mkdir(exist_ok=True)
    yield made
    await made.close()


def _old(studio: Studio, name: str, *, days: float = 30, **changes: Any) -> ImageRecord:
    return hang(studio.library, studio.places.output / name, days_old=days, **changes)


async def _clean(studio: Studio, *, dry_run: bool = False, hours: float = 168, keep: int = 0) -> Report:
    return await studio.maintain("cleanup_local", dry_run=dry_run, max_age_hours=hours, keep_count=keep)


def _actions(report: Report) -> list[tuple[str, str, str | None, str | None]]:
    return [(action.kind, action.subject, action.path, action.target) for action in report.actions]


async def test_icons_and_pictures_elsewhere_take_no_place_of_the_pictures_that_are_kept(studio: Studio) -> None:
    pictures = [_old(studio, f"{day}.png", days=day, origin="generated") for day in (40, 41, 42)]
    for number in range(6):
        _old(studio, f"icons/{number}.png", days=30, origin="derived")
    hang(studio.library, studio.places.output.parent / "elsewhere" / "x.png", days_old=20, origin="generated")
    moved = {action.subject for action in (await _clean(studio, dry_run=True, keep=2)).actions}
    assert moved.isdisjoint(picture.id for picture in pictures[:2]) and pictures[2].id in moved
    assert [record.origin for record in (await studio.stats(9)).recent] == ["generated"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_users_own_photos_in_the_output_folder_are_untouched(operation: Operation, studio: Studio) -> None:
    own = holiday(studio.places.output)
    clutter(studio.library, studio.places)
    copy = studio.places.output / "copy-of-old.png"
    copy.write_bytes((studio.places.output / "old.png").read_bytes())
    before = {str(path.relative_to(studio.places.output)) for path in (*own, copy)} | {"link.png", "sub"}
    kept = {name: what for name, what in tree(studio.places.output).items() if name in before}
    await studio.maintain(operation, dry_run=False, **for_old(operation, max_age_hours=0, keep_count=0))
    assert {name: what for name, what in tree(studio.places.output).items() if name in before} == kept


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_dry_run_lists_what_the_real_run_does_and_changes_nothing(
    operation: Operation, studio: Studio, tmp_path: Path
) -> None:
    holiday(studio.places.output)
    clutter(studio.library, studio.places)
    before = tree(tmp_path), dump(studio.library.database.path)
    dry = await studio.maintain(operation, **for_old(operation, keep_count=1))
    assert (tree(tmp_path), dump(studio.library.database.path)) == before
    real = await studio.maintain(operation, dry_run=False, **for_old(operation, keep_count=1))
    assert (dry.dry_run, real.dry_run) == (True, False)
    assert _actions(dry) == _actions(real)
    assert dry.bytes == real.bytes
    assert (dry.left, dry.findings) == (real.left, real.findings)
    if operation in ("cleanup_expired", "cleanup_local", "database_hygiene", "full_cleanup", "restore"):
        assert real.actions
        assert dump(studio.library.database.path) != before[1]


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_done_twice_it_finds_nothing_more_to_do(operation: Operation, studio: Studio) -> None:
    clutter(studio.library, studio.places)
    await studio.maintain(operation, dry_run=False, **for_old(operation, keep_count=0))
    assert (await studio.maintain(operation, dry_run=False, **for_old(operation, keep_count=0))).actions == ()


@pytest.mark.skipif(os.name == "nt", reason="names of Windows are Unicode")
async def test_a_file_whose_name_is_no_text_disturbs_no_operation(studio: Studio) -> None:
    mine = _old(studio, "mine.png")
    Path(str(mine.path)).rename(os.fsdecode(os.fsencode(studio.places.output) + b"/\xff.png"))
    (finding, others) = (await studio.maintain("database_hygiene", dry_run=False)).findings
    assert "is missing" in finding
    assert others.encode()
    assert len((await studio.stats()).untracked) == 1


async def test_old_pictures_go_to_the_trash_with_their_bytes(studio: Studio) -> None:
    kept = _old(studio, "sub/old.png", data=b"bytes")
    report = await _clean(studio)
    assert report.bytes == 5
    found = studio.library.get(kept.id)
    assert found is not None
    assert found.trash_path is not None
    assert Path(found.trash_path).read_bytes() == b"bytes"
    assert Path(found.trash_path).is_relative_to(studio.places.trash)
    assert not Path(str(kept.path)).exists()
    assert found.path == kept.path


async def test_records_and_lineage_outlive_their_files(studio: Studio) -> None:
    first = _old(studio, "first.png")
    second = _old(studio, "second.png", parents=(Parent(image_id=first.id, role="base"),))
    await _clean(studio)
    assert [one.record.id for one in studio.library.ancestors(second.id)] == [first.id]
    assert [one.id for one in studio.library.children(first.id)] == [second.id]
    found = studio.library.get(second.id)
    assert found is not None
    assert found.prompt == "a banana"
    assert totals(studio.library.database, "gemini")[""].pictures == 2
    assert totals(studio.library.database, "gemini")[""].bytes == 0


@pytest.mark.parametrize(("hours", "taken"), [(0, 3), (23, 2), (25, 1), (24 * 9, 1), (24 * 11, 0)])
async def test_nothing_younger_than_the_age_asked_for_is_taken(hours: float, taken: int, studio: Studio) -> None:
    for days in (0, 1, 10):
        _old(studio, f"{days}.png", days=days)
    report = await _clean(studio, hours=hours)
    assert len(report.actions) == taken
    assert len(list(studio.places.output.glob("*.png"))) == 3 - taken


async def test_the_newest_stay_however_old_they_are(studio: Studio) -> None:
    made = [_old(studio, f"{days}.png", days=days) for days in (30, 40, 50, 60)]
    report = await _clean(studio, keep=2)
    assert {action.subject for action in report.actions} == {one.id for one in made[2:]}


@pytest.mark.slow
async def test_more_may_be_kept_than_a_statement_can_name(studio: Studio) -> None:
    studio.library.add(record(path=str(studio.places.output / "many.png")))
    with studio.library.database.write() as connection:
        others = ", ".join(column.name for column in images.columns if column.name != "id")
        connection.exec_driver_sql(
            "WITH RECURSIVE counted(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM counted WHERE n < 250000) "
            f"INSERT INTO images (id, {others}) SELECT 'img_' || printf('%020d', n), {others} FROM images, counted"
        )
    _old(studio, "old.png")
    assert len((await _clean(studio, keep=250_000)).actions) == 1
    assert (await _clean(studio, keep=250_001)).actions == ()


async def test_what_a_picture_that_stays_was_made_from_stays_too(studio: Studio) -> None:
    source = _old(studio, "source.png")
    _old(studio, "young.png", days=0, parents=(Parent(image_id=source.id, role="reference"),))
    report = await _clean(studio)
    assert report.actions == ()
    assert any(source.id in line and "made from it" in line for line in report.left)
    assert Path(str(source.path)).exists()


def _rewrite(path: Path) -> None:
    path.write_bytes(png(1, size=(30, 30)))


def _retouch(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


def _relink(path: Path) -> None:
    path.rename(path.with_name("target.png"))
    path.symlink_to(path.with_name("target.png"))


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rewrite, "was changed"),
        (_retouch, "was changed"),
        (_relink, "is a link"),
        (Path.unlink, "gone"),
        (_make_folder, ""),
    ],
)
async def test_what_is_no_longer_as_it_was_made_is_left_alone_and_said(
    change: Callable[[Path], None], words: str, studio: Studio
) -> None:
    kept = _old(studio, "old.png")
    change(Path(str(kept.path)))
    before = tree(studio.places.output)
    report = await _clean(studio)
    assert report.actions == ()
    assert any(kept.id in line and words in line for line in report.left)
    assert tree(studio.places.output) == before


async def test_a_picture_outside_the_output_folder_is_left_where_the_user_put_it(
    studio: Studio, tmp_path: Path
) -> None:
    neighbour = studio.places.output.with_name(studio.places.output.name + "-backup")
    for path in (tmp_path / "project" / "logo.png", neighbour / "a.png"):
        hang(studio.library, path, days_old=30)
    report = await _clean(studio)
    assert report.actions == ()
    assert all("outside the output folder" in line for line in report.left)
    assert len(report.left) == 2


async def test_a_folder_that_was_moved_away_and_linked_back_is_left_alone(studio: Studio, tmp_path: Path) -> None:
    kept = _old(studio, "set/old.png")
    (studio.places.output / "set").rename(tmp_path / "archive")
    (studio.places.output / "set").symlink_to(tmp_path / "archive")
    report = await _clean(studio)
    assert report.actions == ()
    assert any(kept.id in line for line in report.left)
    assert (tmp_path / "archive" / "old.png").exists()


async def test_an_imported_photo_is_never_the_studios_to_remove(studio: Studio) -> None:
    photo = _old(studio, "photo.png", origin="imported")
    report = await _clean(studio, hours=0)
    assert report.actions == ()
    assert Path(str(photo.path)).exists()


async def test_restore_brings_back_the_name_the_bytes_and_the_totals(studio: Studio) -> None:
    kept = _old(studio, "sub/old.png")
    before = tree(studio.places.output / "sub"), totals(studio.library.database, "gemini")
    await _clean(studio)
    assert list((studio.places.output / "sub").iterdir()) == []
    report = await studio.maintain("restore", dry_run=False)
    assert [action.subject for action in report.actions] == [kept.id]
    assert (tree(studio.places.output / "sub"), totals(studio.library.database, "gemini")) == before
    assert studio.library.get(kept.id) == replace(kept, created_at=studio.library.recent(1, "gemini")[0].created_at)
    assert list(studio.places.trash.iterdir()) == []


async def test_restore_finds_another_name_when_the_old_one_is_taken_and_says_so(studio: Studio) -> None:
    kept = _old(studio, "old.png", data=b"ours")
    await _clean(studio)
    theirs = studio.places.output / "old.png"
    theirs.write_bytes(b"theirs")
    report = await studio.maintain("restore", dry_run=False)
    found = studio.library.get(kept.id)
    assert found is not None
    assert found.path is not None
    assert Path(found.path).name == "old-2.png"
    assert Path(found.path).read_bytes() == b"ours"
    assert theirs.read_bytes() == b"theirs"
    assert any("is taken" in line and found.path in line for line in report.findings)


async def test_a_dry_run_of_restore_knows_the_names_that_pictures_come_back_under(studio: Studio) -> None:
    for data in (b"one", b"two"):
        _old(studio, "old.png", data=data)
        await _clean(studio)
    (studio.places.output / "old.png").write_bytes(b"theirs")
    dry = await studio.maintain("restore", dry_run=True)
    real = await studio.maintain("restore", dry_run=False)
    assert (_actions(dry), dry.findings) == (_actions(real), real.findings)
    assert sorted(path.name for path in studio.places.output.glob("*.png")) == ["old-2.png", "old-3.png", "old.png"]


async def test_restore_takes_only_the_pictures_that_are_named(studio: Studio) -> None:
    one, two = _old(studio, "one.png"), _old(studio, "two.png")
    await _clean(studio)
    await studio.maintain("restore", dry_run=False, image_ids=(one.id,))
    assert Path(str(one.path)).exists()
    assert not Path(str(two.path)).exists()
    with pytest.raises(RequestError, match=f"Not in the trash: {one.id}"):
        await studio.maintain("restore", dry_run=False, image_ids=(one.id,))


async def test_pictures_named_for_anything_but_restore_are_refused(studio: Studio) -> None:
    with pytest.raises(RequestError, match="restore"):
        await studio.maintain("cleanup_local", dry_run=False, image_ids=("img_x",))


async def test_two_pictures_of_one_name_both_fit_into_the_trash_and_back(studio: Studio) -> None:
    kept = [_old(studio, name, data=name.encode()) for name in ("a/cat.png", "b/cat.png")]
    await _clean(studio)
    await studio.maintain("restore", dry_run=False)
    for one in kept:
        assert (
            Path(str(one.path)).read_bytes()
            == Path(str(one.path)).relative_to(studio.places.output).as_posix().encode()
        )


async def test_a_picture_taken_out_of_the_trash_by_hand_is_said_and_harms_nothing(studio: Studio) -> None:
    kept = _old(studio, "old.png")
    await _clean(studio)
    for path in studio.places.trash.iterdir():
        path.unlink()
    report = await studio.maintain("restore", dry_run=False)
    assert report.actions == ()
    assert any(kept.id in line and "no longer in the trash" in line for line in report.left)


def _moved_back(trashed: Path, place: Path) -> Path:
    return trashed.rename(place)


def _moved_elsewhere(trashed: Path, place: Path) -> Path:
    return trashed.rename(place.parent / "mine now.png")


def _copied(trashed: Path, place: Path) -> Path:
    place.write_bytes(trashed.read_bytes())
    return place


def _linked(trashed: Path, place: Path) -> Path:
    place.hardlink_to(trashed)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["database_hygiene", "restore", "recover"])
@pytest.mark.parametrize("hand", [_moved_back, _moved_elsewhere, _copied, _linked])
async def test_a_picture_that_somebody_took_out_of_the_trash_is_found_where_it_is(
    hand: Callable[[Path, Path], Path], operation: Operation, studio: Studio
) -> None:
    kept = _old(studio, "old.png")
    await _clean(studio)
    (trashed,) = studio.places.trash.iterdir()
    place = hand(trashed, Path(str(kept.path)))
    dry = await studio.maintain(operation)
    real = await studio.maintain(operation, dry_run=False)
    assert _actions(dry) == _actions(real)
    assert dry.findings == real.findings
    found = studio.library.get(kept.id)
    assert found is not None
    assert (found.path, found.trash_path) == (str(place), None)
    assert list(studio.places.trash.iterdir()) == []
    assert [path for path in studio.places.output.iterdir() if path.is_file()] == [place]
    assert totals(studio.library.database, "gemini")[""].bytes == kept.bytes
    assert (await studio.maintain(operation, dry_run=False)).actions == ()


async def test_a_cleanup_that_was_cut_short_between_two_names_leaves_one(studio: Studio) -> None:
    kept = [_old(studio, name) for name in ("a.png", "b.png")]
    studio.places.trash.mkdir(parents=True)
    for one in kept:
        (studio.places.trash / Path(str(one.path)).name).hardlink_to(str(one.path))
    (found,) = [line for line in (await studio.maintain("recover", dry_run=False)).findings if kept[0].id in line]
    assert "left the trash" in found
    assert list(studio.places.trash.iterdir()) == []
    (studio.places.trash / "a.png").hardlink_to(str(kept[0].path))
    await _clean(studio)
    assert sorted(path.name for path in studio.places.trash.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("operation", ["cleanup_local", "database_hygiene", "full_cleanup", "restore"])
async def test_an_output_folder_that_is_not_mounted_is_refused_and_nothing_is_forgotten(
    operation: Operation, studio: Studio
) -> None:
    clutter(studio.library, studio.places)
    studio.places.output.rename(studio.places.output.with_name("unplugged"))
    before = dump(studio.library.database.path)
    with pytest.raises(SetupError, match=r"does not exist although the library has pictures.*nothing was changed"):
        await studio.maintain(operation, dry_run=False, **for_old(operation, max_age_hours=0, keep_count=0))
    assert dump(studio.library.database.path) == before
    assert not studio.places.output.exists()


async def test_a_new_studio_without_a_folder_has_nothing_to_tidy(studio: Studio) -> None:
    studio.places.output.rmdir()
    assert (await studio.maintain("full_cleanup", dry_run=False)).actions == ()


async def test_expired_uploads_are_forgotten_and_living_ones_are_not(studio: Studio) -> None:
    kept = _old(studio, "a.png")
    alive = upload(kept.id)
    stays = {
        "expired": upload(kept.id, expires_at=now() - timedelta(seconds=5)),
        "stale": upload(kept.id, state="pending", expires_at=None, created_at=now() - timedelta(hours=2)),
        "under way": upload(kept.id, state="pending", expires_at=None),
        "emulated": upload(kept.id, backend="emulator", expires_at=now() - timedelta(hours=1)),
    }
    for one in (alive, *stays.values()):
        studio.library.add_upload(one)
    report = await studio.maintain("cleanup_expired", dry_run=False)
    assert {action.subject for action in report.actions} == {stays["expired"].name, stays["stale"].name}
    assert studio.library.newest_upload(kept.id, "gemini") is not None
    assert studio.library.live_uploads(now(), "gemini")[0] == 1
    assert studio.library.find_by_upload(stays["expired"].name) is not None


async def test_the_quota_is_what_the_files_api_really_holds(studio: Studio, model: Any) -> None:
    for name, size in (("files/nb-ours", 3_000_000), ("files/theirs", 1_000_000)):
        model.remote[name] = RemoteFile(
            name=name, uri="u", mime_type="image/png", bytes=size, state="active", expires_at=None, sha256=None
        )
    report = await studio.maintain("check_quota")
    assert report.actions == ()
    (said,) = report.findings
    assert "2 files with 4.0 MB, less than 1% of 20 GB; 1 of them" in said


async def test_a_picture_that_vanishes_meanwhile_does_not_stop_the_rest(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's maintenance, or the user, may be quicker between the list and the action."""
    for name in ("a.png", "b.png", "c.png"):
        _old(studio, name)
    real = os.link
    first: list[object] = []

    def link(source: Any, target: Any, **how: Any) -> None:
        if not first:
            first.append(source)
            Path(source).unlink()
        real(source, target, **how)

    monkeypatch.setattr(os, "link", link)
    await _clean(studio)
    assert len(list(studio.places.trash.iterdir())) == 2
    assert len([one for page in studio.library.in_trash() for one in page]) == 2


async def test_a_folder_that_cannot_be_written_is_said_in_words(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    _old(studio, "old.png")
    before = dump(studio.library.database.path)

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "link", link)
    try:
        report = await _clean(studio)
    except StudioError as error:
        assert str(studio.places.output) in str(error)
    else:
        assert any("old.png" in line for line in (*report.left, *report.findings))
    assert dump(studio.library.database.path) == before


async def test_a_picture_that_is_changed_after_the_survey_is_left_where_it_is(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = _old(studio, "mine-now.png")
    real = Maintenance._do

    def meanwhile(self: Maintenance, survey: Any) -> None:
        Path(str(kept.path)).write_bytes(b"the user's own work")
        real(self, survey)

    monkeypatch.setattr(Maintenance, "_do", meanwhile)
    report = await _clean(studio)
    assert Path(str(kept.path)).read_bytes() == b"the user's own work"
    assert report.actions == () and "changed" in report.left[0]
