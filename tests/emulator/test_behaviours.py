import asyncio
import base64
import io
import json
from typing import Any

import httpx2
import pytest
from google.genai import errors, types
from PIL import Image

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import (
    BEHAVIOURS,
    Behaviour,
    Block,
    Control,
    Delay,
    Drop,
    Edit,
    Finish,
    Foreign,
    Hang,
    HttpError,
    Huge,
    Junk,
    ManyParts,
    Picture,
    Plate,
    Redirect,
    SmallerThanAsked,
    TextOnly,
    ThoughtOnly,
    Truncated,
    read_behaviour,
)
from tests.support.emulated import (
    BANANA,
    FIRST,
    KEY,
    ask,
    browser,
    gemini,
    image_of,
    opened,
    picture,
    post,
    refusal,
    shape,
    told,
    user,
)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        ("absent", {}),
        ("empty", {"content": {}}),
        ("role_only", {"content": {"role": "model"}}),
        ("parts_null", {"content": {"parts": None}}),
        ("text", {"content": {"parts": [{"text": "No."}], "role": "model"}}),
    ],
)
async def test_a_refusal_comes_in_every_shape_and_is_free(content: Any, wire: dict[str, Any]) -> None:
    emulator = Emulator()
    emulator.control.queue.append(Finish("IMAGE_SAFETY", message="Not charged.", content=content, text="No."))
    answer = (await post(emulator, {"contents": [user("x")]})).json()
    assert answer["candidates"] == [
        wire | {"finishReason": "IMAGE_SAFETY", "index": 0, "finishMessage": "Not charged."}
    ]
    assert answer["usageMetadata"]["totalTokenCount"] == 1
    assert emulator.charges == []
    assert (await post(emulator, {"contents": [user("x")]})).json()["candidates"][0]["finishReason"] == "STOP"


async def test_a_blocked_prompt_has_no_candidates_and_is_free() -> None:
    emulator, response = await told(Block("PROHIBITED_CONTENT"))
    assert response.candidates is None
    assert response.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    assert emulator.charges == []


@pytest.mark.parametrize(
    ("details", "quota", "limit"),
    [
        ("retry_info", "GenerateRequestsPerMinutePerProjectPerModel", "10"),
        ("quota_day", "GenerateRequestsPerDayPerProjectPerModel", "250"),
        ("quota_zero", "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "0"),
    ],
)
async def test_a_used_up_quota_is_told_in_google_s_details(details: Any, quota: str, limit: str) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await told(HttpError(429, "RESOURCE_EXHAUSTED", "Slow down.", details=details, retry_delay_s=1.5))
    by_type = {each["@type"].rsplit(".", 1)[1]: each for each in caught.value.details["error"]["details"]}
    assert by_type["RetryInfo"]["retryDelay"] == "1.5s"
    (violation,) = by_type["QuotaFailure"]["violations"]
    assert (violation["quotaId"], violation["quotaValue"]) == (quota, limit)
    assert ("limit: 0" in str(caught.value.message)) == (details == "quota_zero")


async def test_an_error_without_details_has_none_and_costs_nothing() -> None:
    emulator = Emulator()
    emulator.control.standing = HttpError(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
    for _ in range(2):
        response = await post(emulator, {"contents": [user("x")]})
        assert response.status_code == 503
        assert response.json() == {
            "error": {
                "code": 503,
                "message": "The model is overloaded. Please try again later.",
                "status": "UNAVAILABLE",
            }
        }
    assert emulator.charges == []


async def test_a_request_that_google_refuses_uses_up_no_behaviour() -> None:
    emulator = Emulator()
    emulator.control.queue.append(Foreign())
    await refusal(emulator, {"contents": []})
    response = await post(emulator, {"contents": [user("x")]})
    assert response.status_code == 502
    assert response.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(("when", "charges"), [("before", 0), ("after_charge", 1), ("mid_body", 1)])
async def test_a_dropped_connection_is_charged_once_the_picture_is_made(when: Any, charges: int) -> None:
    emulator = Emulator()
    emulator.control.queue.append(Drop(when))
    with pytest.raises(httpx2.RemoteProtocolError):
        await ask(emulator)
    assert len(emulator.charges) == charges


async def test_a_delay_passes_before_the_usual_answer() -> None:
    _, response = await told(Delay(0.01))
    assert opened(image_of(response))
    emulator = Emulator()
    emulator.control.queue.extend([Delay(3600), None])
    late = asyncio.create_task(ask(emulator))
    while emulator.control.queue and isinstance(emulator.control.queue[0], Delay):
        await asyncio.sleep(0)
    assert image_of(await ask(emulator))
    assert not late.done()
    late.cancel()


async def test_a_paused_emulator_draws_nothing_until_it_goes_on() -> None:
    emulator = Emulator()
    emulator.control.paused = True
    asked = asyncio.create_task(ask(emulator))
    while not emulator.requests:
        await asyncio.sleep(0)
    assert emulator.charges == []
    emulator.control.paused = False
    assert image_of(await asked)
    assert len(emulator.charges) == 1


async def test_a_hanging_call_ends_with_its_client_and_is_free() -> None:
    emulator = Emulator()
    emulator.control.queue.append(Hang())
    asked = asyncio.create_task(ask(emulator))
    while emulator.control.queue:
        await asyncio.sleep(0)
    assert not asked.done()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert emulator.charges == []


async def test_a_redirect_leads_where_it_was_told() -> None:
    emulator = Emulator()
    emulator.control.queue.append(Redirect(307, "https://elsewhere.test/x"))
    response = await post(emulator, {"contents": [user("x")]})
    assert (response.status_code, response.headers["location"]) == (307, "https://elsewhere.test/x")


async def test_given_bytes_come_back_exactly() -> None:
    emulator, response = await told(Picture(b"\x00exact", "image/webp"))
    assert (image_of(response), response.parts[0].inline_data.mime_type) == (b"\x00exact", "image/webp")
    assert len(emulator.charges) == 1


@pytest.mark.parametrize("behaviour", [Junk(), Truncated()])
async def test_a_broken_picture_cannot_be_decoded_but_costs(behaviour: Behaviour) -> None:
    emulator, response = await told(behaviour)
    with pytest.raises(OSError):
        opened(image_of(response))
    assert len(emulator.charges) == 1


async def test_a_truncated_picture_still_shows_its_size() -> None:
    _, response = await told(Truncated())
    assert Image.open(io.BytesIO(image_of(response))).size == (1024, 1024)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_huge_answer_has_the_length_asked_for_and_travels_small_when_packed(packed: bool) -> None:
    emulator = Emulator()
    emulator.control.queue.append(Huge(3_000_000, gzip=packed))
    url = f"/v1beta/models/{BANANA}:generateContent"
    async with browser(emulator).stream("POST", url, json={"contents": [user("x")]}) as response:
        raw = b"".join([piece async for piece in response.aiter_raw()])
    assert response.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (len(raw) < 20_000) == packed
    emulator.control.queue.append(Huge(3_000_000, gzip=packed))
    whole = await post(emulator, {"contents": [user("x")]})
    assert len(whole.content) == 3_000_000
    assert whole.json()["candidates"][0]["finishReason"] == "STOP"


async def test_words_alone_are_a_stop_without_a_picture() -> None:
    emulator, response = await told(TextOnly("Which cat?"))
    assert response.text == "Which cat?"
    assert response.usage_metadata.candidates_tokens_details is None
    assert emulator.charges[0].usd < 0.01


async def test_the_only_picture_can_be_a_thought() -> None:
    emulator, response = await told(ThoughtOnly())
    assert [bool(each.thought) for each in response.parts] == [True, True]
    assert opened(image_of(response)).size == (1024, 1024)
    assert emulator.charges[0].usd < 0.01


async def test_a_picture_can_be_smaller_than_asked() -> None:
    _, response = await told(SmallerThanAsked(), image_config=shape("16:9", "2K"))
    assert opened(image_of(response)).size == (1376, 768)
    assert response.usage_metadata.candidates_token_count == 1120


async def test_one_answer_can_hold_several_different_signed_pictures() -> None:
    _, response = await told(ManyParts(3))
    images = [each for each in response.parts if each.inline_data]
    assert len({each.inline_data.data for each in images}) == 3
    assert all(each.thought_signature for each in images)
    assert response.usage_metadata.candidates_tokens_details[0].token_count == 3 * 1120


async def test_everything_can_be_switched_over_http() -> None:
    emulator = Emulator()
    client = browser(emulator, key=None)
    plate = base64.b64encode(picture()).decode()
    switches = {
        "latency_s": 0,
        "mime": "image/png",
        "valid_keys": [KEY],
        "revive": [FIRST],
        "standing": {"behaviour": "TextOnly", "text": "hm"},
        "queue": [
            {"behaviour": "Plate", "background": "#ff0000", "subject": plate},
            {"behaviour": "Edit", "shift": [0.1, 0.2], "gain": [1, 1, 1]},
            None,
        ],
    }
    response = await client.post("/emulator/control", json=switches)
    assert response.status_code == 200, response.text
    assert emulator.control.queue[0] == Plate("#ff0000", picture())
    assert emulator.control.queue[1] == Edit(shift=(0.1, 0.2))
    assert emulator.control.queue[2] is None
    assert emulator.control.standing == TextOnly("hm")
    assert emulator.control.revive == {FIRST}
    await ask(emulator)
    state = (await client.get("/emulator/state")).json()
    assert state["usd"] == pytest.approx(emulator.charges[0].usd)
    assert state["charges"][0]["model"] == BANANA
    assert state["counts"]["generateContent"] == 1
    assert state["requests"][0]["path"].endswith(":generateContent")
    await gemini(emulator).files.upload(file=io.BytesIO(b"x"), config={"mime_type": "image/png"})
    assert (await client.post("/emulator/reset")).status_code == 200
    assert emulator.control == Control()
    assert (emulator.requests, emulator.charges) == ([], [])
    assert (await browser(emulator).get("/v1/files")).json() == {}


@pytest.mark.parametrize(
    "switches",
    [
        {"colour": 1},
        {"mime": "image/gif"},
        {"queue": [{"behaviour": "Explode"}]},
        {"queue": [{"behaviour": "Delay", "seconds": 1, "minutes": 1}]},
        {"queue": [{"behaviour": "Delay"}]},
        {"queue": {"behaviour": "Junk"}},
        {"standing": {"behaviour": "Drop", "when": "sometimes"}},
        [],
    ],
)
async def test_a_switch_that_does_not_exist_changes_nothing(switches: Any) -> None:
    emulator = Emulator()
    body = {"text": "changed"} | switches if isinstance(switches, dict) else switches
    response = await browser(emulator).post("/emulator/control", json=body)
    assert response.status_code == 400
    assert emulator.control == Control()


def test_every_behaviour_can_be_read_from_json() -> None:
    needed: dict[str, Any] = {
        "Finish": {"reason": "OTHER"},
        "HttpError": {"code": 500, "status": "INTERNAL"},
        "Delay": {"seconds": 1},
        "Redirect": {"code": 302, "url": "https://x.test"},
        "Picture": {"data": base64.b64encode(b"\xfb\xff").decode()},
        "Huge": {"bytes": 10},
    }
    for name, kind in BEHAVIOURS.items():
        text = json.dumps({"behaviour": name} | needed.get(name, {}))
        assert isinstance(read_behaviour(json.loads(text)), kind)
    assert read_behaviour({"behaviour": "Picture"} | needed["Picture"]) == Picture(b"\xfb\xff")
