"""Puts errors into the words of the command line: what cyclopts found wrong with a line, and what a tool says of its own
arguments and of other tools, which a person in a shell knows as options and verbs.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from inspect import signature
from pathlib import Path
from shlex import join

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError
from cyclopts.exceptions import CoercionError, UnusedCliTokensError

from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server.synonyms import NOTHING_LIKE_IT, SAME, instead
from nanobanana_mcp.server.tools import edit, generate, library, look

SHORT = {"n": "-n", "output_path": "-o", "input_images": "-i", "max_cost_usd": "--max-cost"}
"""The arguments that have a shorter name, too."""

NUMBERS = ("box", "crop")
"""Lists of numbers, which are written in one word: 10,20,300,400."""

VERB_OF = {
    "generate_image": "generate",
    "edit_region": "region",
    "extend_image": "extend",
    "remove_background": "cutout",
    "convert_image": "convert",
    "find_images": "find",
    "view_image": "view",
    "upload_file": "upload",
    "output_stats": "stats",
    "maintenance": "maintain",
}
_TOOLS = (
    generate.generate_image,
    edit.edit_region,
    edit.extend_image,
    edit.remove_background,
    edit.convert_image,
    look.find_images,
    look.view_image,
    library.upload_file,
    library.output_stats,
    library.maintenance,
)

_FIRST = (
    (re.compile(r"[Mm]aintenance with operation '(\w+)'"), r"'nanobanana maintain \1 --no-dry-run'"),
    (re.compile(r"Call again with dry_run false to do"), "--no-dry-run does"),
    (re.compile(r" (?:if|when) the person agrees"), ""),
    (re.compile(r" of this MCP server| of this server \(an MCP client [^)]*\), and (?:start it again|restart the server)"), ""),
    (re.compile(r", (?:which|since) the client passed (?:it )?on without replacing it"), ""),
)  # fmt: skip
"""Replaces the words that are meant for a model or for somebody who runs a server, since nobody in a shell can follow
them."""

_KINDS = {int: "a whole number", float: "a number", bool: "yes or no"}


def for_shell(text: str) -> str:
    """Returns a tool's words with options in place of its arguments and verbs in place of tools; paths stay as they
    are.
    """
    for pattern, words in _FIRST:
        text = pattern.sub(words, text)
    text = re.sub(r"^(\w+)(?=: )", lambda found: _option(found[1]) if found[1] in _known() else found[1], text)
    return _names().sub(lambda found: _spelt(found[0]), text)


def misunderstood(error: CycloptsError, line: Sequence[str]) -> str:
    """Say what is wrong with a line of words that no verb takes, and what would be right."""
    sentence = _sentence(error, line)
    verb = " ".join(["nanobanana", *(error.command_chain or ())])
    return f"{verb}: {sentence}; {verb} --help says what there is."


def _sentence(error: CycloptsError, line: Sequence[str]) -> str:
    if isinstance(error, UnusedCliTokensError):
        return _too_many(error.unused_tokens or (), line)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        if error.keyword is not None:
            return f"{error.keyword} wants a value behind it"
        name = error.argument.name
        return f"{name if error.argument.index is None else name.lstrip('-').upper()} is missing"
    if (
        isinstance(error, CoercionError)
        and error.token is not None
        and error.msg is None
        and error.target_type in _KINDS
    ):
        name = error.token.keyword or (error.argument.name if error.argument else "")
        return f"{name} takes {_KINDS[error.target_type]}, and {shorten(error.token.value)} is none"
    if isinstance(error, UnknownCommandError):
        word = (error.unused_tokens or [""])[0]
        from nanobanana_mcp.cli.main import VERBS  # which imports this module

        close = get_close_matches(word, VERBS, 1)
        return f"there is no verb {shorten(word)}" + (f"; was {close[0]} meant?" if close else "")
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error, line)
    return " ".join(str(error).split()).rstrip(".")


def _too_many(words: Sequence[str], line: Sequence[str]) -> str:
    told = f"{join(words)} is more than it takes"
    for option in (f"--{name}" for name in NUMBERS if f"--{name}" in line):
        at = line.index(option) + 1
        numbers = [word for word in (*line[at : at + 1], *words) if re.fullmatch(r"[-\d.]+,?", word)]
        if len(numbers) > 1:
            return f"{told}; four numbers are one word, with commas: {option} {','.join(one.rstrip(',') for one in numbers)}"
    return f"{told}; words with blanks between them belong in quotation marks" if len(words) > 1 else told


def _unknown_option(error: UnknownOptionError, line: Sequence[str]) -> str:
    given = error.token.keyword or error.token.value
    file = next((word for word in line if word.startswith("-") and Path(word).is_file()), None)
    if file is not None:
        return f"there is no option {given} (the file of that name is ./{file})"
    name = given.lstrip("-").partition("=")[0].replace("-", "_")
    verb = "".join(error.command_chain or ())
    tool = next((one for one in _TOOLS if VERB_OF[one.__name__] == {"edit": "generate"}.get(verb, verb)), None)
    if tool is not None and (name in SAME or name in NOTHING_LIKE_IT or name in _known()):
        known = {one.__name__: set(signature(one).parameters) - {"caller"} for one in _TOOLS}
        words = re.sub(r"(?<=use |has )\w+", lambda found: _option(found[0]), instead(name, tool.__name__, known))
        return f"there is no option {given}: {for_shell(words)}"
    close = re.search(r"Did you mean (\S+)\?", str(error))
    return f"there is no option {given}" + (f"; was {close[1]} meant?" if close else "")


@cache
def _known() -> frozenset[str]:
    """The arguments of all tools."""
    return frozenset(name for tool in _TOOLS for name in signature(tool).parameters) - {"caller"}


@cache
def _names() -> re.Pattern[str]:
    """Matches the names of tools and arguments that are no words of English, unless they are part of a path or an
    option.
    """
    names = sorted((name for name in {*_known(), *VERB_OF} if "_" in name), key=len, reverse=True)
    return re.compile(rf"(?<![\w/\\.-])(?:{'|'.join(names)})(?!\w|[/\\.-]\w)")


def _spelt(name: str) -> str:
    return f"'nanobanana {VERB_OF[name]}'" if name in VERB_OF else _option(name)


def _option(name: str) -> str:
    return SHORT.get(name, f"--{name.replace('_', '-')}")
