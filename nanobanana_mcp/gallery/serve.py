"""Serves the gallery on 127.0.0.1, in the event loop of the program that starts it, and ends with that."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.gallery.app import gallery_app
from nanobanana_mcp.gallery.events import News
from nanobanana_mcp.gallery.guard import Door
from nanobanana_mcp.gallery.paintings import Paintings

if TYPE_CHECKING:
    from nanobanana_mcp.studio.studio import Studio

HERE = "127.0.0.1"
USUAL_PORT = 4265
"""The port of a gallery unless it is told another, so that a page of one that ended finds the next; any free one where
this is taken."""

LEAVING_S = 2

HEADERS_S = 10.0
"""Seconds that a request may take to say what it wants."""

CONNECTIONS = 200
"""Connections that may be open at once: any user of this machine can open one, and the process has other files to open.
"""


class Tools(Protocol):
    """The tools that cost money, under the policy and the limits that hold for every door."""

    async def call(
        self, tool: str, arguments: Mapping[str, Any], progress: Callable[[float, float, str], Awaitable[None]]
    ) -> dict[str, Any]:
        """Calls a tool and returns the structure of its answer. Raises StudioError."""

    async def closed(self, tool: str) -> bool:
        """Tells whether the policy closes a tool, however it is called."""


class Gallery:
    """A gallery that may be opened in a browser as long as this runs. `studio` is opened when a page first needs it."""

    def __init__(self, studio: "Callable[[], Awaitable[Studio]]", tools: Tools) -> None:
        self.paintings = Paintings()
        self._studio = studio
        self._tools = tools
        self._news = News(studio)
        self._door: Door | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, port: int | None = None) -> None:
        """Starts to listen; does nothing when it listens already. Raises SetupError when the port is another program's."""
        if self._serving is not None and not self._serving.done():
            return
        listener = _listener(port)
        self._door = Door(f"{HERE}:{listener.getsockname()[1]}")
        app = gallery_app(self._studio, self._tools, self._door, self._news, self.paintings)
        config = uvicorn.Config(
            app,
            http=_Connection,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LEAVING_S,
        )
        self._server = _Server(config)
        # A call that opens the gallery ends, and what the gallery does later is not part of it.
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), context=Context())

    def address(self, path: str = "") -> str:
        """An address that opens one page in one browser, once. Start it first."""
        assert self._door is not None
        return self._door.address(path)

    async def served(self) -> None:
        """Waits until the gallery is closed."""
        if self._serving is not None:
            await self._serving

    async def close(self) -> None:
        """Ends every page's connection and stops listening. Pictures that are being drawn go on in the studio."""
        self._news.close()
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving])


class _Connection(H11Protocol):
    """A connection that ends when its request does not come in time, or when there are too many others."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base has it
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._wait()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._late = self.loop.call_later(HEADERS_S, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Server(uvicorn.Server):
    """A server that leaves the signals to the program around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listener(port: int | None) -> socket.socket:
    try:
        return socket.create_server((HERE, USUAL_PORT if port is None else port))
    except OSError as error:
        if port is None:
            return socket.create_server((HERE, 0))
        raise SetupError(
            f"Port {port} of {HERE} cannot be used ({os.strerror(error.errno) if error.errno else error}); give another --port, or none."
        ) from error
