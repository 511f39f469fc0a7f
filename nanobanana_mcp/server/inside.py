"""Calls the tools of a server in this very process, and opens the gallery, which spends money through them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.errors import RequestError, StudioError
from nanobanana_mcp.server.clients import facts_of

if TYPE_CHECKING:
    from nanobanana_mcp.gallery.serve import Gallery
    from nanobanana_mcp.server.app import Server

Progress = Callable[[float, float, str], Awaitable[None]]

_progress: ContextVar[Progress | None] = ContextVar("progress", default=None)
"""Receives the progress of the call that is made in this context."""


class Tools:
    """The tools of a server as the gallery calls them: under the same policy, limits and journal as a client's calls.

    The server's settings say that answers carry structure.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        server.shared.progress = _report

    async def call(self, tool: str, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """The facts of a tool's answer, its text under "summary". Raises StudioError."""
        _progress.set(progress)
        try:
            result = await self._server.call_tool(tool, dict(arguments))
        except ToolError as error:
            cause = error.__cause__
            if cause is None:  # an argument was at fault, and the words say which
                raise RequestError(str(error)) from error
            if isinstance(cause, StudioError):
                raise cause from error
            raise
        return facts_of(result)

    async def closed(self, tool: str) -> bool:
        return await self._server.shared.closed(tool)


class LazyGallery:
    """The gallery of a server, started when a person is first sent there, and closed with the server."""

    def __init__(self, build: "Callable[[], Server]") -> None:
        self._build = build
        self._lock = asyncio.Lock()
        self._gallery: Gallery | None = None

    async def gallery(self) -> "Gallery":
        """Raises SetupError where nothing can be listened on."""
        async with self._lock:
            if self._gallery is None:
                opened = await asyncio.to_thread(partial(open_gallery, self._build))
                await opened.start()
                self._gallery = opened
            return self._gallery

    @property
    def opened(self) -> "Gallery | None":
        """The gallery, where somebody was sent to it already."""
        return self._gallery

    async def close(self) -> None:
        async with self._lock:
            if self._gallery is not None:
                await self._gallery.close()


def open_gallery(build: "Callable[[], Server]") -> "Gallery":
    """A gallery that is not started yet, on the studio and the tools of the server that `build` makes."""
    from nanobanana_mcp.gallery.serve import Gallery  # pages and a web server that nothing else needs

    server = build()
    return Gallery(server.shared.studio, Tools(server))


async def _report(done: float, total: float, words: str) -> None:
    progress = _progress.get()
    if progress is not None:
        await progress(done, total, words)
