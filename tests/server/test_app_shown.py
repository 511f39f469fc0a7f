"""The page of MCP Apps in a real browser, inside a host: what a person sees of an answer."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Frame, Page, expect

from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.settings import Settings
from tests.support.browser import BRIDGE, chromium, script, violations

pytestmark = pytest.mark.slow

APP = "ui://nanobanana/pictures"
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'none'; connect-src 'none'"
"""The policy of the strictest host for a page that asks for nothing: not even pictures by data: addresses."""

HOST = """
async ([html, answer, resources, capabilities]) => {
  const frame = document.createElement("iframe");
  frame.title = "The App";
  document.documentElement.lang = "en";
  frame.setAttribute("sandbox", "allow-scripts");
  frame.style.cssText = "width: 700px; height: 1200px; border: 0";
  window.said = [];
  window.addEventListener("message", ({ source, data }) => {
    if (source !== frame.contentWindow) return;
    window.said.push(data);
    const reply = (more) => source.postMessage({ jsonrpc: "2.0", ...more }, "*");
    if (data.method === "ui/initialize") reply({ id: data.id, result: {
      protocolVersion: "2026-01-26", hostInfo: { name: "a host", version: "1" }, hostCapabilities: capabilities,
      hostContext: { theme: "dark", styles: { variables: { "--color-text-primary": "rgb(1, 2, 3)" } } } } });
    else if (data.method === "ui/notifications/initialized") {
      reply({ method: "ui/notifications/tool-input", params: { arguments: {} } });
      reply({ method: "ui/notifications/tool-result", params: answer });
    } else if (data.method === "resources/read") {
      const found = resources[data.params.uri];
      reply(found ? { id: data.id, result: found } : { id: data.id, error: { code: -32602, message: "not found" } });
    }
  });
  window.again = (message) => frame.contentWindow.postMessage(message, "*");
  document.body.append(frame);
  frame.srcdoc = html;
}
"""
"""A host as the protocol of MCP Apps wants it, with nothing that a client would have beside it."""

MCPS_OWN = """
async ([html, answer, resources, capabilities]) => {
  const frame = document.createElement("iframe");
  frame.title = "The App";
  frame.setAttribute("sandbox", "allow-scripts");
  frame.style.cssText = "width: 700px; height: 1200px; border: 0";
  document.body.append(frame);
  const bridge = new Apps.AppBridge(null, { name: "a host", version: "1" }, capabilities, { hostContext: { theme: "dark" } });
  window.said = [];
  bridge.onreadresource = async ({ uri }) => resources[uri] ?? Promise.reject(new Error("not found"));
  bridge.onsizechange = (size) => window.said.push({ method: "size", size });
  bridge.oninitialized = async () => {
    await bridge.sendToolInput({ arguments: {} });
    await bridge.sendToolResult(answer);
    window.said.push({ method: "ui/notifications/initialized" });
  };
  await bridge.connect(new Apps.PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = html;
}
"""
"""The same by the library that MCP's own basic host is made of, which checks every message."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers of the tools, the page and what the host can read, all from a real server over the emulator."""
    root = tmp_path_factory.mktemp("app")
    settings = Settings(
        backend="emulator",
        NANOBANANA_OUTPUT_DIR=root / "pictures",
        database_url=f"sqlite:///{root / 'state' / 'library.db'}",
        structured="always",
    )

    def plain(answer: Any) -> dict[str, Any]:
        found: dict[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        return found

    async def ask() -> dict[str, Any]:
        async with Client(build_server(settings)) as client:
            found: dict[str, Any] = {"page": (await client.read_resource(APP))[0].text}
            one = await client.call_tool_mcp("generate_image", {"prompt": "a <b>red</b> panda"})
            first = one.structured_content["images"][0]
            found["one"] = plain(one)
            found["edit"] = plain(
                await client.call_tool_mcp("generate_image", {"prompt": "blue", "input_images": [first["id"]]})
            )
            for number in range(5):
                await client.call_tool_mcp("generate_image", {"prompt": f"panda {number}"})
            found["found"] = plain(await client.call_tool_mcp("find_images", {"query": "panda"}))
            with Image.open(first["path"]) as image:
                marked = image.convert("RGB")
            ImageDraw.Draw(marked).rectangle((0, 0, 1024, 1024), fill=(255, 0, 0))
            marked.save(root / "marked.png")
            seen = {"image": first["id"], "compare_with": str(root / "marked.png")}
            found["pair"] = plain(await client.call_tool_mcp("view_image", seen))
            found["wrong"] = plain(await client.call_tool_mcp("view_image", {"image": "img_0000000000000000"}))
            found["resources"] = {}
            for image in found["found"]["structuredContent"]["images"]:
                for address in (f"image://{image['id']}", f"image://{image['id']}/thumbnail"):
                    found["resources"][address] = plain(await client.read_resource_mcp(address))
            return found

    with ThreadPoolExecutor(1) as beside:  # playwright has a loop of its own in this thread
        return beside.submit(asyncio.run, ask()).result()


Show = Callable[..., tuple[Page, Frame]]


@pytest.fixture
def show(browser: Browser, said: dict[str, Any]) -> Iterator[Show]:
    """Opens the page in a host with one of the answers; any word of an error on the console fails the test."""
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 760, "height": 1300})
    context.set_default_timeout(15_000)

    def open_it(name: str, *, reads: bool = True, mcps_own: bool = False) -> tuple[Page, Frame]:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.set_content("<!doctype html><title>A host</title>")
        policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        html = said["page"].replace("<head>", f"<head>{policy}")
        if mcps_own:
            page.evaluate(script(BRIDGE) + "; window.Apps = Apps")
        page.evaluate(
            MCPS_OWN if mcps_own else HOST,
            [html, said[name], said["resources"], {"serverResources": {}} if reads else {}],
        )
        page.wait_for_function("window.said.some((one) => one.method === 'ui/notifications/initialized')")
        return page, page.frames[-1]

    yield open_it
    context.close()
    assert errors == []


def test_a_picture_is_shown_with_its_id_and_cost_and_what_was_asked_stays_text(show: Show) -> None:
    page, frame = show("one")
    expect(frame.locator("figure")).to_have_count(1)
    expect(frame.locator("figcaption")).to_contain_text("img_")
    expect(frame.locator("b", has_text="red")).to_have_count(0)
    expect(frame.locator("figure canvas")).to_have_js_property("width", 512)
    assert frame.evaluate("document.documentElement.dataset.theme") == "dark"
    page.wait_for_function("window.said.some((one) => one.method === 'ui/notifications/size-changed')")
    assert violations(page) == []


@pytest.mark.parametrize(("answer", "figures"), [("one", 1), ("found", 6), ("pair", None)])
def test_mcps_own_host_shows_the_pictures_of_an_answer(show: Show, answer: str, figures: int | None) -> None:
    page, frame = show(answer, mcps_own=True)
    if figures is None:
        expect(frame.locator("#pair")).to_be_visible()
    else:
        expect(frame.locator("figure")).to_have_count(figures)
        expect(frame.locator("figure canvas").first).to_have_js_property("width", 512)
    frame.wait_for_function("""() => [...document.querySelectorAll("canvas")].some((one) => one.width && new Set(
        one.getContext("2d").getImageData(0, 0, one.width, one.height).data).size > 20)""")
    assert frame.evaluate("document.documentElement.dataset.theme") == "dark"
    page.wait_for_function("window.said.some((one) => one.method === 'size' && one.size.height > 100)")


def test_an_edit_is_shown_before_and_after_with_a_slider_that_the_keyboard_moves(show: Show) -> None:
    _, frame = show("edit")
    expect(frame.locator("#pair")).to_be_visible()
    frame.locator("#slide").focus()
    frame.locator("#slide").press("ArrowLeft")
    assert frame.evaluate("document.getElementById('pair').style.getPropertyValue('--at')") == "49%"


def test_two_compared_pictures_lie_over_each_other_at_the_same_place(show: Show) -> None:
    _, frame = show("pair")
    expect(frame.locator("#pair")).to_be_visible()
    middle = """() => [...document.querySelectorAll('#pair canvas')].map(
        (one) => [...one.getContext('2d').getImageData(one.width / 2, one.height / 4, 1, 1).data])"""
    first, second = frame.evaluate(middle)
    assert second[0] > 240 and second[1] < 15 and second[2] < 15
    assert first != second
    expect(frame.locator("figcaption")).to_contain_text("What differs")


def test_what_was_found_is_a_grid_of_which_each_opens_larger(show: Show, said: dict[str, Any]) -> None:
    _, frame = show("found")
    expect(frame.locator("figure")).to_have_count(6)
    expect(frame.locator("figure canvas").first).to_have_js_property("width", 512)
    frame.locator("figure button").first.click()
    expect(frame.locator("figure canvas").first).to_have_js_property("width", 1024)
    first = said["found"]["structuredContent"]["images"][0]
    full = said["resources"][f"image://{first['id']}"]["contents"][0]["blob"]
    assert base64.b64decode(full) == Path(first["path"]).read_bytes()


def test_a_host_that_hands_out_nothing_shows_the_sheet_of_the_answer(show: Show) -> None:
    _, frame = show("found", reads=False)
    expect(frame.locator("figure")).to_have_count(1)
    expect(frame.locator("#state")).to_contain_text("6 pictures found")


def test_an_error_is_said_and_a_later_answer_takes_its_place(show: Show, said: dict[str, Any]) -> None:
    page, frame = show("wrong")
    expect(frame.locator("#state")).to_contain_text("has no picture")
    page.evaluate(
        "(answer) => window.again({ jsonrpc: '2.0', method: 'ui/notifications/tool-result', params: answer })",
        said["one"],
    )
    expect(frame.locator("figure")).to_have_count(1)
