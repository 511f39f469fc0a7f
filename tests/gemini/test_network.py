"""Requests go to the address that was set and to no other, through the user's proxy, never with the key in clear."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from socksio.exceptions import ProtocolError

from nanobanana_mcp.domain import errors
from nanobanana_mcp.domain.wire import ModelRequest
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.settings import Settings, load_settings
from nanobanana_mcp.studio.open import open_model
from tests.conftest import LOCAL

GOOGLE = "generativelanguage.googleapis.com"
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is no address of the machine by itself")
KEY = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"


class Listener:
    """A server that writes down what it is sent and hangs up."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.port = 0
        self.answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    made = Listener()
    server = await asyncio.start_server(made._take, host, 0)
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


async def _put(settings: Settings) -> None:
    """Put a picture into the Files API of these settings."""
    model = open_model(settings)
    try:
        await model.upload("files/nb1", b"a secret picture", "image/png", None)
    finally:
        await model.close()


async def _no_sleep(_seconds: float) -> None:
    """google-genai asks again three times where an upload's answer is none."""


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


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
async def test_the_proxy_of_the_environment_is_used_and_sees_no_key(variable: str, keyed: pytest.MonkeyPatch) -> None:
    async with listening() as proxy:
        keyed.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        keyed.setattr("tests.conftest.LOCAL", (*LOCAL, GOOGLE))
        keyed.setattr(socket, "getaddrinfo", _nearby(socket.getaddrinfo))
        said = await _asked(load_settings())
        with pytest.raises(errors.StudioError):
            await _put(load_settings())
    assert len(proxy.heard) == 2, said
    for heard in proxy.heard:
        assert heard.startswith(f"CONNECT {GOOGLE}:443 ".encode())
        assert KEY.encode() not in heard and b"heron" not in heard and b"secret" not in heard
    assert KEY not in said and "nothing was sent and nothing charged" in said  # the proxy refused


async def test_a_socks_proxy_that_does_not_answer_as_one_costs_nothing(keyed: pytest.MonkeyPatch) -> None:
    async def stumble(_self: object, _request: object) -> httpx2.Response:
        raise ProtocolError("Malformed reply")

    keyed.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    keyed.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", stumble)
    assert "nothing was sent and nothing charged" in await _asked(load_settings())


@pytest.mark.parametrize(
    "environment", [{"HTTP_PROXY": "{}"}, {"HTTPS_PROXY": "{}", "NO_PROXY": "x.example,googleapis.com"}]
)
async def test_a_proxy_that_is_not_for_this_address_is_not_used(
    environment: dict[str, str], keyed: pytest.MonkeyPatch
) -> None:
    async with listening() as proxy:
        for name, value in environment.items():
            keyed.setenv(name, value.format(proxy.address))
        said = await _asked(load_settings())
    assert proxy.heard == [] and GOOGLE in said  # the guard of the tests stopped it there


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", pytest.param("127.0.0.2", marks=linux)])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
async def test_a_gateway_on_this_machine_is_reached_by_no_proxy_with_pictures_or_words(
    variable: str, host: str, keyed: pytest.MonkeyPatch
) -> None:
    async with listening() as proxy, listening(host) as gateway:
        keyed.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        keyed.setenv("GEMINI_BASE_URL", f"http://{host}:{gateway.port}/")
        await _asked(load_settings())
        with pytest.raises(errors.StudioError):
            await _put(load_settings())
    assert proxy.heard == [] and len(gateway.heard) == 2


@pytest.mark.parametrize("given", ["http://gateway.example/", "http://[::ffff:192.0.2.1]/"])
async def test_the_key_never_goes_to_another_machine_over_http_whoever_asks(given: str) -> None:
    with pytest.raises(errors.SetupError, match="this machine only"):
        Gemini(api_key=KEY, base_url=given)


async def test_a_gateway_that_names_another_host_for_the_upload_does_not_have_the_picture_sent_there(
    keyed: pytest.MonkeyPatch,
) -> None:
    async with listening() as elsewhere, listening() as gateway:
        gateway.answer = (
            f"HTTP/1.1 200 OK\r\nX-Goog-Upload-URL: http://127.0.0.1:{elsewhere.port}/upload/v1beta/files?upload_id=1\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n"
        ).encode()
        keyed.setenv("GEMINI_BASE_URL", f"http://127.0.0.1:{gateway.port}/")
        keyed.setattr("asyncio.sleep", _no_sleep)
        with pytest.raises(errors.StudioError):
            await _put(load_settings())
    assert elsewhere.heard == []
    assert gateway.heard[1].startswith(b"POST /upload/v1beta/files?upload_id=1 ")


async def test_a_request_for_another_host_is_never_sent(keyed: pytest.MonkeyPatch) -> None:
    async with listening() as elsewhere, listening() as gateway:
        model = Gemini(api_key=KEY, base_url=f"http://127.0.0.1:{gateway.port}/")
        with pytest.raises(errors.SetupError, match="not the configured address"):
            await model._http.post(f"http://127.0.0.1:{elsewhere.port}/", content=b"a picture")
        await model.close()
    assert elsewhere.heard == gateway.heard == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GOOGLE_GENAI_CLIENT_MODE", "replay"),
        ("GOOGLE_GENAI_CLIENT_MODE", "record"),
        ("GOOGLE_GENAI_HTTP_CLIENT", "httpx"),
        ("GOOGLE_GENAI_API_VERSION", "v7"),
        ("GOOGLE_GENAI_USE_ENTERPRISE", "true"),
        ("GOOGLE_API_USE_MTLS_ENDPOINT", "always"),
        ("GOOGLE_GENAI_REPLAYS_DIRECTORY", "/nowhere"),
    ],
)
async def test_the_variables_of_googles_own_library_change_nothing(
    variable: str, value: str, keyed: pytest.MonkeyPatch
) -> None:
    keyed.setenv(variable, value)
    async with listening() as gateway:
        keyed.setenv("GEMINI_BASE_URL", f"http://127.0.0.1:{gateway.port}/")
        await _asked(load_settings())
    (heard,) = gateway.heard
    assert heard.startswith(b"POST /v1beta/models/gemini-nano-banana-2.1:generateContent ")
    assert KEY.encode() in heard


async def test_google_does_not_say_that_it_uses_the_other_key(
    keyed: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keyed.setenv("GOOGLE_API_KEY", "AIzaSyOTHERotherOTHERotherOTHERother1234")
    await open_model(load_settings()).close()
    assert "GOOGLE_API_KEY" not in caplog.text


def _nearby(real: Callable[..., Any]) -> Callable[..., Any]:
    """Looks up names of this machine only."""

    def look_up(host: Any, *given: Any, **named: Any) -> Any:
        assert (host.decode() if isinstance(host, bytes) else host) in LOCAL, f"A test looked {host} up."
        return real(host, *given, **named)

    return look_up
