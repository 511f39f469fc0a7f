"""A library of a thousand pictures that a gallery serves, for the tests in a browser."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Page

from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.library.pictures import Library
from tests.support.browser import Served
from tests.support.rooms import hang
from tests.support.world import World

MANY = 1000
SIZE = (640, 480)


@dataclass(kw_only=True)
class Shelf:
    """A gallery that is served, with a library of a thousand pictures of which the newest have files."""

    world: World
    library: Library
    served: Served
    before: ImageRecord
    after: ImageRecord


def drawn(*, moon: bool = False) -> bytes:
    picture = Image.effect_noise(SIZE, 40).convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((120, 120, 320, 320), fill="orange")
    if moon:
        pen.ellipse((420, 60, 520, 160), fill="white")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def put(shelf_library: Library, output: Path, name: str, data: bytes, **changes: Any) -> ImageRecord:
    return hang(shelf_library, output / name, data=data, width=SIZE[0], height=SIZE[1], **changes)


def tiles(page: Page) -> Any:
    return page.locator("#grid a")
