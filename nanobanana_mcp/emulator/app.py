"""The emulator itself: Gemini's endpoints under /v1 and /v1beta, and its own switches under /emulator."""

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanobanana_mcp.emulator import delivery, rules, schema, wire
from nanobanana_mcp.emulator.answers import Charge, usage_metadata
from nanobanana_mcp.emulator.batches import Batches
from nanobanana_mcp.emulator.control import Control
from nanobanana_mcp.emulator.delivery import Dropped
from nanobanana_mcp.emulator.desk import Desk
from nanobanana_mcp.emulator.files import Files, page_of, paging
from nanobanana_mcp.emulator.keys import key_of
from nanobanana_mcp.emulator.models import METHODS, MODELS, Model
from nanobanana_mcp.emulator.recording import RecordedRequest, recorded
from nanobanana_mcp.emulator.wire import GoogleError

VERSIONS = ("v1", "v1beta")


class Emulator:
    """A Gemini Developer API in memory. `app` is the ASGI callable, `control` its switches.

    `requests` holds the last 1000 requests, `charges` one entry per answer that Google would bill.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.app: ASGIApp = self
        self.control = Control()
        self.requests: list[RecordedRequest] = []
        self.charges: list[Charge] = []
        self._files = Files(clock=clock, control=self.control)
        self._desk = Desk(clock=clock, control=self.control, files=self._files, charges=self.charges)
        self._batches = Batches(clock=clock, control=self.control, files=self._files, desk=self._desk)
        self._counts: Counter[str] = Counter()
        self._router = Router(self._routes(), default=_not_found, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application itself."""
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        waiting: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return waiting.popleft() if waiting else await receive()

        if not scope["path"].startswith("/emulator/"):
            self.requests.append(await asyncio.to_thread(recorded, Request(scope), body))
            del self.requests[:-1000]
        try:
            await self._router(scope, again, send)
        except GoogleError as refusal:
            await JSONResponse(refusal.body(), refusal.code)(scope, again, send)
        except Dropped as dropped:
            await delivery.close(dropped, receive, send)

    def _routes(self) -> list[Route]:
        routes = [
            Route("/emulator/state", self._state),
            Route("/emulator/control", self._switch, methods=["POST"]),
            Route("/emulator/reset", self._reset, methods=["POST"]),
        ]
        for version in VERSIONS:
            routes += [
                Route(f"/{version}/models", self._list_models),
                Route(f"/{version}/models/{{model}}", self._get_model),
                Route(f"/{version}/models/{{model}}:{{method}}", self._call_model, methods=["POST"]),
                Route(f"/upload/{version}/files", self._upload, methods=["POST"]),
                Route(f"/{version}/files", self._list_files),
                Route(f"/{version}/files/{{file}}:download", self._download),
                Route(f"/{version}/files/{{file}}", self._one_file, methods=["GET", "DELETE"]),
                *self._batches.routes(version),
            ]
        return routes

    # Models

    async def _list_models(self, request: Request) -> Response:
        self._key(request)
        alive = [model for model in MODELS.values() if not model.retired or model.id in self.control.revive]
        size, token = paging(request)
        page, following = page_of(alive, size=size, token=token, usual=50, largest=1000)
        more = {"nextPageToken": following} if following else {}
        return JSONResponse({"models": [model.resource() for model in page]} | more)

    async def _get_model(self, request: Request) -> Response:
        self._key(request)
        return JSONResponse(self._model(request, "getModel").resource())

    def _model(self, request: Request, method: str) -> Model:
        version = request.url.path.split("/")[1]
        return rules.find_model(
            request.path_params["model"], version=version, method=method, revive=self.control.revive
        )

    async def _call_model(self, request: Request) -> Response:
        method = request.path_params["method"]
        key = self._key(request)
        if method == "countTokens":
            return await self._count_tokens(request, key)
        if method == "batchGenerateContent":
            return await self._batches.make(request, model=self._model(request, method), key=key)
        if method not in METHODS:
            raise GoogleError(404, f"Method {method} is not found.")
        self._counts[method] += 1
        self._counts["in_flight"] += 1
        self._counts["peak_in_flight"] = max(self._counts["peak_in_flight"], self._counts["in_flight"])
        try:
            return await self._generate(request, key)
        finally:
            self._counts["in_flight"] -= 1

    async def _count_tokens(self, request: Request, key: str) -> Response:
        model = self._model(request, "countTokens")
        parsed = wire.parse(await request.body(), schema.COUNT_TOKENS)
        inner = parsed.get("generateContentRequest", parsed)
        ask = await asyncio.to_thread(self._desk.understand, inner, model=model, key=key)
        usage = usage_metadata(ask)
        return JSONResponse(
            {"totalTokens": usage["totalTokenCount"], "promptTokensDetails": usage["promptTokensDetails"]}
        )

    async def _generate(self, request: Request, key: str) -> Response:
        parsed = await asyncio.to_thread(wire.parse, await request.body(), schema.GENERATE_CONTENT)
        method = request.path_params["method"]
        model = self._model(request, method)
        form = partial(delivery.deliver, stream=method == "streamGenerateContent")
        return await self._desk.respond(parsed, model=model, key=key, receive=request.receive, form=form)

    # Files

    async def _upload(self, request: Request) -> Response:
        headers, body = request.headers, await request.body()
        upload_id = request.query_params.get("upload_id")
        if upload_id is not None:
            return self._take_chunk(upload_id, headers, body)
        key = self._key(request)
        if headers.get("x-goog-upload-protocol") != "resumable" or headers.get("x-goog-upload-command") != "start":
            raise GoogleError(
                400, "An upload begins with X-Goog-Upload-Protocol: resumable and X-Goog-Upload-Command: start."
            )
        file = wire.parse(body, schema.START_UPLOAD).get("file", {})
        upload_id = self._files.start(key=key, file=file, headers=headers)
        url = str(request.url.replace(query=f"upload_id={upload_id}&upload_protocol=resumable"))
        return Response(
            headers={
                "x-goog-upload-status": "active",
                "x-goog-upload-url": url,
                "x-goog-upload-chunk-granularity": "8388608",
            }
        )

    def _take_chunk(self, upload_id: str, headers: Headers, body: bytes) -> Response:
        command, offset = headers.get("x-goog-upload-command", ""), headers.get("x-goog-upload-offset")
        status, file = self._files.take(upload_id, command=command, offset=offset, data=body)
        answer = {"x-goog-upload-status": status}
        if file is not None:
            return JSONResponse({"file": file.resource()}, headers=answer)
        return Response(headers=answer | {"x-goog-upload-size-received": str(self._files.received(upload_id))})

    async def _list_files(self, request: Request) -> Response:
        size, token = paging(request)
        page, following = self._files.page(key=self._key(request), size=size, token=token)
        answer: dict[str, Any] = {"files": [file.resource() for file in page]} if page else {}
        return JSONResponse(answer | ({"nextPageToken": following} if following else {}))

    async def _one_file(self, request: Request) -> Response:
        key, file_id = self._key(request), request.path_params["file"]
        if request.method == "DELETE":
            self._files.delete(file_id, key=key)
            return JSONResponse({})
        return JSONResponse(self._files.get(file_id, key=key).resource())

    async def _download(self, request: Request) -> Response:
        file = self._files.download(request.path_params["file"], key=self._key(request))
        return Response(file.data, media_type=file.mime)

    def _key(self, request: Request) -> str:
        return key_of(request, valid_keys=self.control.valid_keys)

    # The emulator's own

    async def _state(self, request: Request) -> Response:
        counts = {
            "requests": len(self.requests),
            "generateContent": self._counts["generateContent"],
            "streamGenerateContent": self._counts["streamGenerateContent"],
            "in_flight": self._counts["in_flight"],
            "peak_in_flight": self._counts["peak_in_flight"],
            "queue": len(self.control.queue),
        }
        return JSONResponse(
            {
                "usd": round(sum(charge.usd for charge in self.charges), 9),
                "charges": [asdict(charge) for charge in self.charges],
                "counts": counts,
                "requests": [asdict(each) for each in self.requests],
            }
        )

    async def _switch(self, request: Request) -> Response:
        try:
            switches = json.loads(await request.body())
            if not isinstance(switches, dict):
                raise ValueError("The switches are a JSON object.")
            self.control.update(switches)
        except ValueError as wrong:
            raise GoogleError(400, str(wrong)) from wrong
        return JSONResponse({})

    async def _reset(self, request: Request) -> Response:
        self.reset()
        return JSONResponse({})

    def reset(self) -> None:
        """Makes everything as new: no requests, charges, files, batches or counts, every switch as at the start."""
        self.control.reset()
        self._files.clear()
        self._batches.clear()
        self._desk.clear()
        in_flight = self._counts["in_flight"]
        self._counts.clear()
        self._counts["in_flight"] = in_flight
        self.requests.clear()
        self.charges.clear()


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    raise GoogleError(404, f"The path {scope['path']} is not found.")
