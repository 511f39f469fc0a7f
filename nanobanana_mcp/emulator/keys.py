"""Finds the API key of a request, which says who is calling."""

import re

from starlette.requests import Request

from nanobanana_mcp.emulator.wire import GoogleError

_WELL_FORMED = re.compile(r"[A-Za-z0-9_.\-]{4,200}")


def key_of(request: Request, *, valid_keys: set[str] | None) -> str:
    """The key from the header or the query. Raises GoogleError 403 when there is none and 400 when it is not valid."""
    key = request.headers.get("x-goog-api-key") or request.query_params.get("key")
    if not key:
        raise GoogleError(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). "
            "Please use API Key or other form of API consumer identity to call this API.",
        )
    if key in valid_keys if valid_keys is not None else _WELL_FORMED.fullmatch(key):
        return key
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }
    raise GoogleError(400, "API key not valid. Please pass a valid API key.", details=[reason])
