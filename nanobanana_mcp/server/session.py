"""Opens the studio when a call needs it, passes progress on, and tells whether two calls are the same request."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from fastmcp import Context

from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.settings import Settings

if TYPE_CHECKING:
    from nanobanana_mcp.server.inside import LazyGallery
    from nanobanana_mcp.studio.studio import Studio

logger = logging.getLogger(__name__)


TakeBack = Callable[[], Awaitable[None]]
OnTheirWay = dict[str, Callable[[], Awaitable[TakeBack]]]
"""Notes answers as delivered, by the JSON-RPC id of the request; each function returns the one that takes the note
back."""

on_their_way: ContextVar[OnTheirWay | None] = ContextVar("on_their_way", default=None)
"""Set by a transport that reports what it has written; without one an answer counts as delivered once it is made."""

WARM_UP_S = 0.05
RECOVER_S = 10.0


class LazyStudio:
    """Opens the studio at the first call that needs it: until then a server takes half the memory. Once tools are
    listed, it opens by itself when a file lies in `waiting`, where dead processes leave raw answers.
    """

    def __init__(self, open_it: "Callable[[], Studio]", *, waiting: Path | None = None) -> None:
        self._open_it = open_it
        self._waiting = waiting
        self.may_send: Callable[[], bool] = lambda: True
        """True when pictures may be uploaded without being asked for; evaluated for each picture."""
        self.before_closing: Callable[[], Awaitable[None]] = _nothing
        """Runs first when the server ends, however it ends: notes in the library which answers were delivered."""
        self._lock = asyncio.Lock()
        self._studio: Studio | None = None
        self._warming: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None

    async def studio(self) -> "Studio":
        async with self._lock:
            if self._studio is None:
                self._studio = await asyncio.to_thread(self._open)
                self._studio.may_send = self.may_send
                self._recovering = asyncio.create_task(self._recover(self._studio))
                self._studio.begin_indexing()
            return self._studio

    @property
    def opened(self) -> "Studio | None":
        """The studio, if it has been opened."""
        return self._studio

    def warm_up(self) -> None:
        if self._studio is None and self._warming is None and self._waiting is not None and _has_files(self._waiting):
            self._warming = asyncio.create_task(self._warm())

    async def close(self) -> None:
        """Close once; a second caller waits for the first."""
        await self.before_closing()
        async with self._lock:
            if self._warming is not None:
                self._warming.cancel()
            studio, self._studio = self._studio, None
            if self._recovering is not None:  # it must not read a library that is being closed
                await asyncio.wait([self._recovering], timeout=RECOVER_S)
            if studio is not None:
                await studio.close()

    def _open(self) -> "Studio":
        gc.disable()  # half a second of imports leaves nothing to collect
        try:
            return self._open_it()
        finally:
            gc.freeze()
            gc.enable()

    async def _recover(self, studio: "Studio") -> None:
        """Keep the pictures that a dead process left behind, without being asked."""
        try:
            for one in await studio.recover():
                logger.warning("Found after a process that ended: %s: %s", one.call_id, one.outcome)
        except StudioError as error:
            logger.warning("What ended processes left behind could not be checked: %s", error)

    async def _warm(self) -> None:
        await asyncio.sleep(WARM_UP_S)  # let the list of tools go out first
        try:
            await self.studio()
        except StudioError:
            return  # the first call that needs the studio tries again and says why


@dataclass
class Shared:
    """The studio, settings and gallery that the tools of one server share; the settings are the current ones."""

    lazy: LazyStudio
    settings: Settings
    newest: Callable[[int, str], Awaitable[Sequence[Any]]] = field(default=lambda _count, _beginning: _none())
    """The newest pictures (how many) whose ids begin with a text; none when the policy refuses output_stats."""
    closed: Callable[[str], Awaitable[bool]] = field(default=lambda _tool: _no())
    """Tells whether the policy refuses a tool however it is called."""
    progress: Callable[[float, float, str], Awaitable[None]] | None = None
    """Receives the progress when the command line or the gallery calls the tools in this process."""
    gallery: "LazyGallery | None" = None
    """The gallery that a person is sent to, to paint where a picture should change."""

    async def studio(self) -> "Studio":
        return await self.lazy.studio()


def shared(caller: Context) -> Shared:
    """The shared parts of the server that received a call."""
    server: Any = caller.fastmcp  # a Server of app.py, which knows this module
    found: Shared = server.shared
    return found


async def _nothing() -> None:
    pass


async def _none() -> Sequence[Any]:
    return ()


async def _no() -> bool:
    return False


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def progress_to(context: Context) -> Callable[[float, float, str], Awaitable[None]]:
    """Progress for this call's client; silent once the client has gone, since the work goes on without it."""
    own = shared(context).progress
    if own is not None:
        return own
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


async def mark_delivered(context: Context, studio: "Studio", request_id: str) -> None:
    """Note that this answer is with its client once the transport has written it: a client that died before reading it
    can ask again at no charge.
    """
    waiting, request = on_their_way.get(), context.request_context
    if waiting is None or request is None:
        await studio.mark_delivered(request_id)
    else:
        waiting[str(request.request_id)] = partial(studio.mark_delivered, request_id)


def request_key(context: Context, explicit: str | None) -> str | None:
    """The key that makes two calls the same request: the caller's own, or the id that Claude Code gives each use of a
    tool.
    """
    if explicit is not None:
        return f"key:{explicit}"
    request = context.request_context
    meta = request.meta if request is not None else None
    use = meta.get("claudecode/toolUseId") if isinstance(meta, dict) else None
    return f"claude-code:{use}" if isinstance(use, str) and use else None
