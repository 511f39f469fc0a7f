"""Lists a tool with a schema that leaves out what a model need not read, and turns its errors into sentences."""

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from fastmcp import FastMCP
from fastmcp.apps import AppConfig
from fastmcp.exceptions import ToolError
from fastmcp.tools import FunctionTool, ToolResult
from mcp.types import InputRequiredResult, Tool, ToolAnnotations

from nanobanana_mcp.domain.arguments import AS_THERE
from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.server.icons import icon

P = ParamSpec("P")

FAR = 500
"""An upper bound this high or higher is left out of a schema: the error for a value beyond it says what it is."""


class Offered(FunctionTool):
    """A tool listed without the metadata that FastMCP adds to say that a tool has no tags."""

    def get_meta(self) -> dict[str, Any]:
        found = super().get_meta()
        return found if self.tags or self.version else {key: value for key, value in found.items() if key != "fastmcp"}

    def to_mcp_tool(self, **overrides: Any) -> Tool:
        listed = super().to_mcp_tool(**overrides)
        listed.meta = listed.meta or None
        return listed


def offer(
    server: FastMCP,
    function: Callable[P, Awaitable[ToolResult | InputRequiredResult]],
    *,
    title: str,
    description: str,
    annotations: ToolAnnotations,
    meta: dict[str, Any] | None = None,
    app: AppConfig | None = None,
) -> None:
    """Add a tool under its function's name; `app` is the page in which a client that can show one shows its answers."""
    if app is not None:
        meta = {**(meta or {}), "ui": app.model_dump(by_alias=True, exclude_none=True)}
    tool = _tool(function).model_copy(
        update={
            "title": title,
            "description": description,
            "icons": [icon(function.__name__)],
            "annotations": annotations,
            "meta": meta,
        }
    )
    server.add_tool(tool)


@functools.cache
def _tool(function: Callable[P, Awaitable[ToolResult | InputRequiredResult]]) -> FunctionTool:
    """The tool of a function, made once in a process. A StudioError reaches the client in its own words; anything else is a
    bug, and is masked.
    """

    @functools.wraps(function)
    async def spoken(*args: P.args, **kwargs: P.kwargs) -> ToolResult | InputRequiredResult:
        try:
            return await function(*args, **kwargs)
        except StudioError as error:
            raise ToolError(str(error), log_level=logging.DEBUG) from error
        except MemoryError as error:
            raise ToolError(
                "There was not enough memory free here, and the call was broken off. Close other programs, raise the limit "
                "that the server runs under, or take smaller pictures. output_stats lists what was kept.",
                log_level=logging.WARNING,
            ) from error

    tool = Offered.from_function(spoken, output_schema=None)
    tool.parameters = slim(tool.parameters)
    return tool


def slim(parameters: dict[str, Any]) -> dict[str, Any]:
    """An input schema without generated titles, without null for what may be left out, and without bounds that nobody meets
    unasked. Arguments are still validated by the function's own annotations, which accept null and nothing else that is not
    declared.
    """
    told = {key: value for key, value in parameters.items() if key != "additionalProperties"}
    return {**told, "properties": {name: _slimmed(value) for name, value in parameters["properties"].items()}}


def _slimmed(schema: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in schema.items() if key != "title"}
    options = [option for option in found.pop("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        found = {**options[0], **found}
    elif options:
        found["anyOf"] = options
    if found.get("default", "") is None:
        del found["default"]
    for name in (
        "minLength",
        "minimum",
        "exclusiveMinimum",
    ):  # a model knows that a count is not negative
        if found.get(name) in (0, 1):
            del found[name]
    found.pop("maxLength", None)
    if found.get("maximum", 0) >= FAR:
        del found["maximum"]
    if found.get("description") == AS_THERE:  # which the name alone says as well
        del found["description"]
    return found
