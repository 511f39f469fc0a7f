"""Pages hear of new pictures by themselves, whichever process made them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.gallery.events import BEHIND, News
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support.visitor import visit


async def _next(stream: Any, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        async for words in stream:
            if words.startswith(f"event: {kind}\n"):
                told: dict[str, Any] = json.loads(words.partition("data: ")[2])
                return told
    raise AssertionError("the stream ended")


async def test_a_picture_that_another_process_made_is_told_to_every_page(
    make_studio: Callable[..., Studio], settings: Settings
) -> None:
    here, elsewhere = make_studio(), make_studio()

    async def studio() -> Studio:
        return here

    news = News(studio)
    try:
        pages = [news.listen(), news.listen()]
        for page in pages:
            assert (await anext(page)).startswith("retry: ")
        await asyncio.sleep(0.1)  # until the first look, from which on changes count
        made = (await elsewhere.create(ImageRequest(prompt="a heron"))).images[0].record.id
        for page in pages:
            assert made in (await _next(page, "pictures"))["ids"]
    finally:
        news.close()
        await here.close()
        await elsewhere.close()


async def test_a_page_that_is_open_when_the_policy_closes_output_stats_is_told_nothing_more(
    settings: Settings, make_studio: Callable[..., Studio], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {}\n")
    async with visit(settings, make_studio, policy=policy) as visitor:
        (mount,) = visitor.app.routes
        (events,) = (route for route in mount.routes if route.path == "/events")
        page = (await events.endpoint(None)).body_iterator
        assert (await anext(page)).startswith("retry: ")
        visitor.news.tell("pictures", {"ids": ["img_1"], "gone": []})
        assert await _next(page, "pictures") == {"ids": ["img_1"], "gone": []}
        policy.write_text("version: 1\ntools: {output_stats: {rules: [{action: deny}]}}\n")
        visitor.news.tell("pictures", {"ids": ["img_2"], "gone": []})
        async with asyncio.timeout(20):
            assert [words async for words in page] == []


async def test_the_library_is_left_alone_once_no_page_listens(make_studio: Callable[..., Studio]) -> None:
    studio, asked = make_studio(), 0

    async def counted() -> Studio:
        nonlocal asked
        asked += 1
        return studio

    news = News(counted)
    page = news.listen()
    await anext(page)
    await page.aclose()
    assert news._looking is not None
    await asyncio.wait_for(news._looking, 5)
    assert asked <= 2
    news.close()
    await studio.close()


async def test_a_page_that_takes_nothing_is_let_go_and_closing_ends_every_stream(
    make_studio: Callable[..., Studio],
) -> None:
    studio = make_studio()

    async def opened() -> Studio:
        return studio

    news = News(opened)
    slow, other = news.listen(), news.listen()
    for page in (slow, other):
        await anext(page)
    for number in range(BEHIND + 1):
        news.tell("progress", {"done": number})
        assert (await anext(other)).startswith("event: progress")
    assert [words async for words in slow] == []
    news.close()
    assert [words async for words in other] == []
    await studio.close()
