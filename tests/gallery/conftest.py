"""A gallery with pictures, and one who looks at it."""

from collections.abc import AsyncIterator, Callable

import pytest

from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support.visitor import Visitor, visit


@pytest.fixture
async def outside(settings: Settings, make_studio: Callable[..., Studio]) -> AsyncIterator[Visitor]:
    """One who was not let in."""
    async with visit(settings, make_studio) as visitor:
        yield visitor


@pytest.fixture
async def visitor(outside: Visitor) -> Visitor:
    """One who was let in."""
    assert (await outside.enter()).status_code == 200
    return outside
