import asyncio
import base64
import io
import json
from typing import Any

import httpx2
import pytest
from google.genai import errors, types

from nanobanana_mcp.emulator.app import Emulator
from nanobanana_mcp.emulator.control import Finish, Hang, HttpError
from tests.support.emulated import (
    BANANA,
    KEY,
    Clock,
    ask,
    browser,
    gemini,
    inline,
    opened,
    part,
    picture,
    post,
    shape,
    user,
)


def emulated(clock: Clock | None = None) -> Emulator:
    emulator = Emulator(clock=clock or Clock())
    emulator.control.cheap = True
    return emulator


def inlined(*contents: Any, **config: Any) -> list[types.InlinedRequest]:
    return [
        types.InlinedRequest(contents=each, metadata={"key": f"k{index}"}, config=config or None)
        for index, each in enumerate(contents)
    ]


async def uploaded(emulator: Emulator, *lines: Any) -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    file = await gemini(emulator).files.upload(file=io.BytesIO(text.encode()), config={"mime_type": "jsonl"})
    return str(file.name)


async def hand_in(emulator: Emulator, body: Any, *, model: str = BANANA) -> httpx2.Response:
    return await post(emulator, body, model=model, method="batchGenerateContent")


def batch_of(*requests: Any) -> dict[str, Any]:
    return {"batch": {"inputConfig": {"requests": {"requests": [{"request": each} for each in requests]}}}}


async def test_a_batch_is_pending_when_handed_in_and_done_at_the_first_look_at_half_the_price() -> None:
    emulator = emulated()
    await ask(emulator, "a cat", image_config=shape("16:9"))
    client = gemini(emulator)
    job = await client.batches.create(
        model=BANANA,
        src=inlined("a cat", [part(picture()), "edit"], image_config=shape("16:9"), system_instruction="be brief"),
        config={"display_name": "two"},
    )
    assert (job.state, job.display_name, job.model) == (types.JobState.JOB_STATE_PENDING, "two", f"models/{BANANA}")
    assert len(emulator.charges) == 1
    job = await client.batches.get(name=job.name)
    assert job.state == types.JobState.JOB_STATE_SUCCEEDED
    assert job.done
    assert job.end_time == job.create_time
    first, second = job.dest.inlined_responses
    assert (first.metadata, second.metadata) == ({"key": "k0"}, {"key": "k1"})
    assert opened(first.response.parts[-1].inline_data.data).size == (1376, 768)
    assert second.response.usage_metadata.prompt_token_count > 1120
    at_once, in_batch, edited = emulator.charges
    assert in_batch.tokens == at_once.tokens + 2
    assert in_batch.usd == pytest.approx((at_once.usd + 2 * 1.5 / 1e6) / 2)
    assert edited.usd > in_batch.usd
    assert (await client.batches.get(name=job.name)).dest == job.dest
    assert len(emulator.charges) == 3


async def test_what_is_refused_about_one_request_is_its_error_alone() -> None:
    emulator = emulated()
    emulator.control.queue.extend(
        [None, Finish("IMAGE_SAFETY"), HttpError(429, "RESOURCE_EXHAUSTED", "Later."), Hang()]
    )
    requests = inlined(*["a cat"] * 4)
    requests += inlined("a cat", image_config=shape("7:5"))
    requests += inlined(types.Part.from_uri(file_uri="files/gone", mime_type="image/png"))
    client = gemini(emulator)
    job = await client.batches.get(name=(await client.batches.create(model=BANANA, src=requests)).name)
    drawn, unsafe, *failed = job.dest.inlined_responses
    assert job.state == types.JobState.JOB_STATE_SUCCEEDED
    assert drawn.response.parts[-1].inline_data
    assert unsafe.response.candidates[0].finish_reason == types.FinishReason.IMAGE_SAFETY
    assert [(each.error.code, each.error.message.split()[0]) for each in failed] == [
        (8, "Later."),
        (13, "Internal"),
        (3, "Unsupported"),
        (7, "You"),
    ]
    assert len(emulator.charges) == 1
    told = (await browser(emulator).get(f"/v1beta/{job.name}")).json()
    assert told["response"]["inlinedResponses"] == told["metadata"]["output"]["inlinedResponses"]
    assert told["metadata"]["batchStats"] == {
        "requestCount": "6",
        "successfulRequestCount": "2",
        "failedRequestCount": "4",
    }


async def test_the_lines_of_a_file_are_answered_in_a_file_that_can_be_downloaded() -> None:
    emulator = emulated()
    client = gemini(emulator)
    config = {"response_modalities": ["IMAGE"], "image_config": {"aspect_ratio": "1:8"}}
    name = await uploaded(
        emulator,
        {"key": "good", "request": {"contents": [user("a cat")], "generation_config": config}},
        "",
        {"key": "unknown", "request": {"contents": [user("a cat")], "config": config}},
        "{no json",
        {"key": "empty"},
    )
    job = await client.batches.create(model=BANANA, src=name)
    await client.files.delete(name=name)
    job = await client.batches.get(name=job.name)
    assert job.dest.inlined_responses is None
    told = [json.loads(line) for line in (await client.files.download(file=job.dest.file_name)).splitlines()]
    assert [each.get("key") for each in told] == ["good", "unknown", None, "empty"]
    shown = told[0]["response"]["candidates"][0]["content"]["parts"][-1]["inlineData"]["data"]
    assert opened(base64.b64decode(shown)).size == (352, 2928)
    assert "Unknown name \"config\" at 'request': Cannot find field." in told[1]["error"]["message"]
    assert [each["error"]["code"] for each in told[1:]] == [3, 3, 3]
    kept = await client.files.get(name=job.dest.file_name)
    assert (kept.source, kept.mime_type) == (types.FileSource.GENERATED, "application/jsonl")
    assert await client.files.download(file=kept)


async def test_what_was_uploaded_is_not_given_out() -> None:
    emulator = emulated()
    with pytest.raises(errors.ClientError, match="Only generated files") as caught:
        await gemini(emulator).files.download(file=await uploaded(emulator, "x"))
    assert caught.value.code == 400


async def test_a_batch_stays_pending_for_as_long_as_it_was_told() -> None:
    clock = Clock()
    emulator = emulated(clock)
    emulator.control.batch_s = 60
    client = gemini(emulator)
    name = (await client.batches.create(model=BANANA, src=inlined("a cat"))).name
    clock.now += 59
    job = await client.batches.get(name=name)
    assert (job.state, job.done, job.dest) == (types.JobState.JOB_STATE_PENDING, False, None)
    assert emulator.charges == []
    clock.now += 1
    job = await client.batches.get(name=name)
    assert job.done
    assert (job.end_time - job.create_time).total_seconds() == 60


async def test_a_batch_looked_at_by_two_at_once_is_worked_on_once() -> None:
    emulator = emulated()
    client = gemini(emulator)
    name = (await client.batches.create(model=BANANA, src=inlined(*["a cat"] * 3))).name
    one, other = await asyncio.gather(client.batches.get(name=name), client.batches.get(name=name))
    assert one.dest == other.dest
    assert len(emulator.charges) == len(one.dest.inlined_responses) == 3


async def test_a_cancelled_batch_costs_nothing_and_one_that_is_done_cannot_be_cancelled() -> None:
    emulator = emulated()
    client = gemini(emulator)
    name = (await client.batches.create(model=BANANA, src=inlined("a cat"))).name
    await client.batches.cancel(name=name)
    job = await client.batches.get(name=name)
    assert (job.state, job.dest) == (types.JobState.JOB_STATE_CANCELLED, None)
    assert emulator.charges == []
    done = await client.batches.get(name=(await client.batches.create(model=BANANA, src=inlined("a cat"))).name)
    for each in (job, done):
        with pytest.raises(errors.ClientError) as caught:
            await client.batches.cancel(name=each.name)
        assert (caught.value.code, caught.value.status) == (400, "FAILED_PRECONDITION")


async def test_batches_are_listed_in_pages_newest_first_and_belong_to_their_key() -> None:
    clock = Clock()
    emulator = emulated(clock)
    client = gemini(emulator)
    assert [job async for job in await client.batches.list()] == []
    for name in ("a", "b", "c"):
        await client.batches.create(model=BANANA, src=inlined("a cat"), config={"display_name": name})
        clock.now += 1
    jobs = [job async for job in await client.batches.list(config={"page_size": 2})]
    assert [job.display_name for job in jobs] == ["c", "b", "a"]
    assert all(job.done for job in jobs)
    assert [request.query for request in emulator.requests[-2:]] == ["pageSize=2", "pageSize=2&pageToken=p2"]
    assert [job async for job in await gemini(emulator, key="another").batches.list()] == []
    with pytest.raises(errors.ClientError) as caught:
        await gemini(emulator, key="another").batches.get(name=jobs[0].name)
    assert (caught.value.code, caught.value.message) == (404, "Requested entity was not found.")
    assert (await browser(emulator).get("/v1beta/batches?pageToken=nonsense")).status_code == 400


async def test_a_deleted_batch_is_gone_and_so_is_everything_after_a_reset() -> None:
    emulator = emulated()
    client = gemini(emulator, version="v1")
    first, second = [(await client.batches.create(model=BANANA, src=inlined("a cat"))).name for _ in range(2)]
    await client.batches.delete(name=first)
    assert [job.name async for job in await client.batches.list()] == [second]
    for call in (client.batches.get, client.batches.cancel, client.batches.delete):
        with pytest.raises(errors.ClientError) as caught:
            await call(name=first)
        assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    emulator.reset()
    assert (await browser(emulator).get("/v1/batches")).json() == {}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({}, 400, "exactly one of file_name and requests"),
        ({"batch": {"inputConfig": {"requests": {}, "fileName": "files/a"}}}, 400, "exactly one"),
        (batch_of(), 400, "there are no requests"),
        ({"batch": {"colour": 1}}, 400, "Unknown name \"colour\" at 'batch': Cannot find field."),
        (batch_of({"contents": [], "config": {}}), 400, "requests[0].request': Cannot find field."),
        (batch_of({"contents": [user(inline(b"")), {"parts": 5}]}), 400, "Expected an object"),
        ({"batch": {"inputConfig": {"fileName": "files/gone"}}}, 403, "do not have permission to access the File gone"),
        (batch_of({"contents": []}) | {"model": BANANA}, 400, 'Unknown name "model"'),
        ({"batch": {"webhookConfig": {"uris": ["https://example.org"]}}}, 501, "no webhooks"),
    ],
)
async def test_a_batch_that_google_would_not_take_is_refused(body: Any, code: int, message: str) -> None:
    emulator = emulated()
    response = await hand_in(emulator, body)
    assert response.status_code == code
    assert message in response.json()["error"]["message"]
    assert (await browser(emulator).get("/v1beta/batches")).json() == {}


async def test_a_batch_needs_a_key_and_a_model_that_is_there() -> None:
    emulator = emulated()
    body = batch_of({"contents": [user("a cat")]})
    missing = await hand_in(emulator, body, model="nonsense")
    assert missing.status_code == 404
    assert "not supported for batchGenerateContent" in missing.json()["error"]["message"]
    name = (await hand_in(emulator, body)).json()["name"]
    bare = browser(emulator, key=None)
    for path in ("batches", name):
        assert (await bare.get(f"/v1beta/{path}")).status_code == 403
    assert (await bare.post(f"/v1beta/{name}:cancel")).status_code == 403
    assert (await bare.post(f"/v1/models/{BANANA}:batchGenerateContent", json=body)).status_code == 403
    assert (await browser(emulator, key=KEY).get(f"/v1beta/{name}")).json()["done"] is True
