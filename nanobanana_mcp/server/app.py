"""Builds the MCP server from its tools, resources and prompts. The studio is opened only after tools were listed."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from mcp.server.stdio import stdio_server

from nanobanana_mcp import __version__
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.terms import TOOLS
from nanobanana_mcp.server import completions, prompts, resources
from nanobanana_mcp.server.gate import Gate
from nanobanana_mcp.server.icons import icon
from nanobanana_mcp.server.inside import LazyGallery
from nanobanana_mcp.server.lines import LineReader, LineWriter
from nanobanana_mcp.server.session import LazyStudio, Shared
from nanobanana_mcp.server.tools import edit, generate, look
from nanobanana_mcp.server.tools import library as upkeep
from nanobanana_mcp.settings import Settings, load_settings, project_folder
from nanobanana_mcp.studio.admission import Admission

if TYPE_CHECKING:
    from nanobanana_mcp.studio.studio import Studio

INSTRUCTIONS = """\
Makes and edits pictures with Google's Gemini image models and keeps every one of them on this machine, with what it \
was made from. generate_image makes new pictures and edits existing ones; every answer gives absolute paths and ids \
(img_...) that later calls take as inputs. Pictures cost money (about $0.04 flash, $0.15-0.27 pro): ask for what is \
wanted, and look at the preview before asking again. find_images finds what there is, view_image shows it \
closely, output_stats says what was spent."""


class SessionState:
    """Uses FastMCP's own session store once a session stores something. Until then there is nothing to read, and 450
    modules need not be imported before the first list of tools.
    """

    def __init__(self, open_it: Callable[[], Any]) -> None:
        self._open_it = open_it
        self._opened: Any = None

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        return None if self._opened is None else await self._opened.get(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        self._opened = self._opened or self._open_it()
        return getattr(self._opened, name)


class Server(FastMCP):
    """FastMCP over a pair of pipes."""

    shared: Shared
    _session_state: SessionState | None = None

    @property
    def _state_store(self) -> Any:
        if self._session_state is None:
            self._session_state = SessionState(lambda: super(Server, self)._state_store)
        return self._session_state

    async def run_on(self, reader: LineReader, writer: LineWriter) -> None:
        """Serve over a pair of pipes until the client closes its end; FastMCP's run_async() takes no pipes."""
        pipes: tuple[Any, Any] = (reader, writer)  # stdio_server uses no more of an AsyncFile than they offer
        async with self._lifespan_manager(), stdio_server(*pipes) as (read, write):
            await self._mcp_server.run(read, write, self._mcp_server.create_initialization_options())


class CurrentSettings:
    """The settings in force. Once they are valid they stay; until then each use reads them again."""

    def __init__(self, settings: Settings | None) -> None:
        self.settings = settings
        self._lock = threading.Lock()

    def valid(self) -> Settings:
        """The settings. Raises SetupError with everything that is wrong with them."""
        with self._lock:
            if self.settings is None:
                self.settings = load_settings()
            return self.settings

    def open(self) -> "Studio":
        return open_from(self.valid())()


class SettingsGate(Middleware):
    """Passes every call on to the policy of the current settings. While the settings are wrong, tools are listed and
    every call is answered with what to put right, since policy, limits and folders are not known.
    """

    def __init__(self, current: CurrentSettings, open_gate: Callable[[Settings], Gate]) -> None:
        self._current = current
        self._open_gate = open_gate
        self._gate = None if current.settings is None else open_gate(current.settings)

    async def __call__(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        if self._gate is None and context.method in (
            "tools/call",
            "resources/read",
            "resources/list",
            "completion/complete",
        ):
            try:
                settings = await asyncio.to_thread(self._current.valid)
            except SetupError as error:
                if context.method == "tools/call":
                    raise ToolError(str(error), log_level=logging.DEBUG) from error
                return await call_next(context)  # opening the studio reports the same problem
            if self._gate is None:  # another call may have set it meanwhile
                self._gate = self._open_gate(settings)
        return await (call_next(context) if self._gate is None else self._gate(context, call_next))


def build_server(settings: Settings | CurrentSettings, opening: LazyStudio | None = None) -> Server:
    """A server that is ready to run. `opening` makes the studio; by default it is made from the settings."""
    current = settings if isinstance(settings, CurrentSettings) else CurrentSettings(settings)
    opening = opening or LazyStudio(current.open)

    @asynccontextmanager
    async def lifespan(_served: FastMCP) -> AsyncIterator[dict[str, object]]:
        yield {}
        if server.shared.gallery is not None:
            await server.shared.gallery.close()
        await opening.close()

    server = Server(
        "nanobanana-mcp",
        version=__version__,
        instructions=INSTRUCTIONS,
        icons=[icon("server")],
        lifespan=lifespan,
        mask_error_details=True,
        strict_input_validation=True,
        on_duplicate="error",
    )

    for module in (generate, edit, look, upkeep, resources, prompts):
        module.add(server)
    server.shared = Shared(
        opening, current.settings or Settings.model_construct()
    )  # while they are wrong, tools are only listed
    completions.add(server, server.shared)

    def open_gate(by: Settings) -> Gate:
        server.shared.settings = by
        if by.offered != TOOLS:
            server.disable(names=set(TOOLS - by.offered), components={"tool"})
        admission = Admission(user_policy=by.policy, project=project_folder(), studio=opening.studio)
        opening.may_send = admission.may_send
        gate = Gate(
            admission=admission,
            project=project_folder(),
            on_listed=opening.warm_up,
            newest=partial(resources.newest, opening, by),
        )
        server.shared.newest = partial(gate.newest, server)
        server.shared.closed = partial(gate.closes, server)
        return gate

    server.add_middleware(SettingsGate(current, open_gate))
    server.shared.gallery = LazyGallery(lambda: _behind_gallery(server.shared.settings, opening))
    return server


def _behind_gallery(settings: Settings, opening: LazyStudio) -> Server:
    """A server whose every tool answers with its structure, on the studio that is open."""
    served = settings.model_copy(update={"structured": "always", "preview_px": 0, "tools": "all"})
    return build_server(served, opening)


def open_from(settings: Settings) -> "Callable[[], Studio]":
    def open_it() -> "Studio":
        from nanobanana_mcp.studio.open import open_studio  # half a second of imports, behind the list of tools

        return open_studio(settings)

    return open_it
