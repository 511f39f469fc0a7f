"""Where requests go: to the address that was set and to no other, through the user's proxy, never with the key in clear."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import LOCAL

from nanobanana_mcp import errors
from nanobanana_mcp.domain import ModelRequest
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.opening import open_model
from nanobanana_mcp.settings import Settings, load_settings

GOOGLE = "generativelanguage.googleapis.com"
KEY = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"


class Listener:
    """A server that writes down what it is sent and hangs up."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.port = 0

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made._take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def _wish() -> ModelRequest:
    return ModelRequest(
        model_id="gemini-nano-banana-2.1",
        prompt="a secret heron",
        negative_prompt=None,
        system_instruction=None,
        inputs=(),
        aspect_ratio=None,
        image_size="1K",
        thinking_level=None,
        grounding=False,
    )


async def _asked(settings: Settings) -> str:
    """The error of one request to the model of these settings."""
    model = open_model(settings)
    try:
        with pytest.raises((errors.StudioError, AssertionError)) as caught:
            await model.generate(_wish())
    finally:
        await model.close()
    return str(caught.value)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    return monkeypatch


@pytest.mark.parametrize("variable", ["GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL"])
async def test_an_address_that_only_googles_own_library_reads_gets_nothing(
    variable: str, keyed: pytest.MonkeyPatch
) -> None:
    async with listening() as canary:
        keyed.setenv(variable, f"http://127.0.0.1:{canary.port}/")
        said = await _asked(load_settings())
        assert canary.heard == []
    assert GOOGLE in said  # the guard of the tests stopped it there


@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("global", "https://aiplatform.googleapis.com/"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com/"),
    ],
)
async def test_vertex_is_asked_where_it_is_and_not_where_a_variable_says(
    location: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", "http://127.0.0.1:9/")
    model = Gemini(vertex_project="my-project", vertex_location=location)
    assert model._client._api_client._http_options.base_url == address
    await model.close()


async def test_the_proxy_of_the_environment_is_used_and_sees_no_key(keyed: pytest.MonkeyPatch) -> None:
    async with listening() as proxy:
        keyed.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        keyed.setattr("conftest.LOCAL", (*LOCAL, GOOGLE))
        keyed.setattr(socket, "getaddrinfo", _nearby(socket.getaddrinfo))
        said = await _asked(load_settings())
    assert proxy.heard, said
    for heard in proxy.heard:
        assert heard.startswith(f"CONNECT {GOOGLE}:443 ".encode())
        assert KEY.encode() not in heard and b"heron" not in heard
    assert KEY not in said


async def test_an_address_that_needs_no_proxy_gets_none(keyed: pytest.MonkeyPatch) -> None:
    async with listening() as proxy, listening() as gateway:
        keyed.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        keyed.setenv("NO_PROXY", "127.0.0.1")
        keyed.setenv("GEMINI_BASE_URL", f"http://127.0.0.1:{gateway.port}/")
        await _asked(load_settings())
    assert proxy.heard == [] and len(gateway.heard) == 1


def _nearby(real: Callable[..., Any]) -> Callable[..., Any]:
    """Looks up names of this machine only."""

    def look_up(host: Any, *given: Any, **named: Any) -> Any:
        assert (host.decode() if isinstance(host, bytes) else host) in LOCAL, f"A test looked {host} up."
        return real(host, *given, **named)

    return look_up
