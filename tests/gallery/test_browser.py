"""The gallery in a real browser: what a person sees, with a pointer, with the keyboard alone, and in two windows."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.browser import Visit, violations
from tests.support.processes import Server
from tests.support.rooms import rows
from tests.support.shelf import SIZE, Shelf, drawn, put, tiles

pytestmark = pytest.mark.slow


def test_the_grid_is_searched_as_one_types_and_scrolls_to_the_end_of_the_library(visit: Visit, shelf: Shelf) -> None:
    page = visit.at("")
    expect(page.locator("#count")).to_have_text("1,000 pictures")
    expect(tiles(page).first).to_have_attribute("data-id", shelf.after.id)
    page.locator("#query").press_sequentially("white moo", delay=10)
    expect(page.locator("#count")).to_have_text("1 picture")
    expect(tiles(page)).to_have_count(1)
    assert page.url.endswith("?query=white+moo")
    page.locator("#query").fill("walrus")
    expect(page.locator("#empty")).to_contain_text("No picture is like that")
    page.locator("#query").fill("")
    expect(page.locator("#count")).to_have_text("1,000 pictures")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("#grid li[aria-posinset='1000']")).to_be_visible()
    assert tiles(page).count() < 120  # only what is seen is in the page
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    expect(page.locator("#grid li[aria-posinset='500']")).to_be_visible()


def test_the_whole_way_from_search_to_picture_and_back_is_on_the_keyboard(visit: Visit, shelf: Shelf) -> None:
    page = visit.at("")
    expect(tiles(page).first).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.type("sun")
    expect(page.locator("#count")).to_have_text("2 pictures")
    page.keyboard.press("ArrowDown")
    expect(tiles(page).first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(f"#grid a[data-id='{shelf.before.id}']")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/pictures/{shelf.before.id}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"**/pictures/{shelf.after.id}")
    page.keyboard.press("Escape")
    page.wait_for_url("**/?query=sun")
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    expect(page.locator("#count")).to_have_text("1,000 pictures")
    page.keyboard.press("Escape")
    expect(tiles(page).first).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#grid li[aria-posinset='1000'] a")).to_be_focused()


def test_a_picture_is_zoomed_to_its_pixels_and_beyond_and_compared_with_the_one_before(
    visit: Visit, shelf: Shelf
) -> None:
    page = visit.at(f"pictures/{shelf.after.id}")
    scale, sheet, stage = page.locator("#scale"), page.locator(".sheet"), page.locator("#stage")
    expect(scale).to_have_text("100%")
    page.get_by_role("button", name="Larger").click()
    expect(scale).to_have_text("150%")
    page.keyboard.press("1")
    expect(scale).to_have_text("100%")
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    for _ in range(12):
        page.mouse.wheel(0, -400)
    assert int(scale.inner_text().rstrip("%")) > 1000
    expect(sheet).to_have_class("sheet close")
    place = sheet.bounding_box()
    page.mouse.down()
    page.mouse.move(box["x"] + 340, box["y"] + 320, steps=4)
    page.mouse.up()
    moved = sheet.bounding_box()
    assert (round(moved["x"] - place["x"]), round(moved["y"] - place["y"])) == (40, 20)
    page.keyboard.press("0")
    page.get_by_role("button", name="Before").click()
    over = page.locator(".sheet img").nth(1)
    assert over.evaluate("image => image.src") == f"{visit.base}files/{shelf.before.id}"
    assert over.evaluate("image => image.style.clipPath") == "inset(0px 50% 0px 0px)"
    page.locator("#slide").focus()
    page.keyboard.press("Home")
    assert over.evaluate("image => image.style.clipPath") == "inset(0px 100% 0px 0px)"
    divider = page.locator(".divider")
    handle = divider.bounding_box()
    page.mouse.move(handle["x"] + 1, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100, steps=3)
    page.mouse.up()
    assert 45 < float(page.locator("#slide").input_value()) < 55
    page.get_by_role("button", name="Difference").click()
    expect(over).to_have_class("differing")
    expect(divider).to_be_hidden()
    expect(page.locator("#notice")).to_contain_text("of the picture changed (by more than")


def test_a_mask_is_painted_and_undone_and_the_edit_is_made_once_at_the_price_that_was_shown(
    visit: Visit, shelf: Shelf
) -> None:
    page = visit.at(f"pictures/{shelf.before.id}")
    page.get_by_role("link", name="Paint where to edit").click()
    state = page.locator("#state")
    expect(state).to_have_text("Nothing is painted yet")
    sheet = page.locator(".sheet").bounding_box()
    size = sheet["width"] / SIZE[0]

    def drag(*places: tuple[float, float]) -> None:
        page.mouse.move(sheet["x"] + places[0][0] * size, sheet["y"] + places[0][1] * size)
        page.mouse.down()
        for x, y in places[1:]:
            page.mouse.move(sheet["x"] + x * size, sheet["y"] + y * size, steps=5)
        page.mouse.up()

    drag((50, 50), (500, 60))
    expect(state).to_contain_text("is painted")
    page.keyboard.press("Control+z")
    expect(state).to_have_text("Nothing is painted yet")
    page.get_by_role("radio", name="Box").click()
    drag((160, 120), (320, 360))
    expect(state).to_have_text("13% is painted")
    page.keyboard.press("l")
    drag((400, 300), (500, 300), (500, 400))
    expect(state).to_have_text("14% is painted")
    page.get_by_role("button", name="Invert").click()
    expect(state).to_have_text("86% is painted")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(state).to_have_text("13% is painted")
    page.keyboard.press("+")
    page.get_by_role("button", name="Grow").click()
    expect(state).to_have_text("14% is painted")
    page.get_by_role("button", name="Undo").click()
    charges = len(shelf.world.emulator.charges)
    (requests,) = rows(shelf.world.database, "SELECT count(*) FROM requests")
    page.get_by_label("What should change there?").fill("a blue lake")
    page.get_by_role("button", name="Show the price").click()
    expect(page.locator("#quote")).to_contain_text("Dry run: nothing was sent.")
    assert len(shelf.world.emulator.charges) == charges
    make = page.locator("#make")
    expect(make).to_contain_text("Make it for up to $0.")
    make.dblclick()
    page.wait_for_url("**/pictures/img_*?compare=slider", timeout=60_000)
    assert 1 <= len(shelf.world.emulator.charges) - charges <= 2  # the second, where the answer is asked for once more
    assert rows(shelf.world.database, "SELECT count(*) FROM requests") == [(requests[0] + 1,)]
    (mask,) = (shelf.world.output / ".nanobanana" / "masks").glob("*.png")
    with Image.open(mask) as painted:
        assert painted.size == SIZE and painted.convert("L").getcolors() is not None
        inside, outside = painted.getpixel((200, 200)), painted.getpixel((100, 100))
        assert (inside, outside) == (255, 0) and {value for _, value in painted.convert("L").getcolors()} == {0, 255}
        assert painted.convert("L").point(bool).getbbox() == (160, 120, 320, 360)
    made = page.url.rpartition("/")[2].partition("?")[0]
    expect(page.locator(".divider")).to_be_visible()
    page.get_by_role("link", name="Made from: an orange sun over noise").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/pictures/{shelf.before.id}")
    expect(page.get_by_role("link", name="Became: ")).to_have_count(2)  # no mask, and no answer of the model
    assert shelf.library.get(made) is not None


def box_by_numbers(page: Page, *numbers: int) -> None:
    for name, number in zip(("left", "top", "right", "bottom"), numbers, strict=True):
        page.evaluate(f"document.getElementById('numbers').elements.{name}.value = {number}")
    page.evaluate("document.getElementById('numbers').requestSubmit()")


LATE = """
const real = window.fetch;
window.fetch = async (address, options) => {
  const answer = await real(address, options);
  if (window.late && String(address).includes(window.late)) await new Promise((go) => { window.arrive = go; document.title = "late"; });
  return answer;
};
"""
"""An answer whose address has `late` in it comes when `arrive` is called."""


@pytest.mark.parametrize("late", ["/masks/", "/edits/quote"])
def test_a_price_is_not_shown_for_what_was_changed_while_it_was_asked_for(
    visit: Visit, shelf: Shelf, late: str
) -> None:
    page = visit.at(f"paint/{shelf.before.id}")
    page.evaluate(LATE)
    box_by_numbers(page, 10, 10, 100, 100)
    page.get_by_label("What should change there?").fill("a star")
    page.evaluate(f"window.late = '{late}'")
    page.get_by_role("button", name="Show the price").click()
    expect(page).to_have_title("late")
    if late == "/masks/":
        box_by_numbers(page, 200, 200, 400, 400)
    else:
        page.get_by_label("What should change there?").fill("something else entirely")
    page.evaluate("window.late = ''; window.arrive()")
    expect(page.locator("#notice")).to_contain_text("meanwhile")
    expect(page.locator("#make")).to_be_hidden()
    with page.expect_request("**/edits/quote") as asked:
        page.get_by_role("button", name="Show the price").click()
    expect(page.locator("#make")).to_be_visible()
    words = page.get_by_label("What should change there?").input_value()
    assert f"instruction={words.replace(' ', '+')}" in str(asked.value.post_data)
    (mask,) = re.findall(r"mask=(img_\w+)", str(asked.value.post_data))
    with Image.open(str(shelf.library.get(mask).path)) as painted:
        right = 400 if late == "/masks/" else 100
        assert painted.convert("L").point(bool).getbbox() == (10, 10, right, right)
    box_by_numbers(page, 200, 200, 470, 470)
    expect(page.locator("#make")).to_be_hidden()
    with page.expect_request("**/edits/quote") as asked:  # of what is painted now, and not of the mask that was kept
        page.get_by_role("button", name="Show the price").click()
    assert f"mask={mask}" not in str(asked.value.post_data)


def test_arrows_on_the_slider_and_on_the_stars_do_not_leave_the_picture(visit: Visit, shelf: Shelf) -> None:
    page = visit.at("?query=sun")
    page.locator(f"#grid a[data-id='{shelf.after.id}']").click()
    page.wait_for_url(f"**/pictures/{shelf.after.id}")
    expect(page.locator("#next")).to_be_visible()
    page.get_by_role("button", name="Before").click()
    page.locator("#slide").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#slide")).to_have_value("51")
    page.get_by_label("none", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("1 of 5")).to_be_checked()
    assert page.url.endswith(f"/pictures/{shelf.after.id}")
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/pictures/{shelf.before.id}")


def test_a_new_picture_leaves_the_focus_where_it_was(visit: Visit, shelf: Shelf) -> None:
    page = visit.at("")
    old = page.locator(f"#grid a[data-id='{shelf.before.id}']")
    old.focus()
    page.wait_for_timeout(1500)  # until the library is looked at
    made = put(shelf.library, shelf.world.output, "newer.png", drawn(), prompt="made meanwhile")
    expect(page.locator(f"#grid a[data-id='{made.id}']")).to_be_visible()
    expect(old).to_be_focused()
    page.keyboard.press("Home")
    expect(page.locator(f"#grid a[data-id='{made.id}']")).to_be_focused()
    page.keyboard.press("Escape")


def test_a_box_is_painted_by_numbers_with_the_keyboard_alone_and_handed_to_an_assistant(
    visit: Visit, shelf: Shelf
) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.at(f"paint/{shelf.after.id}")
    page.get_by_text("A box by numbers").focus()
    page.keyboard.press("Enter")
    for number in ("64", "48", "700", "240"):
        page.keyboard.press("Tab")
        page.keyboard.type(number)
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("A box lies inside the picture, which has 640 by 480 pixels")
    page.get_by_label("Right").fill("320")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("16% is painted")
    page.get_by_role("button", name="Copy the mask's id").press("Enter")
    expect(page.locator("#notice")).to_have_text("The mask's id copied.")
    mask = page.evaluate("navigator.clipboard.readText()")
    assert shelf.library.get(mask).parents[0].image_id == shelf.after.id


def test_an_assistant_that_asked_gets_the_mask_that_is_handed_over(visit: Visit, shelf: Shelf) -> None:
    with Server(shelf.world) as server:
        server.greet()
        wish = {"image": shelf.before.id, "instruction": "a red kite"}
        done, told = server.call("edit_region", **wish)
        assert not done
        (address,) = re.findall(r"http://127\S+", told)
        (ticket,) = re.findall(r"with mask (img_\w+)", told)
        page = visit.tab()
        page.goto(address)
        expect(page.get_by_text("Where shall this change? a red kite")).to_be_visible()
        hand = page.get_by_role("button", name="Hand it to your assistant")
        expect(hand).to_be_disabled()
        page.keyboard.press("r")
        sheet = page.locator(".sheet").bounding_box()
        page.mouse.move(sheet["x"] + 150, sheet["y"] + 150)
        page.mouse.down()
        page.mouse.move(sheet["x"] + 300, sheet["y"] + 300, steps=4)
        page.mouse.up()
        hand.click()
        expect(page.locator("#kept-words")).to_contain_text(f"The mask is kept as {ticket}. Tell your assistant")
        done, told = server.call("edit_region", **wish, mask=ticket)
        assert done, told
    port = int(re.findall(r":(\d+)/", address)[0])
    with pytest.raises(ConnectionRefusedError):  # it ended with its server
        socket.create_connection(("127.0.0.1", port))


def test_trash_and_restore_and_notes_are_a_click_each(visit: Visit, shelf: Shelf) -> None:
    kept = put(shelf.library, shelf.world.output, "trash.png", drawn(), prompt="for the trash")
    page = visit.at(f"pictures/{kept.id}")
    page.get_by_title("4 of 5").click()
    expect(page.locator("#notice")).to_have_text("Saved.")
    page.get_by_label("Tags, with commas").fill("Best, sun")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Tags, with commas")).to_have_value("best, sun")
    page.get_by_role("button", name="Move to the trash").click()
    expect(page.get_by_text("It is in the trash.")).to_be_visible()
    assert not Path(str(kept.path)).exists()
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_text("It is in the trash.")).to_be_hidden()
    assert Path(str(kept.path)).exists()
    page = visit.at("?tag=best&min_rating=4")
    expect(page.locator("#count")).to_have_text("1 picture")


def test_a_new_picture_of_another_process_appears_in_both_of_two_tabs(visit: Visit, shelf: Shelf) -> None:
    pages = [visit.at(""), visit.tab()]
    pages[1].goto(visit.base)
    for page in pages:
        expect(tiles(page).first).to_be_visible()
    pages[1].wait_for_timeout(1500)  # until the library is looked at
    made = put(shelf.library, shelf.world.output, "new.png", drawn(), prompt="just made")
    for page in pages:
        page.bring_to_front()
        expect(page.locator(f"#grid a[data-id='{made.id}']")).to_be_visible()


def test_a_picture_whose_file_is_gone_is_told_in_the_grid_and_on_its_page(visit: Visit) -> None:
    page = visit.at("?query=heron")
    gone = tiles(page).first
    expect(gone).to_have_class("gone")
    gone.click()
    expect(page.get_by_role("alert")).to_contain_text("Its folder is not there: /gone/")


def test_without_a_script_lists_pictures_and_forms_work(
    visit: Visit, beside: Callable[..., BrowserContext], shelf: Shelf
) -> None:
    page = beside(java_script_enabled=False).new_page()
    page.goto(visit.base)
    assert tiles(page).count() == 100
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    page.goto(f"{visit.base}pictures/{shelf.before.id}")
    assert page.locator("#stage img").evaluate("image => image.naturalWidth") == SIZE[0]
    page.get_by_label("Note").fill("by hand")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Note")).to_have_value("by hand")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off_in_a_narrow_window(
    visit: Visit, beside: Callable[..., BrowserContext], shelf: Shelf, scheme: str
) -> None:
    page = beside(color_scheme=scheme, viewport={"width": 1280, "height": 800}).new_page()
    for path in ("", f"pictures/{shelf.after.id}", f"paint/{shelf.after.id}", "nowhere"):
        page.goto(visit.base + path)
        page.wait_for_load_state("networkidle") if path == "nowhere" else page.wait_for_timeout(300)
        if path == "":
            page.get_by_text("Filter").click()
        assert violations(page) == [], path
        page.set_viewport_size({"width": 320, "height": 740})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert violations(page) == [], path
        page.set_viewport_size({"width": 1280, "height": 800})
