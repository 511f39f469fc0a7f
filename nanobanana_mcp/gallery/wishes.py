"""Reads the filters of a search from an address of the gallery, and writes them into one."""

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.finding import FindRequest
from nanobanana_mcp.domain.text import shorten

TRASH = "trash"
KINDS = {
    "picture": "pictures",
    "derived": "icons and conversions",
    "mask": "masks",
    "imported": "own photos",
    "all": "everything",
    TRASH: "the trash",
}
CHOICES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("tier", "Tier", (("flash", "flash"), ("pro", "pro"), ("lite", "lite"))),
    ("mode", "Made by", (("generate", "generating"), ("edit", "editing"))),
    ("min_rating", "Rating", tuple((str(stars), f"{'★' * stars} and up") for stars in range(1, 6))),
    ("kind", "What", tuple(KINDS.items())),
)
"""The filters that may be chosen from a list: the field, its name for a person, and each choice with its words."""

FIELDS = ("query", "since", "until", "tier", "mode", "min_rating", "kind", "tag", "min_cost", "max_cost", "made_from")


def asked_in(parameters: Mapping[str, str]) -> dict[str, str]:
    """The fields of an address that narrow the pictures, without what is empty."""
    return {name: parameters[name].strip() for name in FIELDS if parameters.get(name, "").strip()}


def find_request(asked: Mapping[str, str], *, cursor: str | None, limit: int) -> FindRequest:
    """The search that the filters ask for. Raises RequestError naming one that makes no sense."""
    for name, words, options in CHOICES:
        if name in asked and asked[name] not in dict(options):
            raise RequestError(
                f"{words} {shorten(asked[name])} is not one of {', '.join(value for value, _ in options)}."
            )
    since, until = _day(asked, "since"), _day(asked, "until", after=1)
    kind: Any = asked.get("kind", "picture")
    values: dict[str, Any] = {
        "query": _as_typed(asked["query"]) if "query" in asked else None,
        "since": since,
        "until": until,
        "tier": asked.get("tier"),
        "mode": asked.get("mode"),
        "made_from": asked.get("made_from"),
        "tag": asked.get("tag"),
        "min_rating": int(asked["min_rating"]) if "min_rating" in asked else None,
        "kind": "all" if kind == TRASH else kind,
        "in_trash": kind == TRASH,
        "min_cost_usd": _amount(asked, "min_cost"),
        "max_cost_usd": _amount(asked, "max_cost"),
    }
    return FindRequest(**values, cursor=cursor, limit=limit)


def written(asked: Mapping[str, str], **more: str | None) -> str:
    """Writes filters as the part of an address behind the page's name."""
    fields = {**asked, **{name: value for name, value in more.items() if value}}
    return f"?{urlencode(fields)}" if fields else ""


def _as_typed(query: str) -> str:
    """The words to search for. The last of plain words may not be whole yet, so it becomes a prefix; an expression
    stays as it is.
    """
    return f"{query}*" if re.fullmatch(r"[\w\s]*\w", query) else query


def _day(asked: Mapping[str, str], name: str, *, after: int = 0) -> datetime | None:
    """The beginning of a day where the person is, or of a day so many `after` it."""
    if name not in asked:
        return None
    try:
        day = date.fromisoformat(asked[name]) + timedelta(days=after)
        return datetime.combine(day, time.min).astimezone()
    except (ValueError, OverflowError, OSError):
        raise RequestError(f"{shorten(asked[name])} is not a day; write it as 2026-11-29.") from None


def _amount(asked: Mapping[str, str], name: str) -> float | None:
    if name not in asked:
        return None
    try:
        amount = float(asked[name].removeprefix("$").replace(",", "."))
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e9:
        raise RequestError(f"{shorten(asked[name])} is not an amount of USD; write it as 0.15.")
    return amount
