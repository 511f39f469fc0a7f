"""Sends an answer: as JSON, as events, as a flood, in half, or not at all."""

import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Send

from nanobanana_mcp.emulator.answers import envelope, usage_metadata
from nanobanana_mcp.emulator.control import Behaviour, Block, Drop, Finish, Foreign, Hang, HttpError, Huge, Redirect
from nanobanana_mcp.emulator.models import Model
from nanobanana_mcp.emulator.rules import Ask
from nanobanana_mcp.emulator.wire import GoogleError

_CHUNK = 1024 * 1024


class Dropped(httpx2.RemoteProtocolError):
    """The connection ends after `half` of an answer or none; a client in the same process sees this very error."""

    def __init__(self, half: bytes | None = None) -> None:
        super().__init__("Server disconnected without sending a complete response.")
        self.half = half


async def close(dropped: Dropped, receive: Receive, send: Send) -> None:
    """Send what `dropped` still has, then close the socket; raise `dropped` where there is none but an ASGI client."""
    if dropped.half is not None:
        length = str(2 * len(dropped.half)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": dropped.half, "more_body": True})
    # ASGI has no message for hanging up; uvicorn's `send` is a method of the object that owns the socket.
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise dropped
    transport.close()
    await until_gone(receive)


async def until_gone(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def instead(behaviour: Behaviour | None, *, model: Model, receive: Receive) -> Response | None:
    """The answer when the model is never asked, None when it is. Raises GoogleError and Dropped."""
    match behaviour:
        case HttpError():
            raise error(behaviour, model=model.id)
        case Foreign():
            return Response(behaviour.body, behaviour.code, media_type=behaviour.media_type)
        case Redirect():
            return Response(status_code=behaviour.code, headers={"location": behaviour.url})
        case Drop(when="before"):
            raise Dropped
        case Hang():
            await until_gone(receive)
            raise Dropped
    return None


def refused(behaviour: Behaviour | None, ask: Ask, *, serial: int, named: bool) -> dict[str, Any] | None:
    """The answer of a model that will not draw, None when it does."""
    rest = envelope(ask, usage_metadata(ask), serial=serial, named=named)
    match behaviour:
        case Block():
            return {"promptFeedback": {"blockReason": behaviour.reason}} | rest
        case Finish():
            return {"candidates": [candidate(behaviour)]} | rest
    return None


def deliver(answer: dict[str, Any], *, stream: bool) -> Response:
    """The answer in one piece, or as server-sent events of one part each."""
    if not stream:
        return Response(to_json(answer), media_type="application/json")  # json takes three times as long for a picture
    events = "".join(f"data: {json.dumps(event)}\r\n\r\n" for event in _events(answer))
    return Response(events, media_type="text/event-stream")


def _events(answer: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = answer.get("candidates", [])
    parts = candidates[0].get("content", {}).get("parts") if candidates else None
    if not parts:
        return [answer]
    *first, last = parts
    alone = [{"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}]} for part in first]
    final = candidates[0] | {"content": {"parts": [last], "role": "model"}}
    return [*alone, answer | {"candidates": [final]}]


def flood(behaviour: Huge) -> Response:
    """An answer of exactly `behaviour.bytes` bytes of JSON, sent piece by piece."""
    head = b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"'
    tail = b'"}}],"role":"model"},"finishReason":"STOP","index":0}]}'
    filling = max(0, behaviour.bytes - len(head) - len(tail))

    async def plain() -> AsyncIterator[bytes]:
        yield head
        for start in range(0, filling, _CHUNK):
            yield b"A" * min(_CHUNK, filling - start)
        yield tail

    async def packed() -> AsyncIterator[bytes]:
        packer = zlib.compressobj(wbits=31)
        async for piece in plain():
            yield packer.compress(piece)
        yield packer.flush()

    if behaviour.gzip:
        return StreamingResponse(packed(), media_type="application/json", headers={"content-encoding": "gzip"})
    return StreamingResponse(plain(), media_type="application/json")


def candidate(behaviour: Finish) -> dict[str, Any]:
    """A candidate without a picture, in the shape asked for."""
    contents: dict[str, dict[str, Any]] = {
        "absent": {},
        "empty": {"content": {}},
        "role_only": {"content": {"role": "model"}},
        "parts_null": {"content": {"parts": None}},
        "text": {"content": {"parts": [{"text": behaviour.text}], "role": "model"}},
    }
    said = {"finishMessage": behaviour.message} if behaviour.message is not None else {}
    return contents[behaviour.content] | {"finishReason": behaviour.reason, "index": 0} | said


def error(behaviour: HttpError, *, model: str) -> GoogleError:
    """The error with the details Google attaches to a used-up quota."""
    if behaviour.details == "none":
        return GoogleError(behaviour.code, behaviour.message, status=behaviour.status)
    per, tier, value = {
        "retry_info": ("Minute", "", "10"),
        "quota_day": ("Day", "", "250"),
        "quota_zero": ("Day", "-FreeTier", "0"),
    }[behaviour.details]
    free = "free_tier" if tier else "paid_tier"
    metric = f"generativelanguage.googleapis.com/generate_content_{free}_requests"
    violation = {
        "quotaMetric": metric,
        "quotaId": f"GenerateRequestsPer{per}PerProjectPerModel{tier}",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": value,
    }
    message = behaviour.message
    if behaviour.details == "quota_zero":
        message += f"\n* Quota exceeded for metric: {metric}, limit: 0, model: {model}"
    kind = "type.googleapis.com/google.rpc."
    details: list[dict[str, Any]] = [
        {
            "@type": kind + "Help",
            "links": [
                {
                    "description": "Learn more about Gemini API quotas",
                    "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
                }
            ],
        },
        {"@type": kind + "QuotaFailure", "violations": [violation]},
        {"@type": kind + "RetryInfo", "retryDelay": f"{behaviour.retry_delay_s:g}s"},
    ]
    return GoogleError(behaviour.code, message, status=behaviour.status, details=details)
