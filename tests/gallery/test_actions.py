"""A person's actions in a gallery happen once, by the studio's own rules, and are told in words."""

import asyncio
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageDraw

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.errors import RequestError
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.gallery.folder import show_in_folder
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.support.fakes import FakeModel
from tests.support.rooms import hang, png, rows
from tests.support.visitor import Visitor, visit

SIZE = (320, 240)


@pytest.fixture
async def kept(visitor: Visitor, settings: Settings) -> ImageRecord:
    studio = await visitor.server.shared.studio()
    return _hang(studio, settings)


def _hang(studio: Studio, settings: Settings, **changes: Any) -> ImageRecord:
    out = io.BytesIO()
    picture = Image.effect_noise(SIZE, 60).convert("RGB")
    ImageDraw.Draw(picture).ellipse((80, 60, 200, 180), fill="orange")
    picture.save(out, "PNG")
    size = {"width": SIZE[0], "height": SIZE[1]}
    return hang(studio.library, settings.output_dir / "sun.png", data=out.getvalue(), **size, **changes)


def _painted(size: tuple[int, int] = SIZE, *, box: tuple[int, int, int, int] | None = (90, 70, 180, 170)) -> bytes:
    mask = Image.new("L", size, 0)
    if box is not None:
        ImageDraw.Draw(mask).rectangle(box, fill=255)
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


async def _edit(visitor: Visitor, image_id: str, **fields: str) -> dict[str, str]:
    """The fields of an edit whose mask is painted."""
    mask = (await visitor.mask(image_id, _painted())).json()["id"]
    return {"image": image_id, "mask": mask, "instruction": "a moon", "model_tier": "auto", **fields}


async def test_note_tags_and_rating_are_kept_and_each_alone_leaves_the_others(
    visitor: Visitor, kept: ImageRecord
) -> None:
    where = f"pictures/{kept.id}/notes"
    told = await visitor.post(where, {"note": "for the poster", "tags": "Sun, warm ,sun", "rating": "4"})
    assert told.json() == {
        "note": "for the poster",
        "tags": ["sun", "warm"],
        "rating": 4,
        "go": f"pictures/{kept.id}",
    }
    await visitor.post(where, {"rating": "0"})
    found = await (await visitor.server.shared.studio()).found(kept.id)
    assert (found.note, found.tags, found.rating) == ("for the poster", ("sun", "warm"), None)
    page = await visitor.press(f"pictures/{kept.id}", "notes", note="none", tags="", rating="2")
    assert ">none</textarea>" in page.text
    for fields, words in (({"rating": "6"}, "it goes from 1 to 5"), ({"tags": "x" * 50}, "is not a tag")):
        refused = await visitor.post(where, fields)
        assert refused.status_code == 400 and words in refused.json()["error"]


async def test_a_picture_goes_to_the_trash_comes_back_and_is_deleted_only_after_a_second_yes(
    visitor: Visitor, kept: ImageRecord
) -> None:
    page, path = f"pictures/{kept.id}", Path(str(kept.path))
    assert "Delete for good" not in (await visitor.get(page)).text
    assert (await visitor.post(f"{page}/deletion")).status_code == 400
    assert "It is in the trash." in (await visitor.press(page, "trash")).text
    assert not path.exists() and kept.id not in (await visitor.get("")).text
    assert kept.id in (await visitor.get("?kind=trash")).text
    assert "It is in the trash." not in (await visitor.press(page, "restore")).text
    assert path.exists()
    await visitor.press(page, "trash")
    assert "Nothing brings it back" in (await visitor.press(page, "deletion")).text
    assert (await visitor.post(f"{page}/delete", {"token": "guessed"})).status_code == 400
    assert (await visitor.get(page)).status_code == 200
    token = (await visitor.post(f"{page}/deletion")).json()["token"]
    assert (await visitor.post(f"{page}/delete", {"token": token})).json()["deleted"] == kept.id
    assert (await visitor.get(page)).status_code == 404 and kept.id not in (await visitor.get("?kind=trash")).text


async def test_what_maintenance_would_not_touch_the_gallery_does_not_either(
    visitor: Visitor, kept: ImageRecord, settings: Settings
) -> None:
    Path(str(kept.path)).write_bytes(png(5))
    refused = await visitor.post(f"pictures/{kept.id}/trash")
    assert refused.status_code == 400 and refused.json()["error"]
    assert Path(str(kept.path)).read_bytes() == png(5)


async def test_a_folder_is_opened_by_the_id_of_a_picture_and_by_nothing_else(
    visitor: Visitor, kept: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr("nanobanana_mcp.gallery.actions.show_in_folder", opened.append)
    assert (await visitor.post(f"pictures/{kept.id}/folder", {"path": "/etc/passwd"})).status_code == 200
    assert opened == [Path(str(kept.path))]
    assert (await visitor.post("pictures/img_0000000000000000/folder", {"path": "/etc"})).status_code == 404
    assert (await visitor.post("pictures/%2Fetc%2Fpasswd/folder")).status_code == 404
    assert len(opened) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always has one")
def test_a_system_without_a_window_of_files_says_where_the_picture_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.png").touch()
    with pytest.raises(RequestError, match=f"has no .* to open a folder with; the folder is {tmp_path}"):
        show_in_folder(tmp_path / "a.png")
    with pytest.raises(RequestError, match="no longer exists"):
        show_in_folder(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (_painted((320, 241)), "320x241 pixels and the picture 320x240"),
        (_painted(box=None), "Nothing is painted"),
        (b"no picture", "This is text, not a picture"),
        (b"", "empty"),
    ],
)
async def test_a_mask_of_another_size_or_kind_is_refused(
    visitor: Visitor, kept: ImageRecord, mask: bytes, words: str
) -> None:
    refused = await visitor.mask(kept.id, mask)
    assert refused.status_code == 400
    assert words in refused.json()["error"]


async def test_a_mask_is_kept_under_a_promised_id_of_its_own_picture_alone(
    visitor: Visitor, kept: ImageRecord, settings: Settings
) -> None:
    studio = await visitor.server.shared.studio()
    other = hang(studio.library, settings.output_dir / "other.png", data=png(5, SIZE), width=SIZE[0], height=SIZE[1])
    ticket = visitor.paintings.ask(kept.id, "a moon").ticket
    for image_id, promised, words in (
        (other.id, ticket, "Your assistant asked about another picture."),
        (kept.id, "img_../../x", "is no id that a mask could have"),
    ):
        refused = await visitor.mask(image_id, _painted(), f"?ask={promised}")
        assert refused.status_code == 400 and words in refused.json()["error"]
    assert studio.library.get(ticket) is None
    assert (await visitor.mask(kept.id, _painted(), f"?ask={ticket}")).json()["id"] == ticket


async def test_a_mask_that_has_no_end_is_not_read_to_it(
    visitor: Visitor, kept: ImageRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.gallery.actions.MAX_FILE_BYTES", 1000)
    refused = await visitor.mask(kept.id, b"x" * 1001)
    assert refused.status_code == 400 and "larger than the 1,000 bytes" in refused.json()["error"]


async def test_a_price_costs_nothing_and_an_edit_sent_twice_at_once_or_later_pays_once(
    settings: Settings, make_studio: Callable[..., Studio]
) -> None:
    emulator = Emulator()
    emulator.control.named = False  # money is spoken of as with Gemini
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    async with visit(settings, lambda: make_studio(model=gemini)) as visitor:
        await visitor.enter()
        await _pays_once(visitor, emulator, _hang(await visitor.server.shared.studio(), settings))
    assert rows(settings.database_path, "SELECT count(*) FROM requests") == [(1,)]


async def _pays_once(visitor: Visitor, emulator: Emulator, kept: ImageRecord) -> None:
    edit = await _edit(visitor, kept.id)
    quote = (await visitor.post("edits/quote", edit)).json()
    assert emulator.charges == [] and quote["refused"] is None and "Dry run: nothing was sent." in quote["summary"]
    assert 0.04 < quote["max_cost_usd"] < 0.5
    sent = {**edit, "key": quote["key"], "max_cost_usd": str(quote["max_cost_usd"])}
    first, double = await asyncio.gather(visitor.post("edits", sent), visitor.post("edits", sent))
    made = first.json()
    calls = len(emulator.charges)
    assert calls in (1, 2) and made["go"] == f"pictures/{made['id']}?compare=slider"
    again = await visitor.post("edits", sent)
    assert double.json()["id"] == again.json()["id"] == made["id"] and len(emulator.charges) == calls
    lineage = await (await visitor.server.shared.studio()).lineage(made["id"])
    assert kept.id in {ancestor.record.id for ancestor in lineage.ancestors}


async def test_an_edit_without_key_mask_or_words_or_above_its_price_sends_nothing(
    visitor: Visitor, kept: ImageRecord, model: FakeModel
) -> None:
    edit = await _edit(visitor, kept.id)
    for changes, words in (
        ({"key": ""}, "ask for its price first"),
        ({"mask": ""}, "has not a mask"),
        ({"instruction": " "}, "has not what should change"),
        ({"model_tier": "huge"}, "model_tier"),
        ({"max_cost_usd": "0.001"}, "more than max_cost_usd"),
        ({"max_cost_usd": "little"}, "is not a number"),
        ({"grow": "much"}, "is not a number"),
    ):
        refused = await visitor.post("edits", {**edit, "key": "k", **changes})
        assert refused.status_code in (400, 402) and words in refused.json()["error"], changes
    assert model.requests == []


async def test_limits_and_policy_hold_for_a_person_as_for_an_agent(
    settings: Settings, make_studio: Callable[..., Studio], model: FakeModel, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\n"
        "tools:\n"
        "  edit_region: {rules: [{action: deny, conditions: [{path: args.model_tier, op: eq, value: pro}]}]}\n"
        "  maintenance: {rules: [{action: deny}]}\n"
    )
    limits = Limits(per_call_usd=0.01, per_hour_usd=None, per_day_usd=None, calls_per_minute=None)
    async with visit(settings, lambda: make_studio(limits=limits), policy=policy) as visitor:
        await visitor.enter()
        kept = _hang(await visitor.server.shared.studio(), settings)
        edit = await _edit(visitor, kept.id)
        denied = await visitor.post("edits/quote", {**edit, "model_tier": "pro"})
        assert denied.status_code == 403 and "olicy" in denied.json()["error"]
        quote = (await visitor.post("edits/quote", edit)).json()
        assert "NANOBANANA_MAX_USD_PER_CALL" in quote["refused"]
        over = await visitor.post("edits", {**edit, "key": quote["key"]})
        assert over.status_code == 402 and model.requests == []
        for action in ("trash", "restore", "deletion", "delete"):
            closed = await visitor.post(f"pictures/{kept.id}/{action}")
            assert closed.status_code == 403 and "does not allow maintenance" in closed.json()["error"], action
        assert Path(str(kept.path)).exists()
