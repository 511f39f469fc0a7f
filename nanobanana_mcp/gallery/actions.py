"""Carries out what a person does to pictures: through the studio, or through a tool where it costs money."""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from nanobanana_mcp.domain.errors import NotAllowed, RequestError
from nanobanana_mcp.domain.ids import is_image_id
from nanobanana_mcp.domain.terms import MAX_FILE_BYTES
from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.gallery.folder import show_in_folder
from nanobanana_mcp.gallery.guard import body_of

if TYPE_CHECKING:
    from nanobanana_mcp.gallery.events import News
    from nanobanana_mcp.gallery.paintings import Paintings
    from nanobanana_mcp.gallery.serve import Tools
    from nanobanana_mcp.studio.studio import Studio

Done = dict[str, Any]
"""The answer to an action; `go` is the page that it leads to."""

EDITED = ("image", "mask", "instruction", "model_tier", "grow", "feather")
NUMBERS = ("grow", "feather")


class Actions:
    """The actions of the gallery; each takes the fields of a form that one of our pages sent."""

    def __init__(
        self, studio: "Callable[[], Awaitable[Studio]]", tools: "Tools", news: "News", paintings: "Paintings"
    ) -> None:
        self._studio = studio
        self._tools = tools
        self._news = news
        self._paintings = paintings

    async def annotate(self, request: Request, fields: Mapping[str, str]) -> Done:
        """Changes the note, tags and rating; a field that is not given stays as it is."""
        await self._open("output_stats", "the gallery needs")
        given: dict[str, Any] = {}
        if "note" in fields:
            given["note"] = fields["note"].replace("\r\n", "\n").strip() or None
        if "tags" in fields:
            given["tags"] = tuple(dict.fromkeys(tag.strip() for tag in fields["tags"].split(",") if tag.strip()))
        if "rating" in fields:
            given["rating"] = _rating(fields["rating"])
        found = await (await self._studio()).annotate(request.path_params["id"], **given)
        return {
            "note": found.note,
            "tags": list(found.tags),
            "rating": found.rating,
            "go": f"pictures/{found.record.id}",
        }

    async def trash(self, request: Request, _fields: Mapping[str, str]) -> Done:
        await self._tidying()
        image_id = request.path_params["id"]
        return _moved(image_id, await (await self._studio()).trash([image_id]))

    async def restore(self, request: Request, _fields: Mapping[str, str]) -> Done:
        await self._tidying()
        image_id = request.path_params["id"]
        return _moved(image_id, await (await self._studio()).restore([image_id]))

    async def about_deleting(self, request: Request, _fields: Mapping[str, str]) -> Done:
        """Says what would be deleted for good; the page sends the token back to confirm."""
        await self._tidying()
        gone = await (await self._studio()).about_deleting(request.path_params["id"])
        return {
            "token": gone.token,
            "path": gone.path,
            "bytes": gone.bytes,
            "children": gone.children,
            "go": f"pictures/{gone.id}?delete={gone.token}",
        }

    async def delete_for_good(self, request: Request, fields: Mapping[str, str]) -> Done:
        await self._tidying()
        gone = await (await self._studio()).delete_for_good(request.path_params["id"], fields.get("token", ""))
        return {"deleted": gone.id, "go": ""}

    async def open_folder(self, request: Request, _fields: Mapping[str, str]) -> Done:
        """Opens the folder of a picture by its id alone: a path that a page names opens nothing."""
        await self._open("output_stats", "the gallery needs")
        found = await (await self._studio()).found(request.path_params["id"])
        path = found.record.trash_path or found.record.path
        if path is None:
            raise RequestError(f"{found.record.id} has no file on this machine.")
        await asyncio.to_thread(show_in_folder, Path(path))
        return {"go": f"pictures/{found.record.id}"}

    async def keep_mask(self, request: Request) -> Done:
        """Keeps the mask that was painted on a picture, and hands it to the agent that asked for it. Where the process that
        asked has ended, the mask is kept under the id that the agent was promised.
        """
        await self._open("output_stats", "the gallery needs")
        await self._open("edit_region", "a mask is painted for")
        png = await body_of(request, MAX_FILE_BYTES)
        asked = request.query_params.get("ask") or None
        if asked is not None and not is_image_id(asked):
            raise RequestError(f"{shorten(asked)} is no id that a mask could have; nothing was kept.")
        painting = self._paintings.get(asked) if asked is not None else None
        image_id = request.path_params["id"]
        if painting is not None and painting.image_id != image_id:
            raise RequestError("Your assistant asked about another picture.")
        mask = (await (await self._studio()).keep_mask(image_id, png, promised=asked)).record.id
        if asked is None:
            return {"id": mask}
        waiting = painting is not None and painting.waiting is not None
        if painting is not None:
            painting.done.set()
        if waiting:
            words = f"Your assistant goes on with the mask {mask}; this page may be closed."
        else:
            words = (
                f"The mask is kept as {mask}. Tell your assistant that you have painted: call edit_region again with image "
                f"{image_id} and mask {mask}."
            )
        return {"id": mask, "waiting": waiting, "words": words}

    async def quote(self, _request: Request, fields: Mapping[str, str]) -> Done:
        """The price of an edit, and the key under which it is made once, however often it is asked for."""
        told = await self._tools.call("edit_region", {**_edit(fields), "dry_run": True}, _silent)
        price = told["estimated_usd"]
        return {
            "summary": told["summary"],
            "refused": told["would_be_refused"],
            "free": told["backend"] == "emulator",
            "max_cost_usd": math.ceil(price * 100) / 100 if price is not None else None,
            "key": f"gallery-{secrets.token_urlsafe(16)}",
        }

    async def edit(self, _request: Request, fields: Mapping[str, str]) -> Done:
        """Makes an edit whose price was shown. The same key again returns the same picture and costs nothing."""
        key = fields.get("key", "")
        if not key:
            raise RequestError("This edit has no key; ask for its price first. Nothing was sent.")
        arguments: dict[str, Any] = {**_edit(fields), "idempotency_key": key}
        if fields.get("max_cost_usd"):
            arguments["max_cost_usd"] = _number("max_cost_usd", fields["max_cost_usd"])

        async def progress(done: float, total: float, words: str) -> None:
            self._news.tell("progress", {"key": key, "done": done, "total": total, "words": words})

        told = await self._tools.call("edit_region", arguments, progress)
        made = told["images"][0]["id"]
        return {"id": made, "summary": told["summary"], "go": f"pictures/{made}?compare=slider"}

    async def _tidying(self) -> None:
        """Raises NotAllowed where the policy closes the gallery or the trash."""
        await self._open("output_stats", "the gallery needs")
        await self._open("maintenance", "the trash needs")

    async def _open(self, tool: str, why: str) -> None:
        """Raises NotAllowed where the policy closes a tool."""
        if await self._tools.closed(tool):
            raise NotAllowed(f"The policy does not allow {tool}, which {why}.")


async def _silent(_done: float, _total: float, _words: str) -> None:
    pass


def _edit(fields: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of edit_region from a form. Raises RequestError for a form that lacks one."""
    given = {name: fields[name] for name in EDITED if fields.get(name, "").strip()}
    for name, words in (("image", "a picture"), ("mask", "a mask"), ("instruction", "what should change")):
        if name not in given:
            raise RequestError(f"This edit has not {words}; nothing was sent.")
    return {**given, **{name: int(_number(name, given[name])) for name in NUMBERS if name in given}}


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{name} {shorten(text)} is not a number.")
    return number


def _rating(text: str) -> int | None:
    if text in ("", "0"):
        return None
    if text not in ("1", "2", "3", "4", "5"):
        raise RequestError(f"The rating is {shorten(text)}; it goes from 1 to 5.")
    return int(text)


def _moved(image_id: str, report: Any) -> Done:
    """The answer to a move. Raises RequestError when nothing was moved."""
    if not report.actions:
        raise RequestError(" ".join(report.left) or f"{image_id} stays where it is.")
    return {"moved": image_id, "go": f"pictures/{image_id}"}
