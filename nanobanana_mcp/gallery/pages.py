"""The pages: the grid, one picture, and the one to paint on. All of them can be read without a script."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from nanobanana_mcp.domain.errors import NotAllowed, RequestError, SourceNotFound
from nanobanana_mcp.domain.finding import Found, FoundPage, ViewRequest
from nanobanana_mcp.domain.text import counted, size_of
from nanobanana_mcp.gallery.lineage import draw, name_of
from nanobanana_mcp.gallery.wishes import CHOICES, FIELDS, asked_in, find_request, written
from nanobanana_mcp.studio.results.finding import found_structure

if TYPE_CHECKING:
    from nanobanana_mcp.gallery.guard import Door
    from nanobanana_mcp.gallery.paintings import Paintings
    from nanobanana_mcp.gallery.serve import Tools
    from nanobanana_mcp.studio.studio import Studio

PAGE = 100
"""Pictures that are asked for at once; `grid.js` counts in these."""

LARGEST_PAGE = 200

SHOWN = frozenset({"image/png", "image/jpeg", "image/webp", "image/avif", "image/gif"})
"""The formats that every browser draws; anything else is downloaded."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


class Pages:
    """The pages that a person looks at, and the JSON that their scripts ask for."""

    def __init__(
        self, studio: "Callable[[], Awaitable[Studio]]", tools: "Tools", door: "Door", paintings: "Paintings"
    ) -> None:
        self._studio = studio
        self._tools = tools
        self._door = door
        self._paintings = paintings

    async def reading(self) -> "Studio":
        """Returns the studio for looking at pictures. Raises NotAllowed where the policy closes output_stats."""
        if await self._tools.closed("output_stats"):
            raise NotAllowed("The policy does not allow output_stats, which the gallery needs.")
        return await self._studio()

    async def grid(self, request: Request) -> Response:
        asked = asked_in(request.query_params)
        cursor = request.query_params.get("cursor") or None
        studio, problem = await self.reading(), ""
        try:
            page = await studio.find_images(find_request(asked, cursor=cursor, limit=PAGE))
        except RequestError as error:
            page, problem = FoundPage(pictures=(), cursor=None, total=0, notes=()), str(error)
        found = found_structure(page, item_json)
        return self._page(
            "grid.html",
            status=HTTPStatus.BAD_REQUEST if problem else HTTPStatus.OK,
            asked={**dict.fromkeys(FIELDS, ""), "kind": "picture", **asked},
            choices=CHOICES,
            narrowed=bool(set(asked) - {"query"}),
            found=found,
            counted=_counted(found["total"], len(found["images"])),
            problem=problem,
            nothing=nothing_in(asked),
            later=cursor is not None,
            first=written(asked),
            older=written(asked, cursor=page.cursor),
        )

    async def found_json(self, request: Request) -> Response:
        asked = asked_in(request.query_params)
        limit = request.query_params.get("limit", str(PAGE))
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 10) or not 1 <= int(limit) <= LARGEST_PAGE:
            raise RequestError(f"limit is a number from 1 to {LARGEST_PAGE}.")
        wish = find_request(asked, cursor=request.query_params.get("cursor") or None, limit=int(limit))
        page = found_structure(await (await self.reading()).find_images(wish), item_json)
        return JSONResponse({**page, "nothing": nothing_in(asked)})

    async def landmarks_json(self, request: Request) -> Response:
        """Says where each page of the grid begins, so that the scroll bar may be put anywhere."""
        wish = find_request(asked_in(request.query_params), cursor=None, limit=PAGE)
        marks = await (await self.reading()).landmarks(wish, PAGE)
        return JSONResponse({"total": marks.total, "cursors": ["", *marks.cursors] if marks.total is not None else []})

    async def difference_json(self, request: Request) -> Response:
        """Says how much of a picture differs from the one before it, in a sentence."""
        studio = await self.reading()
        found = await studio.found(request.path_params["id"])
        before = before_of(found)
        if before is None:
            raise RequestError(
                f"{found.record.id} was not made from one picture, so there is nothing to compare it with."
            )
        compared = (await studio.view(ViewRequest(image=found.record.id, compare_with=before))).look.difference
        assert compared is not None  # two pictures were given
        words = (
            f"{_percent(compared.changed)} of the picture changed (by more than {compared.tolerance} levels of 255)."
        )
        return JSONResponse({"words": words, "changed": compared.changed})

    async def picture(self, request: Request) -> Response:
        studio = await self.reading()
        found = await studio.found(request.path_params["id"])
        lineage = await studio.lineage(found.record.id)
        return self._page(
            "picture.html",
            found=found,
            record=found.record,
            name=name_of(found.record),
            facts=facts(found, await studio.seed_of(found.record)),
            drawing=draw(lineage),
            before=before_of(found),
            tags=", ".join(found.tags),
            known_tags=[tag for tag, _ in await studio.tags()],
            deletion=request.query_params.get("delete", ""),
            unplugged=await asyncio.to_thread(_unplugged, found),
            size=size_of(found.record.bytes),
            shown=found.state != "missing" and found.record.mime_type in SHOWN,
            paintable=found.kind not in ("mask", "part") and found.record.width > 0,
        )

    async def paint(self, request: Request) -> Response:
        studio = await self.reading()
        found = await studio.found(request.path_params["id"])
        if found.state == "missing" or not found.record.width:
            raise SourceNotFound(f"The file of {found.record.id} is not there, so nothing can be painted on it.")
        asked = request.query_params.get("ask")
        painting = self._paintings.get(asked) if asked is not None else None
        return self._page(
            "paint.html",
            found=found,
            record=found.record,
            name=name_of(found.record),
            painting=painting,
            shown=found.record.mime_type in SHOWN,
            forgotten=asked is not None and painting is None,
        )

    def message(self, heading: str, words: str, *, status: int) -> Response:
        return self._page("message.html", status=status, heading=heading, words=words)

    def _page(self, template: str, /, *, status: int = HTTPStatus.OK, **values: Any) -> Response:
        page = _TEMPLATES.get_template(template)
        return HTMLResponse(
            page.render(base=self._door.folder, form_token=self._door.form_token, **values), status_code=status
        )


def before_of(found: Found) -> str | None:
    """The id of the picture that this one is an edit of; None for other pictures."""
    return next((parent.image_id for parent in found.record.parents if parent.role == "base"), None)


def _unplugged(found: Found) -> bool:
    """Tells whether the folder of a file that is gone is not there either, as when its disk is not connected."""
    return found.state == "missing" and found.record.path is not None and not Path(found.record.path).parent.is_dir()


def item_json(found: Found) -> dict[str, Any]:
    record = found.record
    return {
        "id": record.id,
        "width": record.width,
        "height": record.height,
        "alt": name_of(record),
        "gone": found.state == "missing",
    }


def facts(found: Found, seed: int | None) -> list[tuple[str, str]]:
    """The facts about a picture that its page lists, each with its name."""
    record = found.record
    emulated = record.backend == "emulator"
    kept = record.trash_path or record.path
    given = [
        ("Made", f"{record.created_at.astimezone():%Y-%m-%d %H:%M}"),
        (
            "Size",
            f"{record.width} x {record.height}, {record.mime_type.removeprefix('image/').upper()}, {size_of(record.bytes)}",
        ),
        ("Model", f"{record.model_id}{f' ({record.tier})' if record.tier else ''}" if record.model_id else ""),
        (
            "Cost",
            ("nothing (emulator)" if emulated else f"${found.cost_usd:.4f}") if found.cost_usd is not None else "",
        ),
        ("Seed", "" if seed is None else str(seed)),
        ("Where", kept or "in the Files API only"),
        ("Id", record.id),
    ]
    return [(name, words) for name, words in given if words]


def nothing_in(asked: Mapping[str, str]) -> str:
    """The sentence that a grid without pictures says."""
    if not asked:
        return "No pictures yet. What your assistant makes appears here by itself."
    if asked.get("kind") == "trash" and len(asked) == 1:
        return "The trash is empty."
    return "No picture is like that. Try fewer words, or clear the filter."


def _percent(share: float) -> str:
    return "Nothing" if share == 0 else "Less than 0.1%" if share < 0.001 else f"{share * 100:.1f}%"


def _counted(total: int | None, there: int) -> str:
    return counted(total, "picture") if total is not None else f"{there}+ pictures"
