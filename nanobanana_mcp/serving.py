"""Running the server over stdio: nothing but JSON-RPC on stdout, logs to stderr, and leaving when the client says so."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import anyio
from fastmcp import FastMCP

from nanobanana_mcp.errors import SetupError
from nanobanana_mcp.server import Standing, build_server
from nanobanana_mcp.settings import load_settings, misspelt
from nanobanana_mcp.tools.session import Opening

logger = logging.getLogger(__name__)

THREADS = 24
"""Python's own choice, six on two processors, is taken up by as many pictures waiting for their disk."""


_M_ARENA_MAX = -8
"""From glibc's malloc.h."""


def serve(wire: int) -> int:
    """Serve until the client closes stdin or sends a signal, with wrong settings, too: then each call says what is wrong.

    `wire` is the descriptor of the real stdout, which is put back only now.
    """
    try:
        settings, warnings = load_settings(), misspelt()
    except SetupError as error:
        settings, warnings = None, [str(error)]
    level = settings.log_level if settings is not None else "WARNING"
    one_heap()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("fastmcp").setLevel(level)
    for warning in warnings:
        logger.warning("%s", warning)
    standing = Standing(settings)
    opening = Opening(standing.open, waiting=settings.state_dir / "spool" if settings is not None else None)
    server = build_server(standing, opening)
    os.dup2(wire, 1)
    os.close(wire)
    anyio.run(_run, server, opening)
    return 0


def one_heap() -> None:
    """Have all threads share a heap. glibc would give each its own and keep what was freed there: five edits of a photo
    of 24 megapixels then hold 830 MB, and 450 MB in one. Other C libraries have no such heaps.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


async def _run(server: FastMCP, opening: Opening) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    async with anyio.create_task_group() as tasks:
        if os.name == "posix":
            tasks.start_soon(_leave_on_signal, opening)
        await server.run_async("stdio", show_banner=False)
        await opening.close()
        sys.stdout.flush()
        os._exit(0)  # worker threads that still decode or read would hold the exit up


async def _leave_on_signal(opening: Opening) -> None:
    """FastMCP does not leave on SIGINT, and SIGTERM would skip what has to be closed.

    Claude Code sends the one and 100 ms later the other: the second must not cut short what the first began.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            async for _ in signals:
                tasks.start_soon(_leave, opening)


async def _leave(opening: Opening) -> None:
    await opening.close()
    os._exit(0)  # the thread that reads stdin cannot be cancelled
