"""Says in plain words what pydantic found wrong with a value."""

from collections.abc import Mapping
from typing import Any

from nanobanana_mcp.domain.text import counted

_PARTS = {"string_too_short": "character", "string_too_long": "character", "too_short": "item", "too_long": "item"}


def in_words(problem: Mapping[str, Any]) -> str:
    """Say what must be different about a value, in words that follow its name; `problem` is one of ValidationError.errors().

    For what has no words here, pydantic's own.
    """
    bounds: Mapping[str, Any] = problem.get("ctx") or {}
    match problem["type"]:
        case "string_too_short" | "too_short" as kind:
            least = int(bounds["min_length"])
            return "must not be empty" if least == 1 else f"must have {counted(least, _PARTS[kind])}"
        case "string_too_long" | "too_long" as kind:
            return f"must have at most {counted(int(bounds['max_length']), _PARTS[kind])}"
        case "string_pattern_mismatch":
            return "is not written as it has to be"
        case "string_type":
            return "must be text"
        case "bool_type":
            return "must be true or false"
        case "tuple_type":
            return "must be a list"
        case "dict_type" | "model_type":
            return "must be a mapping of keys to values"
        case "int_parsing" | "int_from_float" | "int_type":
            return "must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "must be a number"
        case "greater_than":
            return f"must be more than {bounds['gt']:.15g}"
        case "greater_than_equal":
            return f"must be at least {bounds['ge']:.15g}"
        case "less_than_equal":
            return f"must be at most {bounds['le']:.15g}"
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
