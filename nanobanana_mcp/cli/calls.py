"""Calls a tool of the server in this very process: so a verb obeys the same policy, limits and journal, takes the same
arguments and says the same words as the tool that a client calls.
"""

import asyncio
import base64
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastmcp.exceptions import ToolError
from mcp.types import ImageContent

from nanobanana_mcp.cli.output import Bar
from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.domain.ids import is_file_id, is_image_id
from nanobanana_mcp.server.app import Server, build_server
from nanobanana_mcp.server.clients import facts_of
from nanobanana_mcp.server.stdio import Bounded
from nanobanana_mcp.settings import Settings, load_settings, misspelt, project_folder

if TYPE_CHECKING:
    from nanobanana_mcp.studio.studio import Studio

T = TypeVar("T")

HOMECOMING = (
    "Interrupted. What Gemini was asked for already comes home first, which takes 20 seconds at most; it is kept, and the same "
    "command tells of it without a new charge."
)


class Interrupted(Exception):
    """The person pressed Ctrl-C, or the system ended the command; whatever was paid for is kept."""


class Session:
    """One run of a verb: its settings, the server behind it and the bar that shows how far it is."""

    def __init__(self, server: Server, settings: Settings, bar: Bar) -> None:
        self.settings = settings
        self._server = server
        self._bar = bar

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Calls a tool and returns the facts of its answer, with its text under "summary". Raises ToolError, whose cause is the
        StudioError.
        """
        return (await self.look(tool, arguments))[0]

    async def look(self, tool: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Calls a tool as `call` does, and returns the pictures of its answer, too."""
        self._server.shared.progress = self._bar.report
        result = await self._server.call_tool(tool, dict(arguments))
        pictures = [base64.b64decode(block.data) for block in result.content if isinstance(block, ImageContent)]
        return facts_of(result), pictures

    async def studio(self) -> "Studio":
        return await self._server.shared.studio()


def run_to_end(work: Callable[[Session], Awaitable[T]], settings: Settings) -> T:
    """Run the work of a verb to its end. Ctrl-C is a client that hangs up: nothing more is asked for, and what was paid
    for is waited for and kept.

    Raises ToolError and StudioError as the call does, Interrupted.
    """
    return asyncio.run(_run(work, settings))


async def _run(work: Callable[[Session], Awaitable[T]], settings: Settings) -> T:
    with Bar() as bar:
        server = build_server(settings)
        under_way = asyncio.ensure_future(work(Session(server, settings, bar)))

        def leave() -> None:
            if not under_way.done() and under_way.cancelling() == 0:  # pressed twice, it loses no picture either
                bar.say(HOMECOMING)
                under_way.cancel()

        with suppress(NotImplementedError):  # on Windows asyncio itself cancels this on Ctrl-C
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, leave)
        try:
            return await under_way
        except asyncio.CancelledError:
            raise Interrupted from None
        finally:
            await server.shared.lazy.close()


def settings_of() -> Settings:
    """The server's settings, but with every tool and without previews, which nobody would look at. The log goes to
    stderr.

    They are put into this process's environment, so that code that reads the settings again finds the same. Raises
    SetupError for wrong ones.
    """
    os.environ |= {"NANOBANANA_STRUCTURED": "always", "NANOBANANA_PREVIEW_PX": "0", "NANOBANANA_TOOLS": "all"}
    found = load_settings()
    _log(found)
    return found


def _log(settings: Settings) -> None:
    """Sets up the log as the server does, without what FastMCP says of calls, which the verb says itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Bounded("nanobanana: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    if settings.log_level != "DEBUG":
        logging.getLogger("fastmcp").setLevel(logging.CRITICAL)
    for warning in misspelt():
        logging.getLogger(__name__).warning("%s", warning)


def cause_of(error: ToolError) -> StudioError | None:
    """The studio's own error behind a tool's; None where an argument was at fault. Any other error is a bug and is
    raised.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, StudioError):
        return cause
    raise cause


def here(text: str) -> str:
    """A path as a person in a shell means it, from the folder that the shell is in.

    The tools take relative paths from the project that a client has open, and CLAUDE_PROJECT_DIR may name another one.
    """
    plain = is_image_id(text) or is_file_id(text) or "://" in text or text.startswith(("~", "data:"))
    if plain or not text.strip() or Path(text).is_absolute():
        return text
    working = Path.cwd()
    return text if working == project_folder() else os.path.join(working, text)  # noqa: PTH118  # Path would drop the slash that means a folder
