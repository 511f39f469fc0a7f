"""A person can read the gallery without any script: lists, pictures, what is gone and what was not understood."""

import asyncio
import html
import io
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from nanobanana_mcp.domain.finding import Annotation
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.library.annotations import Annotations
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support.rooms import NOON, hang, png, record
from tests.support.visitor import Visitor, visit


async def _library(visitor: Visitor) -> Studio:
    return await visitor.server.shared.studio()


def _ids(page: str) -> list[str]:
    return re.findall(r'data-id="(img_\w+)"', page)


async def test_the_newest_pictures_come_first_and_links_lead_through_all_of_them(visitor: Visitor) -> None:
    studio = await _library(visitor)
    pictures = [record(created_at=NOON + timedelta(minutes=number)) for number in range(230)]
    studio.library.add_all(pictures)
    made = [one.id for one in pictures]
    page = await visitor.get("")
    seen = _ids(page.text)
    assert seen == made[:-101:-1] and "230 pictures" in page.text
    while older := re.search(r'<a href="([^"]+)">Older</a>', page.text):
        page = await visitor.client.get(html.unescape(older[1]))
        assert ">Newest<" in page.text
        seen += _ids(page.text)
    assert seen == made[::-1]


@pytest.mark.parametrize("asked", ["", "query=heron", "tag=kept", "max_cost=1", "query=heron&min_rating=4"])
@pytest.mark.parametrize("count", [0, 100, 200, 230])
async def test_every_page_of_a_grid_can_be_asked_for_by_itself_whatever_is_searched_for(
    visitor: Visitor, count: int, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.library.finding.PIECE", 70)
    monkeypatch.setattr("nanobanana_mcp.library.finding.LOOKED_UP", 30)
    monkeypatch.setattr("nanobanana_mcp.studio.search.HITS", 60)
    studio = await _library(visitor)
    pictures = [
        record(prompt="a heron", created_at=NOON + timedelta(minutes=number // 3), call_id=None)
        for number in range(count)
    ]
    studio.library.add_all(pictures)
    noted = Annotation(tags=("kept",), rating=4)
    Annotations(database=studio.library.database).put({one.id: noted for one in pictures})
    marks = await visitor.json(f"api/landmarks?{asked}")
    assert marks["total"] == count and len(marks["cursors"]) == max(1, -(-count // 100))
    seen = []
    for cursor in marks["cursors"]:
        page = await visitor.json(f"api/pictures?{asked}&cursor={cursor}")
        seen.append([one["id"] for one in page["images"]])
    assert [len(page) for page in seen[:-1]] == [100] * (len(seen) - 1)
    found = [one for page in seen for one in page]
    assert len(found) == count and set(found) == {one.id for one in pictures}


async def test_words_that_fit_very_many_pictures_lead_from_one_page_to_the_next(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.studio.search.HITS", 2)
    monkeypatch.setattr("nanobanana_mcp.studio.search.MARKED", 2)
    (await _library(visitor)).library.add_all([record(prompt="a heron") for _ in range(3)])
    assert await visitor.json("api/landmarks?query=heron") == {"total": None, "cursors": []}


async def test_a_picture_has_its_prompt_model_cost_place_and_lineage_to_click_through(
    visitor: Visitor, settings: Settings
) -> None:
    studio = await _library(visitor)
    first = hang(studio.library, settings.output_dir / "a.png", prompt='a <b>"heron"</b>')
    second = hang(studio.library, settings.output_dir / "b.png", parents=(Parent(image_id=first.id, role="base"),))
    third = hang(studio.library, settings.output_dir / "c.png", parents=(Parent(image_id=second.id, role="base"),))
    page = (await visitor.get(f"pictures/{second.id}")).text
    for words in (second.id, str(second.path), "some-model (flash)", "24 x 16", "Made from: a &lt;b&gt;"):
        assert words in page, words
    assert "<b>" not in page
    links = re.findall(r'<a href="[^"]+/pictures/(img_\w+)" aria-label', page)
    assert links == [first.id, second.id, third.id]
    assert f'data-before="{first.id}"' in page
    style = hang(studio.library, settings.output_dir / "d.png", parents=(Parent(image_id=first.id, role="reference"),))
    for alone in (first, style):
        assert 'data-before=""' in (await visitor.get(f"pictures/{alone.id}")).text


async def test_how_much_an_edit_changed_is_told_in_percent(visitor: Visitor, settings: Settings) -> None:
    studio = await _library(visitor)
    first = hang(studio.library, settings.output_dir / "a.png", data=png(0, (40, 20)), width=40, height=20)
    half = Image.new("RGB", (40, 20))
    half.paste("white", (20, 0, 40, 20))
    out = io.BytesIO()
    half.save(out, "PNG")
    second = hang(
        studio.library,
        settings.output_dir / "b.png",
        data=out.getvalue(),
        width=40,
        height=20,
        parents=(Parent(image_id=first.id, role="base"),),
    )
    told = await visitor.json(f"api/differences/{second.id}")
    assert told["changed"] == 0.5 and told["words"].startswith("50.0% of the picture changed")
    assert "not made from one picture" in (await visitor.json(f"api/differences/{first.id}"))["error"]


async def test_a_picture_tells_its_seed_and_what_it_cost(visitor: Visitor) -> None:
    created = await (await _library(visitor)).create(ImageRequest(prompt="a heron", seed=4711))
    page = (await visitor.get(f"pictures/{created.images[0].record.id}")).text
    assert "<dt>Seed</dt><dd>4711</dd>" in page and re.search(r"<dt>Cost</dt><dd>\$0\.0\d+</dd>", page)


async def test_a_picture_is_served_byte_for_byte_and_downloaded_under_its_name(
    visitor: Visitor, settings: Settings
) -> None:
    kept = hang((await _library(visitor)).library, settings.output_dir / "schöne Möwe.png")
    shown = await visitor.get(f"files/{kept.id}")
    assert shown.content == Path(str(kept.path)).read_bytes() and shown.headers["content-type"] == "image/png"
    assert shown.headers["content-disposition"].startswith("inline")
    saved = await visitor.get(f"files/{kept.id}?download")
    assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''sch%C3%B6ne%20M%C3%B6we.png"
    small = await visitor.get(f"thumbs/{kept.id}")
    assert small.headers["content-type"] == "image/jpeg" and len(small.content) < 60_000


async def test_a_picture_of_a_format_that_browsers_do_not_draw_is_downloaded(
    visitor: Visitor, settings: Settings
) -> None:
    out = io.BytesIO()
    Image.new("RGB", (24, 16)).save(out, "TIFF")
    library = (await _library(visitor)).library
    kept = hang(library, settings.output_dir / "scan.tiff", data=out.getvalue(), mime_type="image/tiff")
    saved = await visitor.get(f"files/{kept.id}")
    assert saved.headers["content-type"] == "image/tiff"
    assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''scan.tiff"


async def test_a_picture_whose_file_is_gone_keeps_its_page_and_thumbnail_and_says_so(
    visitor: Visitor, settings: Settings, tmp_path: Path
) -> None:
    studio = await _library(visitor)
    small = tmp_path / "pictures" / ".nanobanana" / "thumbnails" / "t.png"
    small.parent.mkdir(parents=True)
    small.write_bytes(png(7))
    kept = hang(studio.library, settings.output_dir / "lost.png", thumbnail_path=str(small))
    Path(str(kept.path)).unlink()
    assert f'data-id="{kept.id}" class="gone"' in (await visitor.get("")).text
    page = await visitor.get(f"pictures/{kept.id}")
    assert page.status_code == 200 and "Its file is gone from" in page.text and "Download" not in page.text
    assert (await visitor.get(f"thumbs/{kept.id}")).status_code == 200
    gone = await visitor.get(f"files/{kept.id}")
    assert gone.status_code in (400, 404) and "That did not work" in gone.text
    assert (await visitor.get(f"paint/{kept.id}")).status_code == 404


@pytest.mark.parametrize(
    "path", ["pictures/img_0000000000000000", "paint/img_0000000000000000", "thumbs/x", "files/..%2f..%2fetc"]
)
async def test_what_is_not_there_is_said_in_words(visitor: Visitor, path: str) -> None:
    answer = await visitor.get(path)
    assert answer.status_code == 404 and "Traceback" not in answer.text and "<h1>" in answer.text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("since=yesterday", "is not a day; write it as 2026-11-29"),
        ("min_cost=cheap", "is not an amount of USD"),
        ("min_cost=-1", "is not an amount of USD"),
        ("tier=huge", "Tier 'huge' is not one of"),
        ("kind=everything", "not one of picture"),
        ("min_rating=9", "Rating '9' is not one of"),
    ],
)
async def test_a_filter_that_means_nothing_is_told(visitor: Visitor, query: str, words: str) -> None:
    page = await visitor.get(f"?{query}")
    assert page.status_code == 400 and words in html.unescape(page.text)
    told = await visitor.get(f"api/pictures?{query}", accept="application/json")
    assert told.status_code == 400 and words in told.json()["error"]


async def test_search_and_filters_narrow_what_is_shown_and_stand_in_the_form(
    visitor: Visitor, settings: Settings
) -> None:
    studio = await _library(visitor)
    heron = hang(studio.library, settings.output_dir / "1.png", prompt="a grey heron", tier="pro", days_old=3)
    fox = hang(studio.library, settings.output_dir / "2.png", prompt="a red fox", days_old=1)
    await studio.annotate(fox.id, rating=4, tags=("forest",))
    for words in ("heron", "grey hero", '"grey heron"', "he*"):
        assert _ids((await visitor.get(f"?query={words}")).text) == [heron.id], words
    assert _ids((await visitor.get("?tier=pro")).text) == [heron.id]
    assert _ids((await visitor.get("?min_rating=4")).text) == _ids((await visitor.get("?tag=forest")).text) == [fox.id]
    day = f"{heron.created_at.astimezone():%Y-%m-%d}"
    assert _ids((await visitor.get(f"?since={day}&until={day}")).text) == [heron.id]
    page = (await visitor.get("?query=%22unbalanced&tier=pro")).text
    assert 'value="&#34;unbalanced"' in page and '<option value="pro" selected>' in page
    nothing = (await visitor.get("?query=walrus")).text
    assert "No picture is like that" in nothing


async def test_an_empty_library_says_so(visitor: Visitor) -> None:
    assert "No pictures yet. What your assistant makes appears here by itself." in (await visitor.get("")).text


async def test_a_policy_that_closes_output_stats_closes_the_gallery(
    settings: Settings, make_studio: Callable[..., Studio], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {output_stats: {rules: [{action: deny}]}}\n")
    async with visit(settings, make_studio, policy=policy) as visitor:
        kept = hang((await _library(visitor)).library, settings.output_dir / "a.png")
        await visitor.server.call_tool("maintenance", {"operation": "recover"})
        page = await visitor.enter()
        assert page.status_code == 403 and "The policy does not allow output_stats" in page.text
        assert (await visitor.get(f"thumbs/{kept.id}")).status_code == 403
        ours = {"origin": visitor.door.origin}
        for action in ("notes", "folder"):
            refused = await visitor.post(f"pictures/{kept.id}/{action}", {"note": "x"}, **ours)
            assert refused.status_code == 403 and "does not allow output_stats" in refused.json()["error"]
        assert (await visitor.mask(kept.id, b"")).status_code == 403


async def test_a_policy_that_closes_edit_region_keeps_no_mask(
    settings: Settings, make_studio: Callable[..., Studio], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {edit_region: {rules: [{action: deny}]}}\n")
    async with visit(settings, make_studio, policy=policy) as visitor:
        kept = hang((await _library(visitor)).library, settings.output_dir / "a.png")
        await visitor.enter()
        refused = await visitor.mask(kept.id, b"")
        assert refused.status_code == 403 and "does not allow edit_region" in refused.json()["error"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"api/pictures?limit={'9' * 5000}", 400, "limit is a number from 1 to 200"),
        ("api/pictures?limit=%C2%B2", 400, "limit is a number from 1 to 200"),
        ("api/pictures?until=9999-12-31", 400, "is not a day"),
    ],
)
async def test_a_number_or_a_day_beyond_all_bounds_is_told_in_words(
    visitor: Visitor, path: str, status: int, words: str
) -> None:
    answer = await visitor.get(path, accept="application/json")
    assert answer.status_code == status and words in answer.text


@pytest.mark.parametrize("grow", ["nan", "inf", "1e999"])
async def test_a_number_that_is_none_is_told_before_anything_is_sent(visitor: Visitor, grow: str) -> None:
    form = {"image": "img_0000000000000000", "mask": "img_0000000000000000", "instruction": "a moon", "grow": grow}
    answer = await visitor.post("edits/quote", form)
    assert answer.status_code == 400 and "is not a number" in answer.text


async def test_a_picture_whose_disk_is_not_connected_is_not_offered_for_deletion(
    visitor: Visitor, settings: Settings
) -> None:
    kept = hang((await _library(visitor)).library, settings.output_dir / "a.png")
    settings.output_dir.rename(settings.output_dir.with_name("away"))
    page = (await visitor.get(f"pictures/{kept.id}?delete=token")).text
    assert "Connect its disk" in page and "Delete for good" not in page
    settings.output_dir.mkdir()
    assert "Delete for good" in (await visitor.get(f"pictures/{kept.id}")).text


async def test_pictures_are_read_two_at_a_time_and_not_for_who_has_left(
    visitor: Visitor, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = await _library(visitor)
    kept = hang(studio.library, settings.output_dir / "a.png")
    reading: list[int] = []
    now = 0

    async def picture(_id: str, *, thumbnail: bool = False) -> tuple[bytes, str]:
        nonlocal now
        now += 1
        reading.append(now)
        for _ in range(20):
            await asyncio.sleep(0)
        now -= 1
        return b"", "image/png"

    monkeypatch.setattr(studio, "picture", picture)
    await asyncio.gather(*(visitor.get(f"{kind}/{kept.id}") for kind in ("thumbs", "files") for _ in range(6)))
    assert len(reading) == 12 and max(reading) == 2

    async def left(scope: Any, _receive: Any, send: Any) -> None:
        async def gone() -> dict[str, str]:
            return {"type": "http.disconnect"}

        await visitor.app(scope, gone, send)

    transport = httpx2.ASGITransport(app=left)
    async with httpx2.AsyncClient(
        transport=transport, base_url=visitor.door.origin, cookies=visitor.client.cookies
    ) as client:
        for kind in ("thumbs", "files"):
            await client.get(f"{visitor.door.folder}/{kind}/{kept.id}")
    assert len(reading) == 12
