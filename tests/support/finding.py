"""Pictures in a library that is searched, and what a search tells of them."""

import io
from typing import Any

from PIL import Image

from nanobanana_mcp.domain.finding import FindRequest, Found, FoundPage
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.studio.studio import Studio
from tests.support.rooms import hang


def a_picture(studio: Studio, prompt: str, *, days: float = 1, name: str | None = None, **changes: Any) -> ImageRecord:
    path = studio.places.output / (name or f"{abs(hash((prompt, days)))}.png")
    return hang(studio.library, path, days_old=days, prompt=prompt, **changes)


async def find(studio: Studio, query: str | None = None, **wanted: Any) -> list[str | None]:
    """The prompts of what is found."""
    return prompts(await studio.find_images(FindRequest(query=query, **wanted)))


def prompts(page: FoundPage) -> list[str | None]:
    return [found.record.prompt for found in page.pictures]


async def all_pages(studio: Studio, **wanted: Any) -> list[Found]:
    found: list[Found] = []
    cursor = None
    while True:
        page = await studio.find_images(FindRequest(cursor=cursor, **wanted))
        found += page.pictures
        if page.cursor is None:
            return found
        assert page.pictures, "A page before the last has pictures."
        cursor = page.cursor


def mask_of(size: tuple[int, int], box: tuple[int, int, int, int] | None, mode: str = "L") -> bytes:
    image = Image.new(mode, size)
    if box is not None:
        image.paste((255,) * len(mode), box)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
