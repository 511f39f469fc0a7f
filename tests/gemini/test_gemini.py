"""Gemini's client: what each way of failing becomes, and that the key stays where it belongs."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from google import genai
from google.auth import exceptions as google_errors

from nanobanana_mcp.domain import errors
from nanobanana_mcp.domain.catalog import MODELS
from nanobanana_mcp.domain.wire import InputPart, ModelRequest
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.gemini.transport import MAX_ANSWER_BYTES
from tests.support.fakes import FakeClient, picture, reply

FLASH = "gemini-nano-banana-2.1"
KEY = "canary.0123456789.of-a-form-of-its-own"
ANOTHER = "AIzaSyCANARY-0123456789_abcdefghijklmno"
ERRORS: dict[str, Any] = json.loads((Path(__file__).parent / "wire" / "errors.json").read_text())


async def test_the_key_travels_in_its_header_and_nowhere_else() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, content=reply(picture()))

    await over(answer).generate(plain())
    (request,) = seen
    assert request.headers["x-goog-api-key"] == KEY
    assert KEY not in str(request.url) and KEY.encode() not in request.content
    assert request.url.path == f"/v1beta/models/{FLASH}:generateContent"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            google_errors.DefaultCredentialsError("none here"),
            errors.SetupError,
            "gcloud auth application-default login",
        ),
        (google_errors.RefreshError("expired"), errors.SetupError, "nothing was sent"),
        (google_errors.TransportError("no network"), errors.Unavailable, "nothing charged"),
    ],
)
async def test_without_credentials_vertex_is_not_reached_and_nothing_may_have_been_charged(
    error: Exception, kind: type[errors.StudioError], words: str
) -> None:
    gemini = Gemini(vertex_project="p", client=cast(genai.Client, FakeClient(error)))
    with pytest.raises(kind, match=words):
        await gemini.generate(plain())


async def test_vertex_says_that_it_has_no_files_api() -> None:
    gemini = Gemini(vertex_project="p")
    with pytest.raises(errors.SetupError, match="no Files API"):
        await gemini.files()
    await gemini.close()


ROWS: dict[str, tuple[type[errors.StudioError], str]] = {
    "400_invalid_argument": (errors.RequestError, "rejected the request.*invalid argument"),
    "400_key": (errors.SetupError, "GEMINI_API_KEY"),
    "400_region": (errors.SetupError, "its region or its billing"),
    "401": (errors.SetupError, "GEMINI_API_KEY"),
    "402": (errors.SetupError, "Add credit"),
    "403": (errors.SetupError, "restrictions"),
    "403_file": (errors.SourceNotFound, "48 hours.*path or its img_"),
    "404": (errors.SetupError, "Set NANOBANANA_FLASH_MODEL"),
    "408": (errors.UnknownOutcome, "may have been charged"),
    "429_plain": (errors.RateLimited, "nothing was charged.*in a minute"),
    "429_minute": (errors.RateLimited, "in 34 s"),
    "429_day": (errors.RateLimited, "midnight Pacific"),
    "429_zero": (errors.RateLimited, "billing.*waiting will not help"),
    "500": (errors.Unavailable, "internal error.*nothing was charged"),
    "503": (errors.Unavailable, "overloaded.*nothing was charged"),
    "504": (errors.UnknownOutcome, "may have been charged"),
}


@pytest.mark.parametrize("name", ROWS)
async def test_an_error_of_gemini_becomes_one_of_ours_without_the_key(name: str) -> None:
    body = json.loads(json.dumps(ERRORS[name]))
    body["error"]["message"] += f" ({KEY}; {ANOTHER}; ?key={KEY[:20]}; Authorization: Bearer {KEY[20:]})"
    kind, words = ROWS[name]
    error = await failing(lambda _: httpx2.Response(body["error"]["code"], json=body))
    assert type(error) is kind
    assert re.search(words, str(error), re.DOTALL)


def test_every_recorded_error_has_a_row() -> None:
    assert set(ROWS) == set(ERRORS)


@pytest.mark.parametrize(("name", "delay"), [("429_minute", 34.07), ("429_plain", None)])
async def test_the_delay_that_google_asks_for_is_passed_on(name: str, delay: float | None) -> None:
    error = await failing(lambda _: httpx2.Response(429, json=ERRORS[name]))
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == delay and error.retryable


@pytest.mark.parametrize("name", ["429_day", "429_zero"])
async def test_a_quota_that_waiting_does_not_cure_is_not_worth_a_second_try(name: str) -> None:
    error = await failing(lambda _: httpx2.Response(429, json=ERRORS[name]))
    assert isinstance(error, errors.RateLimited) and not error.retryable


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"details": "none"},
        {"details": [None, 3]},
        {"details": [{"violations": {}}]},
        {"details": [{"retryDelay": 4}]},
    ],
)
async def test_details_of_any_form_are_survived(broken: dict[str, Any]) -> None:
    error = await failing(lambda _: httpx2.Response(429, json={"error": {"code": 429, "message": "no"} | broken}))
    assert type(error) is errors.RateLimited


BREAKS: dict[str, tuple[httpx2.TransportError, type[errors.StudioError], str]] = {
    "refused": (httpx2.ConnectError("no route"), errors.Unavailable, "nothing was sent"),
    "slow_connect": (httpx2.ConnectTimeout("slow"), errors.Unavailable, "nothing was sent"),
    "no_free_connection": (httpx2.PoolTimeout("full"), errors.Unavailable, "nothing was sent"),
    "no_answer": (httpx2.ReadTimeout("slow"), errors.UnknownOutcome, "may have been charged"),
    "half_sent": (httpx2.WriteError("gone"), errors.UnknownOutcome, "may have been charged"),
    "broken": (httpx2.ReadError("reset"), errors.UnknownOutcome, "may have been charged"),
    "hung_up": (httpx2.RemoteProtocolError("gone"), errors.UnknownOutcome, "may have been charged"),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_broken_connection_says_whether_something_may_have_been_charged(name: str) -> None:
    cause, kind, words = BREAKS[name]
    cause.args = (f"{cause} {KEY} {ANOTHER}",)
    error = await failing(raising(cause))
    assert type(error) is kind
    assert words in str(error)


async def test_the_page_of_a_gateway_is_an_unknown_outcome() -> None:
    page = f"<html><h1>502 Bad Gateway</h1>{KEY} {ANOTHER}</html>"
    for code in (500, 502, 503):
        error = await failing(answering(httpx2.Response(code, html=page)))
        assert type(error) is errors.UnknownOutcome


async def test_a_redirect_is_not_followed_since_the_key_would_go_along() -> None:
    hosts: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        hosts.append(request.url.host)
        return httpx2.Response(307, headers={"location": "https://elsewhere.example/"})

    error = await failing(answer)
    assert type(error) is errors.SetupError and "GEMINI_BASE_URL" in str(error)
    assert hosts == ["generativelanguage.googleapis.com"]


@pytest.mark.parametrize("model_id", [spec.id for spec in MODELS if spec.shutdown])
async def test_a_model_that_was_shut_down_names_its_successor_and_the_setting(model_id: str) -> None:
    error = await failing(lambda _: httpx2.Response(404, json=ERRORS["404"]), plain(model_id=model_id))
    assert type(error) is errors.SetupError
    assert model_id in str(error) and FLASH in str(error) and "NANOBANANA_FLASH_MODEL" in str(error)
    assert "2026-10-" in str(error)


async def test_an_endless_answer_is_cut_off() -> None:
    sent = 0

    async def flood() -> Any:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield b" " * (1 << 20)

    error = await failing(lambda _: httpx2.Response(200, content=flood()))
    assert type(error) is errors.UnknownOutcome
    assert sent <= MAX_ANSWER_BYTES + (2 << 20)


async def test_an_answer_that_hides_its_size_by_compression_is_not_unpacked() -> None:
    error = await failing(
        lambda _: httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"\x1f\x8b"))
    )
    assert type(error) is errors.UnknownOutcome


async def test_the_client_is_asked_for_one_plain_call_and_its_raw_answer_comes_back() -> None:
    fake = FakeClient(reply(picture(), text="done"))
    gemini = Gemini(api_key=KEY, client=cast("genai.Client", fake))
    raw = await gemini.generate(plain(inputs=(InputPart(mime_type="image/png", data=b"x"),)))
    (call,) = fake.calls
    assert json.loads(raw)["candidates"][0]["content"]["parts"][0] == {"text": "done"}
    assert call["model"] == FLASH
    assert call["config"].automatic_continuation is False
    assert call["config"].automatic_function_calling.disable is True
    await gemini.close()
    assert fake.closed == 2


async def test_a_file_goes_up_under_our_name_and_can_be_found_and_listed() -> None:
    fake = FakeClient()
    gemini = Gemini(api_key=KEY, client=cast("genai.Client", fake))
    sent = await gemini.upload("files/nb1", b"bytes", "image/png", "a heron")
    assert (sent.name, sent.bytes, sent.state) == ("files/nb1", 5, "active")
    assert sent.sha256 == hashlib.sha256(b"bytes").hexdigest()
    assert fake.uploaded[0][0] == b"bytes" and fake.uploaded[0][1].display_name == "a heron"
    assert await gemini.look_up("files/nb1") == sent
    assert await gemini.files() == [sent]
    await gemini.close()


async def test_a_key_in_what_google_says_is_cut_out_and_the_rest_is_kept() -> None:
    body = {"error": {"code": 400, "message": f"The field {KEY} is wrong.", "status": "INVALID_ARGUMENT"}}
    error = await failing(lambda _: httpx2.Response(400, json=body))
    assert 'Gemini says: "The field [key] is wrong."' in str(error)


def plain(model_id: str = FLASH, inputs: tuple[InputPart, ...] = ()) -> ModelRequest:
    return ModelRequest(
        model_id=model_id,
        prompt="a heron",
        negative_prompt=None,
        system_instruction=None,
        inputs=inputs,
        aspect_ratio=None,
        image_size="1K",
        thinking_level=None,
        grounding=False,
    )


def over(answer: Callable[[httpx2.Request], httpx2.Response]) -> Gemini:
    return Gemini(api_key=KEY, timeout_s=20, transport=httpx2.MockTransport(answer))


def answering(response: httpx2.Response) -> Callable[[httpx2.Request], httpx2.Response]:
    return lambda _request: response


def raising(error: Exception) -> Callable[[httpx2.Request], httpx2.Response]:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        raise error

    return answer


async def failing(
    answer: Callable[[httpx2.Request], httpx2.Response | Awaitable[httpx2.Response]],
    request: ModelRequest | None = None,
) -> errors.StudioError:
    """The error of a call that must fail, after one attempt and without a trace of the key."""
    attempts = 0

    def counted(sent: httpx2.Request) -> Any:
        nonlocal attempts
        attempts += 1
        return answer(sent)

    gemini = over(counted)
    with pytest.raises(errors.StudioError) as caught:
        await gemini.generate(request or plain(), setting="NANOBANANA_FLASH_MODEL")
    await gemini.close()
    assert attempts == 1
    shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert not any(secret in shown for secret in (KEY, KEY[:20], KEY[20:], ANOTHER))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return caught.value
