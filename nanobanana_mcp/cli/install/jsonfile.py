"""Sets and removes one entry in a JSON text, with every other character of it kept.

The text is not parsed and written anew, which would turn numbers, escapes and blanks into the writer's own: the place of
the entry is found, and the entry is set in or cut out. What comes out is parsed and has to be what was meant.
"""

import json
import re
from typing import Any, NamedTuple

from nanobanana_mcp.cli.install.problem import NotEditable, entry_of

BOM = "\ufeff"
_BLANK = re.compile(r"[ \t\r\n]*")
_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|(//|/\*)')
_DECODER = json.JSONDecoder()


class _Member(NamedTuple):
    """One key of an object, and where key and value stand in the text."""

    key: str
    start: int
    value: int
    end: int


def parsed(text: str) -> dict[str, Any]:
    """The object that a text is; an empty text is one without keys. Raises NotEditable."""
    bare = text.removeprefix(BOM)
    if not bare.strip():
        return {}
    try:
        found = json.loads(bare, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        if any(one.group(1) for one in _COMMENT.finditer(bare)):
            raise NotEditable("it has comments, which stay where they are") from None
        line = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise NotEditable(f"it is no JSON{line}") from None
    if not isinstance(found, dict):
        raise NotEditable("it is no JSON object")
    return found


def with_entry(text: str, group: str, name: str, entry: dict[str, Any] | None) -> str:
    """The text with an entry set, or without it (None). Raises NotEditable."""
    meant = parsed(text)
    there = entry_of(meant, group, name)
    if entry == there:
        return text
    mark, bare = (BOM, text[1:]) if text.startswith(BOM) else ("", text)
    if not bare.strip():
        bare = "{}\n"
    outer = _members(bare, _BLANK.match(bare).end())  # type: ignore[union-attr]  # it matches nothing, too
    holder = next((one for one in outer if one.key == group), None)
    if entry is None:
        del meant[group][name]
        assert holder is not None
        changed = _cut(bare, holder.value, name)
    else:
        meant.setdefault(group, {})[name] = entry
        if holder is None:
            changed = _set(bare, _BLANK.match(bare).end(), group, {name: entry})  # type: ignore[union-attr]  # as above
        else:
            changed = _set(bare, holder.value, name, entry)
    if parsed(changed) != meant:
        raise NotEditable("it is written in a way that this program does not know")
    return mark + changed


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotEditable("it has one key twice")
    return found


def _members(text: str, at: int) -> list[_Member]:
    """The members of the object that begins at a place of a text which is known to be JSON."""
    found = []
    here = _skip(text, at + 1)
    while text[here] != "}":
        key, after = _DECODER.raw_decode(text, here)
        value = _skip(text, _skip(text, after) + 1)
        _, end = _DECODER.raw_decode(text, value)
        found.append(_Member(key, here, value, end))
        here = _skip(text, end)
        if text[here] == ",":
            here = _skip(text, here + 1)
    return found


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _set(text: str, at: int, key: str, value: dict[str, Any]) -> str:
    """Set a member of the object at `at`, in the place of one with its key or behind the last one."""
    members = _members(text, at)
    line = "\r\n" if "\r\n" in text else "\n"
    outer = _indent(text, at)
    inner = _indent(text, members[0].start) if members else outer + _step(text)
    there = next((one for one in members if one.key == key), None)
    words = json.dumps(value, indent=_step(text), ensure_ascii=False).replace("\n", line + inner)
    if there is not None:
        return text[: there.value] + words + text[there.end :]
    member = f"{json.dumps(key, ensure_ascii=False)}: {words}"
    if members:
        return f"{text[: members[-1].end]},{line}{inner}{member}{text[members[-1].end :]}"
    close = _skip(text, at + 1)
    return f"{text[: at + 1]}{line}{inner}{member}{line}{outer}{text[close:]}"


def _cut(text: str, at: int, key: str) -> str:
    """Cut a member out of the object at `at`, with the comma that belongs to it."""
    members = _members(text, at)
    place = next(number for number, one in enumerate(members) if one.key == key)
    if place:
        return text[: members[place - 1].end] + text[members[place].end :]
    if len(members) > 1:
        return text[: members[0].start] + text[members[1].start :]
    return text[: at + 1] + text[_skip(text, members[0].end) :]


def _indent(text: str, at: int) -> str:
    """The blanks at the beginning of the line that a place is in."""
    begin = text.rfind("\n", 0, at) + 1
    return text[begin : _skip(text, begin)] if _skip(text, begin) <= at else ""


def _step(text: str) -> str:
    """The indent of one level, that of the first line that has one; two spaces where none has."""
    found = re.search(r"\n([ \t]+)\S", text)
    return found[1] if found else "  "
