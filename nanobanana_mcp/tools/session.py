"""What every tool shares: the studio when it is needed, errors as sentences, previews and progress for the client."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio
from fastmcp import Context
from fastmcp.exceptions import ToolError, ValidationError
from fastmcp.server.middleware import Middleware, MiddlewareContext
from pydantic import ValidationError as PydanticError

from nanobanana_mcp.errors import StudioError
from nanobanana_mcp.settings import Settings

if TYPE_CHECKING:
    from nanobanana_mcp.studio import Studio

P = ParamSpec("P")
R = TypeVar("R")

STRUCTURE_DROPS_PICTURES = ("codex",)
"""Clients that show a model nothing but the structure when a result has one (Codex CLI 0.169)."""

WARM_UP_S = 0.05


class Opening:
    """Opens the studio once: at the first call that needs it, or when the client has its list of tools."""

    def __init__(self, open_it: "Callable[[], Studio]") -> None:
        self._open_it = open_it
        self._lock = asyncio.Lock()
        self._studio: Studio | None = None
        self._warming: asyncio.Task[None] | None = None

    async def studio(self) -> "Studio":
        async with self._lock:
            if self._studio is None:
                self._studio = await asyncio.to_thread(self._open_it)
            return self._studio

    def warm_up(self) -> None:
        if self._studio is None and self._warming is None:
            self._warming = asyncio.create_task(self._warm())

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
        if self._studio is not None:
            await self._studio.close()

    async def _warm(self) -> None:
        await asyncio.sleep(WARM_UP_S)  # the list is on its way first
        try:
            await self.studio()
        except StudioError:
            return  # the first call that needs the studio tries again and says why


class Tidy(Middleware):
    """Argument errors in plain words, with no links and nothing of the input quoted back."""

    def __init__(self, warm_up: Callable[[], None]) -> None:
        self._warm_up = warm_up

    async def on_list_tools(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        result = await call_next(context)
        self._warm_up()
        return result

    async def on_call_tool(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        try:
            return await call_next(context)
        except ValidationError as error:
            if not isinstance(error.__cause__, PydanticError):
                raise
            found = error.__cause__.errors(include_url=False, include_input=False, include_context=False)
            raise ToolError("; ".join(_argument_error(problem) for problem in found)) from None


def spoken(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """A StudioError in its own words; anything else is a bug, and is masked."""

    @functools.wraps(tool)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await tool(*args, **kwargs)
        except StudioError as error:
            raise ToolError(str(error)) from error

    return wrapped


def progress_to(context: Context) -> Callable[[float, float, str], Awaitable[None]]:
    """Progress for this call's client; silent once it has gone, since the work goes on without it."""
    gone = False

    async def report(done: float, total: float, words: str) -> None:
        nonlocal gone
        if gone:
            return
        try:
            await context.report_progress(done, total, words)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            gone = True

    return report


def wants_structure(context: Context, settings: Settings) -> bool:
    """Whether this client should get structured content beside the pictures."""
    if settings.structured != "auto":
        return settings.structured == "always"
    return not any(word in client_name(context) for word in STRUCTURE_DROPS_PICTURES)


def client_name(context: Context) -> str:
    params = context.session.client_params
    return params.client_info.name.lower() if params is not None and params.client_info is not None else ""


def _argument_error(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name} is not an argument of this tool; leave it out"
    return f"{name}: {problem['msg']}"
