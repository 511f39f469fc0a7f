"""A YAML file read without surprises: every value knows its line and key, and whatever is ambiguous is refused.

There are no aliases, tags, duplicate keys or second documents. Plain scalars follow the core schema of YAML 1.2, so
that 16:9, yes and 2026-01-01 are text; PyYAML's own YAML 1.1 would read 16:9 as the number 969.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import yaml

from nanobanana_mcp.domain.errors import SetupError

Scalar = str | int | float | bool | None
Choice = TypeVar("Choice", bound=str)

LARGEST_FILE = 256 * 1024
DEEPEST_NESTING = 12

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Eighteen digits are exact in 64 bits; more would be a slip, and is left as text for the reader to refuse.
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18}|[0-9]{1,18}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")


class _Composer(yaml.SafeLoader):
    """Composes nodes and constructs nothing; `Entry` says what a plain scalar means."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = "aliases are not read; write the value out"
        elif getattr(event, "tag", None) is not None:
            problem = "tags are not read; remove it"
        elif self.depth >= DEEPEST_NESTING:
            problem = f"values are nested more than {DEEPEST_NESTING} deep"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One value in a file; `where` is its key in full, `fault` the error that a refusal is."""

    node: yaml.Node
    where: str
    source: str
    fault: type[SetupError]

    @classmethod
    def parse(cls, text: str, *, source: str, fault: type[SetupError]) -> "Entry":
        """The top of a document of at most 256 kB; raises `fault` for anything that is not a whole, plain document."""
        if len(text.encode("utf-8", "surrogatepass")) > LARGEST_FILE:
            raise fault(f"{source} is larger than the {LARGEST_FILE // 1024} kB that are read; shorten it.")
        try:
            node = _Composer(text).get_single_node()
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            problem = ", ".join(filter(None, (error.context, error.problem)))
            raise fault(f"{source}{line}: this YAML cannot be read: {problem}.") from error
        except yaml.YAMLError as error:
            raise fault(f"{source}: this YAML cannot be read: {' '.join(str(error).split())}.") from error
        if node is None:
            raise fault(f"{source} is empty; write at least one key or remove the file.")
        return cls(node=node, where="", source=source, fault=fault)

    def refusal(self, problem: str) -> SetupError:
        line = f", line {self.node.start_mark.line + 1}" if self.node.start_mark else ""
        return self.fault(f"{self.source}{line}: {self.where or 'the file'} {problem}.")

    def mapping(self, *allowed: str) -> "dict[str, Entry]":
        """Its entries by key, which must be one of `allowed` when any are named."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.refusal("must be a mapping of keys to values")
        found: dict[str, Entry] = {}
        for key_node, node in self.node.value:
            key = replace(self, node=key_node)
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                raise key.refusal("has a key that is not text")
            name: str = key_node.value
            if name in found:
                raise key.refusal(f"has the key {name} twice")
            if allowed and name not in allowed:
                raise key.refusal(f"has the unknown key {name}; the keys are {', '.join(allowed)}")
            found[name] = replace(self, node=node, where=f"{self.where}.{name}" if self.where else name)
        return found

    def items(self) -> "list[Entry]":
        """Its entries in order; refusals count them from 1."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.refusal("must be a list")
        return [replace(self, node=node, where=f"{self.where}[{n}]") for n, node in enumerate(self.node.value, 1)]

    def scalar(self) -> Scalar:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.refusal("must be a single value")
        text: str = self.node.value
        if self.node.style is not None:
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return text

    def text(self) -> str:
        value = self.scalar()
        if not isinstance(value, str) or not value.strip():
            raise self.refusal(f"must be text, not {value!r}")
        return value

    def number(self) -> int | float:
        value = self.scalar()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refusal(f"must be a number, not {value!r}")
        return value

    def choice(self, choices: Sequence[Choice]) -> Choice:
        value = self.scalar()
        for choice in choices:
            if value == choice:
                return choice
        raise self.refusal(f"must be one of {', '.join(choices)}, not {value!r}")
