"""The verb show: one picture's record, prompt, cost and lineage, and the picture itself where the terminal can draw it."""

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from nanobanana_mcp.cli.calls import Session, run_to_end, settings_of
from nanobanana_mcp.cli.output import shown, write_data, write_json, write_lines
from nanobanana_mcp.cli.verb import JSON, answered
from nanobanana_mcp.domain.errors import SourceNotFound
from nanobanana_mcp.domain.text import printable, shorten, size_of
from nanobanana_mcp.studio.results.reports import lineage_text

if TYPE_CHECKING:
    from nanobanana_mcp.domain.records import ImageRecord

FEW_WORDS = 60
"""Characters of a prompt that a branch of the tree has room for."""
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
    if picture is not None:
        draw(picture)
    write_lines(shown(line) for line in (*words, ""))
    if sys.stdout.isatty():
        sys.stdout.flush()
        Console(width=WIDE).print(lineage_tree(found), soft_wrap=True)
    else:
        write_lines(shown(line) for line in lineage.split("\n"))


def draw(picture: bytes) -> None:
    """Show a picture, where stdout is a terminal that can."""
    if not sys.stdout.isatty():
        return
    from nanobanana_mcp.cli.terminal import drawn, protocol_of

    protocol = protocol_of(os.environ)
    if protocol is not None:
        write_data(drawn(picture, protocol, columns=shutil.get_terminal_size().columns).encode())


def lineage_tree(told: Mapping[str, Any]) -> Tree:
    """Draw what a picture was made from, each below what was made of it, and what was made from it; `told` is the
    structure of output_stats.
    """

    def label(one: Mapping[str, Any]) -> Text:
        where = one["path"] or "in the Files API only"
        drawn = Text.assemble((one["id"], "bold"), (f"  {one['origin']}, {printable(where)}", "dim"))
        return drawn.append(f"  {shorten(one['prompt'], FEW_WORDS)}") if one["prompt"] else drawn

    def end(branch: Tree, all_of_them: int, shown: int) -> None:
        if all_of_them > shown:
            branch.add(Text(f"and {all_of_them - shown} more", style="dim"))

    tree = Tree(label(told["image"]))
    sources: dict[str, Tree] = {}
    for one in told["ancestors"]:  # the nearest first, so that what a source was used for stands already
        above = sources.get(one["child"])
        if above is None:
            above = sources[one["child"]] = tree.add(Text("made from", style="italic"))
        sources[one["id"]] = above.add(label(one))
    if sources:
        end(sources[told["image"]["id"]], told["ancestor_count"], len(told["ancestors"]))
    if told["children"]:
        used = tree.add(Text("source of", style="italic"))
        for one in told["children"]:
            used.add(label(one))
        end(used, told["child_count"], len(told["children"]))
    return tree


async def _look_up(session: Session, image_id: str) -> tuple[dict[str, Any], list[str], str, bytes | None]:
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
    return told, _words(record, cost), lineage_text(lineage), picture


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
        lines.append(f"Cost: nothing (Gemini would charge ${cost:.4f})" if emulated else f"Cost: ${cost:.4f}")
    return lines
