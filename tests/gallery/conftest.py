"""A gallery with pictures, and one who looks at it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext

from nanobanana_mcp.domain.ids import new_image_id
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support import visitor as visitors
from tests.support.browser import Served, Visit, chromium
from tests.support.rooms import record
from tests.support.shelf import MANY, Shelf, drawn, put
from tests.support.visitor import Visitor
from tests.support.world import world


@pytest.fixture
async def outside(settings: Settings, make_studio: Callable[..., Studio]) -> AsyncIterator[Visitor]:
    """One who was not let in."""
    async with visitors.visit(settings, make_studio) as visitor:
        yield visitor


@pytest.fixture
async def visitor(outside: Visitor) -> Visitor:
    """One who was let in."""
    assert (await outside.enter()).status_code == 200
    return outside


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with world(tmp_path_factory.mktemp("gallery")) as made:
        made.emulator.control.cheap = False
        made.database.parent.mkdir(parents=True)
        database = Database.open(made.database)
        library = Library(database)
        before = put(library, made.output, "before.png", drawn(), days_old=0.02, prompt="an orange sun over noise")
        parents = (Parent(image_id=before.id, role="base"),)
        after = put(
            library,
            made.output,
            "after.png",
            drawn(moon=True),
            days_old=0.01,
            prompt="a white moon beside the sun",
            parents=parents,
            origin="edited",
        )
        one = record(prompt="a quiet heron", thumbnail_path=None)
        library.add_all(
            replace(one, id=new_image_id(), path=f"/gone/{number}.png", created_at=one.created_at.replace(year=2025))
            for number in range(MANY - 2)
        )
        with closing(database), Served(made) as served:
            yield Shelf(world=made, library=library, served=served, before=before, after=after)
            said = served.end()
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def first(browser: Browser, shelf: Shelf) -> Iterator[Visit]:
    """The browser that was let in, once for all tests."""
    with Visit(browser, shelf.served) as visit:
        yield visit


@pytest.fixture
def visit(first: Visit) -> Iterator[Visit]:
    """Open a tab of its own for each test, and close every tab after it, so that a test that fails spoils no other. No test
    leaves an error on its console behind.
    """
    first.errors.clear()
    first.page = first.tab()
    yield first
    for page in first.context.pages:
        page.close()
    assert [error for error in first.errors if "404" not in error] == []  # thumbnails of files that are gone


@pytest.fixture
def beside(first: Visit, browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Open further windows with other options and the same cookie, and close them after the test."""
    opened: list[BrowserContext] = []

    def open_one(**options: Any) -> BrowserContext:
        opened.append(browser.new_context(storage_state=first.context.storage_state(), **options))
        return opened[-1]

    yield open_one
    for context in opened:
        context.close()
