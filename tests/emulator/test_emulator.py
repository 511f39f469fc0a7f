import hashlib
from typing import Any

import pytest
from google.genai import types
from PIL import Image

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Finish
from tests.support.emulated import (
    BANANA,
    FIRST,
    FLASH,
    KEY,
    LITE,
    PRO,
    ask,
    browser,
    gemini,
    image_of,
    inline,
    opened,
    part,
    picture,
    post,
    refusal,
    shape,
    user,
)


async def test_the_sdk_gets_a_jpeg_of_the_real_size_with_usage_and_a_charge() -> None:
    emulator = Emulator()
    response = await ask(emulator, image_config=shape("16:9", "1K"))
    image = opened(image_of(response))
    assert (image.format, image.size) == ("JPEG", (1376, 768))
    assert response.parts[-1].inline_data.mime_type == "image/jpeg"
    assert response.candidates[0].finish_reason == types.FinishReason.STOP
    usage = response.usage_metadata
    assert usage.candidates_token_count == 1120
    assert usage.thoughts_token_count == 980
    assert usage.prompt_tokens_details[0].token_count == 2
    assert response.model_version == BANANA
    assert response.response_id
    (charge,) = emulator.charges
    assert charge.usd == pytest.approx((2 * 1.5 + 980 * 7.5 + 1120 * 30) / 1e6)
    assert charge.tokens == usage.total_token_count == 2 + 980 + 1120


@pytest.mark.parametrize(
    ("model", "ratio", "size", "pixels", "tokens"),
    [
        (BANANA, "8:1", None, (2928, 352), 1120),
        (BANANA, "4:1", "1K", (2064, 512), 1120),
        (BANANA, "1:1", "4K", (4096, 4096), 3780),
        (PRO, "9:16", "2K", (1536, 2752), 1120),
        (LITE, "1:4", None, (512, 2064), 1120),
        (FLASH, "21:9", "512", (792, 336), 747),
        (FIRST, "16:9", None, (1344, 768), 1290),
    ],
)
async def test_every_model_answers_in_its_own_pixels_and_tokens(
    model: str, ratio: str, size: str | None, pixels: tuple[int, int], tokens: int
) -> None:
    emulator = Emulator()
    emulator.control.revive = {FLASH, FIRST}
    emulator.control.cheap = True
    response = await ask(emulator, model=model, image_config=shape(ratio, size))
    assert opened(image_of(response)).size == pixels
    assert response.usage_metadata.candidates_tokens_details[0].token_count == tokens


async def test_the_list_of_models_comes_in_pages_without_the_retired() -> None:
    emulator = Emulator()
    names = [model.name async for model in await gemini(emulator).models.list(config={"page_size": 2})]
    assert names == [f"models/{name}" for name in (BANANA, PRO, LITE)]
    assert [request.query for request in emulator.requests] == ["pageSize=2", "pageSize=2&pageToken=p2"]
    model = await gemini(emulator, version="v1").models.get(model=BANANA)
    assert model.input_token_limit == 131_072


@pytest.mark.parametrize("name", [FLASH, FIRST, "gemini-3-pro-image-preview", "nonsense"])
async def test_a_model_that_is_gone_is_not_found_in_googles_words(name: str) -> None:
    emulator = Emulator()
    response = await post(emulator, {"contents": [user("x")]}, model=name)
    assert response.status_code == 404
    assert response.json()["error"] == {
        "code": 404,
        "message": f"models/{name} is not found for API version v1beta, or is not supported for generateContent. "
        "Call ListModels to see the list of available models and their supported methods.",
        "status": "NOT_FOUND",
    }
    assert (await browser(emulator).get(f"/v1/models/{name}")).status_code == 404


async def test_a_retired_model_answers_when_revived() -> None:
    emulator = Emulator()
    emulator.control.revive = {FIRST}
    assert (await post(emulator, {"contents": [user("x")]}, model=FIRST)).status_code == 200
    assert FIRST in (await browser(emulator).get("/v1beta/models")).text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, 'Invalid JSON payload received. Unknown name "colour": Cannot find field.'),
        (
            {"generationConfig": {"responseFormat": {}}},
            "Invalid JSON payload received. Unknown name \"responseFormat\" at 'generation_config': Cannot find field.",
        ),
        (
            {"generation_config": {"image_config": {"imageOutputOptions": {"mimeType": "image/png"}}}},
            "Unknown name \"imageOutputOptions\" at 'generation_config.image_config': Cannot find field.",
        ),
        ({"generationConfig": {"imageConfig": {"personGeneration": "ALLOW_ALL"}}}, 'Unknown name "personGeneration"'),
        ({"contents": [{"parts": [{"text": "a", "txt": 1}]}]}, "at 'contents[0].parts[0]': Cannot find field."),
        ({"contents": [{"parts": [{"text": 5}]}]}, "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 5"),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "HUGE"}}}, "thinking_level' (TYPE_ENUM)"),
        ({"generationConfig": {"seed": 1.5}}, "Invalid value at 'generation_config.seed' (TYPE_INT), 1.5"),
        ({"store": "yes"}, "Invalid value at 'store' (TYPE_BOOL)"),
        ({"safetySettings": [{"category": "HARM_CATEGORY_IMAGE_HATE", "threshold": "OFF"}]}, "safety_settings[0]"),
        ({"safetySettings": [{"method": "SEVERITY"}]}, 'Unknown name "method"'),
        ({"systemInstruction": "be kind"}, "Expected an object at 'system_instruction'."),
        ({"contents": [{"parts": [{"inlineData": {"data": "%%"}}]}]}, "Base64 decoding failed"),
        ({"generationConfig": {"topK": 1, "top_k": 2}}, "given twice"),
    ],
)
async def test_json_that_google_does_not_know_is_refused_in_its_words(change: dict[str, Any], message: str) -> None:
    assert message in await refusal(Emulator(), {"contents": [user("a cat")]} | change)


async def test_the_declared_type_can_be_a_lie() -> None:
    emulator = Emulator()
    emulator.control.declared_mime = "image/png"
    response = await ask(emulator)
    assert response.parts[0].inline_data.mime_type == "image/png"
    assert opened(image_of(response)).format == "JPEG"


async def test_a_heic_input_is_taken_where_nothing_can_decode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "OPEN", {name: door for name, door in Image.OPEN.items() if name != "HEIF"})
    data = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
    assert (await post(Emulator(), {"contents": [user("x", inline(data, "image/heic"))]})).status_code == 200


async def test_thoughts_are_marked_and_only_what_follows_is_signed() -> None:
    emulator = Emulator()
    emulator.control.text = "Here is your image:"
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.HIGH)
    response = await ask(emulator, thinking_config=thinking)
    told = [(bool(each.thought), each.inline_data is not None, bool(each.thought_signature)) for each in response.parts]
    assert told == [(True, False, False), (True, True, False), (False, False, True), (False, True, True)]
    assert response.usage_metadata.thoughts_token_count == 1900
    emulator.control.thoughts = "never"
    silent = await ask(emulator, thinking_config=thinking, response_modalities=["IMAGE"])
    assert [bool(each.inline_data) for each in silent.parts] == [True]
    emulator.control.thoughts = "images"
    assert [bool(each.thought) for each in (await ask(emulator)).parts] == [True, True, False, False]


async def test_search_leaves_its_sources_on_the_answer() -> None:
    search = types.GoogleSearch(search_types=types.SearchTypes(image_search=types.ImageSearch()))
    response = await ask(Emulator(), tools=[types.Tool(google_search=search)])
    found = response.candidates[0].grounding_metadata
    assert found.image_search_queries == ["a cat"]
    assert found.grounding_chunks[1].image.image_uri.startswith("https://")
    assert found.search_entry_point.rendered_content
    assert (await ask(Emulator())).candidates[0].grounding_metadata is None


async def test_a_stream_brings_the_picture_whole_and_the_usage_last() -> None:
    emulator = Emulator()
    emulator.control.text = "Here:"
    chunks = [
        chunk async for chunk in await gemini(emulator).models.generate_content_stream(model=BANANA, contents="a cat")
    ]
    assert [bool(chunk.parts[0].inline_data) for chunk in chunks] == [False, True]
    assert chunks[-1].usage_metadata.candidates_token_count > 1120
    assert opened(chunks[-1].parts[0].inline_data.data).size == (1024, 1024)
    emulator.control.queue.append(Finish("NO_IMAGE"))
    chunks = [
        chunk async for chunk in await gemini(emulator).models.generate_content_stream(model=BANANA, contents="a cat")
    ]
    assert chunks[0].candidates[0].finish_reason == types.FinishReason.NO_IMAGE


async def test_tokens_are_counted_without_a_charge() -> None:
    emulator = Emulator()
    counted = await gemini(emulator).models.count_tokens(model=BANANA, contents=[part(picture()), "four"])
    assert counted.total_tokens == 1121
    assert emulator.charges == []


async def test_requests_are_remembered_without_keys_and_pictures() -> None:
    emulator = Emulator()
    data = picture()
    await ask(emulator, [part(data), "x"])
    (request,) = emulator.requests
    assert request.path == f"/v1beta/models/{BANANA}:generateContent"
    assert request.json["contents"][0]["parts"][0]["inlineData"]["data"] == {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    assert KEY not in str(request)
    for _ in range(1001):
        await browser(emulator).get("/v1/nothing")
    assert len(emulator.requests) == 1000
