"""The HTTP beneath google-genai: no redirects with the key, bounded answers, or the emulator in this process."""

import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

MAX_ANSWER_BYTES = 64 * 1024 * 1024
CONNECT_S = 15.0


NO_WEBSOCKETS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: for connections that are never opened, so that the trust store is loaded once and not three times."""


RAW: ContextVar[list[bytes] | None] = ContextVar("RAW", default=None)
"""Where a request wants its answer's bytes as they came. google-genai would make a text of them and copy the megabytes
of a picture four times over; it is given an empty object instead.
"""


class AnswerTooLarge(httpx2.ReadError):
    """An answer beyond any picture's size was cut off."""


class Bounded(httpx2.AsyncBaseTransport):
    """Passes requests on and cuts an answer off at MAX_ANSWER_BYTES; compressed answers, which hide their size, too."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["Accept-Encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            await response.aclose()
            raise AnswerTooLarge("the answer came compressed although that was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream)
        wanted = RAW.get()
        if wanted is None or response.status_code != 200:
            return response
        wanted[:] = [part async for part in response.stream]
        await response.aclose()
        return httpx2.Response(200, json={})

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for part in self._inner:
            total += len(part)
            if total > MAX_ANSWER_BYTES:
                raise AnswerTooLarge(f"the answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


def open_clients(
    transport: httpx2.AsyncBaseTransport | None, *, address: str, timeout_s: float
) -> tuple[httpx2.AsyncClient, httpx2.Client]:
    """The async client that is used, and the sync one that google-genai would otherwise make for itself.

    Both are ours, so that google-genai neither follows redirects (it would send the key along), nor switches to
    aiohttp (which repeats a paid request whose answer was lost), nor loads the trust store three times over. The
    environment's proxy for `address` is used, as every other program of the user does.
    """
    context = NO_WEBSOCKETS
    if transport is None:
        context = httpx2.create_ssl_context() if address.startswith("https:") else NO_WEBSOCKETS
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=16)
        transport = httpx2.AsyncHTTPTransport(verify=context, limits=limits, proxy=_proxy(address))
    timeout = httpx2.Timeout(timeout_s, connect=CONNECT_S)
    asynchronous = httpx2.AsyncClient(transport=Bounded(transport), timeout=timeout, follow_redirects=False)
    synchronous = httpx2.Client(verify=context, timeout=timeout, follow_redirects=False)
    return asynchronous, synchronous


def _proxy(address: str) -> str | None:
    """The proxy that the environment or the system names for an address, None without one."""
    parts = urlsplit(address)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
