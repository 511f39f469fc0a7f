"""The verbs of the command line, for people and scripts; without a verb the command is an MCP server.

Each verb is one function in a module of its own, which is imported when the verb is called for. What a verb takes is its
signature, and what --help says of it is its docstring.
"""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from nanobanana_mcp import __version__

ABOUT = """\
A studio for making and editing pictures with Gemini's image models, as an MCP server.

Without a verb it serves MCP over stdin and stdout, which is what a client such as Claude Code starts:

  claude mcp add nanobanana -e GEMINI_API_KEY=your-key -- nanobanana

(give the full path of nanobanana where it is not on the PATH)."""

SETTINGS = """\
The settings are environment variables; the README and .env.example list them. A key comes from \
https://aistudio.google.com/apikey. NANOBANANA_BACKEND=emulator needs none and makes no real pictures."""

REFUSED, INTERRUPTED = 1, 130
"""Exit codes of what was not understood and of Ctrl-C."""

VERBS = {
    # Each verb: where its function is, and its line in the list of verbs.
    "demo": ("nanobanana_mcp.cli.demo.verb:demo", "Drive the real server through its main job and show the pictures."),
    "doctor": ("nanobanana_mcp.cli.doctor:doctor", "Say what will go wrong before it does, and what to do about it."),
    "emulator": ("nanobanana_mcp.cli.emulator:emulator", "Serve the Gemini emulator over HTTP to any program."),
    "install": (
        "nanobanana_mcp.cli.install.verb:install",
        "Enter the server into the configuration of a client, or take it out.",
    ),
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
    try:
        code = app(argv)(list(argv), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        verb = " ".join(["nanobanana", *(error.command_chain or ())])
        sentence = " ".join(str(error).split()).rstrip(".")
        sys.stderr.write(f"{verb}: {sentence}; {verb} --help says what there is.\n")
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


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
