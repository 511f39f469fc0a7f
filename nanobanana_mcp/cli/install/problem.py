"""The parts that JSON and TOML files of clients share: the error for a file to leave alone, and the look-up of an
entry.
"""

from typing import Any


class NotEditable(Exception):
    """A text that cannot be changed without losing some of it; its words say why, as the end of a sentence."""


def entry_of(parsed: dict[str, Any], group: str, name: str) -> Any:
    """The entry of a name in a group, None without one. Raises NotEditable."""
    entries = parsed.get(group, {})
    if not isinstance(entries, dict):
        raise NotEditable(f"its {group} has no entries with names")
    return entries.get(name)
