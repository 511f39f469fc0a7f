"""The start of every test: no keys, no network, a home of its own; a studio on a fake model or on the emulator."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx2
import mcp.types
import pytest
from fastmcp import Client

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.pixels.files.formats import heic_is_readable
from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.server.session import LazyStudio
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.open import models
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel
from tests.support.rooms import library_at

assert heic_is_readable()  # before a test has Pillow write one

Era = Literal["legacy", "auto"]
LOCAL = ("localhost", "127.0.0.1", "127.0.0.2", "::1")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nobody(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with nothing in it and an environment that names no key; a forgotten fake is an error, not a bill."""
    home = tmp_path_factory.mktemp("home")
    for name in os.environ:
        if name.startswith(("GEMINI_", "GOOGLE_", "NANOBANANA_", "IMAGE_OUTPUT", "XDG_", "CLAUDE_")):
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name, folder in (("APPDATA", "Roaming"), ("LOCALAPPDATA", "Local")):
        monkeypatch.setenv(name, str(home / "AppData" / folder))
    _stay_on_this_machine(monkeypatch)
    return home


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Output folder and database in the test's folder; everything else as by default."""
    return Settings(
        NANOBANANA_OUTPUT_DIR=tmp_path / "pictures",
        database_url=f"sqlite:///{tmp_path / 'state' / 'library.db'}",
    )


@pytest.fixture
def places(settings: Settings, tmp_path: Path) -> Places:
    return Places(output=settings.output_dir, state=settings.state_dir, base=tmp_path)


@pytest.fixture
def model() -> FakeModel:
    """The fake that the `studio` and the `client` of the same test draw with."""
    return FakeModel()


@pytest.fixture
def make_studio(settings: Settings, places: Places, model: FakeModel) -> Callable[..., Studio]:
    """Opens a studio on the test's folders; keyword arguments replace those of Studio. The caller closes it."""

    def make(**changes: Any) -> Studio:
        parts = {
            "model": model,
            "database": None,
            "places": places,
            "backend": "gemini",
            "models": models(settings),
            "sleep": no_sleep,
        } | changes
        parts["database"] = parts["database"] or library_at(settings.database_path)
        return Studio(**parts)

    return make


@pytest.fixture
async def studio(make_studio: Callable[..., Studio]) -> AsyncIterator[Studio]:
    """The real studio, library and disk; only the model is the fake."""
    made = make_studio()
    yield made
    await made.close()


class Clock:
    """The emulator's time of day, to be put forward by a test."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return datetime.now(UTC).timestamp() + self.ahead_s


@dataclass(kw_only=True)
class Emulated:
    """A studio whose Gemini is the real google-genai over an emulator in this process."""

    studio: Studio
    emulator: Emulator
    gemini: Gemini
    clock: Clock
    client: Client[Any]

    async def call(self, **arguments: Any) -> Any:
        """The CallToolResult of generate_image through the server, once it is in the journal that it was delivered; an
        error is raised as ToolError.
        """
        try:
            return await self.client.call_tool("generate_image", arguments)
        finally:
            await self.studio.noted()

    @property
    def drawn(self) -> list[dict[str, Any]]:
        """The JSON of every generateContent request, pictures in it as {"sha256", "bytes"}."""
        return [request.json for request in self.emulator.requests if request.path.endswith(":generateContent")]

    @property
    def models(self) -> list[str]:
        """The model id of every generateContent request."""
        paths = [request.path for request in self.emulator.requests if request.path.endswith(":generateContent")]
        return [path.rsplit("/", 1)[1].removesuffix(":generateContent") for path in paths]

    @property
    def uploads_begun(self) -> int:
        return sum(request.path.startswith("/upload/") for request in self.emulator.requests)


Connect = Callable[..., AbstractAsyncContextManager[Client[Any]]]


@pytest.fixture(params=["legacy", "auto"])
def era(request: pytest.FixtureRequest) -> Era:
    """Both ways a client may open a session: the initialize handshake, and discovery."""
    found: Era = request.param
    return found


@pytest.fixture
def connect(settings: Settings, make_studio: Callable[..., Studio]) -> Connect:
    """A client in this process; `open_it` makes the studio (default: on the fake), `changes` replace settings."""

    def open_client(
        *,
        mode: Era = "auto",
        open_it: Callable[[], Studio] | None = None,
        name: str = "a test",
        **changes: Any,
    ) -> Client[Any]:
        server = build_server(settings.model_copy(update=changes), LazyStudio(open_it or make_studio))
        return Client(server, mode=mode, client_info=mcp.types.Implementation(name=name, version="1"))

    return open_client


@pytest.fixture
async def client(connect: Connect, era: Era) -> AsyncIterator[Client[Any]]:
    """A connected client, once for each era of the protocol."""
    async with connect(mode=era) as connected:
        yield connected


@pytest.fixture
async def emulated(make_studio: Callable[..., Studio], connect: Connect) -> AsyncIterator[Emulated]:
    clock = Clock()
    emulator = Emulator(clock=clock)
    emulator.control.cheap = True
    emulator.control.named = False  # money is spoken of as with Gemini
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    made = make_studio(model=gemini)
    async with connect(open_it=lambda: made) as client:
        yield Emulated(studio=made, emulator=emulator, gemini=gemini, clock=clock, client=client)
    made.library.database.close()  # a server of which no call wanted the studio has none to close


@pytest.fixture
async def caller(connect: Connect) -> AsyncIterator[Client[Any]]:
    """A connected client of the newer era, for what does not depend on the era."""
    async with connect() as connected:
        yield connected


async def no_sleep(_seconds: float) -> None:
    """Waits for nothing."""


def _stay_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asynchronous, synchronous = httpx2.AsyncHTTPTransport.handle_async_request, httpx2.HTTPTransport.handle_request

    async def handle_async(self: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        assert request.url.host in LOCAL, f"A test reached for {request.url.host}."
        return await asynchronous(self, request)

    def handle(self: httpx2.HTTPTransport, request: httpx2.Request) -> httpx2.Response:
        assert request.url.host in LOCAL, f"A test reached for {request.url.host}."
        return synchronous(self, request)

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", handle_async)
    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", handle)
