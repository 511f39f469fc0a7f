"""Hygiene: pictures whose files were moved are found again, and what is not the studio's is told and left alone."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.studio.maintenance import Report
from nanobanana_mcp.studio.studio import Studio
from tests.support.rooms import hang, holiday


@pytest.fixture
async def studio(make_studio: Callable[..., Studio]) -> AsyncIterator[Studio]:
    made = make_studio()
    made.places.output.mkdir(exist_ok=True)
    yield made
    await made.close()


def _old(studio: Studio, name: str, **changes: Any) -> ImageRecord:
    return hang(studio.library, studio.places.output / name, days_old=30, **changes)


def _actions(report: Report) -> list[tuple[str, str, str | None, str | None]]:
    return [(action.kind, action.subject, action.path, action.target) for action in report.actions]


async def test_hygiene_finds_a_renamed_picture_by_its_content(studio: Studio) -> None:
    kept = _old(studio, "old.png")
    Path(str(kept.path)).rename(studio.places.output / "my favourite.png")
    report = await studio.maintain("database_hygiene", dry_run=False)
    assert _actions(report) == [("relink", kept.id, kept.path, str(studio.places.output / "my favourite.png"))]
    found = studio.library.get(kept.id)
    assert found is not None
    assert found.path == str(studio.places.output / "my favourite.png")


async def test_a_picture_that_was_sorted_into_a_folder_is_found_again(studio: Studio) -> None:
    kept = _old(studio, "old.png")
    sorted_away = studio.places.output / "keep" / "best" / "mine.png"
    sorted_away.parent.mkdir(parents=True)
    Path(str(kept.path)).rename(sorted_away)
    report = await studio.maintain("database_hygiene", dry_run=False)
    assert _actions(report) == [("relink", kept.id, kept.path, str(sorted_away))]
    (studio.places.output / "keep" / "theirs.png").write_bytes(b"theirs")
    assert (await studio.stats()).untracked == (studio.places.output / "keep" / "theirs.png",)


async def test_hygiene_reports_what_is_missing_and_what_is_not_the_studios(studio: Studio) -> None:
    gone = _old(studio, "gone.png")
    Path(str(gone.path)).unlink()
    holiday(studio.places.output)
    report = await studio.maintain("database_hygiene", dry_run=False)
    assert report.actions == ()
    assert any(gone.id in line and "lineage stay" in line for line in report.findings)
    assert any("will not be touched" in line for line in report.findings)
    assert studio.library.get(gone.id) is not None


async def test_two_lost_pictures_of_the_same_bytes_are_not_given_one_file(studio: Studio) -> None:
    for name in ("one.png", "two.png"):
        Path(str(_old(studio, name, data=b"same").path)).unlink()
    (studio.places.output / "found.png").write_bytes(b"same")
    report = await studio.maintain("database_hygiene", dry_run=False)
    assert len(report.actions) == 1
    assert len((await studio.maintain("cleanup_local", dry_run=False, max_age_hours=168, keep_count=0)).actions) == 1
