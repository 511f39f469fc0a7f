"""The MCP server: puts the tools together and opens the studio behind the list of them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastmcp import FastMCP
from fastmcp.tools import Tool
from fastmcp.utilities.versions import VersionSpec

from nanobanana_mcp import __version__
from nanobanana_mcp.settings import Settings, project_folder
from nanobanana_mcp.tools import edit, generate, resources, upkeep
from nanobanana_mcp.tools.gate import Gate
from nanobanana_mcp.tools.session import Opening

if TYPE_CHECKING:
    from nanobanana_mcp.studio import Studio

INSTRUCTIONS = """\
Makes and edits pictures with Google's Gemini image models and keeps every one of them on this machine, with what it \
was made from. generate_image makes new pictures and edits existing ones; every answer gives absolute paths and ids \
(img_...) that later calls take as inputs. Pictures cost money (about $0.04 flash, $0.15-0.27 pro): ask for what is \
wanted, and look at the preview before asking again. output_stats shows what there is and what was spent."""


class Server(FastMCP):
    """FastMCP whose tools are the same in every session. To look for rules that a session has of its own, it imports 450
    modules at the first list of tools, or at the first call.
    """

    async def list_tools(self, *, run_middleware: bool = True) -> Sequence[Tool]:
        return await (super().list_tools() if run_middleware else self.local_provider.list_tools())

    async def get_tool(self, name: str, version: VersionSpec | None = None) -> Tool | None:
        return await self.local_provider.get_tool(name, version)


def build_server(settings: Settings, opening: Opening | None = None) -> FastMCP:
    """A server that is ready to run. `opening` makes the studio; by default it is made from the settings."""
    opening = opening or Opening(open_from(settings))
    gate = Gate(user_policy=settings.policy, project=project_folder(), studio=opening.studio, listed=opening.warm_up)

    @asynccontextmanager
    async def lifespan(_server: FastMCP) -> AsyncIterator[dict[str, object]]:
        yield {}
        await opening.close()

    server = Server(
        "nanobanana-mcp",
        version=__version__,
        instructions=INSTRUCTIONS,
        lifespan=lifespan,
        middleware=[gate],
        mask_error_details=True,
        strict_input_validation=True,
        on_duplicate="error",
    )
    for module in (generate, edit, upkeep, resources):
        module.add(server, opening, settings)
    return server


def open_from(settings: Settings) -> "Callable[[], Studio]":
    def open_it() -> "Studio":
        from nanobanana_mcp.opening import open_studio  # half a second of imports, behind the list of tools

        return open_studio(settings)

    return open_it
