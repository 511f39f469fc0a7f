"""upload_file, output_stats and maintenance: everything that makes no picture."""

from functools import partial
from typing import Annotated

from fastmcp import Context, FastMCP
from fastmcp.tools import ToolResult
from mcp.types import InputRequiredResult, ToolAnnotations
from pydantic import Field

from nanobanana_mcp.domain.terms import KEEP_COUNT, MAX_AGE_HOURS, Operation
from nanobanana_mcp.domain.text import counted, size_of
from nanobanana_mcp.server.asking import agreed, can_ask
from nanobanana_mcp.server.clients import result
from nanobanana_mcp.server.schemas import offer
from nanobanana_mcp.server.session import shared

CLEARING = ("cleanup_local", "full_cleanup")
"""Operations that take pictures away from where they were."""


async def upload_file(
    caller: Context,
    path: Annotated[str, Field(min_length=1, description="Path or img_... id.")],
    display_name: Annotated[
        str | None, Field(max_length=512, description="A name for it in the Files API; its path is never sent.")
    ] = None,
) -> ToolResult:
    from nanobanana_mcp.studio.results.reports import uploaded_structure, uploaded_text

    uploaded = await (await shared(caller).studio()).upload(path, display_name)
    return result(caller, uploaded_text(uploaded), uploaded_structure(uploaded))


async def output_stats(
    caller: Context,
    recent: Annotated[int, Field(ge=0, le=100, description="How many of the newest pictures to list.")] = 10,
    lineage_of: Annotated[
        str | None, Field(description="Instead: what this picture (img_...) was made from, and what from it.")
    ] = None,
) -> ToolResult:
    from nanobanana_mcp.studio.results.reports import lineage_structure, lineage_text, stats_structure, stats_text

    if lineage_of is not None:
        lineage = await (await shared(caller).studio()).lineage(lineage_of)
        return result(caller, lineage_text(lineage), lineage_structure(lineage))
    stats = await (await shared(caller).studio()).stats(recent)
    return result(caller, stats_text(stats), stats_structure(stats))


async def maintenance(
    caller: Context,
    operation: Annotated[Operation, Field(description="What to do.")],
    dry_run: Annotated[bool, Field(description="Only say what would be done.")] = True,
    max_age_hours: Annotated[
        float, Field(ge=0, le=1_000_000, description="cleanup_local: leave younger pictures alone.")
    ] = MAX_AGE_HOURS,
    keep_count: Annotated[
        int, Field(ge=0, le=1_000_000, description="cleanup_local: always keep this many of the newest.")
    ] = KEEP_COUNT,
    image_ids: Annotated[
        list[str] | None, Field(max_length=1000, description="restore: only these; unset: everything in the trash.")
    ] = None,
) -> ToolResult | InputRequiredResult:
    from nanobanana_mcp.studio.results.reports import report_structure, report_text

    studio = await shared(caller).studio()
    maintain = partial(
        studio.maintain,
        operation,
        max_age_hours=max_age_hours,
        keep_count=keep_count,
        image_ids=tuple(image_ids or ()),
    )
    if not dry_run and operation in CLEARING and can_ask(caller):
        cleared = [action for action in (await maintain(dry_run=True)).actions if action.kind == "to_trash"]
        if cleared:
            what = f"{counted(len(cleared), 'picture')}, {size_of(sum(action.bytes for action in cleared))}"
            question = await agreed(
                caller,
                f"Move {what}, to the trash? Operation 'restore' brings them back.",
                yes="Yes, move them",
                way_out="It can be done where somebody is there to be asked, or on the command line.",
            )
            if question is not None:
                return question
    report = await maintain(dry_run=dry_run)
    return result(caller, report_text(report), report_structure(report))


def add(server: FastMCP) -> None:
    offer(
        server,
        upload_file,
        title="Upload a file",
        description="Put a local picture into Gemini's Files API (free, 48 hours), for use by its files/... id. "
        "generate_image takes paths itself; upload what several calls use.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True
        ),
    )
    offer(
        server,
        output_stats,
        title="Output statistics",
        description="Pictures, bytes and USD spent, by tier, mode and day; the newest pictures with their ids, prompts "
        "and paths; files that are missing or not the studio's; live uploads.",
        annotations=ToolAnnotations(
            read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    offer(
        server,
        maintenance,
        title="Maintenance",
        description="Tidy up. cleanup_expired: note which uploads Google has let go. cleanup_local: move old pictures to a "
        "trash. restore: bring them back. check_quota: what the Files API holds. database_hygiene: find renamed files, "
        "report missing ones. full_cleanup: the three. recover: finish what a killed process left. Touches only unchanged "
        "files that this studio made; records and lineage stay. A dry run (the default) lists what would be done.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=True
        ),
    )
