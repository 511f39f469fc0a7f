"""image://{id}: the full pictures and their thumbnails, for clients that read resources."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ResourceError
from fastmcp.resources import Resource, ResourceContent, ResourceResult
from mcp.types import Resource as Listed
from pydantic import AnyUrl

from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.domain.text import size_of
from nanobanana_mcp.server.session import LazyStudio, home
from nanobanana_mcp.settings import Settings

MOST = 20
"""How many of the newest pictures are listed, so that a client can offer them to be mentioned."""


class Picture(Resource):
    """One that is listed; it is read through the template."""

    size: int

    def to_mcp_resource(self, **overrides: Any) -> Listed:
        return super().to_mcp_resource(**overrides).model_copy(update={"size": self.size})


async def picture(image_id: str, caller: Context) -> ResourceResult:
    return await _read(caller, image_id, thumbnail=False)


async def thumbnail(image_id: str, caller: Context) -> ResourceResult:
    return await _read(caller, image_id, thumbnail=True)


def add(server: FastMCP) -> None:
    for uri, function, words in (
        ("image://{image_id}", picture, "A full picture, as Gemini delivered it."),
        ("image://{image_id}/thumbnail", thumbnail, "A small preview."),
    ):
        server.resource(uri, name=function.__name__, description=words, mime_type="image/*")(function)


async def newest(opening: LazyStudio, settings: Settings) -> Sequence[Resource]:
    """The newest pictures by id and size, without opening the studio; none where the library cannot be looked into."""
    studio = opening.opened
    try:
        if studio is not None:
            found = await studio.newest(MOST)
        else:
            from nanobanana_mcp.studio.newest import newest as glance

            found = await asyncio.to_thread(glance, settings, MOST)
    except StudioError:
        return []
    return [
        Picture(
            uri=AnyUrl(f"image://{one.id}"),
            name=one.id,
            description=f"{one.width} x {one.height} pixels, {size_of(one.bytes)}",
            mime_type=one.mime_type,
            size=one.bytes,
        )
        for one in found
    ]


async def _read(caller: Context, image_id: str, *, thumbnail: bool) -> ResourceResult:
    try:
        data, mime_type = await (await home(caller).studio()).picture(image_id, thumbnail=thumbnail)
    except StudioError as error:
        raise ResourceError(str(error), log_level=logging.DEBUG) from error
    return ResourceResult(contents=[ResourceContent(data, mime_type=mime_type)])
