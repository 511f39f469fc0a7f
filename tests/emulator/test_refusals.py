import base64
import io
from typing import Any

import numpy as np
import pytest
from google.genai import errors, types
from PIL import Image

from nanobanana_mcp.emulator.app import Emulator
from tests.support.emulated import (
    BANANA,
    FIRST,
    LITE,
    PRO,
    Clock,
    ask,
    browser,
    gemini,
    image_of,
    inline,
    opened,
    picture,
    post,
    refusal,
    shape,
    user,
    with_config,
)


async def test_several_faults_are_told_at_once_with_their_fields() -> None:
    response = await post(Emulator(), {"contents": [user("x")], "a": 1, "generationConfig": {"b": 2}})
    error = response.json()["error"]
    assert error["message"].count("Cannot find field") == 2
    assert error["details"][0]["fieldViolations"][1]["field"] == "generation_config"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    response = await browser(Emulator()).post(f"/v1beta/models/{BANANA}:generateContent", content=body)
    assert response.status_code == 400


async def test_more_than_20_mib_in_one_request_are_refused() -> None:
    body = b'{"contents": [{"parts": [{"text": "' + b"a" * (20 * 1024 * 1024) + b'"}]}]}'
    response = await browser(Emulator()).post(f"/v1beta/models/{BANANA}:generateContent", content=body)
    assert response.status_code == 400
    assert "payload size exceeds the limit: 20971520 bytes" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (BANANA, {"imageConfig": {"aspectRatio": "7:5"}}, "aspect ratio '7:5'"),
        (PRO, {"imageConfig": {"aspectRatio": "8:1"}}, "aspect ratio '8:1'"),
        (BANANA, {"imageConfig": {"imageSize": "512"}}, "image size '512'"),
        (BANANA, {"imageConfig": {"imageSize": "1k"}}, "image size '1k'"),
        (LITE, {"imageConfig": {"imageSize": "2K"}}, "image size '2K'"),
        (FIRST, {"imageConfig": {"imageSize": "1K"}}, "Image size is not supported"),
        (BANANA, {"thinkingConfig": {"thinkingLevel": "LOW"}}, "Thinking level LOW is not supported"),
        (PRO, {"thinkingConfig": {"thinkingLevel": "HIGH"}}, "Thinking level HIGH is not supported"),
        (LITE, {"thinkingConfig": {"thinkingLevel": "MEDIUM"}}, "Thinking level MEDIUM is not supported"),
        (FIRST, {"thinkingConfig": {"includeThoughts": True}}, "Thinking is not enabled"),
        (BANANA, {"thinkingConfig": {"thinkingBudget": 100}}, "Thinking budget"),
        (BANANA, {"candidateCount": 2}, "Multiple candidates is not enabled"),
        (BANANA, {"responseMimeType": "application/json"}, "JSON mode is not enabled"),
        (BANANA, {"responseModalities": ["TEXT"]}, "response modalities (TEXT)"),
        (BANANA, {"temperature": 2.5}, "temperature value of 2.5"),
        (BANANA, {"maxOutputTokens": 40_000}, "maxOutputTokens value of 40000"),
    ],
)
async def test_what_a_model_cannot_do_is_refused(model: str, config: dict[str, Any], message: str) -> None:
    emulator = Emulator()
    emulator.control.revive = {FIRST}
    assert message in await refusal(emulator, with_config(**config), model=model)


@pytest.mark.parametrize(
    ("model", "tool"),
    [
        (LITE, {"googleSearch": {}}),
        (FIRST, {"googleSearch": {}}),
        (PRO, {"googleSearch": {"searchTypes": {"imageSearch": {}}}}),
        (BANANA, {"functionDeclarations": [{"name": "f"}]}),
    ],
)
async def test_tools_that_a_model_does_not_have_are_refused(model: str, tool: dict[str, Any]) -> None:
    emulator = Emulator()
    emulator.control.revive = {FIRST}
    message = await refusal(emulator, {"contents": [user("x")], "tools": [tool]}, model=model)
    assert "not supported" in message or "not enabled" in message


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "contents is not specified"),
        ([{"role": "user", "parts": []}], "contents[0].parts: contents.parts must not be empty"),
        ([user({"thought": True})], "required oneof field 'data' must have one initialized field"),
        ([user({"text": "a"} | inline(b"x"))], "oneof field 'data' is already set"),
        ([{"role": "assistant", "parts": [{"text": "a"}]}, user("b")], "Please use a valid role: user, model."),
        ([user("a"), {"role": "model", "parts": [{"text": "b"}]}], "end with a user role"),
        ([user(inline(b"%PDF-1.4", "application/pdf"))], "Unsupported MIME type: application/pdf"),
        ([user(inline(picture(kind="GIF"), "image/gif"))], "Unsupported MIME type: image/gif"),
        ([user(inline(picture(kind="GIF"), "image/png"))], "Unable to process input image"),
        ([user(inline(b"not a picture"))], "Unable to process input image"),
        ([user(inline(picture()[:60]))], "Unable to process input image"),
        ([user({"inlineData": {"data": "AAAA"}})], "mime_type of the data is not set"),
        ([user({"inlineData": {"mimeType": "image/png"}})], "inline_data.data: required field is not set"),
        ([user({"fileData": {"fileUri": "gs://bucket/a.png"}})], "Cannot fetch content"),
        ([user(*[inline(picture())] * 15)], "Too many images: 15"),
    ],
)
async def test_contents_that_make_no_sense_are_refused(contents: Any, message: str) -> None:
    assert message in await refusal(Emulator(), {"contents": contents})


async def test_names_in_snake_case_and_url_safe_base64_are_taken_and_a_wrong_declared_type_is_not_noticed() -> None:
    emulator = Emulator()
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "WEBP", lossless=True)
    text = base64.urlsafe_b64encode(target.getvalue()).decode().rstrip("=")
    assert "-" in text or "_" in text
    body = {
        "contents": {"parts": [{"text": "x"}, {"inline_data": {"mime_type": "image/png", "data": text}}]},
        "generation_config": {
            "image_config": {"aspect_ratio": "1:1"},
            "thinking_config": {"include_thoughts": None, "thinking_level": "high"},
            "seed": "7",
        },
    }
    response = await post(emulator, body)
    assert response.status_code == 200, response.text[:300]
    assert response.json()["usageMetadata"]["thoughtsTokenCount"] == 1900


async def test_no_key_is_403_and_a_wrong_one_400() -> None:
    emulator = Emulator()
    bare = browser(emulator, key=None)
    for path in ("/v1beta/models", f"/v1beta/models/{BANANA}", "/v1/files", "/v1/files/abc"):
        assert (await bare.get(path)).status_code == 403
    assert (await bare.post(f"/v1/models/{BANANA}:generateContent", json={"contents": [user("x")]})).status_code == 403
    assert (await bare.get("/v1beta/models?key=some-key")).status_code == 200
    assert emulator.requests[-1].query == ""
    assert (await browser(emulator, key="no good").get("/v1/models")).status_code == 400
    emulator.control.valid_keys = {"the-one"}
    assert (await browser(emulator, key="the-one").get("/v1/models")).status_code == 200
    with pytest.raises(errors.ClientError) as caught:
        await gemini(emulator).models.get(model=BANANA)
    assert caught.value.code == 400
    assert caught.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


async def test_what_is_not_emulated_says_so() -> None:
    emulator = Emulator()
    client = browser(emulator)
    assert (await client.post("/v1beta/interactions", json={})).status_code == 404
    assert (await client.post(f"/v1beta/models/{BANANA}:embedContent", json={})).status_code == 404
    assert (await client.get("/v2/models")).json()["error"]["status"] == "NOT_FOUND"
    assert (await client.post(f"/v1/models/{BANANA}:predict", json={})).status_code == 404


async def test_a_signed_history_is_taken_and_its_picture_is_what_gets_edited() -> None:
    emulator = Emulator()
    emulator.control.text = "Here:"
    emulator.control.mime = "image/png"
    first = await ask(emulator, "a cat", image_config=shape("16:9"))
    turn = types.Content(role="user", parts=[types.Part.from_text(text="now a hat")])
    history = [types.UserContent("a cat"), first.candidates[0].content, turn]
    second = await ask(emulator, history)
    before, after = (np.asarray(opened(image_of(each)).convert("RGB")) for each in (first, second))
    assert (before[:100] == after[:100]).all()
    assert second.usage_metadata.prompt_token_count > 1120
    other_process = Emulator()
    assert (await ask(other_process, history)).parts
    strict = Emulator()
    strict.control.signature_secret = "another"
    with pytest.raises(errors.ClientError, match="thought_signature"):
        await ask(strict, history)
    with pytest.raises(errors.ClientError, match="thought_signature"):
        await ask(emulator, history, model=PRO)


async def test_a_history_with_a_missing_changed_or_old_signature_is_refused() -> None:
    clock = Clock()
    emulator = Emulator(clock=clock)
    signed = (await post(emulator, {"contents": [user("a cat")]})).json()["candidates"][0]["content"]

    async def outcome(model_turn: dict[str, Any]) -> str:
        response = await post(emulator, {"contents": [user("a cat"), model_turn, user("hat")]})
        return "" if response.status_code == 200 else str(response.json()["error"]["message"])

    (image,) = signed["parts"]
    assert await outcome(signed) == ""
    unsigned = {"inlineData": image["inlineData"]}
    assert "missing a thought_signature in content position 2, part position 1" in await outcome(
        {"role": "model", "parts": [unsigned]}
    )
    assert await outcome({"role": "model", "parts": [unsigned | {"thought": True}]}) == ""
    forged = image | {"thoughtSignature": "QUJD"}
    assert "Thought signature is not valid" in await outcome({"role": "model", "parts": [forged]})
    swapped = image | inline(picture())
    assert "Thought signature is not valid" in await outcome({"role": "model", "parts": [swapped]})
    emulator.control.signature_ttl_s = 60
    assert await outcome(signed) == ""
    clock.now += 61
    assert "Thought signature is not valid" in await outcome(signed)
