"""find_images and view_image: finding pictures that there are, and looking at them closely. Both are free."""

import base64
from typing import Annotated

from fastmcp import Context, FastMCP
from fastmcp.apps import AppConfig
from fastmcp.tools import ToolResult
from mcp.types import ContentBlock, ImageContent, ToolAnnotations
from pydantic import Field

from nanobanana_mcp.domain.arguments import Picture
from nanobanana_mcp.domain.catalog import TierName
from nanobanana_mcp.domain.finding import (
    LEAST_VIEW_PX,
    MAX_FOUND,
    MAX_QUERY,
    MOST_VIEW_PX,
    VIEW_PX,
    AskedKind,
    FindOrder,
    FindRequest,
    ViewRequest,
    moment,
)
from nanobanana_mcp.domain.terms import Mode
from nanobanana_mcp.server.clients import result
from nanobanana_mcp.server.resources import APP
from nanobanana_mcp.server.schemas import offer
from nanobanana_mcp.server.session import shared
from nanobanana_mcp.server.tools.generate import links

FREE = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

SHEET_PX = 200
"""The side of a picture on the sheet of what was found."""

LINKED = 10
"""Pictures that an answer links to; the others are read by their ids."""


async def find_images(
    caller: Context,
    query: Annotated[
        str | None, Field(max_length=MAX_QUERY, description='Words, "a phrase", begin*, AND, OR, NOT.')
    ] = None,
    copy_of: Annotated[str | None, Field(description="Instead: a file that may be a copy of one.")] = None,
    since: Annotated[str | None, Field(description="Date or time, UTC.")] = None,
    until: Annotated[str | None, Field(description="A date includes its day.")] = None,
    tier: Annotated[TierName | None, Field(description="Its model's.")] = None,
    mode: Annotated[Mode | None, Field(description="How it was made.")] = None,
    made_from: Annotated[str | None, Field(description="img_... id, however far back.")] = None,
    tag: Annotated[str | None, Field(description="One it has.")] = None,
    min_rating: Annotated[int | None, Field(ge=1, le=5, description="1 to 5.")] = None,
    kind: Annotated[AskedKind, Field(description="derived: icons, conversions; imported: callers' own.")] = "picture",
    order: Annotated[FindOrder, Field(description="best: by rating, then words.")] = "newest",
    limit: Annotated[int, Field(ge=1, le=MAX_FOUND, description="A page.")] = 20,
    cursor: Annotated[str | None, Field(description="For the next page.")] = None,
) -> ToolResult:
    from nanobanana_mcp.studio.results.finding import found_structure, found_text

    studio = await shared(caller).studio()
    wanted = FindRequest(
        query=query,
        copy_of=copy_of,
        since=None if since is None else moment(since, "since"),
        until=None if until is None else moment(until, "until", end=True),
        tier=tier,
        mode=mode,
        made_from=made_from,
        tag=tag,
        min_rating=min_rating,
        kind=kind,
        order=order,
        limit=limit,
        cursor=cursor,
    )
    page = await studio.find_images(wanted)
    records = [found.record for found in page.pictures]
    sheet = await studio.sheet(records, SHEET_PX) if records and shared(caller).settings.preview_px else None
    shown = [*([_content(sheet.data, sheet.mime_type)] if sheet is not None else []), *links(records[:LINKED])]
    return result(caller, found_text(page), found_structure(page), shown)


async def view_image(
    caller: Context,
    image: Picture,
    box: Annotated[
        list[float] | None,
        Field(
            min_length=4,
            max_length=4,
            description="As in edit_region.",
        ),
    ] = None,
    compare_with: Annotated[str | None, Field(description="Another picture.")] = None,
    max_px: Annotated[int, Field(ge=LEAST_VIEW_PX, le=MOST_VIEW_PX, description="Longest side.")] = VIEW_PX,
) -> ToolResult:
    from nanobanana_mcp.studio.results.finding import view_structure, view_text

    studio = await shared(caller).studio()
    part = None if box is None else (box[0], box[1], box[2], box[3])
    seen = await studio.view(ViewRequest(image=image, box=part, compare_with=compare_with, max_px=max_px))
    shown = [_content(picture.data, picture.mime_type) for picture in seen.look.pictures]
    return result(caller, view_text(seen), view_structure(seen), shown)


def _content(data: bytes, mime_type: str) -> ContentBlock:
    return ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type=mime_type)


def add(server: FastMCP) -> None:
    offer(
        server,
        find_images,
        title="Find pictures",
        description="Find pictures by words of their prompts, names, notes and tags, by facts, or by a copy of the file: ids, "
        "paths, cost and a contact sheet. Free.",
        annotations=FREE,
        app=AppConfig(resource_uri=APP),
    )
    offer(
        server,
        view_image,
        title="Look closely",
        description="Look at a box of a picture at 1:1, to read small text or check an edit; with compare_with at both, with a map "
        "of what differs, the share of changed pixels and where. Free.",
        annotations=FREE,
        app=AppConfig(resource_uri=APP),
    )
