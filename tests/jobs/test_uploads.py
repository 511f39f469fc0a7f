"""The Files API: ids in answers before the upload is done, renewal after expiry, and nothing sent twice."""

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError
from PIL import Image

from nanobanana_mcp.domain.errors import NotAllowed, NotAnImage, SourceNotFound, Unavailable
from nanobanana_mcp.domain.provider import RemoteFile
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.emulator.control import Edit
from nanobanana_mcp.pixels.files.containers import stripped
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support import scenes
from tests.support.easel import drawing, saved, use
from tests.support.fakes import FakeModel, photo, reply


async def test_an_upload_answers_what_is_needed_to_use_it(emulated: Emulated, tmp_path: Path) -> None:
    path = photo(tmp_path / "a heron.png")
    result = await emulated.client.call_tool("upload_file", {"path": str(path), "display_name": "Heron"})
    facts = result.structured_content
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["name"].startswith("files/nb") and facts["uri"].endswith(facts["name"])
    assert (facts["mime_type"], facts["size_bytes"]) == ("image/png", path.stat().st_size)
    assert (facts["sha256"], facts["display_name"], facts["state"]) == (digest, "Heron", "active")
    assert facts["expires_at"] and not facts["reused"]
    for needed in (facts["name"], facts["image_id"], "expires"):
        assert needed in result.content[0].text
    (start, _) = emulated.emulator.requests
    assert start.json["file"]["display_name"] == "Heron"


async def test_the_mime_type_comes_from_the_bytes(studio: Studio, model: FakeModel, tmp_path: Path) -> None:
    path = photo(tmp_path / "picture.jpg").rename(tmp_path / "picture.png")
    assert (await studio.upload(str(path))).upload.mime_type == "image/jpeg"
    assert model.uploads[0][2] == "image/jpeg"


async def test_the_place_and_the_position_of_a_photo_stay_here(
    studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    path = tmp_path / "at home.jpg"
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    Image.new("RGB", (64, 64)).save(path, exif=exif, comment=b"secret note")
    before = path.read_bytes()
    await studio.upload(str(path))
    await studio.create(ImageRequest(prompt="a hat", inputs=(str(path),)))
    sent = model.requests[0].inputs[0].data
    for data in (model.uploads[0][1], sent):
        assert data is not None and b"secret note" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert 0x8825 not in image.getexif()
    assert "at home" not in str(model.uploads) and str(tmp_path) not in str([entry[3] for entry in model.uploads])
    assert path.read_bytes() == before


async def test_the_same_content_is_not_uploaded_again_while_it_lives(emulated: Emulated, tmp_path: Path) -> None:
    path = photo(tmp_path / "heron.png")
    copy = photo(tmp_path / "elsewhere" / "copy.png")
    first = (await emulated.client.call_tool("upload_file", {"path": str(path)})).structured_content
    second = (await emulated.client.call_tool("upload_file", {"path": str(copy)})).structured_content
    third = (await emulated.client.call_tool("upload_file", {"path": first["image_id"]})).structured_content
    assert first["name"] == second["name"] == third["name"]
    assert (first["reused"], second["reused"], third["reused"]) == (False, True, True)
    sent = [(one.method, one.path.split("/files")[0]) for one in emulated.emulator.requests]
    assert [method for method, _ in sent] == ["POST", "POST", "GET", "GET"]  # start, body; then only whether it lives


async def test_calls_at_once_for_one_file_upload_it_once(emulated: Emulated, tmp_path: Path) -> None:
    path = photo(tmp_path / "a heron.png")
    calls = (emulated.client.call_tool("upload_file", {"path": str(path)}) for _ in range(4))
    answers = await asyncio.gather(*calls)
    assert len({answer.structured_content["name"] for answer in answers}) == 1
    assert sorted(answer.structured_content["reused"] for answer in answers) == [False, True, True, True]


async def test_a_display_name_that_cannot_be_given_any_more_is_said(emulated: Emulated, tmp_path: Path) -> None:
    path = photo(tmp_path / "a heron.png")
    await emulated.client.call_tool("upload_file", {"path": str(path), "display_name": "one"})
    again = await emulated.client.call_tool("upload_file", {"path": str(path), "display_name": "two"})
    assert "keeps the display name 'one'" in again.content[0].text
    assert again.structured_content["display_name"] == "one"


async def test_content_that_has_expired_is_uploaded_again_under_a_new_name(emulated: Emulated, tmp_path: Path) -> None:
    path = str(photo(tmp_path / "heron.png"))
    emulated.emulator.control.file_ttl_s = -1
    first = (await emulated.client.call_tool("upload_file", {"path": path})).structured_content
    emulated.emulator.control.file_ttl_s = 48 * 3600
    second = (await emulated.client.call_tool("upload_file", {"path": path})).structured_content
    assert not second["reused"] and second["name"] != first["name"]


async def test_an_id_that_is_about_to_expire_is_renewed_before_it_is_used(emulated: Emulated, tmp_path: Path) -> None:
    emulated.emulator.control.file_ttl_s = 300  # a request may take that long to be read
    path = photo(tmp_path / "heron.png")
    old = (await emulated.client.call_tool("upload_file", {"path": str(path)})).structured_content
    emulated.emulator.control.file_ttl_s = 48 * 3600
    answer = (await emulated.call(prompt="a hat on it", file_id=old["name"])).structured_content
    assert len(emulated.drawn) == 1
    uri = emulated.drawn[0]["contents"][0]["parts"][1]["fileData"]["file_uri"]
    assert uri != old["uri"] and uri.startswith("https://")
    assert answer["images"][0]["parents"] == [old["image_id"]] and answer["source_file_id"] == old["name"]
    assert any("had expired" in warning and str(path) in warning for warning in answer["warnings"])


async def test_an_id_that_google_dropped_early_is_renewed_and_the_request_repeated(
    emulated: Emulated, tmp_path: Path
) -> None:
    path = photo(tmp_path / "heron.png")
    old = (await emulated.client.call_tool("upload_file", {"path": str(path)})).structured_content
    emulated.clock.ahead_s = 49 * 3600
    answer = (await emulated.call(prompt="hats", file_id=old["name"], n=3)).structured_content
    assert answer["returned"] == 3 and len(emulated.emulator.charges) == 3
    used = {body["contents"][0]["parts"][1]["fileData"]["file_uri"] for body in emulated.drawn}
    assert len(used - {old["uri"]}) == 1  # renewed once, for all three
    assert any("had expired" in warning for warning in answer["warnings"])


@pytest.mark.parametrize("loss", ["deleted", "changed"])
async def test_an_expired_id_whose_file_is_gone_or_changed_is_refused_with_the_way_out(
    emulated: Emulated, tmp_path: Path, loss: str
) -> None:
    emulated.emulator.control.file_ttl_s = -1
    path = photo(tmp_path / "heron.png")
    old = (await emulated.client.call_tool("upload_file", {"path": str(path)})).structured_content
    if loss == "deleted":
        path.unlink()
    else:
        photo(path, color=(1, 2, 3))
    with pytest.raises(ToolError) as caught:
        await emulated.call(prompt="a hat on it", file_id=old["name"])
    assert str(path) in str(caught.value) and "Give " in str(caught.value)
    assert emulated.drawn == []


@pytest.mark.parametrize(
    "given", ["files/nobody", "files/", "files/../models", "files/UPPER case", "files/" + "x" * 300]
)
async def test_an_unknown_id_is_refused_with_the_way_out(emulated: Emulated, given: str) -> None:
    with pytest.raises(ToolError, match="path or its img_"):
        await emulated.call(prompt="a hat on it", file_id=given)
    assert emulated.drawn == [] and not emulated.studio.places.output.exists()


@pytest.mark.parametrize("given", ["heron.png", "img_1m7wkkd9wrj86y2s", "https://example.org/heron.png", ""])
async def test_a_file_id_of_another_form_is_refused(studio: Studio, model: FakeModel, given: str) -> None:
    with pytest.raises(Exception, match="file_id takes a Files API id"):
        await studio.create(ImageRequest(prompt="a hat on it", file_id=given))
    assert model.requests == []


async def test_a_file_that_somebody_else_uploaded_is_used_and_gets_a_row(studio: Studio, model: FakeModel) -> None:
    model.remote["files/theirs"] = remote("files/theirs", "image/png")
    created = await studio.create(ImageRequest(prompt="a hat on it", file_id="files/theirs"))
    assert model.requests[0].inputs[0].uri == model.remote["files/theirs"].uri
    (parent,) = created.images[0].record.parents
    record = studio.library.get(parent.image_id)
    assert record is not None and (record.origin, record.path) == ("imported", None)


async def test_a_file_that_is_no_picture_is_refused(studio: Studio, model: FakeModel) -> None:
    model.remote["files/film"] = remote("files/film", "video/mp4")
    with pytest.raises(NotAnImage, match="video/mp4"):
        await studio.create(ImageRequest(prompt="a hat on it", file_id="files/film"))
    assert model.requests == []


async def test_an_upload_that_hangs_does_not_delay_the_answer_which_has_its_id(
    studio: Studio, model: FakeModel
) -> None:
    gate = asyncio.Event()
    model.upload_answers.append(held(gate))
    async with asyncio.timeout(10):
        created = await studio.create(ImageRequest(prompt="a cat"))
    upload = created.images[0].upload
    assert upload is not None and upload.state == "pending" and upload.name.startswith("files/nb")
    assert model.remote == {}
    gate.set()
    await studio.uploads.wait(upload)
    assert list(model.remote) == [upload.name]


async def test_an_id_whose_upload_is_under_way_waits_for_it(studio: Studio, model: FakeModel) -> None:
    gate = asyncio.Event()
    log: list[str] = []

    async def finish() -> bytes:
        await gate.wait()
        log.append("uploaded")
        return b""

    async def draw() -> bytes:
        log.append("drawn")
        return reply(model.uploads[0][1])

    async def let_it_finish(_done: float, _total: float, _words: str) -> None:
        gate.set()

    model.upload_answers.append(finish)
    first = await studio.create(ImageRequest(prompt="a cat"))
    assert first.images[0].upload is not None
    model.answers.append(draw)
    edit = ImageRequest(prompt="a hat on it", file_id=first.images[0].upload.name)
    await studio.create(edit, progress=let_it_finish)
    assert log == ["uploaded", "drawn"]
    assert len(model.uploads) == 2  # the picture and its edit: the first was not sent a second time
    assert model.requests[1].inputs[0].uri == model.remote[first.images[0].upload.name].uri


async def test_a_failed_upload_costs_no_picture_and_is_made_good_when_it_is_needed(
    studio: Studio, model: FakeModel
) -> None:
    model.upload_answers.append(Unavailable("The Files API is down."))
    first = await studio.create(ImageRequest(prompt="a cat"))
    upload = first.images[0].upload
    assert upload is not None and Path(str(first.images[0].record.path)).is_file()
    await studio.uploads.drain(5)
    assert model.remote == {}
    second = await studio.create(ImageRequest(prompt="a hat on it", file_id=upload.name))
    assert second.images[0].record.parents[0].image_id == first.images[0].record.id
    assert model.requests[1].inputs[0].uri in [file.uri for file in model.remote.values()]


async def test_a_picture_with_a_long_prompt_is_uploaded_all_the_same(emulated: Emulated) -> None:
    answer = (await emulated.call(prompt="a heron " * 500)).structured_content
    await emulated.studio.uploads.drain(5)
    assert [file.name for file in await emulated.gemini.files()] == answer["files_api_ids"]


async def test_an_upload_that_was_cut_off_by_the_exit_is_made_good_later(
    connect: Connect, make_studio: Any, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.studio.studio.UPLOAD_DRAIN_S", 0.01)
    model.upload_answers.append(held(asyncio.Event()))
    async with connect() as client:
        first = (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content
    async with connect() as client:
        edit = {"prompt": "a hat on it", "file_id": first["files_api_ids"][0]}
        second = (await client.call_tool("generate_image", edit)).structured_content
    assert second["images"][0]["parents"] == [first["images"][0]["id"]]


@pytest.mark.parametrize("uploading", ["on_demand", "never"])
async def test_pictures_stay_here_unless_uploading_is_wanted(
    make_studio: Any, model: FakeModel, uploading: str
) -> None:
    studio = make_studio(uploading=uploading)
    created = await studio.create(ImageRequest(prompt="a cat"))
    await studio.close()
    assert model.uploads == [] and created.images[0].upload is None


async def test_uploading_that_is_switched_off_says_so(make_studio: Any, model: FakeModel, tmp_path: Path) -> None:
    studio = make_studio(uploading="never")
    with pytest.raises(NotAllowed, match=r"NANOBANANA_UPLOAD=never.*path itself"):
        await studio.upload(str(photo(tmp_path / "heron.png")))
    await studio.close()
    assert model.uploads == []


async def test_pictures_too_large_for_one_request_go_by_the_files_api(
    studio: Studio, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.jobs.inputs.REQUEST_BYTES", 3000)
    paths = [str(photo(tmp_path / f"{number}.png", color=(number, 0, 0))) for number in (1, 2, 3)]
    await studio.create(ImageRequest(prompt="a collage", inputs=tuple(paths)))
    assert all(part.uri for part in model.requests[0].inputs)
    assert [entry[1] for entry in model.uploads[:3]] == [Path(path).read_bytes() for path in paths]


async def test_a_file_google_refuses_for_good_is_not_asked_for_forever(studio: Studio, model: FakeModel) -> None:
    model.remote["files/theirs"] = remote("files/theirs", "image/png")
    model.standing = SourceNotFound("You do not have permission to access the File.")
    with pytest.raises(SourceNotFound):
        await studio.create(ImageRequest(prompt="a hat on it", file_id="files/theirs"))
    assert len(model.requests) <= 2


@pytest.mark.slow
async def test_a_picture_that_was_put_together_is_uploaded_without_the_words_in_its_label(
    emulated: Emulated, tmp_path: Path
) -> None:
    source = saved(tmp_path, scenes.photo(300, 200, seed=4), "sea.png")
    drawing(emulated, Edit(shift=(0.004, -0.003)))
    answer = await use(emulated, "extend_image", image=str(source), right=60, instruction="a SECRET cove")
    await emulated.studio.uploads.drain(5)
    (name,) = answer["files_api_ids"]
    assert name in [file.name for file in await emulated.gemini.files()]
    kept = Path(answer["images"][0]["path"]).read_bytes()
    digest = hashlib.sha256(stripped(kept, "png")).hexdigest()
    assert b"SECRET" in kept and b"SECRET" not in stripped(kept, "png")
    assert [file.sha256 for file in await emulated.gemini.files() if file.name == name] == [digest]
    await emulated.call(prompt="at dawn", input_images=[answer["images"][0]["path"]])
    (sent,) = (
        part["inlineData"]["data"] for part in emulated.drawn[-1]["contents"][0]["parts"] if "inlineData" in part
    )
    assert sent["sha256"] == digest


def remote(name: str, mime_type: str) -> RemoteFile:
    return RemoteFile(
        name=name,
        uri=f"https://generativelanguage.googleapis.com/v1beta/{name}",
        mime_type=mime_type,
        bytes=100,
        state="active",
        expires_at=None,
        sha256="0" * 64,
    )


def held(gate: asyncio.Event) -> Any:
    """An answer that waits for the gate."""

    async def wait() -> bytes:
        await gate.wait()
        return b""

    return wait
