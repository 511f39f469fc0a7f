"""A browser without scripts at a gallery in this process."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from nanobanana_mcp.gallery.app import gallery_app
from nanobanana_mcp.gallery.events import News
from nanobanana_mcp.gallery.guard import FIELD, Door
from nanobanana_mcp.gallery.paintings import Paintings
from nanobanana_mcp.server.app import Server, build_server
from nanobanana_mcp.server.inside import Tools
from nanobanana_mcp.server.session import LazyStudio
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio

HOST = "127.0.0.1:4265"


@dataclass(kw_only=True)
class Visitor:
    """A client with what stands behind its pages; it is let in by `enter`."""

    client: httpx2.AsyncClient
    app: Any
    door: Door
    news: News
    paintings: Paintings
    server: Server

    async def enter(self, path: str = "") -> httpx2.Response:
        """The page that an address leads to."""
        entry = await self.client.get(self.door.address(path))
        (onward,) = set(re.findall(r'url=([^"]+)"', entry.text))
        return await self.client.get(onward)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.client.get(f"{self.door.folder}/{path}", headers=headers)

    async def json(self, path: str) -> Any:
        return (await self.get(path, accept="application/json")).json()

    async def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> httpx2.Response:
        """Send a form as a script of ours does; `headers` replace what our pages send."""
        ours = {"origin": self.door.origin, "x-form-token": self.door.form_token, "accept": "application/json"}
        return await self.client.post(f"{self.door.folder}/{path}", data=dict(fields or {}), headers=ours | headers)

    async def press(self, page: str, action: str, **fields: str) -> httpx2.Response:
        """Send a form of a page as a browser without scripts does, and follow it to the next page."""
        told = (await self.get(page)).text
        (form,) = re.findall(rf'<form[^>]*action="[^"]*/{action}"[^>]*>.*?</form>', told, re.DOTALL)
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
        assert FIELD in hidden
        (where,) = re.findall(r'action="([^"]+)"', form)
        sent = await self.client.post(where, data=hidden | fields, headers={"origin": self.door.origin})
        assert sent.status_code == 303, sent.text
        return await self.client.get(sent.headers["location"])

    async def mask(self, image_id: str, png: bytes, query: str = "") -> httpx2.Response:
        headers = {"origin": self.door.origin, "x-form-token": self.door.form_token, "accept": "application/json"}
        return await self.client.post(f"{self.door.folder}/masks/{image_id}{query}", content=png, headers=headers)


@asynccontextmanager
async def visit(settings: Settings, make_studio: Callable[[], Studio], **changes: Any) -> AsyncIterator[Visitor]:
    """A gallery on a studio, and one who has not entered yet; `changes` replace settings."""
    served = settings.model_copy(update={"structured": "always", "preview_px": 0, **changes})
    server = build_server(served, LazyStudio(make_studio))
    door, paintings = Door(HOST), Paintings()
    news = News(server.shared.studio)
    app = gallery_app(server.shared.studio, Tools(server), door, news, paintings)
    transport = httpx2.ASGITransport(app=app)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url=door.origin) as client:
            yield Visitor(client=client, app=app, door=door, news=news, paintings=paintings, server=server)
    finally:
        news.close()
        await server.shared.lazy.close()
