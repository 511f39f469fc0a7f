"""Makes a verb of a tool: the same arguments under the same names with the same descriptions, and what only a command line
has, such as where the words come from and what may be spent.
"""

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import Parameter
from fastmcp.exceptions import ToolError
from pydantic.fields import FieldInfo

from nanobanana_mcp.cli import outcome
from nanobanana_mcp.cli.calls import Interrupted, Session, cause_of, here, run_to_end, settings_of
from nanobanana_mcp.cli.output import let_go_of_stdout, tell, write_json, write_lines
from nanobanana_mcp.cli.wording import NUMBERS, SHORT, for_shell
from nanobanana_mcp.cli.words import STDIN, Piped, words_from
from nanobanana_mcp.domain.arguments import AS_THERE
from nanobanana_mcp.domain.errors import RequestError, StudioError
from nanobanana_mcp.domain.terms import INPUT_PATHS
from nanobanana_mcp.domain.text import counted, shorten
from nanobanana_mcp.server.tools.generate import generate_image

MANY = 4
"""Pictures in one call that are made unasked; beyond them a person agrees first."""

JSON = Annotated[bool, Parameter(help="Print the tool's own structure as JSON.", negative=(), show_default=False)]
FILE = Annotated[str | None, Parameter(help="Take the words from this file; - is stdin.")]
YES = Annotated[
    bool, Parameter(help=f"Do not ask about more than {MANY} pictures or a dear call.", negative=(), show_default=False)
]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A tool as a verb of the command line. `first` are the arguments that need no name."""

    name: str
    tool: Callable[..., Any]
    first: tuple[str, ...]
    words: str | None = None
    """The argument with the words for the model, which may also come from a file, stdin or an editor."""
    image_as: str | None = None
    """The list that `image` goes to, where the tool has no argument of that name."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that the verb itself decides."""
    data: str | None = None
    """The key of the structure that is the answer on stdout, one line for each; None for the text."""

    @property
    def spends(self) -> bool:
        return self.words is not None or "model_tier" in inspect.signature(self.tool).parameters


def command(verb: Verb, about: str) -> Callable[..., int]:
    """The function that cyclopts calls; `about` is its help."""
    signature = inspect.Signature(_parameters(verb), return_annotation=int)

    def run(*args: Any, **kwargs: Any) -> int:
        given = dict(signature.bind(*args, **kwargs).arguments)
        return answered(verb.name, lambda: _run(verb, given))

    described: Any = run
    described.__signature__ = signature
    described.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    described.__name__ = verb.name
    described.__doc__ = inspect.cleandoc(about)
    return run


def answered(verb: str, work: Callable[[], None]) -> int:
    """Runs the work of a verb, says its error in words, and returns the exit code."""
    try:
        work()
    except Interrupted:
        return outcome.INTERRUPTED
    except ToolError as error:
        tell(f"nanobanana {verb}: {for_shell(str(error))}")
        return outcome.code_of(cause_of(error))
    except StudioError as error:
        tell(f"nanobanana {verb}: {for_shell(str(error))}")
        return outcome.code_of(error)
    except BrokenPipeError:  # such as `| head -1`: it has what it wants
        let_go_of_stdout()
    except OSError as error:
        tell(f"nanobanana {verb}: stdout takes nothing more ({error.strerror}); what was made is kept.")
        let_go_of_stdout()
        return outcome.REFUSED
    return outcome.MADE


def _parameters(verb: Verb) -> list[inspect.Parameter]:
    hints = get_type_hints(verb.tool, include_extras=True)
    tools = {name: one for name, one in inspect.signature(verb.tool).parameters.items() if name != "caller"}
    found = []
    for name in verb.first:
        if name == "image" and verb.image_as is not None:
            told = Annotated[str, Parameter(help="Path or img_... id of the picture; - is stdin.")]
            found.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=told))
            continue
        default = None if name == verb.words else tools[name].default
        annotation = _annotation(name, hints[name], optional=name == verb.words)
        found.append(
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        )
    for name, one in tools.items():
        if name not in verb.first and name not in verb.fixed:
            found.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=one.default,
                    annotation=_annotation(name, hints[name], default=one.default),
                )
            )
    own: dict[str, tuple[Any, Any]] = {"json": (JSON, False)}
    if verb.words is not None:
        own["file"] = (FILE, None)
    if verb.spends:
        own["yes"] = (YES, False)
    found += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in own.items()
    ]
    return found


def _annotation(name: str, hint: Any, *, optional: bool = False, default: Any = None) -> Any:
    """An argument of a tool as cyclopts reads it: with the description that the tool's own clients have."""
    kind, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    told = next((one.description for one in more if isinstance(one, FieldInfo)), None)
    if told == AS_THERE:
        return _annotation(name, get_type_hints(generate_image, include_extras=True)[name], default=default)
    parts = [one for one in get_args(kind) or (kind,) if one is not type(None)]
    plain: Any = kind
    metavar = None
    if name in NUMBERS:
        plain, metavar = str | None, "L,T,R,B"
    elif any(get_origin(one) is dict for one in parts):
        plain, metavar = list[str] | None, "NAME=WORD"
    elif optional:
        plain = str | None
    # What is off may be left out, and what nobody decided may be decided either way.
    negative: tuple[()] | None = () if default is False else None
    return Annotated[
        plain,
        Parameter(
            help=None if told is None else for_shell(told),
            alias=SHORT.get(name),
            negative=negative,
            negative_iterable=(),
            metavar=metavar,
            show_default=None if default is not False else False,
        ),
    ]


def _run(verb: Verb, given: dict[str, Any]) -> None:
    as_json, agreed = given.pop("json", False), given.pop("yes", False)
    file = given.pop("file", None)
    settings = settings_of()
    piped = Piped(settings.output_dir)
    try:
        arguments = _arguments(verb, given, file, piped)
        dry = arguments.get("dry_run") is True
        if not verb.spends or dry or agreed:
            answer = run_to_end(lambda session: session.call(verb.tool.__name__, arguments), settings)
        else:
            answer = run_to_end(lambda session: _unless_dear(verb, session, arguments), settings)
            if answer.get("dry_run"):
                _agree(answer["summary"], arguments.get("n", 1))
                answer = run_to_end(lambda session: session.call(verb.tool.__name__, arguments), settings)
    except (StudioError, ToolError) as error:
        reason = cause_of(error) if isinstance(error, ToolError) else error
        if outcome.code_of(reason) in (outcome.REFUSED, outcome.SETTINGS, outcome.LIMITED):  # nothing was made of it
            piped.drop()
        raise
    if dry:
        piped.drop()
    _print(verb, answer, as_json=as_json, dry=dry)


async def _unless_dear(verb: Verb, session: Session, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the call and returns its answer. For many pictures, or a price that a client would ask its person about, it
    returns only the quote. With `max_cost_usd` the price is agreed to already.
    """
    many, most = arguments.get("n", 1) > MANY, session.settings.ask_above_usd
    may_be_dear = most is not None and arguments.get("max_cost_usd") is None and session.settings.backend != "emulator"
    if many or may_be_dear:
        quote = await session.call(verb.tool.__name__, {**arguments, "dry_run": True})
        price = quote["estimated_usd"]
        if quote["would_be_refused"] is None and (many or price is None or (most is not None and price >= most)):
            return quote
    return await session.call(verb.tool.__name__, arguments)


def _print(verb: Verb, answer: dict[str, Any], *, as_json: bool, dry: bool) -> None:
    words = for_shell(answer.pop("summary"))
    if as_json:
        tell(words)
        write_json(answer)
    elif verb.data is None:
        write_lines(words.split("\n"))
    else:
        tell(words)
        found = answer.get(verb.data) or []
        write_lines([] if dry else [found] if isinstance(found, str) else found)


def _agree(quote: str, n: int) -> None:
    """Ask whether so many pictures are to be made. Raises RequestError when not, or when nobody can be asked."""
    tell(for_shell(quote))
    if not sys.stdin.isatty():
        raise RequestError("That is much to make unasked, and nobody can be asked here; say --yes to have it made.")
    sys.stderr.write(f"Make {counted(n, 'picture')}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RequestError("Nothing was sent.")


def _arguments(verb: Verb, given: dict[str, Any], file: str | None, piped: Piped) -> dict[str, Any]:
    """The tool's arguments out of the verb's. Raises RequestError."""
    given = {name: _as_text(name, value) for name, value in given.items()}
    if given.get("output_path") == STDIN:
        raise RequestError("-o names a file or a folder; what is made goes to a file, and its path to stdout.")
    pictures = [value for name, value in given.items() if name in INPUT_PATHS or name == "image"]
    pictures += given.get("input_images") or []
    if pictures.count(STDIN) > 1:
        raise RequestError("- means the picture on stdin, and there can be only one.")
    found = {**given, **verb.fixed}
    if verb.words is not None:
        required = inspect.signature(verb.tool).parameters[verb.words].default is inspect.Parameter.empty
        words = words_from(
            given.get(verb.words), file, name=verb.words, stdin_is_free=STDIN not in pictures, wanted=required
        )
        if words is not None:
            found[verb.words] = words
    if STDIN in pictures:
        there = piped.keep()
        for name, value in found.items():
            if name in INPUT_PATHS and value == STDIN:
                found[name] = there
            elif name == "input_images":
                found[name] = [there if one == STDIN else one for one in value]
    for name in (*INPUT_PATHS, "output_path"):
        if isinstance(found.get(name), str):
            found[name] = here(found[name])
    if found.get("input_images"):
        found["input_images"] = [here(one) for one in found["input_images"]]
    if verb.image_as is not None:
        found[verb.image_as] = [found.pop("image"), *found.get(verb.image_as, ())]
    for name in NUMBERS:
        if isinstance(found.get(name), str):
            found[name] = four_numbers(name, found[name])
    if found.get("safety"):
        found["safety"] = _pairs(found["safety"])
    return found


def four_numbers(name: str, text: str) -> list[str]:
    """Four numbers out of one word. Raises RequestError."""
    found = re.split(r"[\s,]+", text.strip("[]() "))
    if len(found) != 4 or not all(re.fullmatch(r"-?\d*\.?\d+|-?\d+\.", one) for one in found):
        raise RequestError(
            f"--{name} takes four numbers in one word, left,top,right,bottom, such as --{name} 10,20,300,400; "
            f"{shorten(text)} is not that."
        )
    return found


def _as_text(name: str, value: Any) -> Any:
    """The words of an argument where the shell's locale could not read them, but they are UTF-8. Raises RequestError."""
    if isinstance(value, list):
        return [_as_text(name, one) for one in value]
    if not isinstance(value, str) or not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    try:
        return os.fsencode(value).decode()
    except UnicodeError:
        is_input = name in (*INPUT_PATHS, "image", "input_images")
        way = "give the picture on stdin: - < FILE" if is_input else "write it in UTF-8"
        raise RequestError(
            f"{name} {shorten(value)} has bytes that are no UTF-8, which the library cannot keep; {way}."
        ) from None


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    wrong = next((one for one, (_, middle, _) in zip(given, pairs, strict=True) if not middle), None)
    if wrong is not None:
        raise RequestError(
            f"safety {shorten(wrong)} is no pair; write a category and a threshold, as in harassment=off."
        )
    return {name: word for name, _, word in pairs}
