"""The verbs of the command line, for people and scripts; without a verb the command is an MCP server.

Each verb is a function, and its module is imported when the verb is called for. A verb takes what its signature says, and
--help shows its docstring.
"""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from nanobanana_mcp import __version__
from nanobanana_mcp.cli.outcome import INTERRUPTED, REFUSED
from nanobanana_mcp.cli.output import tell
from nanobanana_mcp.cli.words import STDIN

ABOUT = """\
A studio for making and editing pictures with Gemini's image models, as an MCP server.

'nanobanana setup' asks for the key and enters the server into your clients.

Without a verb it serves MCP over stdin and stdout, which is what a client such as Claude Code starts:

  claude mcp add nanobanana -e GEMINI_API_KEY=your-key -- nanobanana

(give the full path of nanobanana where it is not on the PATH)."""

SETTINGS = """\
The settings are environment variables; docs/settings.md and .env.example list them. A key comes from \
https://aistudio.google.com/apikey. NANOBANANA_BACKEND=emulator needs none and makes no real pictures."""

_PICTURES, _UPKEEP = "nanobanana_mcp.cli.pictures", "nanobanana_mcp.cli.upkeep"

VERBS = {
    # Each verb: where its function is, and its line in the list of verbs.
    "generate": (f"{_PICTURES}:generate", "Make new pictures."),
    "edit": (f"{_PICTURES}:edit", "Edit a picture as a whole."),
    "region": (f"{_PICTURES}:region", "Change one region of a picture, and nothing else in it."),
    "extend": (f"{_PICTURES}:extend", "Continue a picture beyond its edges."),
    "cutout": (f"{_PICTURES}:cutout", "Cut the subject of a picture out, with real transparency."),
    "convert": (f"{_PICTURES}:convert", "Resize, crop, rotate or change the format; free and local."),
    "upload": (f"{_UPKEEP}:upload", "Put a picture into Gemini's Files API."),
    "stats": (f"{_UPKEEP}:stats", "Say what was made and spent."),
    "find": ("nanobanana_mcp.cli.look:find", "Find pictures by words, dates, tags, or a copy of the file."),
    "view": ("nanobanana_mcp.cli.look:view", "Look at a part of a picture at full size, or compare two."),
    "show": ("nanobanana_mcp.cli.show:show", "Show one picture: record, prompt, cost and lineage."),
    "gallery": ("nanobanana_mcp.cli.gallery:gallery", "Look at the library in a browser, on this machine only."),
    "paint": (
        "nanobanana_mcp.cli.gallery:paint",
        "Paint in a browser where a picture should change, and edit it there.",
    ),
    "models": ("nanobanana_mcp.cli.models:models", "Say which models there are, with sizes and prices."),
    "maintain": (f"{_UPKEEP}:maintain", "Tidy up; only says what it would do, unless told otherwise."),
    "demo": ("nanobanana_mcp.cli.demo.verb:demo", "Drive the real server through its main job and show the pictures."),
    "doctor": ("nanobanana_mcp.cli.doctor:doctor", "Say what will go wrong before it does, and what to do about it."),
    "emulator": ("nanobanana_mcp.cli.emulator:emulator", "Serve the Gemini emulator over HTTP to any program."),
    "install": (
        "nanobanana_mcp.cli.install.verb:install",
        "Enter the server into the configuration of a client, or take it out.",
    ),
    "completion": ("nanobanana_mcp.cli.completion:completion", "Print the completion script of a shell."),
    "rebuild": (
        "nanobanana_mcp.cli.rebuild:rebuild",
        "Make a new library from the pictures' own records, when the old one is lost or damaged.",
    ),
    "setup": (
        "nanobanana_mcp.cli.setup:setup",
        "Ask for the key, try it for free, keep it, and install into your clients.",
    ),
}


def run(argv: Sequence[str]) -> int:
    """Do what the command line asks and return the exit code."""
    _stand_in()
    try:
        code = app(argv)([STDIN if word == "-" else word for word in argv], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        from nanobanana_mcp.cli.wording import misunderstood  # with the tools, whose arguments it names

        tell(misunderstood(error, argv))
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _stand_in() -> None:
    """Put something in the place of a stream that is closed: else the library's file would get its number, and whatever
    is written there would go into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def app(argv: Sequence[str] = ()) -> App:
    """The command line with all its verbs, none of which is imported yet.

    A verb that `argv` calls for says of itself what its docstring says; the list of verbs has a line of each.
    """
    called = argv[0] if argv else None
    made = App(
        name="nanobanana",
        help=ABOUT,
        help_epilogue=SETTINGS,
        help_format="plaintext",
        version=f"nanobanana {__version__}",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, (place, words) in VERBS.items():
        made.command(place, name=name, help=None if name == called else words)
    return made
