"""The resources: image://{id}, its thumbnail, lineage://{id}, models:// and gallery://."""

import asyncio
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmcp import Context, FastMCP
from fastmcp.apps import AppConfig
from fastmcp.exceptions import ResourceError
from fastmcp.resources import Resource, ResourceContent, ResourceResult
from mcp.types import Resource as Listed
from pydantic import AnyUrl

from nanobanana_mcp.domain.errors import StudioError
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.text import size_of
from nanobanana_mcp.server.session import LazyStudio, shared
from nanobanana_mcp.settings import Settings

MOST = 20
"""The number of the newest pictures that are listed, so that a client can offer them to be mentioned."""

IMAGE, THUMBNAIL, LINEAGE, MODELS, GALLERY = (
    "image://{image_id}",
    "image://{image_id}/thumbnail",
    "lineage://{image_id}",
    "models://",
    "gallery://",
)
APP = "ui://nanobanana/pictures"
"""The page in which clients that render MCP Apps show pictures. It is read by those that find it in a tool's definition,
and not listed, so that no other client offers it to a person.
"""

FORMS = "image://img_..., image://img_.../thumbnail, lineage://img_..., models:// and gallery://"
_ONE = re.compile(r"models://|gallery://|lineage://([^/]*)|image://([^/]*?)(?:/thumbnail)?")


class Picture(Resource):
    """One that is listed; it is read through the template."""

    size: int

    def to_mcp_resource(self, **overrides: Any) -> Listed:
        return super().to_mcp_resource(**overrides).model_copy(update={"size": self.size})


async def picture(image_id: str, caller: Context) -> ResourceResult:
    return await _read(caller, image_id, thumbnail=False)


async def thumbnail(image_id: str, caller: Context) -> ResourceResult:
    return await _read(caller, image_id, thumbnail=True)


async def lineage(image_id: str, caller: Context) -> str:
    from nanobanana_mcp.studio.results.reports import lineage_text

    try:
        return lineage_text(await (await shared(caller).studio()).lineage(image_id))
    except StudioError as error:
        raise ResourceError(str(error), log_level=logging.DEBUG) from error


async def models(caller: Context) -> str:
    from nanobanana_mcp.studio.open import models as chosen
    from nanobanana_mcp.studio.results.models import models_text

    return models_text(chosen(shared(caller).settings))


async def gallery(caller: Context) -> str:
    lazy = shared(caller).gallery
    assert lazy is not None  # every server has one
    try:
        address = (await lazy.gallery()).address()
    except StudioError as error:
        raise ResourceError(str(error), log_level=logging.DEBUG) from error
    return (
        f"The person opens {address} in a browser on this machine, once; it shows all pictures while this server runs."
    )


def add(server: FastMCP) -> None:
    for uri, function, kind, words in (
        (IMAGE, picture, "image/*", "A full picture, as Gemini delivered it."),
        (THUMBNAIL, thumbnail, "image/*", "A small preview."),
        (LINEAGE, lineage, "text/plain", "What a picture was made from, and what from it."),
        (
            MODELS,
            models,
            "text/markdown",
            "The models by tier: what each can do, what a picture costs, how long it lives.",
        ),
        (
            GALLERY,
            gallery,
            "text/plain",
            "The address of a page on which the person sees, searches and edits all pictures.",
        ),
    ):
        server.resource(uri, name=function.__name__, description=words, mime_type=kind)(function)
    server.resource(
        APP, name="pictures", description="Shows pictures in a client.", app=AppConfig(prefers_border=False)
    )(app)


def app() -> str:
    return (Path(__file__).parent / "pictures.html").read_text("utf-8")


def is_one(uri: str) -> bool:
    """Tells whether a URI has one of our forms, with an id that can exist."""
    found = _ONE.fullmatch(uri)
    return uri == APP or (found is not None and (uri in (MODELS, GALLERY) or is_image_id(found[1] or found[2] or "")))


def listed(one: Any) -> Resource:
    """A picture as the list shows it: by id and size, without anything that anybody wrote."""
    return Picture(
        uri=AnyUrl(f"image://{one.id}"),
        name=one.id,
        description=f"{one.width} x {one.height} pixels, {size_of(one.bytes)}",
        mime_type=one.mime_type,
        size=one.bytes,
    )


async def newest(opening: LazyStudio, settings: Settings, count: int, beginning: str) -> Sequence[Any]:
    """The newest pictures whose ids begin with a text, without opening the studio; none where the library cannot be
    read.
    """
    studio = opening.opened
    try:
        if studio is not None:
            return await studio.newest(count, beginning)
        from nanobanana_mcp.studio.newest import newest as glance

        return await asyncio.to_thread(glance, settings, count, beginning)
    except StudioError:
        return []


async def _read(caller: Context, image_id: str, *, thumbnail: bool) -> ResourceResult:
    try:
        data, mime_type = await (await shared(caller).studio()).picture(image_id, thumbnail=thumbnail)
    except StudioError as error:
        raise ResourceError(str(error), log_level=logging.DEBUG) from error
    return ResourceResult(contents=[ResourceContent(data, mime_type=mime_type)])
