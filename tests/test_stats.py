"""What output_stats finds: totals, the newest pictures, and what is amiss; and that it only looks."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from nanobanana_mcp.budget import Limits
from nanobanana_mcp.domain import now
from nanobanana_mcp.library.totals import Total
from nanobanana_mcp.studio import Studio
from tests.rooms import dump, hang, order, png, record, tree, upload


@pytest.fixture
async def studio(make_studio: object) -> AsyncIterator[Studio]:
    made = make_studio(limits=Limits(per_hour_usd=1.0))  # type: ignore[operator]
    made.places.output.mkdir(exist_ok=True)
    yield made
    await made.close()


async def test_an_empty_studio_has_statistics_of_nothing(studio: Studio) -> None:
    stats = await studio.stats()
    assert stats.total == Total(pictures=0, bytes=0, usd=0.0)
    assert (stats.by_tier, stats.by_mode, stats.by_day) == ({}, {}, {})
    assert stats.recent == stats.missing == stats.untracked == stats.undelivered == stats.unknown_outcomes == ()


async def test_an_output_folder_that_is_not_there_yet_is_nothing_amiss(studio: Studio) -> None:
    studio.places.output.rmdir()
    assert (await studio.stats()).untracked == ()


async def test_pictures_are_counted_by_tier_mode_and_day(studio: Studio) -> None:
    output = studio.places.output
    hang(studio.library, output / "a.png", data=b"12345", tier="flash")
    hang(studio.library, output / "b.png", data=b"123", tier="pro", mode="edit", days_old=1)
    stats = await studio.stats()
    assert stats.total == Total(pictures=2, bytes=8, usd=0.0)
    assert stats.by_tier["pro"].bytes == 3
    assert {mode: total.pictures for mode, total in stats.by_mode.items()} == {"edit": 1, "generate": 1}
    assert list(stats.by_day) == sorted(stats.by_day, reverse=True)
    assert len(stats.by_day) == 2


async def test_a_month_of_days_is_listed_the_newest_first(studio: Studio) -> None:
    for day in range(35):
        studio.library.add(record(created_at=now() - timedelta(days=day)))
    by_day = (await studio.stats()).by_day
    assert len(by_day) == 30
    assert next(iter(by_day)) == now().date().isoformat()


@pytest.mark.parametrize(("asked", "listed"), [(0, 0), (2, 2), (100, 4)])
async def test_as_many_recent_pictures_as_asked_for_are_listed(asked: int, listed: int, studio: Studio) -> None:
    kept = [hang(studio.library, studio.places.output / f"{n}.png", days_old=n) for n in range(4)]
    found = (await studio.stats(asked)).recent
    assert [one.id for one in found] == [one.id for one in kept[:listed]]


async def test_missing_and_foreign_files_are_told_from_ours(studio: Studio) -> None:
    output = studio.places.output
    hang(studio.library, output / "here.png")
    gone = hang(studio.library, output / "gone.png")
    Path(str(gone.path)).unlink()
    trashed = hang(studio.library, output / "trashed.png")
    Path(str(trashed.path)).unlink()
    studio.library.move_to_trash(trashed, studio.places.trash / "trashed.png")
    (output / "holiday.jpg").write_bytes(png())
    (output / ".DS_Store").write_bytes(b"x")
    (output / "folder").mkdir()
    stats = await studio.stats()
    assert [one.id for one in stats.missing] == [gone.id]
    assert stats.untracked == (output / "holiday.jpg",)


async def test_spending_lost_answers_and_undelivered_pictures_are_shown(studio: Studio) -> None:
    reserved = studio.journal.reserve(order(tier="pro"), n=3, estimate_usd=0.2, limits=studio.limits)
    kept = record(tier="pro")
    studio.journal.saved(reserved.calls[0].id, kept, 0.15)
    studio.journal.unknown(reserved.calls[1].id, message="lost")
    stats = await studio.stats()
    assert stats.total.usd == pytest.approx(0.35)
    assert stats.by_tier["pro"].usd == pytest.approx(0.35)
    assert stats.spending.hour_usd == pytest.approx(0.55)
    assert stats.limits.per_hour_usd == 1.0
    assert stats.undelivered == (kept.id,)
    assert [call.id for call in stats.unknown_outcomes] == [reserved.calls[1].id]


async def test_only_live_uploads_of_this_backend_are_counted(studio: Studio) -> None:
    kept = hang(studio.library, studio.places.output / "a.png")
    for one in (
        upload(kept.id, bytes=10),
        upload(kept.id, bytes=99, expires_at=now() - timedelta(seconds=1)),
        upload(kept.id, bytes=99, state="failed"),
        upload(kept.id, bytes=99, backend="emulator"),
    ):
        studio.library.add_upload(one)
    stats = await studio.stats()
    assert (stats.live_uploads, stats.live_upload_bytes) == (1, 10)


async def test_play_pictures_of_the_emulator_are_not_counted_as_geminis(studio: Studio) -> None:
    studio.library.add(record(backend="emulator", bytes=1000))
    assert (await studio.stats()).total.pictures == 0


async def test_looking_changes_nothing(studio: Studio, tmp_path: Path) -> None:
    hang(studio.library, studio.places.output / "a.png")
    Path(str(hang(studio.library, studio.places.output / "gone.png").path)).unlink()
    before = tree(tmp_path), dump(studio.library.database.path)
    await studio.stats()
    assert (tree(tmp_path), dump(studio.library.database.path)) == before
