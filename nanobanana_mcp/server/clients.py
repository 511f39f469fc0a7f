"""Knows which part of an answer each client shows its model, and makes the answer for it."""

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from fastmcp import Context
from fastmcp.tools import ToolResult
from mcp.types import SERVER_INFO_META_KEY, ContentBlock, TextContent
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from nanobanana_mcp import __version__
from nanobanana_mcp.server.session import shared


class Known(NamedTuple):
    """A client that drops what stands beside structured content."""

    name: str
    """Part of the client's name in clientInfo, in lower case."""
    drops: str
    source: str
    seen: date


KNOWN = (
    Known("claude-code", "text", "2.1.197 and 2.1.332, by tests/test_claude_code.py", date(2026, 11, 28)),
    Known("codex", "text, pictures and links", "Codex CLI 0.169, recorded", date(2026, 11, 20)),
    Known("opencode", "text and pictures", "github.com/anomalyco/opencode #32832, until #34505", date(2026, 6, 29)),
)
"""Clients that get text and pictures without structure. All others get both, and either alone is complete."""


def wants_structure(context: Context) -> bool:
    asked = shared(context).settings.structured
    if asked != "auto":
        return asked == "always"
    name = client_name(context)
    return not any(client.name in name for client in KNOWN)


def client_name(context: Context) -> str:
    params = context.session.client_params
    return params.client_info.name.lower() if params is not None and params.client_info is not None else ""


def result(context: Context, text: str, structure: dict[str, Any], more: Sequence[ContentBlock] = ()) -> ToolResult:
    """The answer of a tool. The structure has the sentences too, for clients that show the model the structure alone: the
    whole text, or under "summary" what no other of its fields says.
    """
    return ToolResult(
        content=[TextContent(type="text", text=text), *more],
        structured_content={"summary": text, **structure} if wants_structure(context) else None,
        meta=_signed(context),
    )


def facts_of(result: ToolResult) -> dict[str, Any]:
    """The structure of an answer with its whole text under "summary", for doors that show people the words."""
    (text,) = (block.text for block in result.content[:1] if isinstance(block, TextContent))
    return {**(result.structured_content or {}), "summary": text}


def _signed(context: Context) -> dict[str, Any] | None:
    """Names the server, as the newest protocol wants with every answer, without the icon that the discovery has told."""
    request = context.request_context
    if request is None or request.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return None
    return {SERVER_INFO_META_KEY: {"name": context.fastmcp.name, "version": __version__}}
