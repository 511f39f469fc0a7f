"""Draws the pictures that a picture was made from, and those made from it: a row for each generation, the oldest on
top.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanobanana_mcp.domain.records import ImageRecord

SIDE, GAP, DOWN = 64, 12, 40
MOST = 12
"""The most pictures in a row, and rows above the picture; more are only counted."""

BESIDE = ("mask", "part")
"""Origins of pictures that are not drawn: the mask of an edit, and a model's answer that a picture was put together
from."""


@dataclass(frozen=True, kw_only=True)
class Node:
    id: str
    words: str
    x: float
    y: float
    here: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A lineage as it is drawn, in pixels; `more` says how many are left out."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[float, float, float, float], ...]
    width: float
    height: float
    side: int
    more: int


def draw(lineage: Any) -> Drawing | None:
    """The drawing of a lineage; None for a picture that stands alone."""
    own = lineage.record
    depth: dict[str, int] = {own.id: 0}
    records: dict[str, ImageRecord] = {own.id: own}
    wanted: list[tuple[str, str]] = []
    ancestors = [one for one in lineage.ancestors if one.record.origin not in BESIDE]
    children = [one for one in lineage.children if one.origin not in BESIDE]
    if not ancestors and not children:
        return None
    for ancestor in ancestors:
        # A picture that is reached by two ways stands where the longer one leads, so that every line goes down.
        depth[ancestor.record.id] = max(ancestor.depth, depth.get(ancestor.record.id, 0))
        records[ancestor.record.id] = ancestor.record
        wanted.append((ancestor.record.id, ancestor.child_id))
    for child in children:
        depth[child.id] = -1
        records[child.id] = child
        wanted.append((own.id, child.id))
    rows = [[one for one in depth if depth[one] == step] for step in range(max(depth.values()), -2, -1)]
    rows = [row for row in rows if row][-(MOST + 2) :]
    shown = [row[:MOST] for row in rows]
    width = max(len(row) for row in shown) * (SIDE + GAP) - GAP
    places: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(shown):
        left = (width - len(row) * (SIDE + GAP) + GAP) / 2
        for index, one in enumerate(row):
            places[one] = (left + index * (SIDE + GAP), number * (SIDE + DOWN))
    edges = [
        (places[upper][0] + SIDE / 2, places[upper][1] + SIDE, places[lower][0] + SIDE / 2, places[lower][1])
        for upper, lower in dict.fromkeys(wanted)
        if upper in places and lower in places
    ]
    return Drawing(
        nodes=tuple(
            Node(id=one, words=words_of(records[one], depth[one]), x=x, y=y, here=one == own.id)
            for one, (x, y) in places.items()
        ),
        edges=tuple(edges),
        width=width,
        height=len(shown) * (SIDE + DOWN) - DOWN,
        side=SIDE,
        more=len(depth) - len(places),
    )


def words_of(record: "ImageRecord", depth: int) -> str:
    """The words that a screen reader says of one picture of a lineage."""
    what = "This picture" if depth == 0 else "Made from" if depth > 0 else "Became"
    return f"{what}: {name_of(record)}"


def name_of(record: "ImageRecord", limit: int = 120) -> str:
    """A picture in a few words: its prompt, or the name of its file."""
    words = (
        " ".join((record.prompt or "").split())
        or (record.path or "").replace("\\", "/").rpartition("/")[2]
        or record.id
    )
    return words if len(words) <= limit else f"{words[:limit].rstrip()}..."
