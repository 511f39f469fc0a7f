"""output_stats finds totals, the newest pictures and what is amiss, and only looks."""

from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.catalog import PRICES_DATE
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.library.tables import days
from nanobanana_mcp.library.totals import Total
from nanobanana_mcp.studio.results.reports import stats_structure, stats_text
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support.fakes import photo
from tests.support.rooms import dump, hang, order, png, record, tree, upload


@pytest.fixture
async def studio(make_studio: object) -> AsyncIterator[Studio]:
    made = make_studio(limits=Limits(per_hour_usd=1.0))  # type: ignore[operator]
    made.places.output.mkdir(exist_ok=True)
    yield made
    await made.close()


async def test_an_empty_studio_has_statistics_of_nothing(studio: Studio) -> None:
    stats = await studio.stats()
    assert repr(stats.total) == repr(Total(pictures=0, bytes=0, usd=0.0))
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


async def test_rows_without_a_tier_that_an_older_version_left_are_no_pictures(studio: Studio) -> None:
    hang(studio.library, studio.places.output / "a.png", data=b"12345", tier="flash")
    with studio.library.database.write() as connection:  # what moving a converted photo to the trash once left
        row = {"day": now().date().isoformat(), "backend": "gemini", "tier": "", "mode": "", "usd": 0.0}
        connection.execute(days.insert().values(pictures=0, bytes=-20_000, **row))
    stats = await studio.stats()
    assert stats.total == Total(pictures=1, bytes=5, usd=0.0)
    assert list(stats.by_tier) == ["flash"] and list(stats.by_mode) == ["generate"]
    assert [total.bytes for total in stats.by_day.values()] == [5]


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


async def test_spending_lost_answers_and_undelivered_pictures_are_shown(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("nanobanana_mcp.library.journal.now", lambda: now() - timedelta(minutes=5))
        reserved = studio.journal.reserve(order(tier="pro"), n=2, estimate_usd=0.2, limits=studio.limits)
        kept = record(tier="pro")
        studio.journal.mark_saved(reserved.calls[0].id, kept, 0.15)
        studio.journal.mark_unknown(reserved.calls[1].id, message="lost")
    under_way = studio.journal.reserve(order(tier="pro"), n=2, estimate_usd=0.1, limits=studio.limits)
    studio.journal.mark_saved(under_way.calls[0].id, record(tier="pro"), 0.1)
    stats = await studio.stats()
    assert stats.total.usd == pytest.approx(0.45)
    assert stats.by_tier["pro"].usd == pytest.approx(0.45)
    assert stats.spending.hour_usd == pytest.approx(0.55)
    assert stats.limits.per_hour_usd == 1.0
    assert stats.undelivered == (kept.id,)
    assert [call.id for call in stats.unknown_outcomes] == [reserved.calls[1].id]


async def test_each_backend_has_its_own_newest_and_undelivered_pictures(
    make_studio: Callable[..., Studio], studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("nanobanana_mcp.library.journal.now", lambda: now() - timedelta(minutes=5))
        reserved = studio.journal.reserve(order(), n=1, estimate_usd=0.2, limits=studio.limits)
        kept = record()
        studio.journal.mark_saved(reserved.calls[0].id, kept, 0.15)
    emulated = make_studio(backend="emulator")
    stats = await emulated.stats()
    assert (stats.recent, stats.undelivered, stats.missing) == ((), (), ())
    assert "img_" not in stats_text(stats)
    assert kept.id in stats_text(await studio.stats())
    await emulated.close()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(), ["no limit a request", "$0.00 in the last hour (no limit)", "$0.00 today (UTC) (no limit)"]),
        (Limits(per_call_usd=2.0, per_hour_usd=5.0), ["at most $2.00 a request", "(at most $5.00)"]),
        (Limits(calls_per_minute=40), ["in the last minute (at most 40)"]),
    ],
)
async def test_limits_are_said_as_they_are(
    limits: Limits, words: list[str], make_studio: Callable[..., Studio]
) -> None:
    studio = make_studio(limits=limits)
    said = stats_text(await studio.stats())
    for word in words:
        assert word in said
    assert "of no limit" not in said and "None" not in said
    await studio.close()


async def test_one_picture_is_one_picture(studio: Studio) -> None:
    hang(studio.library, studio.places.output / "a.png")
    said = stats_text(await studio.stats())
    assert "1 picture made" in said and "1 pictures" not in said


async def test_a_callers_own_picture_that_was_converted_is_nobodys_draw(connect: Connect, tmp_path: Path) -> None:
    path = photo(tmp_path / "heron.png")
    async with connect() as client:
        await client.call_tool("convert_image", {"image": str(path), "width": 50})
        result = await client.call_tool("output_stats", {})
    facts, said = result.structured_content, result.content[0].text
    assert facts["pictures"] == 0 and facts["by_tier"] == facts["by_mode"] == {}
    assert facts["library_lost"] is False
    assert "None" not in said and "\n: " not in said


async def test_an_empty_library_beside_records_of_pictures_is_said(studio: Studio) -> None:
    studio.places.records.mkdir(parents=True)
    (studio.places.records / "img_1.json").write_text("{}")
    assert "nanobanana rebuild" in stats_text(await studio.stats())


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


async def test_what_a_picture_was_made_from_and_what_from_it_can_be_asked(caller: Client[Any]) -> None:
    async def made(prompt: str, *inputs: str) -> str:
        arguments = {"prompt": prompt, "input_images": list(inputs), "mode": "edit" if inputs else "auto"}
        answer = await caller.call_tool("generate_image", arguments)
        found: str = answer.structured_content["images"][0]["id"]
        return found

    cat = await made("a cat")
    hat = await made("a hat on it", cat)
    scarf = await made("a scarf on it", hat)
    result = await caller.call_tool("output_stats", {"lineage_of": hat})
    facts = result.structured_content
    assert [(step["id"], step["child"], step["depth"]) for step in facts["ancestors"]] == [(cat, hat, 1)]
    assert [child["id"] for child in facts["children"]] == [scarf]
    for image_id in (cat, hat, scarf):
        assert image_id in result.content[0].text
    with pytest.raises(ToolError, match="no picture img_0000000000000000"):
        await caller.call_tool("output_stats", {"lineage_of": "img_0000000000000000"})


async def test_the_day_of_the_price_list_is_told_with_what_was_spent(caller: Client[Any]) -> None:
    facts = (await caller.call_tool("output_stats", {})).structured_content
    assert date.fromisoformat(facts["prices_date"]) == PRICES_DATE


async def test_a_converted_photo_of_the_users_own_in_the_trash_changes_no_total(
    make_studio: Callable[..., Studio], connect: Connect, tmp_path: Path
) -> None:
    studio = make_studio()
    beach = photo(tmp_path / "photos" / "beach.jpg")
    async with connect(open_it=lambda: studio) as client:
        made = await client.call_tool(
            "convert_image", {"image": str(beach), "width": 40, "output_path": f"{studio.places.output}/"}
        )
        assert made.structured_content is not None
        assert Path(made.structured_content["file_paths"][0]).name == "beach.jpg"
        before = await studio.stats(10)
        await studio.maintain("cleanup_local", dry_run=False, max_age_hours=0, keep_count=0)
        after = await studio.stats(10)
    assert after.total == before.total and after.total.bytes == 0
    assert list(after.by_tier) == list(after.by_mode) == []
    assert "-" not in stats_text(after).split("kept")[0]


async def test_icons_and_conversions_are_told_apart_from_pictures(studio: Studio) -> None:
    kept = hang(studio.library, studio.places.output / "one.png")
    for number in range(3):
        parents = (Parent(image_id=kept.id, role="base"),)
        hang(studio.library, studio.places.output / f"icon-{number}.png", origin="derived", parents=parents)
    stats = await studio.stats(2)
    assert [one.id for one in stats.recent] == [kept.id]
    assert stats.derived == 3 and len(stats.recent_derived) == 2
    assert "exact files): 3 files" in stats_text(stats)
    assert stats_structure(stats)["recent_derived"][0]["made_from"] == [kept.id]
