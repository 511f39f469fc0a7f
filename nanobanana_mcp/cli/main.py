"""The verbs of the command line, for people; without a verb the command is an MCP server."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nanobanana_mcp import __version__
from nanobanana_mcp.domain.text import counted

if TYPE_CHECKING:
    from nanobanana_mcp.studio.rebuild import Rebuilt

ABOUT = """\
A studio for making and editing pictures with Gemini's image models, as an MCP server.

Without a verb it serves MCP over stdin and stdout, which is what a client such as Claude Code starts:

  claude mcp add nanobanana -e GEMINI_API_KEY=your-key -- nanobanana

(give the full path of nanobanana where it is not on the PATH)."""

SETTINGS = """\
The settings are environment variables; the README and .env.example list them. A key comes from
https://aistudio.google.com/apikey. NANOBANANA_BACKEND=emulator needs none and makes no real pictures."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence with the way out."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says what there is.\n")


def run(argv: Sequence[str]) -> int:
    """Do what the command line asks and return the exit code: 2 for what was not understood or not set up."""
    parser = _parser()
    try:
        asked = parser.parse_args(argv)
    except SystemExit as leaving:  # argparse leaves by itself after --help, --version and mistakes
        return leaving.code if isinstance(leaving.code, int) else 0
    try:
        if asked.verb == "demo":
            from nanobanana_mcp.cli.demo.demo import run_demo

            return run_demo(asked.output, live=asked.live, agreed=asked.yes)
        if asked.verb == "rebuild":
            return _rebuild(agreed=asked.yes)
        return _emulator(asked.host, asked.port)
    except KeyboardInterrupt:
        return 130


def _emulator(host: str, port: int) -> int:
    from nanobanana_mcp.emulator.serve import serve

    try:
        serve(port, host)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        sys.stderr.write(f"nanobanana emulator: {host}:{port} cannot be listened on ({reason}).\n")
        return 2
    return 0


def _rebuild(*, agreed: bool) -> int:
    from nanobanana_mcp.domain.errors import SetupError
    from nanobanana_mcp.settings import load_settings
    from nanobanana_mcp.studio.open import open_places
    from nanobanana_mcp.studio.rebuild import Rebuilt, rebuild

    def agree(found: Rebuilt) -> bool:
        if not found.replaces:
            return True
        sys.stderr.write(f"{_outlook(found)} The old file is put aside, not deleted.\n")
        if agreed:
            return True
        if not sys.stdin.isatty():
            sys.stderr.write("Nothing was changed. Say 'nanobanana rebuild --yes' to do it.\n")
            return False
        sys.stderr.write("Rebuild it? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    try:
        settings = load_settings()
        rebuilt = rebuild(settings.database_path, open_places(settings), agree=agree)
    except SetupError as error:
        sys.stderr.write(f"nanobanana rebuild: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"nanobanana rebuild: {error.filename} cannot be used ({error.strerror}); nothing was replaced.\n"
        )
        return 2
    if rebuilt is None:
        return 2
    pictures = counted(rebuilt.pictures, "picture")
    sys.stdout.write(f"The new library {settings.database_path} has {pictures} with their lineage.\n")
    if rebuilt.aside is not None:
        spent = "what was spent is in the new one, too" if rebuilt.kept else "what was spent stands only there"
        sys.stdout.write(f"The old one was put aside as {rebuilt.aside}; {spent}.\n")
    for path in rebuilt.unreadable:
        sys.stdout.write(f"This record cannot be read and was left out: {path}\n")
    return 0


def _outlook(found: "Rebuilt") -> str:
    """Say what a rebuild keeps, adds and loses."""
    if found.kept:
        return (
            f"The library can be read: its {counted(found.pictures - found.added, 'picture')}, its spending and its uploads "
            f"stay, and {counted(found.added, 'picture')} that only a record beside the pictures knows would be added."
        )
    return (
        f"The library cannot be read: {counted(found.pictures, 'picture')} would come back from the records beside them. "
        "What was spent and uploaded is lost with it, so the limits of the hour and the day begin anew."
    )


def _parser() -> Parser:
    parser = Parser(
        prog="nanobanana",
        description=ABOUT,
        epilog=SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nanobanana {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    demo = verbs.add_parser(
        "demo",
        help="drive the real server through its main job and show the pictures",
        description="Starts the server with the built-in Gemini emulator (offline, free, no real pictures), makes and "
        "edits pictures through it, and leaves them with one contact sheet in a new folder.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="a new folder for everything it makes (default: nanobanana-demo/<date and time> here)",
    )
    demo.add_argument("--live", action="store_true", help="a small version with Gemini; says first what it will cost")
    demo.add_argument("--yes", action="store_true", help="with --live: agree to the cost without being asked")
    rebuild = verbs.add_parser(
        "rebuild",
        help="make a new library from the pictures' own records, when the old one is lost or damaged",
        description="Makes a new library of the old one, where it can be read, and of the records beside the "
        "thumbnails in the output folder. Says first what would be lost. The old file is put aside, never deleted. End every "
        "server first.",
        allow_abbrev=False,
    )
    rebuild.add_argument("--yes", action="store_true", help="agree without being asked")
    emulator = verbs.add_parser(
        "emulator",
        help="serve the Gemini emulator over HTTP to any program",
        description="Serves the Gemini emulator until it is interrupted. Point a Gemini client's base URL at it, this "
        "program's with GEMINI_BASE_URL; any key of four characters or more will do.",
        allow_abbrev=False,
    )
    emulator.add_argument("--port", type=_port, required=True, metavar="N", help="0 takes any free one")
    emulator.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)
