"""Reads a policy file: text in YAML 1.2 in, a checked form out, or an error with the file, the line and the key.

Whatever could mean two things is refused, not guessed: aliases, tags, duplicate keys, second documents, and plain words
that the older YAML 1.1 reads in another way. There `no` and `off` are false and 010 is 8; here the author is asked which
was meant. 16:9 and 2026-01-01 are text, since no argument of a call is a time.
"""

import json
import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent
from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from nanobanana_mcp.domain.errors import PolicyError
from nanobanana_mcp.domain.problems import in_words
from nanobanana_mcp.domain.text import shorten

Scalar = str | int | float | bool | None
Place = tuple[str | int, ...]
"""The keys and indexes that lead to a value, from the top of the file."""

LARGEST_FILE = 256 * 1024
DEEPEST_NESTING = 12

# Eighteen digits are exact in 64 bits; more would be a slip.
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][-+]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_FALSE_IN_1_1 = frozenset({"no", "off"})
_TRUE_IN_1_1 = frozenset({"yes", "on"})


class Part(BaseModel):
    """A mapping of the file. Its keys are the fields, its values have the very type of their field."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            keys = [field.alias or name for name, field in cls.model_fields.items()]
            unknown = next((key for key in given if key not in keys), None)
            if unknown is not None:
                raise UnknownKey(unknown, keys)
        return given


class UnknownKey(ValueError):
    """A key that a mapping does not have; `key` is it, the words say which ones there are."""

    def __init__(self, key: str, keys: list[str]) -> None:
        self.key = key
        super().__init__(f"has the unknown key {shorten(key)[1:-1]}{_meant(key, keys)}; the keys are {', '.join(keys)}")


Form = TypeVar("Form", bound=Part)


def single(value: Any) -> Any:
    if isinstance(value, dict | tuple):
        raise ValueError("must be a single value")
    return value


def read(text: str, form: type[Form], *, source: str) -> Form:
    """The whole of a file in its form, sequences as tuples. `source` is its path, for the errors.

    Raises PolicyError with the first fault in the file.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_FILE:
        raise PolicyError(f"{source} is larger than the {LARGEST_FILE // 1024} kB that are read; shorten it.")
    file = _File(source)
    value = file.value(_compose(text, source), ())
    try:
        return form.model_validate(value)
    except ValidationError as error:
        faults = [file.fault(problem, value) for problem in error.errors(include_url=False)]
    line, words = min(faults, key=lambda fault: fault[0])
    raise PolicyError(f"{source}, line {line}: {words}.")


class _Composer(Composer):
    """Composes nodes, and takes nothing that stands for something else."""

    def compose_document(self) -> Any:
        start: DocumentStartEvent = self.parser.peek_event()
        if start.tags or start.version not in (None, (1, 2)):
            raise MarkedYAMLError(
                problem="only YAML 1.2 is read, without other directives", problem_mark=start.start_mark
            )
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        problem = None
        if isinstance(event, AliasEvent):
            problem = "aliases are not read; write the value out"
        elif event.anchor is not None:
            problem = "anchors are not read; remove it"
        elif event.ctag is not None:
            problem = "tags are not read; remove it"
        elif self.depth >= DEEPEST_NESTING:
            problem = f"values are nested more than {DEEPEST_NESTING} deep"
        if problem:
            raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _compose(text: str, source: str) -> Node:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        node: Node | None = yaml.compose(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise PolicyError(f"{source}{line}: this YAML cannot be read: {problem}.") from error
    except YAMLError as error:
        raise PolicyError(f"{source}: this YAML cannot be read: {' '.join(str(error).split())}.") from error
    if node is None:
        raise PolicyError(f"{source} is empty; write at least one key or remove the file.")
    return node


class _File:
    """The values of a file, and the lines they stand in."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: dict[Place, int] = {}

    def value(self, node: Node, place: Place) -> Any:
        """A node as pydantic takes it: a dict, a tuple or a single value. Raises PolicyError."""
        self._lines.setdefault(place, _line(node))
        if isinstance(node, SequenceNode):
            return tuple(self.value(item, (*place, number)) for number, item in enumerate(node.value))
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode) or not key.value:
                raise self._refusal(key, place, "has a key that is not text")
            if key.value in found:
                raise self._refusal(key, place, f"has the key {key.value} twice")
            below = (*place, key.value)
            self._lines[below] = _line(key)
            found[key.value] = self.value(item, below)
        return found

    def fault(self, problem: Any, top: Any) -> tuple[int, str]:
        """The line of one of pydantic's problems, and the words for it."""
        place: Place = ()
        for part in problem[
            "loc"
        ]:  # a part that the file does not have is a missing key, or a branch of pydantic's own
            place = (*place, part) if (*place, part) in self._lines else place
        error = problem.get("ctx", {}).get("error")
        if isinstance(error, UnknownKey):
            return self._lines[(*place, error.key)], f"{_name(place)} {error}"
        if problem["type"] == "missing":
            return self._lines[place], f"{_name(place)} needs {problem['loc'][-1]}"
        words = in_words(problem)
        if problem["type"] != "value_error":
            words += f", not {_shown(problem['input'])}"
        if problem["type"] == "literal_error":
            words += _meant(problem["input"], re.findall(r"'(\w+)'", problem["ctx"]["expected"]))
        return self._lines[place], f"{_name(place)} {words}"

    def _scalar(self, node: ScalarNode, place: Place) -> Scalar:
        """Give the single value its meaning, when there is but one thing it can mean."""
        text: str = node.value
        kind = str(node.tag).rpartition(":")[2]
        if node.style is not None:  # in quotes, or a block
            return text
        if text.lower() in _TRUE_IN_1_1 | _FALSE_IN_1_1:
            old = "false" if text.lower() in _FALSE_IN_1_1 else "true"
            raise self._refusal(
                node, place, f"is the word {text}, which YAML 1.1 reads as {old} and YAML 1.2 as text: "
                f"write {old}, or '{text}' in quotes"
            )  # fmt: skip
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return int(text) if _WHOLE.fullmatch(text) else float(text)
        if kind in ("int", "float"):
            raise self._refusal(
                node, place, f"is {shorten(text)[1:-1]}, which is a number in some YAML: write a number in plain decimals "
                "(10, 0.5), of at most 18 digits and without a zero in front, and text in quotes"
            )  # fmt: skip
        return text

    def _refusal(self, node: Node, place: Place, words: str) -> PolicyError:
        return PolicyError(f"{self._source}, line {_line(node)}: {_name(place)} {words}.")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _name(place: Place) -> str:
    """A place as an author reads it, with items counted from 1."""
    name = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place)
    return name.removeprefix(".") or "the file"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, dict | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    return json.dumps(value)


def _meant(given: Any, known: list[str]) -> str:
    close = get_close_matches(given, known, 1) if isinstance(given, str) else []
    return f" (did you mean {close[0]}?)" if close else ""
