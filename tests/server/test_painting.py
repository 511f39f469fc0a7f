"""An agent that does not say where a picture should change has a person paint it, in the way that its client has for it."""

import asyncio
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from mcp.types import ElicitResult
from PIL import Image, ImageDraw

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.server import asking
from nanobanana_mcp.server.app import Server, build_server
from nanobanana_mcp.server.session import LazyStudio
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Era

SIZE = (320, 240)


def photo(path: Path) -> str:
    picture = Image.effect_noise(SIZE, 60).convert("RGB")
    ImageDraw.Draw(picture).ellipse((80, 60, 200, 180), fill="orange")
    picture.save(path)
    return str(path)


def mask() -> bytes:
    out = io.BytesIO()
    painted = Image.new("L", SIZE, 0)
    ImageDraw.Draw(painted).rectangle((90, 70, 180, 170), fill=255)
    painted.save(out, "PNG")
    return out.getvalue()


class Page:
    """The page at an address, on which a person paints."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def paint(self) -> tuple[str, str]:
        """Hand a mask over; what the page said, and what the gallery answered."""
        async with httpx2.AsyncClient() as browser:
            page = await self._open(browser)
            (image_id,) = re.findall(r'data-id="(img_\w+)"', page)
            (ticket,) = re.findall(r'data-ask="(img_\w*)"', page)
            return page, await self._send(browser, page, image_id, ticket)

    async def hand_over(self, image_id: str, ticket: str) -> str:
        """Hand over what was painted in a page of a gallery that has ended; what this one answered."""
        async with httpx2.AsyncClient() as browser:
            return await self._send(browser, await self._open(browser), image_id, ticket)

    async def _open(self, browser: httpx2.AsyncClient) -> str:
        entry = await browser.get(self.address)
        (onward,) = set(re.findall(r'url=([^"]+)"', entry.text))
        return (await browser.get(str(entry.url.join(onward)))).text

    async def _send(self, browser: httpx2.AsyncClient, page: str, image_id: str, ticket: str) -> str:
        (base,) = re.findall(r'data-base="([^"]+)"', page)
        (token,) = re.findall(r'data-form-token="([^"]+)"', page)
        (origin,) = re.findall(r"http://[^/]+", self.address)
        sent = await browser.post(
            f"{origin}{base}/masks/{image_id}?ask={ticket}",
            content=mask(),
            headers={"x-form-token": token, "origin": origin, "accept": "application/json"},
        )
        return sent.text


class Person:
    """Is sent to a page and paints there, or answers `action` instead; keeps what they were told."""

    def __init__(self, action: str = "accept") -> None:
        self.action = action
        self.sent: list[Any] = []
        self.pages: list[str] = []
        self.painting: list[asyncio.Task[tuple[str, str]]] = []

    async def __call__(self, _message: str, _type: Any, params: Any, _context: Any) -> ElicitResult:
        self.sent.append(params)
        if self.action == "accept":
            self.painting.append(asyncio.create_task(Page(params.url).paint()))
        return ElicitResult(action=self.action)


@pytest.fixture
def emulator() -> Emulator:
    made = Emulator()
    made.control.named = False
    return made


@pytest.fixture
def server(settings: Settings, make_studio: Callable[..., Studio], emulator: Emulator) -> Server:
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    return build_server(settings, LazyStudio(lambda: make_studio(model=gemini)))


@pytest.fixture
def client_of(server: Server, era: Era) -> Callable[[Person | None], Client[Any]]:
    """A client that can send a person to a page, and one that can ask nobody."""
    return lambda person: Client(server, mode=era, elicitation_handler=person)


async def test_a_client_that_can_sends_its_person_to_the_page_and_the_edit_goes_on_with_the_mask(
    client_of: Callable[..., Client[Any]], emulator: Emulator, tmp_path: Path
) -> None:
    person = Person()
    async with client_of(person) as client:
        wish = {"image": photo(tmp_path / "a.png"), "instruction": "a <moon>"}
        facts = (await client.call_tool("edit_region", wish)).structured_content
        (painting,) = person.painting
        page, answer = await painting
    (sent,) = person.sent
    assert sent.mode == "url" and sent.url.startswith("http://127.0.0.1:") and "a <moon>" in sent.message
    assert "Your assistant asks" in page and "a &lt;moon&gt;" in page
    mask_id = re.findall(r"img_\w+", answer)[0]
    assert mask_id in facts["images"][0]["parents"] and emulator.charges
    edited, before = Image.open(facts["file_paths"][0]).convert("RGB"), Image.open(tmp_path / "a.png")
    assert edited.crop((0, 0, 320, 30)).tobytes() == before.crop((0, 0, 320, 30)).tobytes()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("decline", "was asked to paint the place and said no; nothing was done"),
        ("cancel", "Nobody opened the page to paint on, so nothing was done. Ask the person to open http://127.0.0.1:"),
    ],
)
async def test_who_does_not_want_to_paint_pays_nothing(
    client_of: Callable[..., Client[Any]], emulator: Emulator, tmp_path: Path, action: str, words: str
) -> None:
    async with client_of(Person(action)) as client:
        with pytest.raises(ToolError, match=words):
            await client.call_tool("edit_region", {"image": photo(tmp_path / "a.png"), "instruction": "a moon"})
    assert emulator.requests == []


async def test_who_opens_the_page_and_does_not_paint_is_not_waited_for_without_end(
    client_of: Callable[..., Client[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAINTING_S", 0.02)
    monkeypatch.setattr(asking, "STILL_S", 0.01)

    async def opens(_message: str, _type: Any, _params: Any, _context: Any) -> ElicitResult:
        return ElicitResult(action="accept")

    async with client_of(opens) as client:
        with pytest.raises(ToolError, match=r"Nothing was painted within .* call edit_region again with mask img_"):
            await client.call_tool("edit_region", {"image": photo(tmp_path / "a.png"), "instruction": "a moon"})


async def test_any_other_client_gets_the_address_and_calls_again_with_the_mask_it_was_promised(
    client_of: Callable[..., Client[Any]], emulator: Emulator, tmp_path: Path
) -> None:
    async with client_of(None) as client:
        wish = {"image": photo(tmp_path / "a.png"), "instruction": "a moon"}
        with pytest.raises(ToolError, match=r"nothing was sent. Ask the person to open .* Or give a box") as told:
            await client.call_tool("edit_region", wish)
        (address,) = re.findall(r"http://127\S+", str(told.value))
        (ticket,) = re.findall(r"with mask (img_\w+)", str(told.value))
        with pytest.raises(ToolError, match=f"Nothing is painted yet, and nothing was sent. .*with mask {ticket}"):
            await client.call_tool("edit_region", {**wish, "mask": ticket})
        assert emulator.requests == []
        _, answer = await Page(address).paint()
        facts = (await client.call_tool("edit_region", {**wish, "mask": ticket})).structured_content
    assert re.findall(r"img_\w+", answer)[0] in facts["images"][0]["parents"]


@pytest.mark.parametrize("handed_over", ["before", "after"])
async def test_a_mask_is_not_lost_with_the_server_that_asked_for_it(
    settings: Settings,
    make_studio: Callable[..., Studio],
    emulator: Emulator,
    era: Era,
    tmp_path: Path,
    handed_over: str,
) -> None:
    def started() -> Server:
        gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
        return build_server(settings, LazyStudio(lambda: make_studio(model=gemini)))

    wish = {"image": photo(tmp_path / "a.png"), "instruction": "a moon"}
    async with Client(started(), mode=era) as client:
        with pytest.raises(ToolError) as told:
            await client.call_tool("edit_region", wish)
        page = Page(re.findall(r"http://127\S+", str(told.value))[0])
        (ticket,) = re.findall(r"with mask (img_\w+)", str(told.value))
        if handed_over == "before":
            await page.paint()
    async with Client(started(), mode=era) as client:
        if handed_over == "after":
            with pytest.raises(
                ToolError, match=f"{ticket}.* have not handed it over, .* leave mask out to have them asked"
            ):
                await client.call_tool("edit_region", {**wish, "mask": ticket})
            assert emulator.requests == []
            found = (await client.call_tool("find_images", {"kind": "imported"})).structured_content
            image_id = found["images"][0]["id"]
            for words in (
                f"call edit_region again with image {image_id} and mask {ticket}",
                f"has a mask already, {ticket}; it was not replaced",
            ):
                read = (await client.read_resource("gallery://"))[0].text
                next_page = Page(re.findall(r"http://127\S+", read)[0])
                assert words in await next_page.hand_over(image_id, ticket)
        facts = (await client.call_tool("edit_region", {**wish, "mask": ticket})).structured_content
    assert ticket in facts["images"][0]["parents"]


async def test_a_question_where_to_paint_uses_up_no_limit_of_the_policy(
    settings: Settings, make_studio: Callable[..., Studio], era: Era, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {edit_region: {rules: [{rate_limit: 1/day}]}}\n")
    server = build_server(settings.model_copy(update={"policy": policy}), LazyStudio(make_studio))
    async with Client(server, mode=era) as client:
        wish = {"image": photo(tmp_path / "a.png"), "instruction": "a moon"}
        for _ in range(2):
            with pytest.raises(ToolError, match="Nobody has said where"):
                await client.call_tool("edit_region", wish)


async def test_who_asks_for_the_gallery_gets_its_address(client_of: Callable[..., Client[Any]], tmp_path: Path) -> None:
    async with client_of(None) as client, httpx2.AsyncClient() as browser:
        await client.call_tool("upload_file", {"path": photo(tmp_path / "a.png")})
        (read,) = await client.read_resource("gallery://")
        (address,) = re.findall(r"http://127\S+", read.text)
        entry = await browser.get(address)
        (onward,) = set(re.findall(r'url=([^"]+)"', entry.text))
        page = await browser.get(f"{entry.url.join(onward)}?kind=imported")
        assert "1 picture" in page.text


async def test_a_dry_run_asks_nobody(client_of: Callable[..., Client[Any]], tmp_path: Path) -> None:
    person = Person()
    async with client_of(person) as client:
        with pytest.raises(ToolError, match="Give box or mask, and not both"):
            wish = {"image": photo(tmp_path / "a.png"), "instruction": "a moon", "dry_run": True}
            await client.call_tool("edit_region", wish)
    assert person.sent == []


async def test_a_dear_edit_is_painted_once_and_agreed_to_once(
    settings: Settings, make_studio: Callable[..., Studio], emulator: Emulator, era: Era, tmp_path: Path
) -> None:
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    served = settings.model_copy(update={"ask_above_usd": 0.01})
    server = build_server(served, LazyStudio(lambda: make_studio(model=gemini)))
    asked: list[str] = []
    painting: list[asyncio.Task[tuple[str, str]]] = []

    async def person(_message: str, _type: Any, params: Any, _context: Any) -> ElicitResult:
        asked.append(params.mode)
        if params.mode == "url":
            painting.append(asyncio.create_task(Page(params.url).paint()))
            return ElicitResult(action="accept")
        return ElicitResult(action="accept", content={"agreed": True})

    async with Client(server, mode=era, elicitation_handler=person) as client:
        wish = {"image": photo(tmp_path / "a.png"), "instruction": "a moon"}
        facts = (await client.call_tool("edit_region", wish)).structured_content
    assert asked == ["url", "form"]
    _, answer = await painting[0]
    assert re.findall(r"img_\w+", answer)[0] in facts["images"][0]["parents"]


async def test_what_was_painted_for_a_call_that_was_given_up_is_there_for_the_next(
    settings: Settings, make_studio: Callable[..., Studio], emulator: Emulator, era: Era, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\ntools: {edit_region: {rules: [{rate_limit: 1/day}]}}\n")
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    served = settings.model_copy(update={"policy": policy})
    server = build_server(served, LazyStudio(lambda: make_studio(model=gemini)))
    addresses: asyncio.Queue[str] = asyncio.Queue()

    async def opens(_message: str, _type: Any, params: Any, _context: Any) -> ElicitResult:
        addresses.put_nowait(params.url)
        return ElicitResult(action="accept")

    async def waited_for(ticket: str, *, still: bool) -> None:
        assert server.shared.gallery is not None and server.shared.gallery.opened is not None
        asked = server.shared.gallery.opened.paintings.get(ticket)
        assert asked is not None
        while (asked.waiting is not None) is not still:
            await asyncio.sleep(0.01)

    async with Client(server, mode=era, elicitation_handler=opens) as client:
        wish = {"image": photo(tmp_path / "a.png"), "instruction": "a moon"}
        call = asyncio.create_task(client.call_tool("edit_region", wish))
        page = Page(await addresses.get())
        assert server.shared.gallery is not None and server.shared.gallery.opened is not None
        (ticket,) = server.shared.gallery.opened.paintings._asked
        await waited_for(ticket, still=True)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await waited_for(ticket, still=False)
        _, answer = await page.paint()
        assert "Tell your assistant that you have painted" in answer and emulator.requests == []
        facts = (await client.call_tool("edit_region", wish)).structured_content  # the limit was given back
    assert addresses.empty() and re.findall(r"img_\w+", answer)[0] in facts["images"][0]["parents"]


async def test_what_was_painted_on_one_picture_edits_no_other(
    client_of: Callable[..., Client[Any]], emulator: Emulator, tmp_path: Path
) -> None:
    async with client_of(None) as client:
        with pytest.raises(ToolError) as told:
            await client.call_tool("edit_region", {"image": photo(tmp_path / "a.png"), "instruction": "a moon"})
        await Page(re.findall(r"http://127\S+", str(told.value))[0]).paint()
        other = {"image": photo(tmp_path / "b.png"), "instruction": "a moon"}
        with pytest.raises(ToolError, match=r"was painted on img_.*, and image is img_.*; nothing was sent"):
            mask = re.findall(r"with mask (img_\w+)", str(told.value))[0]
            await client.call_tool("edit_region", {**other, "mask": mask})
    assert emulator.requests == []


@pytest.mark.parametrize("era", ["legacy"])  # later clients end the call by themselves
async def test_a_client_that_fails_to_send_anybody_to_the_page_is_given_its_address(
    client_of: Callable[..., Client[Any]], tmp_path: Path
) -> None:
    async def broken(*_given: Any) -> ElicitResult:
        raise RuntimeError("no browser here")

    async with client_of(broken) as client:
        with pytest.raises(ToolError, match=r"could not send anybody to the page .* Ask the person to open http://127"):
            await client.call_tool("edit_region", {"image": photo(tmp_path / "a.png"), "instruction": "a moon"})


async def test_what_a_person_does_in_a_gallery_that_a_call_opened_asks_nothing_of_its_client(
    settings: Settings, make_studio: Callable[..., Studio], emulator: Emulator, era: Era, tmp_path: Path
) -> None:
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    served = settings.model_copy(update={"ask_above_usd": 0.01})
    server = build_server(served, LazyStudio(lambda: make_studio(model=gemini)))
    asked: list[str] = []

    async def person(_message: str, _type: Any, params: Any, _context: Any) -> ElicitResult:
        asked.append(params.mode)
        return ElicitResult(action="cancel")

    async with Client(server, mode=era, elicitation_handler=person) as client:
        with pytest.raises(ToolError) as told:
            await client.call_tool("edit_region", {"image": photo(tmp_path / "a.png"), "instruction": "a moon"})
        (address,) = re.findall(r"http://127\S+", str(told.value))
        async with httpx2.AsyncClient(timeout=60) as browser:
            entry = await browser.get(address)
            (onward,) = set(re.findall(r'url=([^"]+)"', entry.text))
            page = (await browser.get(str(entry.url.join(onward)))).text
            (base,) = re.findall(r'data-base="([^"]+)"', page)
            (token,) = re.findall(r'data-form-token="([^"]+)"', page)
            (image_id,) = re.findall(r'data-id="(img_\w+)"', page)
            origin = f"{entry.url.scheme}://{entry.url.netloc.decode()}"
            headers = {"x-form-token": token, "origin": origin, "accept": "application/json"}
            kept = (await browser.post(f"{origin}{base}/masks/{image_id}", content=mask(), headers=headers)).json()
            form = {"image": image_id, "mask": kept["id"], "instruction": "a moon", "key": "k1"}
            made = await browser.post(f"{origin}{base}/edits", data=form, headers=headers)
    assert made.status_code == 200, made.text
    assert asked == ["url"]
