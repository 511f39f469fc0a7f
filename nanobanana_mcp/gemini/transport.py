"""The HTTP beneath google-genai: one address and no other, bounded answers, or the emulator in this process."""

import os
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from nanobanana_mcp.domain.addresses import is_this_machine
from nanobanana_mcp.domain.errors import SetupError

MAX_ANSWER_BYTES = 64 * 1024 * 1024
CONNECT_S = 15.0


NO_WEBSOCKETS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: for connections that are never opened, so that the trust store is loaded once and not three times."""


RAW: ContextVar[list[bytes] | None] = ContextVar("RAW", default=None)
"""The list to which a request wants the bytes of its answer added. google-genai would decode them to text and copy a
picture's megabytes four times over; it is given an empty object instead."""


class AnswerTooLarge(httpx2.ReadError):
    """An answer beyond any picture's size was cut off."""


class Bounded(httpx2.AsyncBaseTransport):
    """Passes requests on to one address only: another host, whoever names it, gets neither the key nor a picture.
    Refuses answers over MAX_ANSWER_BYTES, and compressed ones, which hide their size.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, address: str) -> None:
        self._inner = inner
        self._origin = _origin(httpx2.URL(address))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if _origin(request.url) != self._origin:
            raise SetupError(
                f"A request was about to go to {request.url.host[:80]}, which is not the configured address; "
                "nothing was sent there. Check GEMINI_BASE_URL and the gateway behind it."
            )
        request.headers["Accept-Encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            await response.aclose()
            raise AnswerTooLarge("the answer came compressed although that was not asked for")
        if "content-type" in response.headers:  # JSON is UTF-8; another charset, such as base64, breaks httpx
            response.headers["Content-Type"] = response.headers["content-type"].partition(";")[0]
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream)
        wanted = RAW.get()
        if wanted is None or not 200 <= response.status_code < 300:
            return response
        wanted[:] = [part async for part in response.stream]
        await response.aclose()
        return httpx2.Response(200, json={})

    async def aclose(self) -> None:
        await self._inner.aclose()


class _OverSocks(httpx2.AsyncBaseTransport):
    """Turns socksio's errors, which occur only while the proxy is being connected, into httpx's."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self._error: type[Exception] = import_module("socksio.exceptions").SOCKSError

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except self._error:
            raise httpx2.ProxyError("The SOCKS proxy did not answer as a SOCKS proxy does.", request=request) from None

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

    Raises SetupError naming the variable when a proxy or the certificates of the environment cannot be used.
    """
    if transport is None:
        secure = address.startswith("https:")
        if not secure and not is_this_machine(urlsplit(address).hostname or ""):
            raise SetupError("The key goes over http to this machine only: GEMINI_BASE_URL must begin with https://.")
        proxy = _proxy(address)
        context = _certificates() if secure else NO_WEBSOCKETS
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=16)
        transport = httpx2.AsyncHTTPTransport(verify=context, limits=limits, proxy=proxy, trust_env=False)
        if proxy is not None and proxy.url.scheme.startswith("socks"):
            transport = _OverSocks(transport)
    timeout = httpx2.Timeout(timeout_s, connect=CONNECT_S)
    asynchronous = httpx2.AsyncClient(
        transport=Bounded(transport, address), timeout=timeout, follow_redirects=False, trust_env=False
    )
    synchronous = httpx2.Client(verify=NO_WEBSOCKETS, timeout=timeout, follow_redirects=False, trust_env=False)
    return asynchronous, synchronous


def proxy_host(address: str) -> str | None:
    """The host of the proxy by which an address is reached, None where it is reached without. Raises SetupError."""
    proxy = _proxy(address)
    return None if proxy is None else proxy.url.host


def _proxy(address: str) -> httpx2.Proxy | None:
    """The proxy that the environment or the system names for an address, None without one.

    This machine is never reached by a proxy: over http the proxy would get the key, the prompt and the pictures.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    if is_this_machine(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    if kind is None:
        return None
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())  # in this order Python looks
    variable = next((name for name in names if os.environ.get(name)), "The system's proxy setting")
    url = proxies[kind] if "://" in proxies[kind] else f"http://{proxies[kind]}"  # as curl takes it
    way_out = f"correct it, remove it, or exempt {host} from it (NO_PROXY)"
    try:
        proxy = httpx2.Proxy(url)
    except (ValueError, httpx2.InvalidURL):  # their messages repeat the address, which may hold a password
        proxy = None
    if proxy is None or not proxy.url.host or not 0 < (proxy.url.port or 8080) < 65536:
        raise SetupError(
            f"{variable} is not a usable proxy: it must begin with http://, https:// or socks5:// and have a host "
            f"and a port. Nothing was sent; {way_out}."
        )
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise SetupError(
            f"{variable} names a SOCKS proxy, and the package socksio is not installed. Nothing was sent; install the "
            f"extra 'socks' (uv: --extra socks; pip: pip install socksio into the server's environment), or {way_out}."
        )
    return proxy


def _certificates() -> ssl.SSLContext:
    """The certificates to trust, from the environment or the system. Raises SetupError."""
    named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE") if os.environ.get(name)]
    reason = "no such folder"
    if named[:1] != ["SSL_CERT_DIR"] or Path(os.environ["SSL_CERT_DIR"]).is_dir():
        try:
            return httpx2.create_ssl_context()
        except ssl.SSLError:  # no certificate in it; its own message names a line of C code
            reason = "no certificate was found"
        except OSError as error:
            reason = error.strerror or type(error).__name__
    raise SetupError(
        f"The certificates for https cannot be read ({reason}), as {' or '.join(named) or 'the system'} does not "
        "lead to usable ones. Nothing was sent; set it to a PEM file (SSL_CERT_DIR: to a folder of them), or "
        "remove it."
    )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
