"""Runs the server over stdio: only JSON-RPC on stdout, logs on stderr, and an orderly end when the client closes or
signals.
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO

import anyio

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.text import printable
from nanobanana_mcp.server.app import CurrentSettings, Server, build_server
from nanobanana_mcp.server.lines import LineReader, LineWriter
from nanobanana_mcp.server.session import LazyStudio, OnTheirWay, on_their_way
from nanobanana_mcp.settings import load_settings, misspelt

logger = logging.getLogger(__name__)

LONGEST, MOST_LINES = 400, 60
"""The most characters of a line and of a record in the log."""

THREADS = 24
"""Threads. Python's own choice, six on two processors, can all be taken by pictures waiting for their disk."""


_M_ARENA_MAX = -8
"""M_ARENA_MAX in glibc's malloc.h."""


def serve(wire: int) -> int:
    """Serve until the client closes stdin or sends a signal; with wrong settings each call says what to put right.
    `wire` is the descriptor of the real stdout; stdout itself goes to stderr.
    """
    try:
        settings, warnings = load_settings(), misspelt()
    except SetupError as error:
        settings, warnings = None, [str(error)]
    level = settings.log_level if settings is not None else "WARNING"
    one_heap()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Bounded("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("fastmcp").setLevel(level)
    for warning in warnings:
        logger.warning("%s", warning)
    if sys.stdin.isatty():
        sys.stderr.write(
            "This is an MCP server, which a client such as Claude Code starts and speaks to; it waits for one now. Ctrl-D "
            "ends it, and 'nanobanana --help' says what else there is.\n"
        )
    current = CurrentSettings(settings)
    opening = LazyStudio(current.open, waiting=settings.state_dir / "spool" if settings is not None else None)
    server = build_server(current, opening)
    anyio.run(_run, server, opening, wire)
    return 0


def one_heap() -> None:
    """Make all threads share one heap. glibc gives each thread its own and keeps freed memory there: five edits of a
    24-megapixel photo then hold 830 MB, and 450 MB in one heap. Other C libraries have no such heaps.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class Bounded(logging.Formatter):
    """Logs text from outside as a few printable lines, however long it is."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines()
        kept = lines if len(lines) <= MOST_LINES else [lines[0], "...", *lines[2 - MOST_LINES :]]
        return "\n".join(printable(line if len(line) <= LONGEST else f"{line[:LONGEST]}...") for line in kept)


async def _run(server: Server, opening: LazyStudio, wire: int) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    async with anyio.create_task_group() as tasks:
        waiting: OnTheirWay = {}
        on_their_way.set(waiting)
        writer = LineWriter(wire, waiting)
        opening.before_closing = writer.take_back
        if os.name == "posix":
            tasks.start_soon(_leave_on_signal, opening)
        try:
            await server.run_on(LineReader(_own_stdin(), writer), writer)
        except* OSError as group:
            logger.warning("The client left without reading its answers (%s).", group.exceptions[0])
        await opening.close()
        os._exit(0)  # worker threads that still decode or read would delay the exit


def _own_stdin() -> BinaryIO:
    """Keep the client's pipe for the protocol; anything else that reads stdin finds it empty."""
    own = os.fdopen(os.dup(0), "rb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return own


async def _leave_on_signal(opening: LazyStudio) -> None:
    """FastMCP does not end on SIGINT, and SIGTERM would skip closing. Claude Code sends SIGINT and, 100 ms later,
    SIGTERM: the second must not interrupt the closing that the first began.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            async for _ in signals:
                tasks.start_soon(_leave, opening)


async def _leave(opening: LazyStudio) -> None:
    await opening.close()
    os._exit(0)  # the thread that reads stdin cannot be cancelled
