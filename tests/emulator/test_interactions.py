import base64
import hashlib
import io
from typing import Any

import httpx2
import pytest
from google.genai import interactions

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Block, Drop, Finish, ManyParts, ThoughtOnly
from tests.support.emulated import BANANA, FLASH, KEY, LITE, PRO, Clock, ask, browser, gemini, opened, picture, shape


def emulated(clock: Clock | None = None) -> Emulator:
    emulator = Emulator(clock=clock or Clock())
    emulator.control.cheap = True
    return emulator


async def draw(emulator: Emulator, given: Any = "a cat", *, key: str = KEY, **settings: Any) -> Any:
    client = gemini(emulator, key=key)
    return await client.interactions.create(**{"model": BANANA, "input": given} | settings)


def shown(interaction: Any) -> Any:
    return opened(base64.b64decode(interaction.output_image.data))


def image_item(data: bytes) -> dict[str, Any]:
    return {"type": "image", "mime_type": "image/png", "data": base64.b64encode(data).decode()}


async def send(emulator: Emulator, body: Any, *, key: str | None = KEY) -> httpx2.Response:
    return await browser(emulator, key=key).post("/v1beta/interactions", json=body)


async def test_an_interaction_shows_the_picture_that_generate_content_would_and_costs_the_same() -> None:
    emulator = emulated()
    emulator.control.text = "Here it is."
    await ask(emulator, "a cat", image_config=shape("16:9", "2K"))
    wanted = {"type": "image", "aspect_ratio": "16:9", "image_size": "2K", "mime_type": "image/jpeg"}
    told = await draw(emulator, response_format=[wanted, {"type": "text"}])
    assert (told.status, told.model, told.output_text) == ("completed", BANANA, "Here it is.")
    assert told.created == told.updated == "2026-11-18T11:06:40Z"
    assert (shown(told).format, shown(told).size) == ("JPEG", (2752, 1536))
    assert told.output_image.mime_type == "image/jpeg"
    first, second = emulator.charges
    assert first == second
    assert told.usage.total_tokens == second.tokens
    assert told.usage.total_thought_tokens == 980
    assert told.usage.output_tokens_by_modality[0].modality == "image"
    assert told.usage.output_tokens_by_modality[0].tokens == 1680


async def test_every_setting_reaches_the_model() -> None:
    emulator = emulated()
    told = await draw(
        emulator,
        generation_config={"thinking_level": "high", "thinking_summaries": "auto", "seed": 7},
        response_format={"type": "image"},
        tools=[{"type": "google_search", "search_types": ["image_search"]}],
        safety_settings=[{"type": "dangerous_content", "threshold": "block_only_high"}],
        system_instruction="be brief",
        service_tier="flex",
    )
    assert [step.type for step in told.steps] == [
        "thought",
        "google_search_call",
        "google_search_result",
        "google_search_call",
        "google_search_result",
        "model_output",
    ]
    thought, _, _, call, result, _ = told.steps
    assert [each.type for each in thought.summary] == ["text", "image"]
    assert thought.signature
    assert (call.search_type, call.arguments.queries, result.call_id) == ("image_search", ["a cat"], call.id)
    assert told.usage.total_thought_tokens == 1900
    assert told.usage.total_input_tokens == 4


@pytest.mark.parametrize("as_step", [True, False])
async def test_pictures_are_taken_inline_and_from_files(as_step: bool) -> None:
    emulator = emulated()
    file = await gemini(emulator).files.upload(
        file=io.BytesIO(picture(size=(90, 160))), config={"mime_type": "image/png"}
    )
    data = picture(size=(64, 64))
    content = [{"type": "text", "text": "edit"}, image_item(data), {"type": "image", "uri": file.uri}]
    told = await draw(emulator, [{"type": "user_input", "content": content}] if as_step else content)
    assert shown(told).size == (768, 1376)
    assert [(each.modality, each.tokens) for each in told.usage.input_tokens_by_modality] == [
        ("text", 1),
        ("image", 2240),
    ]
    remembered = emulator.requests[-1].json["input"][0]["content"][1]["data"]
    assert remembered == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


async def test_a_conversation_goes_on_from_what_google_remembers_whatever_the_model() -> None:
    clock = Clock()
    emulator = emulated(clock)
    emulator.control.signature_ttl_s = 60
    first = await draw(
        emulator, [image_item(picture(size=(160, 90)))], generation_config={"thinking_summaries": "auto"}
    )
    clock.now += 61
    second = await draw(emulator, "now a hat", previous_interaction_id=first.id)
    assert second.previous_interaction_id == first.id
    assert shown(second).size == (1376, 768)
    assert second.usage.total_input_tokens > first.usage.total_input_tokens + 1120
    third = await draw(emulator, "now a coat", previous_interaction_id=second.id, model=PRO)
    assert third.usage.total_input_tokens > second.usage.total_input_tokens
    emulator.control.cheap = False
    before = await draw(emulator, "a cat")
    emulator.control.mime = "image/png"
    after = await draw(emulator, "a hat", previous_interaction_id=before.id)
    alone = await draw(emulator, "a hat")
    assert shown(after).tobytes() != shown(alone).tobytes()


async def test_an_interaction_can_be_read_again_until_it_is_deleted() -> None:
    emulator = emulated()
    told = await draw(emulator)
    calls = gemini(emulator).interactions
    assert (await calls.get(told.id)).output_image == told.output_image
    await calls.delete(told.id)
    for call in (calls.get, calls.delete):
        with pytest.raises(Exception, match="Error code: 404") as caught:
            await call(told.id)
        assert caught.value.status_code == 404
    later = await draw(emulator)
    emulator.reset()
    assert (await browser(emulator).get(f"/v1beta/interactions/{later.id}")).status_code == 404


async def test_only_what_was_stored_under_the_same_key_can_be_gone_on_from() -> None:
    emulator = emulated()
    stored, private = await draw(emulator), await draw(emulator, store=False)
    paid = len(emulator.charges)
    for name, key in (("v1_unknown", KEY), (private.id, KEY), (stored.id, "another")):
        with pytest.raises(Exception, match="Error code: 404") as caught:
            await draw(emulator, previous_interaction_id=name, key=key)
        assert caught.value.body == {"error": {"code": "not_found", "message": f"Interaction {name} was not found."}}
    assert len(emulator.charges) == paid


@pytest.mark.parametrize("behaviour", [Finish("IMAGE_SAFETY", message="Not charged."), Block("PROHIBITED_CONTENT")])
async def test_a_refused_picture_is_a_failed_interaction_that_is_free(behaviour: Any) -> None:
    emulator = emulated()
    emulator.control.queue.append(behaviour)
    told = await draw(emulator)
    assert (told.status, told.steps, told.output_image) == ("failed", [], None)
    assert told.errors[0].code in ("image_safety", "prohibited_content")
    assert emulator.charges == []
    emulator.control.text = "Yes."
    assert (await draw(emulator, "then a dog", previous_interaction_id=told.id)).output_image


async def test_behaviours_show_in_interactions_too() -> None:
    emulator = emulated()
    emulator.control.queue.extend([ManyParts(2), ThoughtOnly(), Drop("after_charge")])
    (step,) = [step for step in (await draw(emulator)).steps if step.type == "model_output"]
    assert [each.type for each in step.content] == ["text", "image", "text", "image"]
    hidden = await draw(emulator)
    assert (hidden.status, hidden.output_image) == ("completed", None)
    with pytest.raises(httpx2.RemoteProtocolError):
        await send(emulator, {"model": BANANA, "input": "a cat"})
    assert len(emulator.charges) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, 'Unknown name "colour": Cannot find field.'),
        ({"model": None}, "model: required field"),
        ({"input": None}, "input: required field"),
        ({"input": []}, "parts must not be empty"),
        ({"input": [{"type": "audio", "data": "AAAA"}]}, "'input[0]': its type is one of text, image."),
        ({"input": {"type": "text", "txt": "a"}}, "Unknown name \"txt\" at 'input[0]'"),
        ({"input": [{"type": "image", "mime_type": "image/png"}]}, "an image has either data or uri"),
        ({"input": [{"type": "image", "mime_type": "image/gif", "data": "AAAA"}]}, "Unsupported MIME type: image/gif"),
        ({"input": [{"type": "user_input", "content": [5]}]}, "'input[0].content[0]'"),
        ({"input": [{"type": "user_input"}, "a"]}, "'input[1]': its type is one of user_input."),
        ({"response_format": {"type": "image", "aspect_ratio": "7:5"}}, "aspect ratio '7:5'"),
        ({"response_format": {"type": "image", "mime_type": "image/png"}}, "mime_type' (TYPE_ENUM)"),
        ({"response_format": {"type": "image", "quality": 5}}, "Unknown name \"quality\" at 'response_format[0]'"),
        ({"response_format": {"type": "video"}}, "its type is one of text, image"),
        ({"response_format": [{"type": "text", "schema": {}}, {"type": "image"}]}, "JSON mode is not enabled"),
        ({"response_format": {"type": "text"}}, "response modalities (TEXT)"),
        ({"response_modalities": ["audio"]}, "response modalities (AUDIO)"),
        ({"generation_config": {"thinking_level": "low"}}, "Thinking level LOW is not supported"),
        ({"generation_config": {"top_k": 3}}, "Unknown name \"top_k\" at 'generation_config'"),
        ({"tools": [{"type": "code_execution"}]}, "Function calling is not enabled"),
        ({"tools": [{"type": "google_search", "search_types": ["enterprise_web_search"]}]}, "Enterprise web search"),
        ({"model": LITE, "tools": [{"type": "google_search"}]}, "Search Grounding is not supported"),
        ({"safety_settings": [{"type": "boredom", "threshold": "off"}]}, "safety_settings[0].type"),
    ],
)
async def test_what_google_would_not_take_is_refused_in_the_form_of_interactions(
    change: dict[str, Any], message: str
) -> None:
    emulator = emulated()
    response = await send(emulator, {"model": BANANA, "input": "a cat"} | change)
    assert response.status_code == 400, response.text[:300]
    error = response.json()["error"]
    assert error.keys() == {"code", "message"}
    assert error["code"] == "invalid_argument"
    assert message in error["message"]
    assert emulator.charges == []


async def test_an_interaction_needs_a_key_and_a_model_that_is_there() -> None:
    emulator = emulated()
    for response in (
        await send(emulator, {"model": BANANA, "input": "a cat"}, key=None),
        await browser(emulator, key=None).get("/v1beta/interactions/v1_any"),
    ):
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "permission_denied"
    for name in ("nonsense", FLASH):
        with pytest.raises(Exception, match="Error code: 404") as caught:
            await draw(emulator, model=name)
        assert "not supported for createInteraction" in caught.value.body["error"]["message"]
    assert isinstance(await draw(emulator, model=f"models/{BANANA}"), interactions.Interaction)


@pytest.mark.parametrize(
    "change",
    [
        {"stream": True},
        {"background": True},
        {"response_format": {"type": "image", "delivery": "uri"}},
        {"input": [{"type": "model_output", "content": []}, {"type": "user_input", "content": []}]},
    ],
)
async def test_what_is_not_emulated_of_interactions_says_so(change: dict[str, Any]) -> None:
    response = await send(emulated(), {"model": BANANA, "input": "a cat"} | change)
    assert response.status_code == 501
    assert response.json()["error"]["code"] == "unimplemented"
