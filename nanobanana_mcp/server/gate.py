"""Handles every call before its tool: puts the arguments into plain form, asks for admission, and words argument
errors.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import anyio
from fastmcp import FastMCP
from fastmcp.exceptions import ResourceError, ToolError, ValidationError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from fastmcp.tools import InputRequiredToolResult, ToolResult
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, TextContent
from pydantic import ValidationError as PydanticError

from nanobanana_mcp.domain.errors import NotAgreed, PolicyError, PolicyViolation, RequestError, StudioError
from nanobanana_mcp.domain.terms import TOOLS
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server import prompts, resources
from nanobanana_mcp.server.arguments import name_inputs, plain
from nanobanana_mcp.server.session import request_key
from nanobanana_mcp.server.synonyms import argument_error
from nanobanana_mcp.studio.admission import Admission, PolicyCheck

LONGEST_URI = 200
"""Characters of an address that an error repeats whole; ours are far shorter."""


class Gate(Middleware):
    """Puts each call's arguments into plain form, which is all that the rest of the program sees, and has the policy
    judge the call before it is made.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        project: Path,
        on_listed: Callable[[], None],
        newest: Callable[[int, str], Awaitable[Sequence[Any]]],
    ) -> None:
        self._admission = admission
        self._base = project
        self._on_listed = on_listed
        self._newest = newest

    async def on_list_tools(self, context: MiddlewareContext[Any], call_next: Any) -> Sequence[Any]:
        tools: Sequence[Any] = await call_next(context)
        self._on_listed()
        return self._shown(tools)

    async def on_list_resources(self, context: MiddlewareContext[Any], call_next: Any) -> Sequence[Any]:
        """List the newest pictures as well, for clients that the policy lets use output_stats."""
        assert context.fastmcp_context is not None
        listed: Sequence[Any] = await call_next(context)
        newest = await self.newest(context.fastmcp_context.fastmcp, resources.MOST)
        own = [one for one in listed if str(one.uri) != resources.APP]
        return [*own, *(resources.listed(one) for one in newest)]

    async def on_read_resource(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        uri = str(context.message.uri)
        if not resources.is_one(uri):
            raise _resource_error(f"{shorten(uri)} does not exist. The resources are {resources.FORMS}.", uri)
        assert context.fastmcp_context is not None
        if uri not in (resources.MODELS, resources.APP) and await self.closes(
            context.fastmcp_context.fastmcp, "output_stats"
        ):
            raise _resource_error("The policy does not allow output_stats, which pictures by id need.", uri)
        try:
            return await call_next(context)
        except ResourceError as error:
            if isinstance(error.__cause__, RequestError):
                raise _resource_error(str(error), uri) from error
            raise

    async def on_list_prompts(self, context: MiddlewareContext[Any], call_next: Any) -> Sequence[Any]:
        """List the prompts whose tools are all offered."""
        assert context.fastmcp_context is not None
        offered = {tool.name for tool in await self._offered(context.fastmcp_context.fastmcp)}
        return [prompt for prompt in await call_next(context) if prompts.NEEDS.get(prompt.name, offered) <= offered]

    async def on_get_prompt(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        assert context.fastmcp_context is not None
        name, server = context.message.name, context.fastmcp_context.fastmcp
        known = sorted(prompt.name for prompt in await server.list_prompts(run_middleware=False))
        if name not in known:
            words = f"{shorten(name)} is not a prompt of this server. The prompts are {', '.join(known)}."
            raise MCPError(code=INVALID_PARAMS, message=words)
        missing = prompts.NEEDS.get(name, frozenset()) - {tool.name for tool in await self._offered(server)}
        if missing:
            words = f"{name} needs {', '.join(sorted(missing))}, which this server does not offer."
            raise MCPError(code=INVALID_PARAMS, message=words)
        return await call_next(context)

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        assert context.fastmcp_context is not None
        server = context.fastmcp_context.fastmcp
        if await server.get_tool(context.message.name) is None:
            there = sorted(tool.name for tool in await self._offered(server))
            left_out = ", because NANOBANANA_TOOLS leaves it out" if context.message.name in TOOLS else ""
            raise ToolError(
                f"{shorten(context.message.name)} is not a tool of this server{left_out}. The tools are "
                f"{', '.join(there)}.",
                log_level=logging.DEBUG,
            )
        check: PolicyCheck | None = None
        try:
            context, notes = await self._in_plain_form(context)
            check = await self._admitted(context)
            result = await call_next(context)
            if isinstance(result, InputRequiredToolResult):  # the call comes again, with the answer to its question
                await self._admission.refund(check)
                return result
            return _with_notes(result, notes)
        except ToolError as error:
            if check is not None and (check.refused or isinstance(error.__cause__, NotAgreed)):
                await self._admission.refund(check)
            raise
        except asyncio.CancelledError:
            if check is not None and check.refused:
                with anyio.CancelScope(shield=True):
                    await self._admission.refund(check)
            raise
        except ValidationError as error:
            await self._admission.refund(check)
            if not isinstance(error.__cause__, PydanticError):
                raise
            found = error.__cause__.errors(include_url=False, include_input=False)
            known = await self._arguments(context)
            given = context.message.arguments or {}
            told = (argument_error(problem, context.message.name, known, given) for problem in found)
            raise ToolError("; ".join(told), log_level=logging.DEBUG) from None
        except PolicyViolation as error:
            raise ToolError(f"Policy violation: {error}", log_level=logging.DEBUG) from error
        except StudioError as error:
            raise ToolError(str(error), log_level=logging.DEBUG) from error

    async def _admitted(self, context: MiddlewareContext[Any]) -> PolicyCheck | None:
        assert context.fastmcp_context is not None
        message, caller = context.message, context.fastmcp_context
        tool = await caller.fastmcp.get_tool(message.name)
        given = message.arguments or {}
        explicit = given.get("idempotency_key")
        key = request_key(caller, explicit if isinstance(explicit, str) else None)
        return None if tool is None else await self._admission.admit(message.name, given, tool.parameters, key=key)

    async def _offered(self, server: FastMCP) -> Sequence[Any]:
        return self._shown(await server.list_tools(run_middleware=False))

    def _shown(self, tools: Sequence[Any]) -> Sequence[Any]:
        """The tools that the policy does not hide."""
        try:
            policy = self._admission.policy()
        except PolicyError:
            return tools  # each call says what is wrong with it
        return tools if policy is None else [tool for tool in tools if not policy.hidden(tool.name)]

    async def newest(self, server: FastMCP, count: int, beginning: str = "") -> Sequence[Any]:
        """The newest pictures whose ids begin with a text; none when the policy refuses output_stats."""
        return () if await self.closes(server, "output_stats") else await self._newest(count, beginning)

    async def closes(self, server: FastMCP, name: str) -> bool:
        """Tells whether the policy refuses a tool however it is called, whether or not the tool is offered."""
        tool = await server.local_provider.get_tool(name)
        return tool is None or self._admission.closes(name, tool.parameters)

    async def _in_plain_form(self, context: MiddlewareContext[Any]) -> tuple[MiddlewareContext[Any], list[str]]:
        """The call as the tool's schema declares it, with each input named as the one file it means, and notes on that.
        Raises RequestError.
        """
        assert context.fastmcp_context is not None
        message = context.message
        tool = await context.fastmcp_context.fastmcp.get_tool(message.name)
        if tool is None or not message.arguments:
            return context, []
        found = plain(message.arguments, tool.parameters)
        notes = await asyncio.to_thread(name_inputs, found, self._base)
        return context.copy(message=message.model_copy(update={"arguments": found})), notes

    async def _arguments(self, context: MiddlewareContext[Any]) -> dict[str, Collection[str]]:
        """The names of every tool's arguments."""
        assert context.fastmcp_context is not None
        found = [await context.fastmcp_context.fastmcp.get_tool(name) for name in sorted(TOOLS)]
        return {tool.name: tool.parameters["properties"] for tool in found if tool is not None}


def _resource_error(words: str, uri: str) -> MCPError:
    """The error that MCP prescribes for a resource that does not exist or may not be read; FastMCP's own has no
    message.
    """
    return MCPError(code=INVALID_PARAMS, message=words, data={"uri": uri} if len(uri) <= LONGEST_URI else None)


def _with_notes(result: Any, notes: Sequence[str]) -> Any:
    """The answer with `notes` added, in its text and its structure."""
    if notes and isinstance(result, ToolResult) and isinstance(result.content[0], TextContent):
        lines = "".join(f"\nNote: {note}" for note in notes)
        result.content[0].text += lines
        structure = result.structured_content
        if structure is not None and isinstance(structure.get("summary"), str):
            structure["summary"] += lines
    return result
