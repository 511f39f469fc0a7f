"""One comparison of a call's argument with a value, as the rules of a policy file make it: {path, op, value}.

A path is `args.` with names and indexes (`args.images[0].role`) into the arguments as they will be used, with defaults
filled in; null is the same as missing. `[*]` stands for every item of a list (`args.input_images[*]`): a deny matches when
one of them does, a requirement has to hold for each, and holds where there is none; `exists` asks whether there is any. On a missing argument `exists: false` matches, `neq` and `not_in` hold as
requirements, and nothing else matches.

Types are never converted and a wrong one never raises: 4 equals 4.0 but not "4", true is not 1, and `lt`, `lte`, `gt`
and `gte` match numbers only. `contains` looks for a part of a text or an item of a list. `regex` searches anywhere in
a text of at most 10,000 characters; a longer text counts against the call, as a match in a deny and as a failure of a
requirement, so that padding a prompt does not get it past a rule. Patterns are those of RE2, which takes no longer for one
pattern than for another: without (?=...) and \\1, with \\w, \\d and \\b for ASCII, and $ for the very end.
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, TypeAdapter, ValidationInfo, field_validator, model_validator

from nanobanana_mcp.domain.policy.parse import Part, Scalar, single
from nanobanana_mcp.domain.text import shorten

Operator = Literal["eq", "neq", "in", "not_in", "lt", "lte", "gt", "gte", "regex", "contains", "exists"]
PHRASES: dict[Operator, str] = {
    "eq": "is",
    "neq": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "lt": "is less than",
    "lte": "is at most",
    "gt": "is more than",
    "gte": "is at least",
    "regex": "matches",
    "contains": "contains",
}
LONGEST_SUBJECT = 10_000
LONGEST_PATTERN = 1_000

_PATH = re.compile(r"args\.[^\s.\[\]]+(?:\.[^\s.\[\]]+|\[(?:[0-9]{1,6}|\*)\])*")
_STEP = re.compile(r"\[([0-9]+|\*)\]|([^.\[\]]+)")
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A regular expression by its text, with what RE2 made of it."""

    text: str
    made: Any = field(compare=False, repr=False)

    def found_in(self, subject: str) -> bool:
        return self.made.search(subject.encode(errors="replace").decode()) is not None  # half a pair is no text to RE2


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError(f"must be like args.n, args.images[0].role or args.images[*].role, not {shorten(text)}")
    return text


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be null; to ask for an argument that is not given, use op: exists with value: false")
    return single(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _pattern(text: str) -> Pattern:
    if len(text) > LONGEST_PATTERN:
        raise ValueError(f"must be a pattern of at most {LONGEST_PATTERN:,} characters")
    import re2  # 13 ms and 3 MB that only a policy with a pattern pays

    options = re2.Options()
    options.log_errors = False
    try:
        re.compile(text)  # what Python refuses, such as too large a number, RE2 may take for letters
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    try:
        return Pattern(text=text, made=re2.compile(text.encode(errors="replace").decode(), options))
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"is not a regular expression that RE2 accepts: {why}") from error


_One = Annotated[Any, AfterValidator(_given)]
_ONE: TypeAdapter[Any] = TypeAdapter(_One)
_SEVERAL: TypeAdapter[Any] = TypeAdapter(tuple[_One, ...])
_NUMBER: TypeAdapter[Any] = TypeAdapter(Annotated[Any, AfterValidator(_number)])
_VALUES: dict[Operator, TypeAdapter[Any]] = {
    **dict.fromkeys(("in", "not_in"), _SEVERAL),
    **dict.fromkeys(("lt", "lte", "gt", "gte"), _NUMBER),
    "regex": TypeAdapter(Annotated[str, AfterValidator(_pattern)]),
    "exists": TypeAdapter(bool),
}
"""Maps an operator to the form that its value has to have; the others take any single value."""


class Condition(Part):
    """One comparison; `value` is a compiled pattern for `regex` and a tuple for `in` and `not_in`."""

    path: Annotated[str, AfterValidator(_path)]
    op: Operator
    value: Scalar | tuple[Scalar, ...] | Pattern = True

    @field_validator("value", mode="plain")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        op = info.data.get("op")
        return value if op is None else _VALUES.get(op, _ONE).validate_python(value, strict=True)

    @model_validator(mode="after")
    def _has_a_value(self) -> "Condition":
        if "value" not in self.model_fields_set and self.op != "exists":
            raise ValueError("needs value")
        return self

    def subjects(self, args: Mapping[str, object]) -> list[object]:
        """The argument at the path, None when it is missing; with [*] in it any number, none of which is missing."""
        found: list[object] = [args]
        for index, name in _STEP.findall(self.path.removeprefix("args.")):
            if index == "*":
                found = [item for one in found if isinstance(one, list | tuple) for item in one]
            else:
                found = [_step(one, index, name) for one in found]
        return [one for one in found if one is not None] if "[*]" in self.path else found

    def holds(self, args: Mapping[str, object], *, requirement: bool) -> bool:
        """Tells whether the arguments match; `requirement` decides on what cannot be compared (see the module)."""
        subjects = self.subjects(args)
        if self.op == "exists":
            return any(subject is not None for subject in subjects) == self.value
        every = all if requirement else any
        return every(self._matches(subject, requirement=requirement) for subject in subjects)

    def _matches(self, subject: object, *, requirement: bool) -> bool:
        if subject is None:
            return requirement and self.op in ("neq", "not_in")
        if isinstance(self.value, Pattern):
            if not isinstance(subject, str):
                return False
            return not requirement if len(subject) > LONGEST_SUBJECT else self.value.found_in(subject)
        if isinstance(self.value, tuple):
            return any(_equal(subject, value) for value in self.value) == (self.op == "in")
        if self.op in ("eq", "neq"):
            return _equal(subject, self.value) == (self.op == "eq")
        if self.op == "contains":
            if isinstance(subject, str):
                return isinstance(self.value, str) and self.value in subject
            return isinstance(subject, list | tuple) and any(_equal(item, self.value) for item in subject)
        return _ordered(subject, self.op, self.value)

    def found(self, args: Mapping[str, object]) -> str:
        """Say what the call has at the path, for the refusal of a requirement."""
        failing = (
            one for one in self.subjects(args) if self.op == "exists" or not self._matches(one, requirement=True)
        )
        subject = next(failing, None)
        if subject is None:
            return "it is not given"
        if self.op == "regex" and isinstance(subject, str) and len(subject) > LONGEST_SUBJECT:
            return f"it has {len(subject):,} characters, and a pattern is tried on {LONGEST_SUBJECT:,} at most"
        return f"it is {_SHOWN.repr(subject)}"

    def __str__(self) -> str:
        if self.op == "exists":
            return f"{self.path} is {'given' if self.value else 'not given'}"
        if isinstance(self.value, Pattern):
            return f"{self.path} matches {self.value.text!r}"
        if isinstance(self.value, tuple):
            return f"{self.path} {PHRASES[self.op]} {', '.join(map(_SHOWN.repr, self.value))}"
        return f"{self.path} {PHRASES[self.op]} {_SHOWN.repr(self.value)}"


def _step(found: object, index: str, name: str) -> object:
    if name and isinstance(found, Mapping):
        return found.get(name)
    if index and isinstance(found, list | tuple) and int(index) < len(found):
        return found[int(index)]
    return None


def _equal(left: object, right: object) -> bool:
    # Python calls True equal to 1; a policy must not.
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _ordered(left: object, op: Operator, right: object) -> bool:
    if isinstance(left, bool) or not isinstance(left, int | float) or not isinstance(right, int | float):
        return False
    return {"lt": left < right, "lte": left <= right, "gt": left > right, "gte": left >= right}[op]
