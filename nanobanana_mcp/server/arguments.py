"""Puts a client's arguments into plain form, once and before anything looks at the call: according to the type that
each argument declares, and only where nothing is lost.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.terms import INPUT_PATHS
from nanobanana_mcp.storage.spelling import as_id, meant

IDS = frozenset({"file_id", "continue_from", "lineage_of", "made_from", "cursor"})
NOT_FREE_TEXT = INPUT_PATHS | IDS | {"output_path"}
"""Arguments for which an empty text or the word null counts as left out; a file of that name is ./null. All other texts
are free and never changed.
"""

NEVER_EMPTY = {
    "dry_run": "true or false",
    "max_cost_usd": "an amount of USD",
    "image_ids": "a list of img_... ids",
    "keep_count": "a number",
    "max_age_hours": "a number of hours",
}
"""Arguments that restrict a call. Taking an empty value as left out could let the call do more than was meant."""

SYNONYMS: dict[str, dict[str, str]] = {
    "output_format": {"jpg": "jpeg", "jpe": "jpeg"},
    "aspect_ratio": {"square": "1:1"},
    "model_tier": {"nano_banana_pro": "pro", "nano_banana_2": "nb2"},
}

_HALF = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}(?:\.0*)?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})")
_RATIO = re.compile(r"([0-9]{1,2})\s*[:x\u00d7/]\s*([0-9]{1,2})")
_EXACT = 2**53
"""Below this, a whole float is exactly one integer."""


def plain(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in the form that the tool's JSON schema declares. Lists and objects that came as JSON text, numbers
    and booleans as text, whole floats and other spellings of a word are converted; what is empty is left out where that
    means nothing. Anything ambiguous stays as it came, for the tool to refuse.

    Raises RequestError for an empty value of an argument that restricts the call, and for half of a character.
    """
    properties, required = schema.get("properties", {}), schema.get("required", ())
    found = {}
    for name, given in arguments.items():
        declared = properties.get(name)
        if declared is None:
            found[name] = given
            continue
        value = _as_declared(name, given, declared)
        if has_half_a_character(value):  # a JSON-RPC line cannot have one, but a list that came as text can
            raise RequestError(
                f"{name} has half of a character in it, such as half of an emoji that was cut in two; nothing was "
                "done. Send it again without it."
            )
        if name in NEVER_EMPTY and _is_empty(name, value, declared):
            raise RequestError(f"{name} must be {NEVER_EMPTY[name]}, not {kind(given)}; correct it, or leave it out.")
        if name in required or not _is_empty(name, value, declared):
            found[name] = value
    return found


def name_inputs(arguments: dict[str, Any], base: Path) -> list[str]:
    """Replace each input by the plain name of the one file or picture that it means; returns notes on that. Only for
    inputs: where a picture is written is never guessed. Raises RequestError.
    """
    notes = []

    def named(given: object) -> object:
        if not isinstance(given, str):
            return given
        found, note = meant(given, base)
        if note is not None:
            notes.append(note)
        return found

    for name, given in arguments.items():
        if name in INPUT_PATHS:
            arguments[name] = named(given)
        elif name == "input_images" and isinstance(given, list):
            arguments[name] = [named(one) for one in given]
        elif name in IDS and isinstance(given, str):
            arguments[name] = as_id(given)
        elif name == "image_ids" and isinstance(given, list):
            arguments[name] = [as_id(one) if isinstance(one, str) else one for one in given]
    return notes


def has_half_a_character(value: object) -> bool:
    """Tells whether a text anywhere in the value has a lone surrogate: half of a pair that means one character."""
    if isinstance(value, str):
        return _HALF.search(value) is not None
    if isinstance(value, list):
        return any(map(has_half_a_character, value))
    return isinstance(value, dict) and any(has_half_a_character(one) for pair in value.items() for one in pair)


def kind(value: object) -> str:
    """The kind of a JSON value, without the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return "a number"
    if isinstance(value, float):
        return "a number" if value.is_integer() else "a number with a fraction"
    if isinstance(value, str):
        return "text" if value else "an empty text"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object" if value else "an empty object"


def _is_empty(name: str, value: object, declared: Mapping[str, Any]) -> bool:
    """Tells whether an argument is empty. A box without numbers is a mistake and not empty, and free text never counts
    as empty.
    """
    if value is None:
        return True
    if value in ([], {}):
        return not declared.get("minItems")
    if name in NOT_FREE_TEXT and isinstance(value, str):
        return value == "" or value.strip().lower() == "null"
    return value == "" and (declared.get("type") != "string" or "enum" in declared)


def _as_declared(name: str, given: object, declared: Mapping[str, Any]) -> object:
    match declared.get("type"):
        case "integer":
            return _whole(given)
        case "number":
            return _number(given)
        case "boolean":
            return _truth(given)
        case "array":
            value = _from_text(given, list)
            return [_as_declared(name, item, declared["items"]) for item in value] if isinstance(value, list) else value
        case "object":
            value = _from_text(given, dict)
            return _chosen_in(value, declared) if isinstance(value, dict) else value
        case "string" if "enum" in declared:
            return _chosen(name, given, declared["enum"])
        case _:
            return given


def _from_text(given: object, wanted: type) -> object:
    """A list or an object from its JSON text, or what was given."""
    if not isinstance(given, str) or not given.strip():
        return given
    try:
        found = json.loads(given, object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return given
    return found if found is None or isinstance(found, wanted) else given


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("A key stands twice.")
    return found


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no JSON.")


def _whole(given: object) -> object:
    if isinstance(given, float) and math.isfinite(given) and given.is_integer() and abs(given) <= _EXACT:
        return int(given)
    if not isinstance(given, str):
        return given
    text = given.strip()
    return int(text.split(".")[0]) if _WHOLE.fullmatch(text) else _null(text, given)


def _number(given: object) -> object:
    """A whole number, whether it came as 2, 2.0 or text, so that rules see one spelling."""
    whole = _whole(given)
    if not isinstance(whole, str):
        return whole
    text = whole.strip()
    return float(text) if _DECIMAL.fullmatch(text) else given


def _truth(given: object) -> object:
    if not isinstance(given, str):
        return given
    text = given.strip().lower()
    return text == "true" if text in ("true", "false") else _null(text, given)


def _null(text: str, given: object) -> object:
    return None if text.lower() == "null" else given


def _chosen_in(given: dict[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """An object whose keys and values are words of two lists, such as Google's HARM_CATEGORY_HARASSMENT, BLOCK_NONE."""
    keys, values = declared.get("propertyNames", {}).get("enum"), declared["additionalProperties"].get("enum")
    if keys is None or values is None:
        return given
    found = {}
    for key, value in given.items():
        bare = re.sub("^harm_category_", "", key.strip(), flags=re.IGNORECASE)
        found[_chosen("", bare, keys) if bare.lower() in keys else key] = _chosen("", value, values)
    return found if len(found) == len(given) else given


def _chosen(name: str, given: object, words: list[str]) -> Any:
    """The one of `words` that was meant, whatever its case, spaces or hyphens, or under a usual other name."""
    if not isinstance(given, str) or given in words:
        return given
    text = given.strip().lower()
    if text == "null":
        return None
    if name == "output_format":
        text = text.removeprefix("image/").removeprefix(".")
    ratio = _RATIO.fullmatch(text)
    if name == "aspect_ratio" and ratio:
        text = f"{ratio[1]}:{ratio[2]}"
    text = re.sub(r"[\s-]+", "_", text)
    text = SYNONYMS.get(name, {}).get(text, text)
    return text if text in words else given
