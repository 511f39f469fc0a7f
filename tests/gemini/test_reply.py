"""Reading an answer: every way of having no picture in words, and which picture and how many tokens otherwise."""

import base64
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastmcp.exceptions import ToolError
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanobanana_mcp.domain.budget import Limits
from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS, TierName
from nanobanana_mcp.domain.errors import BudgetExceeded, NoPicture, Refused, ServiceError, Unreadable
from nanobanana_mcp.domain.pricing import bill
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.domain.selector import choose
from nanobanana_mcp.domain.wire import ModelRequest, Usage
from nanobanana_mcp.emulator.control import Block, Finish, Picture, TextOnly, ThoughtOnly
from nanobanana_mcp.gemini.client import Gemini
from nanobanana_mcp.gemini.response import BLOCK_REASONS, FINISH_REASONS, read_reply
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.fakes import FakeModel, jpeg, picture, refusal, reply

ASKED = ModelRequest(
    model_id="gemini-nano-banana-2.1",
    prompt="a cat",
    negative_prompt=None,
    system_instruction=None,
    inputs=(),
    aspect_ratio=None,
    image_size="1K",
    thinking_level=None,
    grounding=False,
)
WIRE = Path(__file__).parent / "wire"


def test_every_reason_that_the_sdk_knows_is_in_the_tables() -> None:
    assert {member.value for member in types.FinishReason} - set(FINISH_REASONS) == set()
    assert {member.value for member in types.BlockedReason} - set(BLOCK_REASONS) == set()


@pytest.mark.slow
async def test_every_finish_reason_reaches_the_caller_as_an_error_in_words(
    connect: Connect, model: FakeModel, subtests: pytest.Subtests
) -> None:
    async with connect() as client:
        for reason in (member.value for member in types.FinishReason):
            model.answers.append(refusal(reason, f"Google's own words on {reason}."))
            with subtests.test(reason):
                with pytest.raises(ToolError) as caught:
                    await client.call_tool("generate_image", {"prompt": f"a cat, {reason}"})
                check_words(str(caught.value), reason)
                assert f'Gemini says: "Google\'s own words on {reason}."' in str(caught.value)
    assert len(model.requests) == len(types.FinishReason)


@pytest.mark.slow
async def test_every_block_reason_reaches_the_caller_as_an_error_in_words(
    emulated: Emulated, subtests: pytest.Subtests
) -> None:
    for reason in (member.value for member in types.BlockedReason):
        emulated.emulator.control.queue.append(Block(reason=reason))
        with subtests.test(reason):
            with pytest.raises(ToolError) as caught:
                await emulated.call(prompt=f"a cat, {reason}")
            check_words(str(caught.value), reason)
    assert emulated.emulator.charges == []


@pytest.mark.parametrize("content", ["absent", "empty", "role_only", "parts_null"])
async def test_a_refusal_is_understood_whatever_is_left_of_its_content(emulated: Emulated, content: Any) -> None:
    emulated.emulator.control.queue.append(Finish(reason="IMAGE_SAFETY", message="It was filtered.", content=content))
    with pytest.raises(ToolError, match=r'safety filter \(IMAGE_SAFETY\).*Gemini says: "It was filtered."'):
        await emulated.call(prompt="a cat")


async def test_an_answer_in_words_only_quotes_the_model(emulated: Emulated) -> None:
    emulated.emulator.control.queue.append(TextOnly(text="Which of the\n two\x1b[31m cats?"))
    with pytest.raises(ToolError, match=r'in words only \(STOP\).*The model wrote: "Which of the two \[31m cats\?"'):
        await emulated.call(prompt="a cat")


def test_a_reason_that_nobody_knows_yet_is_named() -> None:
    with pytest.raises(NoPicture, match="IMAGE_TOO_YELLOW"):
        read_reply(refusal("IMAGE_TOO_YELLOW"))


async def test_the_tokens_of_a_refusal_are_paid_for(studio: Studio, model: FakeModel) -> None:
    body = json.loads(refusal("IMAGE_SAFETY"))
    body["usageMetadata"] = {"promptTokenCount": 1000, "thoughtsTokenCount": 2000}
    model.answers.append(json.dumps(body).encode())
    with pytest.raises(Refused):
        await studio.create(ImageRequest(prompt="a cat"))
    assert (await studio.stats()).total.usd == pytest.approx((1000 * 1.5 + 2000 * 7.5) / 1e6)


async def test_words_instead_of_a_picture_come_with_their_price(studio: Studio, model: FakeModel) -> None:
    model.answers.append(reply(text="no picture, only words", image_tokens=0, thought_tokens=2000))
    with pytest.raises(Refused, match=r"It cost \$0\.0\d+\."):
        await studio.create(ImageRequest(prompt="a cat"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_the_type_of_a_picture_is_that_of_its_bytes(emulated: Emulated, kind: str) -> None:
    data = picture((1024, 1024), kind=kind)
    declared = "image/png" if kind != "PNG" else "image/jpeg"
    emulated.emulator.control.queue.append(Picture(data=data, mime=declared))
    image = (await emulated.call(prompt="a cat")).structured_content["images"][0]
    assert Path(image["path"]).read_bytes() == data
    assert image["mime_type"] == f"image/{kind.lower()}"
    assert Path(image["path"]).suffix == {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[kind]


async def test_a_lie_about_the_type_changes_nothing(emulated: Emulated) -> None:
    emulated.emulator.control.declared_mime = "image/png"
    image = (await emulated.call(prompt="a cat")).structured_content["images"][0]
    assert (image["mime_type"], Path(image["path"]).suffix) == ("image/jpeg", ".jpg")


async def test_bytes_that_do_not_decode_are_kept_and_said(studio: Studio, model: FakeModel) -> None:
    model.answers.append(reply(b"no picture at all"))
    with pytest.raises(Refused, match="cannot be decoded"):
        await studio.create(ImageRequest(prompt="a cat"))
    path = Path(str(studio.library.recent(1, "gemini")[0].path))
    assert path.read_bytes() == b"no picture at all" and path.suffix == ".bin"


async def test_of_two_pictures_the_one_that_decodes_stands_for_the_answer_also_when_it_is_told_again(
    studio: Studio, model: FakeModel
) -> None:
    body = json.loads(reply(picture((64, 64))))
    broken = base64.b64encode(b"no picture at all").decode()
    body["candidates"][0]["content"]["parts"].append({"inlineData": {"mimeType": "image/png", "data": broken}})
    model.answers += [json.dumps(body).encode(), reply(b"no picture at all")]
    first = await studio.create(ImageRequest(prompt="a cat", n=2), key="key:one")
    again = await studio.create(ImageRequest(prompt="a cat", n=2), key="key:one")
    for created in (first, again):
        assert [image.record.width for image in created.images] == [64]
        assert [failure.reason for failure in created.failures] == ["UNDECODABLE"]
        assert sum("cannot be decoded" in warning for warning in created.warnings) == 1
        assert created.cost_usd == pytest.approx(2 * (created.images[0].cost_usd or 0))


async def test_a_picture_among_the_thoughts_is_not_the_result(emulated: Emulated) -> None:
    emulated.emulator.control.thoughts = "images"
    created = (await emulated.call(prompt="a cat")).structured_content
    assert created["returned"] == 1
    assert created["images"][0]["width"] == 1024  # the sketches that the emulator thinks in are a quarter of that


async def test_every_picture_of_an_answer_is_kept_shown_and_told_again(
    connect: Connect, model: FakeModel, studio: Studio
) -> None:
    model.answers.append(reply(*(jpeg(comment=str(number)) for number in range(3)), image_tokens=3360))
    arguments = {"prompt": "a cat in three moods", "idempotency_key": "one"}
    async with connect() as client:
        first = await client.call_tool("generate_image", arguments)
        again = await client.call_tool("generate_image", arguments)
    facts = first.structured_content
    assert (facts["requested"], facts["returned"], len(set(facts["file_paths"]))) == (1, 3, 3)
    assert all(Path(path).read_bytes().startswith(b"\xff\xd8") for path in facts["file_paths"])
    assert "3 pictures in one answer" in first.content[0].text
    assert any("more than the $0.0" in warning for warning in facts["warnings"])
    assert facts["cost_usd"] == again.structured_content["cost_usd"] > 0.1
    assert again.structured_content["file_paths"] == facts["file_paths"]


async def test_a_further_picture_that_does_not_decode_is_kept_and_said(studio: Studio, model: FakeModel) -> None:
    model.answers.append(reply(b"no picture at all", jpeg()))
    created = await studio.create(ImageRequest(prompt="a cat"))
    assert len(created.images) == 1
    told = next(warning for warning in created.warnings if "not in the library" in warning)
    assert Path(told.partition("Its bytes are at ")[2].rstrip(".")).read_bytes() == b"no picture at all"


async def test_a_further_picture_that_cannot_be_recorded_is_there_once_where_it_is_said_to_be(
    studio: Studio, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("nanobanana_mcp.storage.sidecars.Sidecars.write_record", full)
    model.answers.append(reply(jpeg(comment="1"), jpeg(comment="2")))
    created = await studio.create(ImageRequest(prompt="a cat", output_path=f"{tmp_path}/sub/"))
    told = next(warning for warning in created.warnings if "not in the library: No space left on device." in warning)
    kept = {str(path) for path in tmp_path.rglob("*_*.jpg") if "thumb" not in str(path)}
    assert kept == {created.images[0].record.path, told.partition("Its bytes are at ")[2].rstrip(".")}


async def test_a_picture_that_came_only_as_a_thought_is_better_than_none(emulated: Emulated) -> None:
    emulated.emulator.control.queue.append(ThoughtOnly())
    created = (await emulated.call(prompt="a cat")).structured_content
    assert created["returned"] == 1


def test_a_whole_answer_is_read() -> None:
    found = read_reply((WIRE / "picture_with_thoughts_and_grounding.json").read_bytes())
    red, _, blue = colour(found.image)
    assert blue > 150 > 50 > red  # the red one was a thought
    assert found.text == "Here is your picture."
    assert found.usage == Usage(prompt=12, text=170 + 980, image=1120, searches=2)
    assert found.model_version == "gemini-nano-banana-2.1"
    assert found.sources == ("https://example.org/heron", "https://example.net/photo")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("image_safety", "IMAGE_SAFETY"), ("no_image", "NO_IMAGE"), ("prompt_blocked", "PROHIBITED_CONTENT")],
)
def test_a_recorded_refusal_is_read(name: str, reason: str) -> None:
    with pytest.raises(NoPicture) as caught:
        read_reply((WIRE / f"{name}.json").read_bytes())
    assert caught.value.reason == reason and caught.value.usage.prompt == 8


def test_the_last_of_several_pictures_is_the_final_one() -> None:
    assert read_reply(reply(jpeg(comment="draft"), jpeg(comment="final"))).image == jpeg(comment="final")


def test_without_a_breakdown_every_token_of_the_answer_counts_as_the_dearer_kind() -> None:
    body = json.loads(reply(jpeg(), image_tokens=1300, thought_tokens=50))
    del body["usageMetadata"]["candidatesTokensDetails"]
    assert read_reply(json.dumps(body).encode()).usage == Usage(prompt=10, text=50, image=1300)


@pytest.mark.parametrize("field", ["inlineData", "inline_data"])
def test_both_spellings_and_both_alphabets_of_base64_are_read(field: str) -> None:
    data = bytes(range(256)) * 3
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        part = {field: {"mimeType": "image/png", "data": encode(data).decode()}}
        assert read_reply(json.dumps({"candidates": [{"content": {"parts": [part]}}]}).encode()).image == data


async def test_half_a_character_in_the_words_beside_a_picture_costs_no_picture(
    connect: Connect, model: FakeModel, studio: Studio
) -> None:
    model.answers.append(reply(jpeg(), text="one half \ud83d of it").replace(b"\\ud83d", b"\\uD83D"))
    async with connect() as client:
        answer = await client.call_tool("generate_image", {"prompt": "a cat"})
    assert "Made 1 picture" in answer.content[0].text


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b'{"candidates": [{"content": {"parts": 1']
)
def test_what_is_no_answer_at_all_says_that_it_is_kept(raw: bytes) -> None:
    with pytest.raises(Unreadable, match="kept"):
        read_reply(raw)


def _counted(**usage: Any) -> bytes:
    """A picture with these counts and no others."""
    return json.dumps(json.loads(reply(jpeg())) | {"usageMetadata": usage}).encode()


NO_COUNTS: dict[str, bytes] = {
    "missing": json.dumps({k: v for k, v in json.loads(reply(jpeg())).items() if k != "usageMetadata"}).encode(),
    "null": json.dumps(json.loads(reply(jpeg())) | {"usageMetadata": None}).encode(),
    "a list": json.dumps(json.loads(reply(jpeg())) | {"usageMetadata": [1120]}).encode(),
    "empty": _counted(),
    "zero": _counted(promptTokenCount=0, candidatesTokenCount=0),
    "one": _counted(promptTokenCount=1, candidatesTokenCount=1),
    "text": _counted(promptTokenCount="10", candidatesTokenCount="1120"),
    "lists": _counted(promptTokenCount=[10], candidatesTokenCount=[1120]),
    "true": _counted(promptTokenCount=True, candidatesTokenCount=True),
    "a half": _counted(promptTokenCount=10, candidatesTokenCount=1120.5),
    "negative": _counted(promptTokenCount=-42_000_000, candidatesTokenCount=1120),
    "negative image": _counted(
        candidatesTokenCount=1120, candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": -42_000_000}]
    ),
    "negative thoughts": _counted(candidatesTokenCount=1120, thoughtsTokenCount=-168_000_000),
    "beyond numbers": _counted(candidatesTokenCount=1120, promptTokenCount=7).replace(b": 7", b": 1e400"),
    "no number": _counted(candidatesTokenCount=1120, promptTokenCount=7).replace(b": 7", b": NaN"),
    "huge": _counted(candidatesTokenCount=1120, promptTokenCount=10**300),
    "many details": _counted(
        candidatesTokenCount=1, candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": 10**6}] * 1000
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("raw", NO_COUNTS.values(), ids=NO_COUNTS)
async def test_a_picture_without_a_count_that_can_be_true_costs_its_estimate_and_that_is_told(
    make_studio: Callable[..., Studio], model: FakeModel, raw: bytes
) -> None:
    studio = make_studio(limits=Limits(per_hour_usd=0.2))
    model.standing = raw
    made = []
    with pytest.raises(BudgetExceeded):
        for number in range(20):
            made.append(await studio.create(ImageRequest(prompt=f"banana {number}")))
    assert 2 <= len(made) <= 5
    spent = (await studio.stats()).total.usd
    assert 0.1 < spent <= 0.2 and spent == pytest.approx(sum(one.cost_usd or 0 for one in made))
    assert any("cannot be right" in warning for warning in made[0].warnings)
    await studio.close()


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "candidatesTokensDetails"]),
        st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=2) | st.booleans(),
    ),
    st.sampled_from(sorted(DEFAULTS)),
)
def test_whatever_gemini_counts_a_picture_costs_something_and_nothing_without_bounds(
    counts: dict[str, Any], tier: TierName
) -> None:
    choice = choose(ImageRequest(prompt="a cat", model_tier=tier), {name: BY_ID[DEFAULTS[name]] for name in DEFAULTS})
    usage = read_reply(_counted(**counts)).usage
    billed = bill(choice, usage, estimate_usd=0.05, drew=True).usd
    assert billed is not None and 0.015 <= billed < 1000
    assert (bill(choice, usage, estimate_usd=0.05, drew=False).usd or 0) >= 0


async def test_a_count_that_is_far_below_what_was_expected_is_believed_and_told(
    studio: Studio, model: FakeModel
) -> None:
    model.answers.append(reply(jpeg((4096, 4096)), image_tokens=1120))
    created = await studio.create(ImageRequest(prompt="a cat", resolution="4k", model_tier="flash"))
    assert created.cost_usd == pytest.approx(0.0336, abs=0.001)
    assert any("1120 tokens" in warning and "3780 were expected" in warning for warning in created.warnings)


async def test_a_refusal_whose_count_cannot_be_true_is_entered_at_what_was_expected(
    studio: Studio, model: FakeModel
) -> None:
    model.answers.append(refusal("IMAGE_SAFETY").replace(b'"promptTokenCount": 10', b'"promptTokenCount": -1000000'))
    with pytest.raises(Refused, match=r"It cost \$0\.0[34]"):
        await studio.create(ImageRequest(prompt="a cat"))
    assert (await studio.stats()).total.usd > 0.03


@pytest.mark.parametrize("status", [200, 201, 202, 206])
async def test_a_picture_is_kept_whatever_kind_of_success_it_comes_as(tmp_path: Path, status: int) -> None:
    answer = reply(jpeg())
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(status, content=answer))
    gemini = Gemini(api_key="a-key", base_url="https://gemini.example/", transport=transport)
    assert await gemini.generate(ASKED) == answer
    await gemini.close()


async def test_a_success_without_an_answer_counts_as_perhaps_paid(make_studio: Callable[..., Studio]) -> None:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(204))
    gemini = Gemini(api_key="a-key", base_url="https://gemini.example/", transport=transport)
    studio = make_studio(model=gemini)
    with pytest.raises(Unreadable):
        await studio.create(ImageRequest(prompt="a cat"))
    assert (await studio.stats()).total.usd > 0.03
    await studio.close()


async def test_a_picture_is_kept_wherever_it_stands_in_the_answer(
    studio: Studio, model: FakeModel, subtests: pytest.Subtests
) -> None:
    body = json.loads(reply(jpeg(comment="far away")))
    (candidate,) = body["candidates"]
    words = {"content": {"parts": [{"text": "Only words."}]}, "finishReason": "STOP"}
    far = {**candidate, "content": {"parts": [{"text": "."}] * 400 + candidate["content"]["parts"]}}
    first = json.loads(reply(jpeg(comment="first")))["candidates"][0]
    for name, candidates in {
        "part 401": [far],
        "second candidate": [words, candidate],
        "two of them": [first, candidate],
    }.items():
        model.answers.append(json.dumps(body | {"candidates": candidates}).encode())
        with subtests.test(name):
            created = await studio.create(ImageRequest(prompt=name))
            kept = {Path(str(image.record.path)).read_bytes() for image in created.images}
            assert jpeg(comment="far away") in kept and len(kept) == (2 if name == "two of them" else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"role": "model"', b'"role": "\xff\xfe"'),
        (b'"text": "Here"', b'"text": "H\xe9re", "thoughtSignature": "no base64!!"'),
        (b'"text": "Here"', b'"text": "a\x00b\x1bc"'),
        (b'"text": "Here"', b'"text": "Here", "thoughtSignature": "abcde"'),
        (b'"text": "Here"', b'"text": "Here", "thoughtSignature": 12'),
    ],
)
async def test_a_bad_byte_or_signature_beside_a_picture_costs_no_picture(
    studio: Studio, model: FakeModel, old: bytes, new: bytes
) -> None:
    raw = reply(jpeg(), text="Here")
    assert old in raw
    model.answers.append(raw.replace(old, new))
    created = await studio.create(ImageRequest(prompt="a cat"))
    assert Path(str(created.images[0].record.path)).read_bytes() == jpeg()


async def test_an_unreadable_answer_counts_as_perhaps_paid_and_its_bytes_stay(studio: Studio, model: FakeModel) -> None:
    model.answers.append(b"<html>")
    with pytest.raises(Unreadable):
        await studio.create(ImageRequest(prompt="a cat"))
    assert len((await studio.stats()).unknown_outcomes) == 1
    assert len(list(studio.places.spool.iterdir())) == 1


NAMES = """candidates content parts text inlineData data thought finishReason finishMessage usageMetadata
promptTokenCount candidatesTokenCount candidatesTokensDetails tokenCount modality promptFeedback blockReason
groundingMetadata groundingChunks web uri webSearchQueries modelVersion"""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4),
    max_leaves=25,
)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=150)
@given(JSON)
def test_no_json_whatever_makes_the_reader_stumble(body: Any) -> None:
    try:
        assert read_reply(json.dumps({"candidates": [body]} if isinstance(body, dict) else body).encode()).image
    except ServiceError as error:
        assert str(error)


def check_words(message: str, reason: str) -> None:
    """A sentence on what happened that is not Gemini's code alone, the code, and what to do."""
    what, way_out = message.removeprefix("No picture: ").split(f" ({reason}). ")
    assert reason not in what and len(what.split()) >= 4
    assert len(way_out.split()) >= 3


def colour(data: bytes) -> tuple[int, int, int]:
    with Image.open(io.BytesIO(data)) as image:
        red, green, blue = image.convert("RGB").resize((1, 1)).tobytes()
    return red, green, blue


async def test_what_a_model_says_is_clean_and_short_wherever_it_is_told_and_byte_exact_in_its_turn(
    connect: Connect, model: FakeModel
) -> None:
    wild = "Hi\x1b[31m\u202e\U000e0041\x00\r\nthere " + "x" * 11_000
    model.answers += [reply(jpeg(), text=wild), refusal("ODD\x1b\u202e\n" + "Y" * 11_000, wild)]
    async with connect() as client:
        result = await client.call_tool("generate_image", {"prompt": "a cat"})
        with pytest.raises(ToolError) as caught:
            await client.call_tool("generate_image", {"prompt": "a dog"})
        (image,) = result.structured_content["images"]
        await client.call_tool("generate_image", {"prompt": "a hat", "continue_from": image["id"]})
    for told in (image["text"], str(caught.value), *result.content[0].text.splitlines()):
        assert told.isprintable() and len(told) < 2000
    assert wild in [part.text for turn in model.requests[-1].history for part in turn.parts]
