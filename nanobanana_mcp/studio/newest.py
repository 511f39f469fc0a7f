"""The newest pictures, for a list that must not wait until the studio is open."""

from nanobanana_mcp.library.glance import Glimpse, glance
from nanobanana_mcp.settings import Settings


def newest(settings: Settings, count: int, beginning: str = "") -> list[Glimpse]:
    """The same as Studio.newest(); none where the library cannot be looked into."""
    return glance(settings.database_path, settings.effective_backend, count, beginning)
