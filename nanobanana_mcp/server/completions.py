"""Completes what a person types into a resource or a prompt: ids of pictures, newest first."""

from functools import partial
from typing import Any

from fastmcp import FastMCP
from mcp.types import CompletionArgument, CompletionContext

from nanobanana_mcp.server.session import Shared

MOST = 100
"""MCP allows at most so many values."""


def add(server: FastMCP, own: Shared) -> None:
    server.add_completion_handler(partial(complete, own))


async def complete(
    own: Shared, _ref: Any, argument: CompletionArgument, _context: CompletionContext | None
) -> list[str]:
    """Values for an argument; none for an argument whose values cannot be listed."""
    if argument.name in ("image_id", "picture"):
        return [one.id for one in await own.newest(MOST, argument.value.strip())]
    return []
