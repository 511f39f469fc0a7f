"""Running the server over stdio: logs to stderr, and leaving when the client says so."""

import logging
import os
import signal
import sys

import anyio
from fastmcp import FastMCP

from nanobanana_mcp.errors import SetupError
from nanobanana_mcp.server import build_server
from nanobanana_mcp.settings import load_settings


def serve() -> int:
    """Serve until the client closes stdin or sends a signal. 2 when the settings are wrong."""
    try:
        settings = load_settings()
    except SetupError as error:
        print(f"nanobanana-mcp: {error}", file=sys.stderr)  # noqa: T201 - the one place that talks to a terminal
        return 2
    logging.basicConfig(stream=sys.stderr, level=settings.log_level, format="%(levelname)s %(name)s: %(message)s")
    anyio.run(_run, build_server(settings))
    return 0


async def _run(server: FastMCP) -> None:
    async with anyio.create_task_group() as tasks:
        if os.name == "posix":
            tasks.start_soon(_leave_on_signal)
        await server.run_async("stdio", show_banner=False)
        tasks.cancel_scope.cancel()


async def _leave_on_signal() -> None:
    """FastMCP does not leave on SIGINT, and SIGTERM would skip what has to be closed."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            os._exit(0)  # the thread that reads stdin cannot be cancelled
