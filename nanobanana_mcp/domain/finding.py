"""The questions that the library's search and a close look at a picture answer, and their answers."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.terms import Mode, Origin
from nanobanana_mcp.domain.text import shorten

Kind = Literal["picture", "derived", "mask", "part", "imported"]
"""The kind of a file of the library: drawn or edited, made of another picture (icon, conversion, exact file), painted
to say where to edit, an answer of a model that a picture was put together from, or a caller's own."""
AskedKind = Literal["picture", "derived", "mask", "part", "imported", "all"]
State = Literal["present", "missing", "trashed"]
FindOrder = Literal["newest", "best"]

KIND_OF: dict[Origin, Kind] = {
    "generated": "picture",
    "edited": "picture",
    "derived": "derived",
    "mask": "mask",
    "part": "part",
    "imported": "imported",
}

MAX_QUERY = 1000
MAX_NOTE = 4000
MAX_TAG = 40
MAX_TAGS = 20
MAX_RATING = 5
MAX_FOUND = 200
"""Pictures of one page."""


def moment(text: str, name: str, *, end: bool = False) -> datetime:
    """The instant that a date, or a date with a time, names, in UTC unless it says otherwise; for a whole day its beginning or
    its end. Raises RequestError.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise RequestError(f"{name} {shorten(text)} is no date; write 2026-11-29 or 2026-11-29T14:30.") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    if not 1970 <= found.year < 9999:
        raise RequestError(f"{name} {shorten(text)} is before 1970 or after 9998, where no picture is.")
    return found + timedelta(days=1) if end and len(text.strip()) <= len("2026-11-29") else found


@dataclass(frozen=True, kw_only=True)
class FindRequest:
    """`query` is an expression of SQLite's FTS5, or plain words. `until` is exclusive; `made_from` means every generation of
    descendants; kind "all" leaves parts out; `copy_of` is the path of a file that may be a copy of one of ours.
    """

    query: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    tier: str | None = None
    mode: Mode | None = None
    made_from: str | None = None
    tag: str | None = None
    min_rating: int | None = None
    kind: AskedKind = "picture"
    min_cost_usd: float | None = None
    max_cost_usd: float | None = None
    in_trash: bool = False
    copy_of: str | None = None
    limit: int = 50
    cursor: str | None = None
    order: FindOrder = "newest"


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """The note, tags and rating (1 to 5) that a person, or an agent for one, gave a picture."""

    note: str | None = None
    tags: tuple[str, ...] = ()
    rating: int | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """One picture as a search tells it. `cost_usd` is what the calls took that are in it, 0 for what was made of pictures
    here and None where nobody knows; `why` is how a copy was recognised.
    """

    record: ImageRecord
    kind: Kind
    state: State
    cost_usd: float | None = None
    rating: int | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    why: str | None = None

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True, kw_only=True)
class FoundPage:
    """`cursor` leads to the next page, None after the last; `total` is None where counting would take long."""

    pictures: tuple[Found, ...]
    cursor: str | None = None
    total: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """The places where the pages of a search begin, so that any page can be asked for: `cursors` lead to the second
    page and on.

    `total` is None, and there are no cursors, where finding them would take long.
    """

    total: int | None = None
    cursors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The pictures that were added, moved, noted on or deleted since an earlier `last`, by whatever process."""

    last: int
    ids: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The files that go, or went, when a picture is deleted for good. A call repeats `token` to confirm it."""

    id: str
    path: str | None
    bytes: int
    children: int
    """Pictures made from it, which stay and lose this line of their lineage."""
    token: str


VIEW_PX, LEAST_VIEW_PX, MOST_VIEW_PX = 1024, 64, 2048
"""Pixels of the longer side of what is shown: usual, least and most."""


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """`image` and `compare_with` are paths or img_... ids; `box` is left, top, right, bottom in pixels, or in fractions."""

    image: str
    box: tuple[float, float, float, float] | None = None
    compare_with: str | None = None
    max_px: int = VIEW_PX
