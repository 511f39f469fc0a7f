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
from nanobanana_mcp.domain.text import size_of
from nanobanana_mcp.studio.results.reports import lineage_text

if TYPE_CHECKING:
    from nanobanana_mcp.domain.records import ImageRecord


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
    found, words, picture = run_to_end(lambda session: _look_up(session, image_id), settings_of())
    if as_json:
        write_json(found)
        return
    if picture is not None and sys.stdout.isatty():
        from nanobanana_mcp.cli.terminal import drawn, protocol_of

        protocol = protocol_of(os.environ)
        if protocol is not None:
            write_data(drawn(picture, protocol, columns=shutil.get_terminal_size().columns).encode())
    write_lines(shown(line) for line in words)


async def _look_up(session: Session, image_id: str) -> tuple[dict[str, Any], list[str], bytes | None]:
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
    return told, [*_words(record, cost), "", *lineage_text(lineage).split("\n")], picture


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
