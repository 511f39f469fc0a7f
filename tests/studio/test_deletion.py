"""The trash, deleting for good, and masks: kept, restored, and gone with everything that was known of them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.domain.errors import RequestError, SetupError, SourceNotFound
from nanobanana_mcp.domain.finding import FindRequest
from nanobanana_mcp.domain.records import ImageRecord, Parent
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.pictures import CHILDREN
from nanobanana_mcp.studio.edits import EditRequest, region_job
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel
from tests.support.finding import a_picture, all_pages, find, mask_of
from tests.support.rooms import tree


@pytest.fixture
async def studio(make_studio: Callable[..., Studio]) -> AsyncIterator[Studio]:
    made = make_studio()
    made.places.output.mkdir(exist_ok=True)
    yield made
    await made.close()


async def test_trash_takes_what_maintenance_may_take_and_restore_brings_it_back(studio: Studio) -> None:
    kept = a_picture(studio, "a panda")
    mine = a_picture(studio, "mine", origin="imported")
    changed = a_picture(studio, "changed")
    Path(str(changed.path)).write_bytes(b"something else")
    report = await studio.trash([kept.id, mine.id, changed.id])
    assert [action.subject for action in report.actions] == [kept.id]
    assert len(report.left) == 2 and "your own file" in report.left[0] and "changed" in report.left[1]
    assert await find(studio, "panda") == []
    assert await find(studio, "panda", in_trash=True) == ["a panda"]
    await studio.restore([kept.id])
    assert (await studio.found(kept.id)).state == "present"
    with pytest.raises(SourceNotFound):
        await studio.trash(["img_0000000000000000"])


async def test_a_picture_is_deleted_for_good_only_from_the_trash_and_by_a_second_yes(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a secret panda"))).images[0].record
    child = a_picture(studio, "its child", parents=(Parent(image_id=made.id, role="base"),))
    await studio.annotate(made.id, note="a secret note", tags=["t"])
    assert await find(studio, "secret") == ["a secret panda"]
    with pytest.raises(RequestError, match="trash first"):
        await studio.about_deleting(made.id)
    await studio.trash([made.id])
    asked = await studio.about_deleting(made.id)
    assert asked.children == 1
    with pytest.raises(RequestError, match="nothing was deleted"):
        await studio.delete_for_good(made.id, "yes")
    await studio.restore([made.id])
    await studio.trash([made.id])
    start = await studio.changes(None)
    await studio.delete_for_good(made.id, (await studio.about_deleting(made.id)).token)
    assert made.id in (await studio.changes(start.last)).gone
    with pytest.raises(SourceNotFound):
        await studio.found(made.id)
    assert await find(studio, "secret", kind="all") == []
    assert (await studio.lineage(child.id)).ancestors == ()
    assert not [path for path in tree(studio.places.output) if made.id in path]
    left = [path for path in studio.places.output.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert left == []
    with closing(sqlite3.connect(studio.library.database.path)) as connection:
        assert "secret" not in "\n".join(connection.iterdump())
    assert (await studio.stats()).total.usd > 0


async def test_a_repeat_of_a_request_whose_picture_was_deleted_says_so_and_pays_nothing(
    studio: Studio, model: FakeModel
) -> None:
    made = (await studio.create(ImageRequest(prompt="a panda"), key="key:1")).images[0].record
    await studio.trash([made.id])
    await studio.delete_for_good(made.id, (await studio.about_deleting(made.id)).token)
    asked = len(model.requests)
    with pytest.raises(Exception, match="deleted for good"):
        await studio.create(ImageRequest(prompt="a panda"), key="key:1")
    assert len(model.requests) == asked


async def _trashed(studio: Studio, prompt: str) -> ImageRecord:
    made = (await studio.create(ImageRequest(prompt=prompt))).images[0].record
    await studio.trash([made.id])
    return made


async def _delete(studio: Studio, image_id: str) -> None:
    await studio.delete_for_good(image_id, (await studio.about_deleting(image_id)).token)


async def test_what_is_deleted_for_good_is_gone_from_the_search_indexs_file_at_once(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="zqsecretalpha panda"))).images[0].record
    assert await find(studio, "zqsecretalpha") == ["zqsecretalpha panda"]
    beside = studio.library.database.path.with_name(f"{studio.library.database.path.name}.search")
    assert b"zqsecretalpha" in beside.read_bytes()
    await studio.trash([made.id])
    await _delete(studio, made.id)
    assert b"zqsecretalpha" not in beside.read_bytes()


async def test_while_the_disk_of_the_pictures_is_away_nothing_is_deleted_for_good(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a panda"))).images[0].record
    away = studio.places.output.with_name("away")
    studio.places.output.rename(away)
    with pytest.raises(SetupError, match="Mount or restore"):
        await studio.about_deleting(made.id)
    away.rename(studio.places.output)
    assert (await studio.found(made.id)).state == "present"


async def test_a_file_that_was_changed_in_the_trash_is_not_deleted_and_not_forgotten(studio: Studio) -> None:
    made = await _trashed(studio, "a panda")
    held = Path(studio.library.get(made.id).trash_path)
    held.write_bytes(b"somebody's own")
    with pytest.raises(RequestError, match="was changed"):
        await studio.about_deleting(made.id)
    held.rename(held.with_name("kept.txt"))
    await _delete(studio, made.id)
    assert held.with_name("kept.txt").read_bytes() == b"somebody's own"


async def test_masks_painted_on_a_picture_are_deleted_with_it(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a panda"))).images[0].record
    mask = await studio.keep_mask(made.id, mask_of((made.width, made.height), (10, 10, 300, 300)))
    await studio.trash([made.id])
    assert (await studio.about_deleting(made.id)).children == 0
    await _delete(studio, made.id)
    assert studio.library.get(mask.id) is None
    assert not Path(mask.record.path or "").exists()


async def test_more_masks_than_a_lineage_shows_are_deleted_with_their_picture(studio: Studio) -> None:
    made = a_picture(studio, "a panda")
    masks = [
        a_picture(studio, f"mask {number}", origin="mask", parents=(Parent(image_id=made.id, role="mask"),))
        for number in range(CHILDREN + 1)
    ]
    await studio.trash([made.id])
    assert (await studio.about_deleting(made.id)).children == 0
    await _delete(studio, made.id)
    assert [mask.id for mask in masks if studio.library.get(mask.id) is not None] == []


async def test_one_mask_that_many_windows_keep_at_once_is_one(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a panda"))).images[0].record
    painted = mask_of((made.width, made.height), (10, 10, 300, 300))
    kept = await asyncio.gather(*(studio.keep_mask(made.id, painted) for _ in range(6)))
    assert len({one.id for one in kept}) == 1


async def test_a_painted_mask_has_an_id_that_edit_region_takes(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a panda"))).images[0].record
    size = (made.width, made.height)
    mask = await studio.keep_mask(made.id, mask_of(size, (10, 10, 300, 300), "RGB"))
    assert (mask.kind, mask.record.width, mask.record.height) == ("mask", *size)
    assert (await studio.keep_mask(made.id, mask_of(size, (10, 10, 300, 300)))).id == mask.id
    job = await region_job(
        studio, EditRequest(image=made.id, instruction="red"), box=None, mask=mask.id, feather=2, grow=0, context=0.2
    )
    assert [source.record.id for source in job.sources] == [made.id, mask.id]
    assert mask.id not in {one.id for one in (await studio.find_images(FindRequest(made_from=made.id))).pictures}
    assert [one.id for one in await all_pages(studio, made_from=made.id, kind="mask")] == [mask.id]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda size: mask_of((size[0] - 1, size[1]), (0, 0, 9, 9)), "has to be as large"),
        (lambda size: mask_of(size, None), "Nothing is painted"),
        (lambda size: mask_of(size, None, "RGBA"), "partly transparent"),
        (lambda _size: b"not a picture", "no"),
    ],
)
async def test_a_mask_that_could_mean_nothing_is_refused_and_not_kept(wrong: Any, says: str, studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a panda"))).images[0].record
    with pytest.raises(RequestError, match=says):
        await studio.keep_mask(made.id, wrong((made.width, made.height)))
    assert await all_pages(studio, kind="mask") == []
