"""A gallery that ends while a page of it is open: the page says so, and what was painted is not lost."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.browser import Served, Visit
from tests.support.processes import Server
from tests.support.shelf import SIZE, Shelf, tiles

pytestmark = pytest.mark.slow


def paint_a_box(page: Page) -> None:
    page.get_by_text("A box by numbers").click()
    for name, number in (("Left", "10"), ("Top", "10"), ("Right", "200"), ("Bottom", "200")):
        page.get_by_label(name).fill(number)
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("12% is painted")


def test_a_gallery_that_dies_is_told_and_what_was_painted_goes_to_the_one_that_comes_back(
    browser: Browser, shelf: Shelf
) -> None:
    with Served(shelf.world) as served, Visit(browser, served) as visit:
        page = visit.at(f"paint/{shelf.before.id}")
        paint_a_box(page)
        os.kill(served.pid, signal.SIGKILL)
        served.end()
        expect(page.locator("#notice")).to_contain_text(
            "The gallery has ended. Start it again with 'nanobanana gallery'"
        )
        page.get_by_role("button", name="Copy the mask's id").click()
        expect(page.locator("#notice")).to_contain_text("does not answer; nothing was done")
        with Served(shelf.world, port=served.port) as again:
            tab = visit.tab()
            tab.goto(again.address)
            expect(tiles(tab).first).to_be_visible()
            page.bring_to_front()
            expect(page.locator("#notice")).to_have_text("The gallery is back.")
            expect(page.locator("#state")).to_have_text("12% is painted")
            page.get_by_role("button", name="Copy the mask's id").click()
            expect(page.locator("#notice")).to_have_text("The mask's id copied.")
            assert "Traceback" not in again.end(signal.SIGINT)


def test_a_server_that_dies_while_somebody_paints_for_it_costs_no_mask(
    beside: Callable[..., BrowserContext], shelf: Shelf, tmp_path: Path
) -> None:
    wish = {"image": shelf.before.id, "instruction": "a green kite"}
    with Server(shelf.world) as server:
        _, told = server.greet().call("edit_region", **wish)
        (address,) = re.findall(r"http://127\S+", told)
        (promised,) = re.findall(r"with mask (img_\w+)", told)
        window = beside()
        window.set_default_timeout(15_000)
        page = window.new_page()
        page.goto(address)
        paint_a_box(page)
        server.kill()
    expect(page.locator("#notice")).to_contain_text("The gallery has ended")
    with page.expect_download() as saved:  # which needs no gallery
        page.get_by_role("button", name="Save the mask as a file").click()
    saved.value.save_as(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as painted:
        assert painted.size == SIZE and painted.convert("L").point(bool).getbbox() == (10, 10, 200, 200)
    with Served(shelf.world, port=int(re.findall(r":(\d+)/", address)[0])) as again:
        window.new_page().goto(again.address)
        page.bring_to_front()
        expect(page.locator("#notice")).to_have_text("The gallery is back.")
        page.get_by_role("button", name="Hand it to your assistant").click()
        expect(page.locator("#kept-words")).to_have_text(
            f"The mask is kept as {promised}. Tell your assistant that you have painted: call edit_region again with image "
            f"{shelf.before.id} and mask {promised}."
        )
    with Server(shelf.world) as server:
        done, told = server.greet().call("edit_region", **wish, mask=promised)
        assert done, told
