"""Runs an emulator on a port until it is interrupted."""

import contextlib
import socket
import sys

import uvicorn

from nanobanana_mcp.emulator.app import Emulator


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Listen on `host`:`port` (0: any free one) and say on stderr where. Returns after SIGINT."""
    listener = socket.create_server((host, port))
    bound = listener.getsockname()[1]
    sys.stderr.write(f"Gemini emulator listening on http://{host}:{bound}\n")
    sys.stderr.flush()
    config = uvicorn.Config(Emulator().app, log_level="warning", access_log=False, lifespan="off")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
