"""Batches: requests handed in together, inline or as the lines of a file, answered later at half the price."""

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nanobanana_mcp.emulator import schema, wire
from nanobanana_mcp.emulator.control import Control
from nanobanana_mcp.emulator.desk import Desk
from nanobanana_mcp.emulator.files import Files, page_of, paging, timestamp
from nanobanana_mcp.emulator.keys import key_of
from nanobanana_mcp.emulator.models import Model
from nanobanana_mcp.emulator.wire import GoogleError

_KIND = "type.googleapis.com/google.ai.generativelanguage.v1beta.GenerateContentBatch"
_RPC_CODES = {
    "CANCELLED": 1,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request of a batch, or what is wrong with its line; `label` is how its answer is told from the others'."""

    label: dict[str, Any]
    request: dict[str, Any] | GoogleError


@dataclass(kw_only=True)
class Batch:
    """One batch; `answers` grows while it is worked on, `file` is what its answers were written to."""

    id: str
    key: str
    model: Model
    display_name: str
    items: list[Item]
    from_file: bool
    created: float
    ended: float | None = None
    state: Literal["PENDING", "SUCCEEDED", "CANCELLED"] = "PENDING"
    answers: list[dict[str, Any]] = field(default_factory=list)
    file: str | None = None
    at_work: asyncio.Lock = field(default_factory=asyncio.Lock)

    def resource(self) -> dict[str, Any]:
        """The operation as Google sends it; its metadata is the batch."""
        failed = sum("error" in answer for answer in self.answers)
        counts = {
            "requestCount": len(self.items),
            "successfulRequestCount": len(self.answers) - failed,
            "failedRequestCount": failed,
            "pendingRequestCount": len(self.items) - len(self.answers),
        }
        metadata: dict[str, Any] = {
            "@type": _KIND,
            "name": f"batches/{self.id}",
            "model": f"models/{self.model.id}",
            "displayName": self.display_name,
            "state": f"BATCH_STATE_{self.state}",
            "createTime": timestamp(self.created),
            "updateTime": timestamp(self.ended or self.created),
            "batchStats": {name: str(count) for name, count in counts.items() if count},
        }
        operation: dict[str, Any] = {"name": f"batches/{self.id}", "metadata": metadata}
        if self.ended is None:
            return operation
        metadata["endTime"] = timestamp(self.ended)
        if self.state == "CANCELLED":
            return operation | {"done": True, "error": {"code": 1, "message": "The batch was cancelled."}}
        output = {"responsesFile": self.file} if self.file else {"inlinedResponses": {"inlinedResponses": self.answers}}
        metadata["output"] = output
        return operation | {"done": True, "response": {"@type": f"{_KIND}Output"} | output}


class Batches:
    """Every batch of every key, in memory.

    Nothing runs beside the requests: a batch is worked on by the first look at it once its time has come.
    """

    def __init__(self, *, clock: Callable[[], float], control: Control, files: Files, desk: Desk) -> None:
        self._clock = clock
        self._control = control
        self._files = files
        self._desk = desk
        self._batches: dict[str, Batch] = {}

    def routes(self, version: str) -> list[Route]:
        """The routes of all requests about batches but their making, which is a method of the model."""
        return [
            Route(f"/{version}/batches", self._list),
            Route(f"/{version}/batches/{{batch}}:cancel", self._cancel, methods=["POST"]),
            Route(f"/{version}/batches/{{batch}}", self._one, methods=["GET", "DELETE"]),
        ]

    async def make(self, request: Request, *, model: Model, key: str) -> Response:
        """Answer :batchGenerateContent."""
        parsed = await asyncio.to_thread(wire.parse, await request.body(), schema.BATCH_GENERATE_CONTENT)
        given = parsed.get("batch", {})
        if given.get("webhookConfig"):
            raise GoogleError(501, "The emulator sends no webhooks.")
        source = given.get("inputConfig", {})
        if ("fileName" in source) == ("requests" in source):
            raise GoogleError(
                400,
                "* BatchGenerateContentRequest.batch.input_config: exactly one of file_name and requests is needed.\n",
            )
        if "fileName" in source:
            file = self._files.get(source["fileName"].removeprefix("files/"), key=key)
            items = await asyncio.to_thread(_lines, file.data)
        else:
            items = [
                Item(
                    label={"metadata": each["metadata"]} if "metadata" in each else {}, request=each.get("request", {})
                )
                for each in source["requests"].get("requests", [])
            ]
        if not items:
            raise GoogleError(400, "* BatchGenerateContentRequest.batch.input_config: there are no requests in it.\n")
        batch = Batch(
            id=secrets.token_hex(16),
            key=key,
            model=model,
            display_name=given.get("displayName", ""),
            items=items,
            from_file="fileName" in source,
            created=self._clock(),
        )
        self._batches[batch.id] = batch
        return JSONResponse(batch.resource())

    async def _list(self, request: Request) -> Response:
        key, (size, token) = self._key(request), paging(request)
        mine = sorted(
            (batch for batch in self._batches.values() if batch.key == key),
            key=lambda batch: (batch.created, batch.id),
            reverse=True,
        )
        page, following = page_of(mine, size=size, token=token, usual=10, largest=100)
        for batch in page:
            await self._look(batch)
        answer: dict[str, Any] = {"operations": [batch.resource() for batch in page]} if page else {}
        return JSONResponse(answer | ({"nextPageToken": following} if following else {}))

    async def _one(self, request: Request) -> Response:
        batch = self._find(request)
        if request.method == "DELETE":
            del self._batches[batch.id]
            return JSONResponse({})
        await self._look(batch)
        return JSONResponse(batch.resource())

    async def _cancel(self, request: Request) -> Response:
        batch = self._find(request)
        if batch.ended is not None:
            raise GoogleError(400, f"batches/{batch.id} has already ended.", status="FAILED_PRECONDITION")
        batch.state, batch.ended = "CANCELLED", self._clock()
        return JSONResponse({})

    def _find(self, request: Request) -> Batch:
        key, batch = self._key(request), self._batches.get(request.path_params["batch"])
        if batch is None or batch.key != key:
            raise GoogleError(404, "Requested entity was not found.")
        return batch

    def _key(self, request: Request) -> str:
        return key_of(request, valid_keys=self._control.valid_keys)

    async def _look(self, batch: Batch) -> None:
        """Do the work that is due; a look that is broken off leaves the rest to the next one."""
        if self._clock() < batch.created + self._control.batch_s:
            return
        async with batch.at_work:
            while batch.state == "PENDING":
                if len(batch.answers) == len(batch.items):
                    if batch.from_file:
                        lines = "".join(f"{json.dumps(answer)}\n" for answer in batch.answers).encode()
                        kept = self._files.generate(
                            f"batch-{batch.id}", key=batch.key, data=lines, mime="application/jsonl"
                        )
                        batch.file = f"files/{kept.id}"
                    batch.state, batch.ended = "SUCCEEDED", self._clock()
                else:
                    batch.answers.append(await self._answer(batch.items[len(batch.answers)], batch))

    async def _answer(self, item: Item, batch: Batch) -> dict[str, Any]:
        try:
            if isinstance(item.request, GoogleError):
                raise item.request
            response = await self._desk.respond_in_batch(item.request, model=batch.model, key=batch.key)
        except GoogleError as refusal:
            # Without the details: google-genai reads them as strings and fails on the objects they are elsewhere.
            code = _RPC_CODES.get(refusal.status, 2)
            return item.label | {"error": {"code": code, "message": refusal.message}}
        return item.label | {"response": response}

    def clear(self) -> None:
        """Forget every batch."""
        self._batches.clear()


def _lines(data: bytes) -> list[Item]:
    return [_line(line) for line in data.splitlines() if line.strip()]


def _line(line: bytes) -> Item:
    label: dict[str, Any] = {}
    try:
        parsed = wire.parse(line, schema.BATCH_LINE)
        label = {"key": parsed["key"]} if "key" in parsed else {}
        return Item(label=label, request=wire.read(parsed.get("request", {}), schema.GENERATE_CONTENT, "request"))
    except GoogleError as fault:
        return Item(label=label, request=fault)
