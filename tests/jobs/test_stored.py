"""Pictures that the library knows, after their files were changed, moved, renamed or swapped for links."""

import base64
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError
from mcp.shared.exceptions import MCPError

from nanobanana_mcp.domain.errors import NotAllowed, RequestError, SourceNotFound
from nanobanana_mcp.domain.requests import ImageRequest
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support.fakes import FakeModel, jpeg, photo, reply
from tests.support.rooms import rows


async def _imported(studio: Studio, path: Path) -> str:
    """The id under which the library knows a caller's own picture."""
    return (await studio.create(ImageRequest(prompt="a hat on it", inputs=(str(path),)))).inputs[0].id


async def test_the_address_of_a_photo_that_was_changed_gives_no_other_bytes(connect: Connect, tmp_path: Path) -> None:
    path = photo(tmp_path / "heron.png")
    before = path.read_bytes()
    async with connect() as client:
        answer = await client.call_tool("generate_image", {"prompt": "a hat", "input_image_path_1": str(path)})
        (image_id,) = answer.structured_content["images"][0]["parents"]
        (shown,) = await client.read_resource(f"image://{image_id}")
        assert base64.b64decode(shown.blob) == before
        path.write_text("SECRET")
        with pytest.raises(MCPError, match="has changed since") as caught:
            await client.read_resource(f"image://{image_id}")
    assert "SECRET" not in str(caught.value)


async def test_an_own_picture_that_was_changed_is_not_shown_as_what_it_was(studio: Studio) -> None:
    made = (await studio.create(ImageRequest(prompt="a cat"))).images[0].record
    Path(str(made.path)).write_bytes(jpeg(comment="another"))
    with pytest.raises(SourceNotFound, match="has changed since"):
        await studio.picture(made.id)


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
async def test_a_folder_swapped_for_a_link_to_a_hidden_one_gives_nothing(
    same: bool, studio: Studio, tmp_path: Path
) -> None:
    path = photo(tmp_path / "album" / "heron.png")
    image_id = await _imported(studio, path)
    hidden = tmp_path / ".ssh"
    path.parent.rename(hidden)
    if not same:
        (hidden / "heron.png").write_bytes(b"SECRET")
    path.parent.symlink_to(hidden)
    with pytest.raises(RequestError):
        await studio.picture(image_id)
    with pytest.raises(RequestError):
        await studio.create(ImageRequest(prompt="a scarf", inputs=(image_id,)))


async def test_folders_that_are_narrowed_later_hold_for_what_was_imported_before(
    make_studio: Callable[..., Studio], places: Places, tmp_path: Path
) -> None:
    path = photo(tmp_path / "album" / "heron.png")
    studio = make_studio()
    image_id = await _imported(studio, path)
    await studio.close()
    studio = make_studio(places=replace(places, allowed=(tmp_path / "elsewhere",)))
    with pytest.raises(NotAllowed, match="NANOBANANA_ALLOWED_DIRS"):
        await studio.picture(image_id)
    await studio.close()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["empty", "taken"])
async def test_photos_that_were_moved_are_sent_from_where_they_are(
    place: str, studio: Studio, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.jobs.inputs.REQUEST_BYTES", 3000)
    paths = [photo(tmp_path / f"{number}.png", color=(number, 0, 0)) for number in (1, 2, 3)]
    contents = [path.read_bytes() for path in paths]
    await studio.create(ImageRequest(prompt="a collage", inputs=tuple(map(str, paths))))
    model.remote.clear()
    with studio.library.database.write() as connection:
        connection.exec_driver_sql("UPDATE uploads SET state = 'deleted'")
    moved = [str(path.rename(tmp_path / f"new-{path.name}")) for path in paths]
    if place == "taken":
        for path in paths:
            photo(path, color=(9, 9, 9))
    model.uploads.clear()
    await studio.create(ImageRequest(prompt="another collage", inputs=tuple(moved)))
    assert [entry[1] for entry in model.uploads[:3]] == contents
    assert all(part.uri for part in model.requests[1].inputs)


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["own", "imported"])
async def test_a_moved_picture_works_by_its_id_once_it_was_met_where_it_is(
    own: bool, studio: Studio, model: FakeModel, tmp_path: Path
) -> None:
    if own:
        made = (await studio.create(ImageRequest(prompt="a cat"))).images[0].record
        image_id, path = made.id, Path(str(made.path))
    else:
        path = photo(tmp_path / "heron.png")
        image_id = await _imported(studio, path)
    moved = path.rename(tmp_path / f"moved{path.suffix}")
    with pytest.raises(SourceNotFound) as caught:
        await studio.create(ImageRequest(prompt="a hat", inputs=(image_id,)))
    assert str(path) in str(caught.value) and "Give its new path" in str(caught.value)
    assert "expired" not in str(caught.value), "it never was in the Files API"
    await studio.create(ImageRequest(prompt="a scarf", inputs=(str(moved),)))
    created = await studio.create(ImageRequest(prompt="a hat", inputs=(image_id,)))
    assert [parent.image_id for parent in created.images[0].record.parents] == [image_id]
    assert (await studio.picture(image_id))[0] == moved.read_bytes()


async def test_a_copy_takes_nobodys_place(studio: Studio, tmp_path: Path) -> None:
    path = photo(tmp_path / "heron.png")
    image_id = await _imported(studio, path)
    copy = tmp_path / "copy.png"
    copy.write_bytes(path.read_bytes())
    assert await _imported(studio, copy) == image_id
    created = await studio.create(ImageRequest(prompt="a hat", inputs=(str(copy),)))
    assert [parent.image_id for parent in created.images[0].record.parents] == [image_id]
    record = studio.library.get(image_id)
    assert record is not None and record.path == str(path)


@pytest.mark.slow
async def test_a_conversation_too_big_for_a_request_goes_on_from_the_picture_alone(
    studio: Studio, model: FakeModel
) -> None:
    big = jpeg() + os.urandom(15_000_000)
    model.answers.append(reply(big))
    first = (await studio.create(ImageRequest(prompt="a cat"))).images[0].record
    second = await studio.create(ImageRequest(prompt="a hat on it", continue_from=first.id))
    asked = model.requests[-1]
    inline = [part.data for part in asked.inputs] + [part.data for turn in asked.history for part in turn.parts]
    assert sum(len(data) for data in inline if data is not None) <= 14 * 1024 * 1024
    assert any("does not fit" in warning for warning in second.warnings)


async def test_a_refusal_for_money_leaves_no_trace_of_the_inputs(
    connect: Connect, make_studio: Callable[..., Studio], settings: Settings, tmp_path: Path, model: FakeModel
) -> None:
    limits = settings.model_copy(update={"max_usd_per_call": 0.001}).limits
    path = photo(tmp_path / "heron.png")
    async with connect(open_it=lambda: make_studio(limits=limits)) as client:
        with pytest.raises(ToolError, match="NANOBANANA_MAX_USD_PER_CALL"):
            await client.call_tool("generate_image", {"prompt": "a hat", "input_image_path_1": str(path)})
    tables: list[tuple[Any, ...]] = rows(
        settings.database_path, "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM requests)"
    )
    assert tables == [(0, 0)]
    assert not settings.output_dir.exists() and model.requests == []
