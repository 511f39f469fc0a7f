"""Only the person's own browser gets anything out of a gallery, or anything done by it."""

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Mount, Route

from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.gallery.guard import COOKIE, WAITING
from nanobanana_mcp.gallery.serve import Gallery
from nanobanana_mcp.server.inside import Tools
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel
from tests.support.rooms import dump, hang
from tests.support.visitor import Visitor, visit

TEMPLATES = Path(__file__).parents[2] / "nanobanana_mcp" / "gallery" / "templates"
SECRET = "a secret heron"


@pytest.fixture
async def shelf(outside: Visitor, settings: Settings) -> str:
    """The id of a picture that nobody from elsewhere may learn of."""
    studio = await outside.server.shared.studio()
    return hang(studio.library, settings.output_dir / "1.png", prompt=SECRET).id


def _routes(routes: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of everything that is served."""
    for route in routes:
        if isinstance(route, Route):
            for method in sorted(route.methods or ()):
                yield method, before + route.path
        elif isinstance(route, Mount) and route.path.endswith("/static"):
            yield "GET", f"{before}{route.path}/gallery.css"
        elif isinstance(route, Mount):
            yield from _routes(route.routes, before + route.path)


async def _everything(
    visitor: Visitor,
    image_id: str,
    headers: dict[str, str],
    only: tuple[str, ...] = ("GET", "HEAD", "POST"),
    but: str | None = None,
) -> list[Any]:
    answers = []
    for method, path in _routes(visitor.app.routes):
        if method in only and (but is None or but not in path):
            async with asyncio.timeout(30):  # the stream of events, where it is let by, has no end
                answers.append(await visitor.client.request(method, path.replace("{id}", image_id), headers=headers))
    return answers


async def test_an_address_lets_one_browser_in_and_only_once(outside: Visitor, shelf: str) -> None:
    address = outside.door.address()
    entry = await outside.client.get(address)
    cookie = entry.headers["set-cookie"]
    assert f"Path={outside.door.folder}/" in cookie and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert shelf in (await outside.get("")).text
    assert (await outside.client.get(address)).status_code == 200  # reloaded by the browser that has the cookie
    outside.client.cookies.clear()
    again = await outside.client.get(address)
    assert again.status_code == 403 and "set-cookie" not in again.headers and "works once" in again.text
    assert (await outside.client.get(address)).status_code == 403
    assert (await outside.client.get(outside.door.address() + "x")).status_code == 403


async def test_of_very_many_addresses_that_nobody_opened_the_oldest_is_forgotten(outside: Visitor) -> None:
    first, second = outside.door.address(), outside.door.address()
    for _ in range(WAITING - 1):
        outside.door.address()
    assert (await outside.client.get(first)).status_code == 403
    assert (await outside.client.get(second)).status_code == 200


async def test_who_took_the_address_from_the_command_line_of_a_browser_is_thrown_out_by_the_person(
    outside: Visitor, shelf: str
) -> None:
    address = outside.door.address()
    await outside.client.get(address)
    assert shelf in (await outside.get("")).text
    thief, outside.client.cookies = outside.client.cookies, httpx2.Cookies()
    told = await outside.client.get(address)
    assert told.status_code == 403 and "opened before, by another browser, which is thrown out" in told.text
    outside.client.cookies = thief
    assert (await outside.get("")).status_code == 401
    assert (await outside.enter()).status_code == 200  # a new address is not harmed by that


async def test_without_the_cookie_nothing_is_told_or_done(
    outside: Visitor, shelf: str, model: FakeModel, settings: Settings
) -> None:
    before = dump(settings.database_path)
    for cookies in ({}, {COOKIE: "guessed"}, {COOKIE: ""}):
        outside.client.cookies.clear()
        headers = {"origin": outside.door.origin, "x-form-token": outside.door.form_token}
        headers |= {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
        for answer in await _everything(outside, shelf, headers):
            assert (
                answer.status_code == 401
                and SECRET not in answer.text
                and "works once" in (answer.text or "works once")
            )
    assert (await outside.client.get("/")).status_code == 404
    assert dump(settings.database_path) == before and model.requests == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),  # a name in the DNS that points here
        ({"host": "evil.example:4265"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "localhost:4265"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1234"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),  # another port of this machine
    ],
)
async def test_a_page_from_elsewhere_gets_nothing_even_with_the_cookie(
    visitor: Visitor, shelf: str, model: FakeModel, settings: Settings, headers: dict[str, str], status: int
) -> None:
    before = dump(settings.database_path)
    ours = {"origin": visitor.door.origin, "x-form-token": visitor.door.form_token}
    for answer in await _everything(visitor, shelf, ours | headers):
        assert answer.status_code == status and SECRET not in answer.text and shelf not in answer.text
    assert dump(settings.database_path) == before and model.requests == []


@pytest.mark.parametrize("token", [None, "", "forged"])
async def test_a_forged_form_does_nothing(
    visitor: Visitor, shelf: str, model: FakeModel, settings: Settings, token: str | None
) -> None:
    before = dump(settings.database_path)
    headers = {"origin": visitor.door.origin} | ({"x-form-token": token} if token is not None else {})
    answers = await _everything(visitor, shelf, headers, only=("POST",))
    assert len(answers) >= 8
    for answer in answers:
        assert answer.status_code == 403 and "Nothing was done" in answer.text
    for answer in await _everything(visitor, shelf, {"x-form-token": visitor.door.form_token}, only=("POST",)):
        assert answer.status_code == 403  # a browser says where a form comes from
    assert dump(settings.database_path) == before and model.requests == []


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/json"])
async def test_what_is_no_form_as_our_pages_send_it_does_nothing(
    visitor: Visitor, shelf: str, settings: Settings, kind: str
) -> None:
    before = dump(settings.database_path)
    refused = await visitor.post(f"pictures/{shelf}/notes", {"note": "x"}, **{"content-type": kind})
    assert refused.status_code == 400 and "application/x-www-form-urlencoded" in refused.json()["error"]
    assert dump(settings.database_path) == before


async def test_every_answer_forbids_what_is_not_ours(visitor: Visitor, shelf: str) -> None:
    told = [
        await visitor.get(path) for path in ("", f"pictures/{shelf}", f"thumbs/{shelf}", "static/grid.js", "nowhere")
    ]
    told.append(await visitor.client.get("/elsewhere"))
    for answer in told:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"].startswith("private" if "/thumbs/" in answer.url.path else "no-store")
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_policy_that_closes_output_stats_closes_every_page_and_every_action_on_a_picture(
    settings: Settings, make_studio: Callable[..., Studio], model: FakeModel, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {output_stats: {rules: [{action: deny}]}}\n")
    async with visit(settings, make_studio, policy=policy) as visitor:
        kept = hang((await visitor.server.shared.studio()).library, settings.output_dir / "a.png", prompt=SECRET)
        await visitor.enter()
        before = dump(settings.database_path)
        ours = {"origin": visitor.door.origin, "x-form-token": visitor.door.form_token}
        answers = await _everything(visitor, kept.id, ours, but="/static/")
        assert len(answers) > 20
        for answer in answers:
            assert SECRET not in answer.text and kept.id not in answer.text
            if "/edits" in answer.url.path:  # the tool that they are made with asks the policy
                assert answer.status_code == 400 and "This edit has no" in answer.text
            else:
                assert answer.status_code == 403, answer.url
        assert dump(settings.database_path) == before and model.requests == []


def test_no_page_needs_what_the_policy_forbids() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|<style|\son\w+=|javascript:", text), path.name


async def test_it_listens_on_this_machine_alone_and_ends_when_it_is_closed(visitor: Visitor) -> None:
    gallery = Gallery(visitor.server.shared.studio, Tools(visitor.server))
    await gallery.start(0)
    host, port = re.findall(r"http://([\d.]+):(\d+)/", gallery.address())[0]
    assert host == "127.0.0.1"
    socket.create_connection((host, int(port))).close()
    await gallery.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


async def test_a_port_that_was_named_and_is_taken_is_told_and_the_usual_one_gives_way(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("nanobanana_mcp.gallery.serve.USUAL_PORT", port)
        gallery = Gallery(visitor.server.shared.studio, Tools(visitor.server))
        with pytest.raises(SetupError, match=f"Port {port} of 127.0.0.1 cannot be used .* give another --port"):
            await gallery.start(port)
        await gallery.start()
        assert f":{port}/" not in gallery.address()
        await gallery.close()


@pytest.mark.parametrize(
    "others",
    ["{}; foo", "{}; foo bar=1", "\u00e4=1; {}", "a[b]=1; {}", 'foo="a; {}', "{}; path", "nanobanana=another; {}"],
)
async def test_a_strange_cookie_of_another_program_locks_nobody_out(visitor: Visitor, shelf: str, others: str) -> None:
    (ours,) = [f"{one.name}={one.value}" for one in visitor.client.cookies.jar]
    visitor.client.cookies.clear()
    header = others.format(ours).encode("latin-1")
    answer = await visitor.client.get(f"{visitor.door.folder}/", headers={b"cookie": header})
    assert answer.status_code == 200 and shelf in answer.text


async def test_half_requests_and_too_many_connections_are_closed(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.gallery.serve.HEADERS_S", 0.05)
    gallery = Gallery(visitor.server.shared.studio, Tools(visitor.server))
    await gallery.start(0)
    host, port = re.findall(r"http://([\d.]+):(\d+)/", gallery.address())[0]

    async def closed(*sent: bytes) -> bool:
        reader, writer = await asyncio.open_connection(host, int(port))
        for part in sent:
            writer.write(part)
            if part.endswith(b"\r\n\r\n"):
                await reader.readuntil(b"nothing here")
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 4)
        writer.close()
        return True

    half, whole = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    assert await closed(half) and await closed(whole, half)
    monkeypatch.setattr("nanobanana_mcp.gallery.serve.HEADERS_S", 600)
    monkeypatch.setattr("nanobanana_mcp.gallery.serve.CONNECTIONS", 1)
    _, first = await asyncio.open_connection(host, int(port))
    assert await closed()
    first.close()
    await gallery.close()
