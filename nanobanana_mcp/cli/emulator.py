"""The verb emulator: serves the Gemini emulator over HTTP until it is interrupted."""

import os
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from nanobanana_mcp.emulator.serve import serve


def _port(_type: Any, tokens: Any) -> int:
    text = tokens[0].value
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port from 0 to 65535.")
    return int(text)


def emulator(
    *,
    port: Annotated[int, Parameter(help="The port to listen on; 0 takes any free one.", converter=_port)],
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
) -> int:
    """Serve the Gemini emulator over HTTP to any program, until it is interrupted.

    Point a Gemini client's base URL at it, this program's with GEMINI_BASE_URL;
    any key of four characters or more will do.
    """
    try:
        serve(port, host)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        sys.stderr.write(f"nanobanana emulator: {host}:{port} cannot be listened on ({reason}).\n")
        return 2
    return 0
