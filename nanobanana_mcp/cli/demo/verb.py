"""The verb demo."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nanobanana_mcp.cli.demo.demo import run_demo


def demo(
    *,
    output: Annotated[
        Path | None,
        Parameter(help="A new folder for everything it makes; unset: nanobanana-demo/<date and time> here."),
    ] = None,
    live: Annotated[
        bool,
        Parameter(help="A small version with Gemini; says first what it will cost.", negative=(), show_default=False),
    ] = False,
    yes: Annotated[
        bool, Parameter(help="With --live: agree to the cost without being asked.", negative=(), show_default=False)
    ] = False,
) -> int:
    """Drive the real server through its main job and show the pictures.

    Starts the server with the built-in Gemini emulator (offline, free, no real
    pictures), makes and edits pictures through it, and leaves them with one
    contact sheet in a new folder.
    """
    return run_demo(output, live=live, agreed=yes)
