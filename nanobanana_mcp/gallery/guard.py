"""Lets in only the browser of the person at this machine.

Others can reach 127.0.0.1, too: a page of the web that makes the browser ask us, a name in the DNS that points here, or
another user of the machine, who can read the command line that starts a browser. So the gallery is entered by an
address with a token that works once. For it the browser gets a cookie, which it sends from our own pages only and to
the gallery's own folder only; nobody can guess that folder's name, which is needed since cookies do not tell ports
apart. When a token comes a second time, the browser that came first is shut out, since one of the two was not meant.
Every request has to name our host; none but the first, to that address, may come from another page; and every action
carries a token that only our pages know.
"""

import hmac
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanobanana_mcp.domain.errors import NotAllowed, RequestError

COOKIE = "nanobanana"
FIELD = "form_token"
"""The field of a form that has its token; a script sends it in the header X-Form-Token."""

HEADER = "x-form-token"
FORM_BYTES = 100_000
WAITING = 100
"""The most addresses that wait to be opened; beyond that the oldest is forgotten."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "same-origin",  # with no referrer at all a browser sends no origin with our own forms either
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
SAFE = frozenset({"GET", "HEAD"})

ENTER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>nanobanana</title>
<link rel="icon" href="{folder}/static/icon.svg"><meta http-equiv="refresh" content="0; url={folder}/{path}"></head>
<body><p><a href="{folder}/{path}">Go on to the gallery</a></p></body></html>
"""
"""The page that sets out for the gallery. A redirect would not do: the browser would count the site before it as the
sender, and not send the cookie."""

OUTSIDE = (
    "This gallery opens by an address that works once, for one browser. Run 'nanobanana gallery' for a new one, or ask your "
    "assistant for it."
)


class Door:
    """The way into one gallery. `host` is the host that the browser asks for, such as 127.0.0.1:8123."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.origin = f"http://{host}"
        self.folder = f"/{secrets.token_hex(8)}"
        self.form_token = secrets.token_urlsafe(24)
        self._given_out: dict[str, str] = {}
        self._cookies: dict[str, str] = {}
        """The cookie of each browser that was let in, by the token that it had."""

    def address(self, path: str = "") -> str:
        """An address that lets one browser in, once, and leads to a page of ours."""
        token = secrets.token_urlsafe(24)
        self._given_out[token] = path
        while len(self._given_out) > WAITING:
            self._given_out.pop(next(iter(self._given_out)))
        return f"{self.origin}{self.folder}/enter?token={token}"

    def enter(self, token: str) -> Response | None:
        """Lets in the browser that has a token, which works once: the answer sets its cookie and leads to the page.
        None for any other token.
        """
        path = self._given_out.pop(token, None)
        if path is None:
            return None
        self._cookies[token] = secrets.token_urlsafe(32)
        response = self.onward(path)
        response.set_cookie(COOKIE, self._cookies[token], path=f"{self.folder}/", httponly=True, samesite="strict")
        return response

    def onward(self, path: str = "") -> Response:
        """The answer that leads a browser with its cookie to a page."""
        return HTMLResponse(ENTER.format(folder=self.folder, path=path), headers={"cache-control": "no-store"})

    def throw_out(self, token: str) -> bool:
        """Shuts out the browser that came with a token. Returns whether there was one."""
        return self._cookies.pop(token, None) is not None

    def knows(self, headers: Headers) -> bool:
        """Tells whether a request comes from a browser that was let in."""
        pairs = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
        # Other programs at this host may have set cookies of the same name, so all of them are tried.
        given = [value.encode() for name, _, value in pairs if name == COOKIE]
        known = [one.encode() for one in self._cookies.values()]
        return any(hmac.compare_digest(one, other) for one in given for other in known)


class Guard:
    """Checks every request before it is served, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # WebSockets get no answer: nothing but HTTP is spoken here

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope) or self._entry(scope) or self._app
        await answer(scope, receive, headed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") != [self._door.host]:
            return _said(HTTPStatus.MISDIRECTED_REQUEST, f"This is {self._door.origin} and no other host.")
        if not scope["path"].startswith(f"{self._door.folder}/"):
            return _said(HTTPStatus.NOT_FOUND, "There is nothing here. " + OUTSIDE)
        origin = headers.get("origin")
        if origin != self._door.origin and (origin is not None or scope["method"] not in SAFE):
            return _said(HTTPStatus.FORBIDDEN, "This came from another page, and nothing was done.")
        if self._is_entry(scope):
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _said(HTTPStatus.FORBIDDEN, "This came from another page, and nothing was done.")
        if not self._door.knows(headers):
            return _said(HTTPStatus.UNAUTHORIZED, OUTSIDE)
        return None

    def _is_entry(self, scope: Scope) -> bool:
        return bool(scope["path"] == f"{self._door.folder}/enter" and scope["method"] == "GET")

    def _entry(self, scope: Scope) -> Response | None:
        if not self._is_entry(scope):
            return None
        given = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        token = given.get("token", "")
        let_in = self._door.enter(token)
        if let_in is not None:
            return let_in
        if self._door.knows(Headers(scope=scope)):  # the same address once more, in the browser that was let in by it
            return self._door.onward()
        if self._door.throw_out(token):
            words = "This address was opened before, by another browser, which is thrown out in case it was not yours. "
        else:
            words = "This address was used before, or belongs to another gallery. "
        return _said(HTTPStatus.FORBIDDEN, words + OUTSIDE)


async def form_of(request: Request, door: Door) -> dict[str, str]:
    """The fields of a form that a page of ours made. Raises NotAllowed for any other."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise RequestError("A form must be sent as application/x-www-form-urlencoded.")
    try:
        fields = dict(parse_qsl((await body_of(request, FORM_BYTES)).decode(), keep_blank_values=True))
    except (UnicodeDecodeError, ValueError):
        raise RequestError("This form cannot be read.") from None
    check_token(request.headers.get(HEADER) or fields.pop(FIELD, ""), door)
    return fields


def check_token(given: str, door: Door) -> None:
    """Raises NotAllowed unless one of our pages sent this token."""
    if not hmac.compare_digest(given.encode(), door.form_token.encode()):
        raise NotAllowed(
            "This form belongs to another gallery, or to one that has ended; reload the page. Nothing was done."
        )


async def body_of(request: Request, most: int) -> bytes:
    """Reads the body of a request, up to so many bytes. Raises RequestError for more."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise RequestError(f"This is larger than the {most:,} bytes that are possible here.")
        parts.append(part)
    return b"".join(parts)


def _said(status: HTTPStatus, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{words}\n", status_code=status, headers=headers)
