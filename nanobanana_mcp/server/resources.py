"""image://{id}: the full pictures and their thumbnails, for clients that read resources."""

import logging

from fastmcp import FastMCP
from fastmcp.exceptions import ResourceError
from fastmcp.resources import ResourceContent, ResourceResult

from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.server.session import Opening
from nanobanana_mcp.settings import Settings


def add(server: FastMCP, opening: Opening, settings: Settings) -> None:
    @server.resource(
        "image://{image_id}", name="picture", description="A full picture, as Gemini delivered it.", mime_type="image/*"
    )
    async def picture(image_id: str) -> ResourceResult:
        return await _read(opening, image_id, thumbnail=False)

    @server.resource(
        "image://{image_id}/thumbnail", name="thumbnail", description="A small preview.", mime_type="image/*"
    )
    async def thumbnail(image_id: str) -> ResourceResult:
        return await _read(opening, image_id, thumbnail=True)


async def _read(opening: Opening, image_id: str, *, thumbnail: bool) -> ResourceResult:
    try:
        data, mime_type = await (await opening.studio()).picture(image_id, thumbnail=thumbnail)
    except StudioError as error:
        raise ResourceError(str(error), log_level=logging.DEBUG) from error
    return ResourceResult(contents=[ResourceContent(data, mime_type=mime_type)])
