"""Sets and removes one table in a TOML text, with every other character of it kept."""

import json
import re
import tomllib
from typing import Any

from nanobanana_mcp.cli.install.problem import NotEditable, entry_of

_HEADER = re.compile(r"^[ \t]*\[")


def parsed(text: str) -> dict[str, Any]:
    """The tables of a text. Raises NotEditable."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise NotEditable(f"it is no TOML ({str(error)[:100]})") from None


def with_entry(text: str, group: str, name: str, entry: dict[str, Any] | None) -> str:
    """The text with a table set at its end, or without it (None). Raises NotEditable."""
    meant = parsed(text)
    there = entry_of(meant, group, name)
    if entry == there:
        return text
    line = "\r\n" if "\r\n" in text else "\n"
    changed = text if there is None else _without(text, group, name)
    if entry is None:
        del meant[group][name]
        if not meant[group]:
            del meant[group]
    else:
        meant.setdefault(group, {})[name] = entry
        gap = "" if not changed.strip() else line if changed.endswith("\n") else line * 2
        changed += gap + _table(f"{group}.{name}", entry).replace("\n", line)
    try:
        came_to = parsed(changed)
    except NotEditable:  # an inline table, for example, takes no table behind it
        came_to = {}
    if not came_to.get(group) and not meant.get(group):
        came_to.pop(group, None)
        meant.pop(group, None)
    if came_to != meant:
        raise NotEditable("it is written in a way that this program does not know")
    return changed


def _without(text: str, group: str, name: str) -> str:
    """Cut out the table of a name with those below it. Comments before the next table belong to that one and stay."""
    ours = re.compile(rf"^[ \t]*\[[ \t]*{re.escape(group)}[ \t]*\.[ \t]*[\"']?{re.escape(name)}[\"']?[ \t]*[.\]]")
    kept: list[str] = []
    cut: list[str] = []
    inside = False
    for one in text.splitlines(keepends=True):
        if _HEADER.match(one):
            if inside:
                kept += _end_of(cut)
            cut = []
            inside = ours.match(one) is not None
        (cut if inside else kept).append(one)
    if inside:
        kept += _end_of(cut)
    while kept and not kept[-1].strip() and not text.endswith("\n\n"):
        kept.pop()
    return "".join(kept)


def _end_of(lines: list[str]) -> list[str]:
    """The blank lines and comments at the end of a table. Raises NotEditable for a comment within it."""
    number = len(lines)
    while number > 1 and (not lines[number - 1].strip() or lines[number - 1].lstrip().startswith("#")):
        number -= 1
    if any("#" in one for one in lines[:number]):
        raise NotEditable("the entry that is there has comments, which stay where they are")
    return lines[number:]


def _table(name: str, entry: dict[str, Any]) -> str:
    plain = {key: value for key, value in entry.items() if not isinstance(value, dict)}
    words = f"[{name}]\n" + "".join(f"{_key(key)} = {_value(value)}\n" for key, value in plain.items())
    for key, value in entry.items():
        if isinstance(value, dict):
            words += "\n" + _table(f"{name}.{_key(key)}", value)
    return words


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value).replace("\x7f", "\\u007f")
    raise NotEditable("the entry that is there has values that this program does not write")
