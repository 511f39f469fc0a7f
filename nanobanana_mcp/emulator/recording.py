"""Remembers the requests that the emulator got."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from nanobanana_mcp.emulator import wire

_KEY_IN_QUERY = re.compile(r"(^|&)key=[^&]*")


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """One request as it came; header names in lower case, the key left out, pictures in the JSON as their hashes.

    `json` is None when the body was none. `body_bytes` and `body_sha256` are of the raw body.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    json: Any
    body_bytes: int
    body_sha256: str


def recorded(request: Request, body: bytes) -> RecordedRequest:
    """The request as it is remembered. Takes CPU time for large bodies; call it in a thread."""
    try:
        content = wire.redacted(json.loads(body))
    except ValueError:
        content = None
    return RecordedRequest(
        method=request.method,
        path=request.url.path,
        query=_KEY_IN_QUERY.sub(r"\1", request.url.query).strip("&"),
        headers={name: value for name, value in request.headers.items() if name != "x-goog-api-key"},
        json=content,
        body_bytes=len(body),
        body_sha256=hashlib.sha256(body).hexdigest(),
    )
