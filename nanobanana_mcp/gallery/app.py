"""The gallery's pages, pictures and actions, behind the guard."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from nanobanana_mcp.domain.errors import (
    BudgetExceeded,
    NotAllowed,
    RequestError,
    ServiceError,
    SetupError,
    SourceNotFound,
    StudioError,
)
from nanobanana_mcp.gallery.actions import Actions
from nanobanana_mcp.gallery.guard import HEADER, Door, Guard, check_token, form_of
from nanobanana_mcp.gallery.pages import SHOWN, Pages

if TYPE_CHECKING:
    from nanobanana_mcp.gallery.events import News
    from nanobanana_mcp.gallery.paintings import Paintings
    from nanobanana_mcp.gallery.serve import Tools
    from nanobanana_mcp.studio.studio import Studio

Action = Callable[[Request, dict[str, str]], Awaitable[dict[str, Any]]]
"""Carries out a form, whose fields it gets."""

DECODED = 2
"""Pictures that are read at once for pages: a screen full of large photos leaves threads for the agent's own calls."""

STATUS: tuple[tuple[type[StudioError], HTTPStatus], ...] = (
    (SourceNotFound, HTTPStatus.NOT_FOUND),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (RequestError, HTTPStatus.BAD_REQUEST),
    (BudgetExceeded, HTTPStatus.PAYMENT_REQUIRED),
    (ServiceError, HTTPStatus.BAD_GATEWAY),
    (SetupError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def gallery_app(
    studio: "Callable[[], Awaitable[Studio]]", tools: "Tools", door: Door, news: "News", paintings: "Paintings"
) -> Starlette:
    """Makes the application, whose addresses all lie in the door's folder."""
    pages = Pages(studio, tools, door, paintings)
    actions = Actions(studio, tools, news, paintings)

    def form(path: str, action: Action) -> Route:
        """A route for an action on a form: a script gets the action's answer, and a page goes where `go` leads."""

        async def act(request: Request) -> Response:
            fields = await form_of(request, door)
            done = await action(request, fields)
            if wants_json(request):
                return JSONResponse(done)
            return RedirectResponse(f"{door.folder}/{done.get('go', '')}", status_code=HTTPStatus.SEE_OTHER)

        return Route(path, act, methods=["POST"])

    async def keep_mask(request: Request) -> Response:
        check_token(request.headers.get(HEADER, ""), door)
        return JSONResponse(await actions.keep_mask(request))

    async def listen(_request: Request) -> Response:
        await pages.reading()
        return StreamingResponse(allowed_news(), media_type="text/event-stream")

    async def allowed_news() -> AsyncIterator[str]:
        """The news until the policy closes output_stats, which it may do while a page is open."""
        async with aclosing(news.listen()) as told:
            async for words in told:
                if await tools.closed("output_stats"):
                    return
                yield words

    decoding = asyncio.Semaphore(DECODED)

    async def read(request: Request, *, small: bool = False) -> Response:
        """The bytes of a picture, for as long as the browser waits for them."""
        opened = await pages.reading()
        async with decoding:
            if await left(request):
                return Response(status_code=HTTPStatus.NO_CONTENT)
            data, mime_type = await opened.picture(request.path_params["id"], thumbnail=small)
        return Response(data, media_type=mime_type, headers={"cache-control": "private, max-age=3600"})

    async def thumbnail(request: Request) -> Response:
        return await read(request, small=True)

    async def file(request: Request) -> Response:
        record = (await (await pages.reading()).found(request.path_params["id"])).record
        response = await read(request)
        inline = response.media_type in SHOWN and "download" not in request.query_params
        name = quote(Path(record.trash_path or record.path or record.id).name, errors="replace")
        response.headers["content-disposition"] = f"{'inline' if inline else 'attachment'}; filename*=UTF-8''{name}"
        return response

    async def said(request: Request, error: Exception) -> Response:
        """Answers with an error in its own words."""
        status = next((status for kind, status in STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
        if wants_json(request):
            return JSONResponse({"error": str(error)}, status_code=status)
        return pages.message("That did not work", str(error), status=status)

    async def strange(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return pages.message(
            "There is nothing here", "No page of the gallery has this address.", status=error.status_code
        )

    of_picture: dict[str, Action] = {
        "notes": actions.annotate,
        "trash": actions.trash,
        "restore": actions.restore,
        "deletion": actions.about_deleting,
        "delete": actions.delete_for_good,
        "folder": actions.open_folder,
    }
    routes = [
        Route("/", pages.grid),
        Route("/api/pictures", pages.found_json),
        Route("/api/landmarks", pages.landmarks_json),
        Route("/api/differences/{id}", pages.difference_json),
        Route("/pictures/{id}", pages.picture),
        Route("/paint/{id}", pages.paint),
        Route("/thumbs/{id}", thumbnail),
        Route("/files/{id}", file),
        Route("/events", listen),
        *(form(f"/pictures/{{id}}/{name}", action) for name, action in of_picture.items()),
        form("/edits/quote", actions.quote),
        form("/edits", actions.edit),
        Route("/masks/{id}", keep_mask, methods=["POST"]),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]
    return Starlette(
        routes=[Mount(door.folder, routes=routes)],
        middleware=[Middleware(Guard, door=door)],
        exception_handlers={StudioError: said, HTTPException: strange},
    )


async def left(request: Request) -> bool:
    """Tells whether the browser that asked has stopped waiting, as it does when a person scrolls on."""
    try:
        await request.body()
    except ClientDisconnect:
        return True
    return await request.is_disconnected()


def wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")
