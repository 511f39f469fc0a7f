"""Answers that a gateway wraps, or that have no known form: the picture is found, or nothing is thrown away."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.domain.errors import Refused, ServiceError
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.emulator.control import Foreign
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.gemini.response import read_reply
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.fakes import FakeModel, photo, picture, reply
from tests.support.rooms import rows

WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "a response in a response": lambda raw: b'{"response": ' + raw + b"}",
    "a list of one": lambda raw: b"[" + raw + b"]",
    "an event of a stream": lambda raw: b"data: " + raw + b"\n\n",
    "a guard against scripts": lambda raw: b")]}'\n" + raw,
    "words behind it": lambda raw: raw + b"\n<!-- gateway 12 ms -->",
    "a number of 6,000 digits": lambda raw: b'{"x": ' + b"9" * 6000 + b", " + raw.lstrip()[1:],
    "base64 without padding": lambda raw: raw.replace(b'=="', b'"').replace(b'="', b'"'),
    "base64 for addresses": lambda raw: _changed(
        raw, lambda data: data.replace("+", "-").replace("/", "_").rstrip("=")
    ),
    "a data: address": lambda raw: _changed(raw, lambda data: f"data:image/png;base64,{data}"),
}


@pytest.mark.parametrize("way", WRAPPED)
def test_a_picture_that_a_gateway_wraps_is_still_the_picture(way: str) -> None:
    data = picture((37, 23))
    assert read_reply(WRAPPED[way](reply(data))).image == data


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"error": "upstream request timeout"},
        {"candidates": {"content": {"parts": [{"text": "a"}]}}},
        {"candidates": [{"content": [{"parts": []}], "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": {"inlineData": {"data": "AAAA"}}}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": [{"fileData": {"fileUri": "https://x/y"}}]}, "finishReason": "STOP"}]},
        {"candidates": []},
    ],
    ids=lambda body: json.dumps(body)[:40],
)
async def test_an_answer_of_unknown_form_is_kept_and_counts_as_spent(
    studio: Studio, model: FakeModel, body: dict[str, Any]
) -> None:
    model.answers.append(json.dumps(body).encode())
    with pytest.raises(ServiceError, match="raw answer is kept"):
        await studio.create(ImageRequest(prompt="a cat"))
    assert len(list(studio.places.spool.glob("*.json"))) == 1
    assert studio.journal.spending("gemini").hour_usd > 0.03


async def test_words_without_a_count_of_tokens_are_not_free(studio: Studio, model: FakeModel) -> None:
    words = {"candidates": [{"content": {"parts": [{"text": "Which cat?"}]}, "finishReason": "STOP"}]}
    model.answers.append(json.dumps(words).encode())
    with pytest.raises(Refused, match="Which cat"):
        await studio.create(ImageRequest(prompt="a cat"))
    assert studio.journal.spending("gemini").hour_usd > 0.03


def _changed(raw: bytes, how: Callable[[str], str]) -> bytes:
    body = json.loads(raw)
    for part in body["candidates"][0]["content"]["parts"]:
        if "inlineData" in part:
            part["inlineData"]["data"] = how(part["inlineData"]["data"])
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (503, {"error": "upstream request timeout"}),
        (500, {"error": {"message": "litellm.Timeout: the model ran", "code": "500"}}),
        (503, {"error": {"code": 503, "message": "no status"}}),
        (418, {"error": "short and stout"}),
        (429, {"error": {"message": "rate limited by the gateway"}}),
    ],
)
async def test_a_gateways_own_error_is_never_a_reason_to_ask_again(
    emulated: Emulated, code: int, body: dict[str, Any]
) -> None:
    emulated.emulator.control.standing = Foreign(code, json.dumps(body), "application/json")
    with pytest.raises(ToolError) as failed:
        await emulated.call(prompt="a banana")
    assert len(emulated.drawn) == 1, failed.value
    if code != 429:
        assert "may have been charged" in str(failed.value)
        assert emulated.studio.journal.spending("gemini").hour_usd > 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "a", "details": [{"violations": None}]}},
        {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "a", "details": [{"violations": 7}]}},
        [],
        None,
    ],
)
@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=base64", "text/html; charset=rot13"]
)
async def test_an_error_of_any_shape_is_told_in_words_and_leaves_no_call_open(
    emulated: Emulated, tmp_path: Path, body: Any, media_type: str
) -> None:
    emulated.emulator.control.standing = Foreign(429, json.dumps(body), media_type)
    source = str(photo(tmp_path / "a.jpg"))
    for tool, arguments in (
        ("generate_image", {"prompt": "a cat"}),
        ("edit_region", {"image": source, "instruction": "a hat", "box": [0.2, 0.2, 0.6, 0.6]}),
    ):
        with pytest.raises(ToolError) as failed:
            await emulated.client.call_tool(tool, arguments)
        assert "Error calling tool" not in str(failed.value)
    states = [state for (state,) in rows(emulated.studio.library.database.path, "SELECT state FROM calls")]
    assert set(states) == {"failed"}


async def test_a_bug_in_an_edit_leaves_no_call_open(
    emulated: Emulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> bytes:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr(emulated.studio.model, "generate", broken)
    with pytest.raises(ToolError, match="The program has a bug") as failed:
        await emulated.client.call_tool(
            "extend_image", {"image": str(photo(tmp_path / "a.jpg")), "left": 100, "instruction": "sea"}
        )
    assert "secret" not in str(failed.value)
    states = [state for (state,) in rows(emulated.studio.library.database.path, "SELECT state FROM calls")]
    assert "sent" not in states and "unknown" in states


async def test_a_key_that_an_answer_repeats_goes_nowhere(
    make_studio: Callable[..., Studio], connect: Connect, places: Places
) -> None:
    key = "AIzaSyCANARYcanaryCANARYcanaryCANARY1234"
    body = json.loads(reply(picture()))
    body["candidates"][0]["content"]["parts"].append({"text": f"Your key is {key}."})
    body["candidates"][0]["groundingMetadata"] = {"groundingChunks": [{"web": {"uri": f"https://x/?key={key}"}}]}
    echo = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=body))
    studio = make_studio(model=Gemini(api_key=key, transport=echo), uploading="never")
    async with connect(open_it=lambda: studio) as client:
        said = await client.call_tool("generate_image", {"prompt": "a cat"})
    assert "Your key is [key]" in said.content[0].text and key not in str(said)
    for file in [*places.state.parent.rglob("*"), *places.output.rglob("*")]:
        assert not file.is_file() or key.encode() not in file.read_bytes()
