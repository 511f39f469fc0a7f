"""Going on with the model's own turn: whole, later and elsewhere; and beginning afresh, said and paid once."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.emulator import signatures
from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Finish, HttpError
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.jobs import conversation
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.easel import charged, drawing, saved, use
from tests.support.scenes import photo

WEEK_S = 7 * 24 * 3600


async def _said(emulated: Emulated, prompt: str, **arguments: Any) -> dict[str, Any]:
    """Returns the answer of generate_image, and its picture beside it."""
    facts = await use(emulated, "generate_image", prompt=prompt, **arguments)
    return facts | {"id": facts["images"][0]["id"], "sha256": facts["images"][0]["sha256"]}


def _last(emulated: Emulated) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = emulated.drawn[-1]["contents"]
    return contents


def _texts(contents: list[dict[str, Any]]) -> list[str]:
    """The first words of each turn of the user."""
    return [turn["parts"][0]["text"] for turn in contents if turn["role"] == "user"]


def _images(turn: dict[str, Any]) -> list[str]:
    return [part["inlineData"]["data"]["sha256"] for part in turn["parts"] if "inlineData" in part]


def _began_afresh(facts: dict[str, Any], emulated: Emulated) -> bool:
    (turn,) = _last(emulated)
    return len(_images(turn)) == 1 and any("from the picture alone" in warning for warning in facts["warnings"])


@pytest.mark.slow
async def test_an_edit_goes_on_with_every_turn_and_signature_as_it_was(emulated: Emulated, tmp_path: Path) -> None:
    photo_of_her = saved(tmp_path, photo(120, 90, seed=3), "her.jpg")
    emulated.emulator.control.text = "Here she is."
    first = await _said(
        emulated,
        "a portrait",
        input_image_path_1=str(photo_of_her),
        mode="generate",
        input_roles=["character"],
        negative_prompt="no hats",
    )
    (asked,) = _last(emulated)
    second = await _said(emulated, "now in blue", continue_from=first["id"])
    third = await _said(emulated, "and smiling", continue_from=second["id"])
    assert not any("afresh" in warning or "alone" in warning for warning in third["warnings"])
    contents = _last(emulated)
    assert [turn["role"] for turn in contents] == ["user", "model", "user", "model", "user"]
    assert contents[0] == asked
    assert contents[4]["parts"] == [{"text": "and smiling"}]
    control = emulated.emulator.control
    for turn, picture in ((contents[1], first), (contents[3], second)):
        words, image = turn["parts"]
        assert words["text"] == "Here she is." and _images(turn) == [picture["sha256"]]
        payloads = (words["text"].encode(), Path(picture["file_paths"][0]).read_bytes())
        for part, payload in zip((words, image), payloads, strict=True):
            signature = base64.urlsafe_b64decode(part["thoughtSignature"])
            model = emulated.models[-1]
            assert signatures.is_valid(
                signature, payload, model=model, secret=control.signature_secret, now=emulated.clock()
            )
    assert second["mode"] == "edit" and charged(emulated) == pytest.approx(
        sum(facts["cost_usd"] for facts in (first, second, third)), abs=1e-5
    )


@asynccontextmanager
async def _elsewhere(
    emulated: Emulated, make_studio: Callable[..., Studio], connect: Connect, *, secret: str | None = None
) -> AsyncIterator[Emulated]:
    """Another process on the same library, with a Gemini of its own that has the same secret, or another."""
    emulator = Emulator(clock=emulated.clock)
    emulator.control.cheap = True
    emulator.control.signature_secret = secret or emulated.emulator.control.signature_secret
    gemini = Gemini(api_key="TEST_KEY", timeout_s=20, transport=httpx2.ASGITransport(app=emulator.app))
    studio = make_studio(model=gemini)
    async with connect(open_it=lambda: studio) as client:
        yield Emulated(studio=studio, emulator=emulator, gemini=gemini, clock=emulated.clock, client=client)


async def test_a_conversation_goes_on_next_week_in_another_process(
    emulated: Emulated, make_studio: Callable[..., Studio], connect: Connect
) -> None:
    first = await _said(emulated, "a heron")
    emulated.clock.ahead_s = WEEK_S
    async with _elsewhere(emulated, make_studio, connect) as later:
        second = await _said(later, "at night", continue_from=first["id"])
        assert _texts(_last(later)) == ["a heron", "at night"]
        assert _images(_last(later)[1]) == [first["sha256"]]
        assert not any("alone" in warning for warning in second["warnings"])


async def test_a_signature_that_gemini_does_not_take_means_beginning_afresh_and_one_charge(
    emulated: Emulated, make_studio: Callable[..., Studio], connect: Connect
) -> None:
    first = await _said(emulated, "a heron")
    async with _elsewhere(emulated, make_studio, connect, secret="another") as other:
        second = await _said(other, "at night", continue_from=first["id"])
        assert _began_afresh(second, other)
        assert _images(_last(other)[0]) == [first["sha256"]]
        assert len(other.drawn) == 2 and len(other.emulator.charges) == 1
        assert second["cost_usd"] == pytest.approx(charged(other), abs=1e-5)


async def test_a_signature_that_google_calls_corrupted_means_beginning_afresh_and_one_charge(
    emulated: Emulated,
) -> None:
    first = await _said(emulated, "a heron")
    emulated.emulator.control.queue.append(HttpError(400, "INVALID_ARGUMENT", "Corrupted thought signature."))
    second = await _said(emulated, "at night", continue_from=first["id"])
    assert _began_afresh(second, emulated) and len(emulated.emulator.charges) == 2


async def test_a_missing_signature_means_beginning_afresh_and_the_price_of_both_answers(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    emulated.emulator.control.queue.append(Finish("MISSING_THOUGHT_SIGNATURE"))
    second = await _said(emulated, "at night", continue_from=first["id"])
    assert _began_afresh(second, emulated) and len(emulated.emulator.charges) == 2
    drawn = emulated.emulator.charges[-1].usd  # the tokens of the first prompt come to it
    assert drawn + 0.0002 < second["cost_usd"] < drawn + 0.005
    await emulated.studio.noted()
    spent = emulated.studio.journal.spending("gemini").hour_usd
    assert spent == pytest.approx(emulated.emulator.charges[0].usd + second["cost_usd"], abs=1e-5)


async def test_after_an_expired_signature_the_conversation_goes_on_from_the_fresh_turn(emulated: Emulated) -> None:
    emulated.emulator.control.cheap = False  # else every picture is the same, and that is told
    emulated.emulator.control.signature_ttl_s = 3600
    first = await _said(emulated, "a heron")
    emulated.clock.ahead_s = 7200
    second = await _said(emulated, "at night", continue_from=first["id"])
    assert _began_afresh(second, emulated) and len(emulated.emulator.charges) == 2
    third = await _said(emulated, "with a moon", continue_from=second["id"])
    assert _texts(_last(emulated)) == ["at night", "with a moon"]
    assert _images(_last(emulated)[0]) == [first["sha256"]]
    assert third["warnings"] == [] and len(emulated.drawn) == 4


async def test_a_conversation_with_one_model_begins_afresh_with_another(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron", model_tier="flash")
    second = await _said(emulated, "at night", continue_from=first["id"], model_tier="pro")
    assert _began_afresh(second, emulated) and len(emulated.emulator.charges) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "model"), [("a quick sketch", "pro"), ("a detailed print", "flash")])
async def test_auto_stays_with_the_model_of_the_conversation(emulated: Emulated, prompt: str, model: Any) -> None:
    emulated.emulator.control.cheap = False  # else every picture is the same, and that is told
    first = await _said(emulated, "a heron", model_tier=model)
    second = await _said(emulated, prompt, continue_from=first["id"])
    assert second["model_tier"] == model and second["warnings"] == []
    assert _texts(_last(emulated)) == ["a heron", prompt]
    chosen = await _said(emulated, prompt, continue_from=first["id"], model_tier="lite", resolution="1k")
    assert chosen["model_tier"] == "lite"


async def test_a_picture_whose_turn_is_gone_is_edited_afresh_with_a_note_and_goes_on_from_there(
    emulated: Emulated,
) -> None:
    first = await _said(emulated, "a heron")
    (emulated.studio.places.own / "turns" / f"{first['id']}.json").unlink()
    second = await _said(emulated, "at night", continue_from=first["id"])
    assert _began_afresh(second, emulated) and len(emulated.drawn) == 2
    await _said(emulated, "with a moon", continue_from=second["id"])
    assert _texts(_last(emulated)) == ["at night", "with a moon"]
    assert _images(_last(emulated)[0]) == [first["sha256"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"model": 3}', b'{"previous": null, "text": "a", "roles": null}']
)
async def test_a_damaged_turn_counts_as_gone(emulated: Emulated, damage: bytes) -> None:
    first = await _said(emulated, "a heron")
    (emulated.studio.places.own / "turns" / f"{first['id']}.json").write_bytes(damage)
    assert _began_afresh(await _said(emulated, "at night", continue_from=first["id"]), emulated)


@pytest.mark.slow
async def test_a_picture_put_together_here_has_no_turn_and_is_edited_afresh(emulated: Emulated, tmp_path: Path) -> None:
    source = saved(tmp_path, photo(320, 240, seed=6), "s.png")
    drawing(emulated, None)
    made = await use(emulated, "edit_region", image=str(source), instruction="a hat", box=[90, 60, 220, 180])
    facts = await _said(emulated, "at night", continue_from=made["images"][0]["id"])
    assert _began_afresh(facts, emulated)


async def test_a_crop_goes_on_as_the_crop_that_it_is(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    crop = (await use(emulated, "convert_image", image=first["id"], crop=[0, 0, 400, 300]))["images"][0]
    facts = await _said(emulated, "at night", continue_from=crop["id"])
    assert _began_afresh(facts, emulated) and any(crop["id"] in warning for warning in facts["warnings"])
    assert facts["images"][0]["parents"] == [crop["id"]]


@pytest.mark.slow
async def test_a_long_conversation_loses_its_first_turns_with_a_note(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = await _said(emulated, "turn 1")
    size = facts["images"][0]["bytes"]
    monkeypatch.setattr(conversation, "HISTORY_BYTES", int(2.5 * size))
    for number in (2, 3, 4):
        facts = await _said(emulated, f"turn {number}", continue_from=facts["id"])
    assert _texts(_last(emulated)) == ["turn 2", "turn 3", "turn 4"]
    assert any("its first turns" in warning for warning in facts["warnings"])
    assert sum(len(_images(turn)) for turn in _last(emulated)) == 2


async def test_a_turn_too_large_for_a_request_is_left_out_with_a_note(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await _said(emulated, "a heron")
    monkeypatch.setattr(conversation, "REQUEST_BYTES", first["images"][0]["bytes"] - 1)
    assert _began_afresh(await _said(emulated, "at night", continue_from=first["id"]), emulated)


@pytest.mark.slow
async def test_turns_with_more_inputs_than_a_request_takes_are_left_out(emulated: Emulated, tmp_path: Path) -> None:
    inputs = [str(saved(tmp_path, photo(40 + number, 30, seed=number), f"{number}.png")) for number in range(16)]
    first = await _said(emulated, "these together", input_images=inputs[:8], model_tier="flash")
    second = await _said(
        emulated, "and a ninth", continue_from=first["id"], input_images=inputs[8:9], model_tier="flash"
    )
    assert _texts(_last(emulated)) == ["these together", "and a ninth"]
    third = await _said(emulated, "and these", continue_from=second["id"], input_images=inputs[9:], model_tier="flash")
    assert _texts(_last(emulated)) == ["and a ninth", "and these"]
    assert any("its first turns" in warning for warning in third["warnings"])


@pytest.mark.slow
async def test_two_branches_of_one_picture_share_its_history_and_nothing_else(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    night = await _said(emulated, "at night", continue_from=first["id"])
    dawn = await _said(emulated, "at dawn", continue_from=first["id"])
    await _said(emulated, "with a moon", continue_from=night["id"])
    assert _texts(_last(emulated)) == ["a heron", "at night", "with a moon"]
    await _said(emulated, "with a mist", continue_from=dawn["id"])
    assert _texts(_last(emulated)) == ["a heron", "at dawn", "with a mist"]


@pytest.mark.slow
async def test_undo_is_going_on_from_an_earlier_picture(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    second = await _said(emulated, "at night", continue_from=first["id"])
    await _said(emulated, "in a storm", continue_from=second["id"])
    undone = await _said(emulated, "in colour", continue_from=second["id"])
    assert _texts(_last(emulated)) == ["a heron", "at night", "in colour"]
    record = emulated.studio.library.get(undone["id"])
    assert record is not None
    assert [(parent.image_id, parent.role) for parent in record.parents] == [(second["id"], "base")]


async def test_several_continuations_at_once_carry_the_same_history(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    facts = await use(emulated, "generate_image", prompt="at night", continue_from=first["id"], n=3)
    assert facts["returned"] == 3
    assert [_texts(request["contents"]) for request in emulated.drawn[1:]] == [["a heron", "at night"]] * 3


async def test_roles_are_counted_from_the_new_inputs_and_not_from_the_picture_that_goes_on(
    emulated: Emulated, tmp_path: Path
) -> None:
    style = saved(tmp_path, photo(120, 90, seed=3), "style.jpg")
    first = await _said(emulated, "a heron")
    await _said(
        emulated,
        "like this",
        continue_from=first["id"],
        input_image_path_1=str(style),
        input_roles=["style"],
    )
    last = _last(emulated)[-1]
    assert last["parts"][1]["text"].startswith("Image 1 gives only the style")
    assert len(_images(last)) == 1
    with pytest.raises(ToolError, match="names 2 roles for 1 input image"):
        wish = {"continue_from": first["id"], "input_image_path_1": str(style), "input_roles": ["subject", "style"]}
        await _said(emulated, "like this", **wish)


async def test_a_turn_holds_no_second_copy_of_its_picture(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    stored = (emulated.studio.places.own / "turns" / f"{first['id']}.json").read_bytes()
    assert len(stored) < 2000
    assert [part["data"] for part in json.loads(stored)["model"] if "data" in part] == ["master"]


async def test_the_same_key_again_gives_the_same_continuation(emulated: Emulated) -> None:
    first = await _said(emulated, "a heron")
    wish = {"continue_from": first["id"], "idempotency_key": "night"}
    second = await _said(emulated, "at night", **wish)
    again = await _said(emulated, "at night", **wish)
    assert again["id"] == second["id"] and len(emulated.drawn) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [("her.jpg", "takes the img_"), ("files/abc", "takes the img_"), ("img_0123456789abcdef", "no picture")],
)
async def test_only_a_picture_made_here_can_go_on(emulated: Emulated, tmp_path: Path, name: str, words: str) -> None:
    saved(tmp_path, photo(120, 90, seed=3), "her.jpg")
    with pytest.raises(ToolError, match=words):
        await _said(emulated, "at night", continue_from=name)
    assert emulated.emulator.requests == []
