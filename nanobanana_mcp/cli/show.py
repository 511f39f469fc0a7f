"""The verb show: one picture's record, prompt, cost and lineage, and the picture itself where the terminal can draw it."""

import asyncio
import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nanobanana_mcp.cli.calls import Session, run_to_end, settings_of
from nanobanana_mcp.cli.output import shown, write_data, write_json, write_lines
from nanobanana_mcp.cli.verb import JSON, answered
from nanobanana_mcp.domain.errors import SourceNotFound
from nanobanana_mcp.domain.text import printable, shorten, size_of
from nanobanana_mcp.studio.results.reports import lineage_text

if TYPE_CHECKING:
    from rich.tree import Tree

    from nanobanana_mcp.domain.records import ImageRecord
    from nanobanana_mcp.library.pictures import Lineage

FEW_WORDS = 60
"""Characters of a prompt that a branch of the tree has room for."""
MOST_CHILDREN = 20
WIDE = 5000
"""Columns: a path is never cut, and a terminal breaks a long line by itself."""


def show(
    image_id: Annotated[str, Parameter(name="ID", help="The img_... id of the picture.")],
    *,
    json: JSON = False,
) -> int:
    """Show one picture: record, prompt, cost, what it was made from, and what from it.

    In a terminal that can draw it (kitty, iTerm2, sixel, or colours at all) the
    picture comes first.

    For example:
      nanobanana show img_1m8k1yaffyxjg193
      nanobanana show img_1m8k1yaffyxjg193 --json
    """
    return answered("show", lambda: _show(image_id, as_json=json))


def _show(image_id: str, *, as_json: bool) -> None:
    found, words, lineage, picture = run_to_end(lambda session: _look_up(session, image_id), settings_of())
    if as_json:
        write_json(found)
        return
    if picture is not None and sys.stdout.isatty():
        from nanobanana_mcp.cli.terminal import drawn, protocol_of

        protocol = protocol_of(os.environ)
        if protocol is not None:
            write_data(drawn(picture, protocol, columns=shutil.get_terminal_size().columns).encode())
    write_lines(shown(line) for line in (*words, ""))
    if sys.stdout.isatty():
        from rich.console import Console

        sys.stdout.flush()
        Console(width=WIDE).print(lineage_tree(lineage), soft_wrap=True)
    else:
        write_lines(shown(line) for line in lineage_text(lineage).split("\n"))


def lineage_tree(lineage: "Lineage") -> "Tree":
    """Draw what a picture was made from, each below what was made of it, and what was made from it."""
    from rich.text import Text
    from rich.tree import Tree

    def label(record: "ImageRecord") -> Text:
        where = record.trash_path or record.path or "in the Files API only"
        told = Text.assemble((record.id, "bold"), (f"  {record.origin}, {printable(where)}", "dim"))
        return told.append(f"  {printable(shorten(record.prompt, FEW_WORDS))}") if record.prompt else told

    tree = Tree(label(lineage.record))
    sources: dict[str, Tree] = {}
    for step in lineage.ancestors:  # the nearest first, so that what a source was used for stands already
        above = sources.get(step.child_id)
        if above is None:
            above = sources[step.child_id] = tree.add(Text("made from", style="italic"))
        sources[step.record.id] = above.add(label(step.record))
    if lineage.children:
        used = tree.add(Text("source of", style="italic"))
        for child in lineage.children[:MOST_CHILDREN]:
            used.add(label(child))
        if len(lineage.children) > MOST_CHILDREN:
            used.add(Text(f"and {len(lineage.children) - MOST_CHILDREN} more", style="dim"))
    return tree


async def _look_up(session: Session, image_id: str) -> tuple[dict[str, Any], list[str], "Lineage", bytes | None]:
    """Ask output_stats for the lineage, which the policy may refuse, and add what only the record knows."""
    told = await session.call("output_stats", {"lineage_of": image_id})
    studio = await session.studio()
    lineage = await studio.lineage(told["image"]["id"])
    record = lineage.record
    cost = await asyncio.to_thread(studio.journal.cost_of, record.call_id) if record.call_id else None
    try:
        picture, _ = await studio.picture(record.id, thumbnail=True)
    except SourceNotFound:  # its file and its thumbnail are gone, and the record stays
        picture = None
    told.pop("summary")
    told["image"] |= {"prompt": record.prompt, "model_id": record.model_id, "cost_usd": cost}
    return told, _words(record, cost), lineage, picture


def _words(record: "ImageRecord", cost: float | None) -> list[str]:
    where = record.trash_path or record.path or "in the Files API only"
    lines = [
        f"{record.id} {where}",
        f"{record.width}x{record.height}, {record.mime_type}, {size_of(record.bytes)}, {record.origin} "
        f"{record.created_at:%Y-%m-%d %H:%M} UTC",
    ]
    if record.model_id is not None:
        lines.append(f"Model: {record.model_id} ({record.tier})")
    if record.prompt:
        lines.append(f"Prompt: {' '.join(record.prompt.split())}")
    if cost is not None:
        emulated = record.backend == "emulator"
        lines.append(f"Cost: nothing (Gemini would take ${cost:.4f})" if emulated else f"Cost: ${cost:.4f}")
    return lines
