import base64
import hashlib
import io
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from google.genai import errors, types

from nanobanana_mcp.emulator.app import Emulator
from tests.support.emulated import Clock, ask, browser, gemini, image_of, opened, picture


async def test_a_file_goes_up_and_serves_as_input_until_it_is_deleted(tmp_path: Any) -> None:
    emulator = Emulator()
    client = gemini(emulator)
    data = picture(size=(160, 90))
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    file = await client.files.upload(file=path, config={"display_name": "cat", "name": "my-cat-1"})
    assert (file.name, file.display_name, file.mime_type) == ("files/my-cat-1", "cat", "image/png")
    assert file.size_bytes == len(data)
    assert file.state == types.FileState.ACTIVE
    assert base64.b64decode(file.sha256_hash).decode() == hashlib.sha256(data).hexdigest()
    assert file.expiration_time - file.create_time == timedelta(hours=48)
    assert opened(image_of(await ask(emulator, [file, "edit"]))).size == (1376, 768)
    await client.files.delete(name=file.name)
    with pytest.raises(errors.ClientError) as caught:
        await client.files.get(name=file.name)
    assert caught.value.code == 403
    assert caught.value.message == "You do not have permission to access the File my-cat-1 or it may not exist."
    with pytest.raises(errors.ClientError) as caught:
        await ask(emulator, [file, "edit"])
    assert (caught.value.code, caught.value.status) == (403, "PERMISSION_DENIED")


async def test_a_file_resource_is_written_as_google_writes_it() -> None:
    clock = Clock()
    emulator = Emulator(clock=clock)
    file = await gemini(emulator).files.upload(file=io.BytesIO(b"abc"), config={"mime_type": "image/png"})
    raw = (await browser(emulator).get(f"/v1/{file.name}")).json()
    assert raw["sizeBytes"] == "3"
    assert raw["createTime"] == "2026-11-18T11:06:40.250000000Z"
    assert raw["uri"] == f"https://generativelanguage.googleapis.com/v1beta/{file.name}"


async def test_files_expire_and_belong_to_their_key() -> None:
    clock = Clock()
    emulator = Emulator(clock=clock)
    file = await gemini(emulator).files.upload(file=io.BytesIO(picture()), config={"mime_type": "image/png"})
    path = f"/v1beta/{file.name}"
    assert (await browser(emulator, key="another").get(path)).status_code == 403
    assert (await browser(emulator, key="another").delete(path)).status_code == 403
    clock.now += 48 * 3600 - 1
    assert (await browser(emulator).get(path)).status_code == 200
    clock.now += 1
    assert (await browser(emulator).get(path)).status_code == 403
    assert (await browser(emulator).get("/v1beta/files")).json() == {}


async def test_files_are_listed_in_pages_newest_first() -> None:
    clock = Clock()
    emulator = Emulator(clock=clock)
    client = gemini(emulator)
    for name in ("a", "b", "c"):
        await client.files.upload(file=io.BytesIO(b"x"), config={"mime_type": "image/png", "name": name})
        clock.now += 1
    assert [file.name async for file in await client.files.list(config={"page_size": 2})] == [
        "files/c",
        "files/b",
        "files/a",
    ]
    assert (await browser(emulator).get("/v1beta/files?pageToken=nonsense")).status_code == 400
    assert (await browser(emulator).get("/v1beta/files?pageSize=many")).status_code == 400


async def test_an_upload_in_chunks_is_put_together_on_the_url_it_was_given() -> None:
    emulator = Emulator()
    begin = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
    start = await browser(emulator).post(
        "/upload/v1beta/files", json={"file": {"mime_type": "image/png", "size_bytes": "6"}}, headers=begin
    )
    url = start.headers["x-goog-upload-url"]
    assert url.startswith("http://emulator.test:81/upload/v1beta/files?upload_id=")
    assert start.headers["x-goog-upload-status"] == "active"
    bare = browser(emulator, key=None)

    async def send(command: str, offset: int, data: bytes) -> httpx2.Response:
        headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset)}
        return await bare.post(url, content=data, headers=headers)

    assert (await send("upload", 0, b"abc")).headers["x-goog-upload-status"] == "active"
    assert (await send("upload", 0, b"abc")).status_code == 400
    assert (await send("query", 0, b"")).headers["x-goog-upload-size-received"] == "3"
    assert (await send("upload, finalize", 3, b"d")).status_code == 400
    final = await send("upload, finalize", 4, b"ef")
    assert final.headers["x-goog-upload-status"] == "final"
    assert final.json()["file"]["sizeBytes"] == "6"
    assert (await send("upload", 6, b"g")).status_code == 404


@pytest.mark.parametrize(
    ("file", "headers", "code"),
    [
        ({"mime_type": "image/png", "name": "files/Not-Allowed"}, {}, 400),
        ({"mime_type": "image/png", "name": "x" * 41}, {}, 400),
        ({"mime_type": "image/png", "name": "taken"}, {}, 409),
        ({"mime_type": "image/png", "display_name": "x" * 513}, {}, 400),
        ({}, {}, 400),
        ({"mime_type": "image/png", "owner": "me"}, {}, 400),
        ({"mime_type": "image/png"}, {"X-Goog-Upload-Protocol": "multipart"}, 400),
    ],
)
async def test_an_upload_that_google_would_not_begin_is_refused(
    file: dict[str, str], headers: dict[str, str], code: int
) -> None:
    emulator = Emulator()
    await gemini(emulator).files.upload(file=io.BytesIO(b"x"), config={"mime_type": "image/png", "name": "taken"})
    begin = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"} | headers
    response = await browser(emulator).post("/upload/v1/files", json={"file": file}, headers=begin)
    assert response.status_code == code
