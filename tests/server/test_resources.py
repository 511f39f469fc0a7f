"""The list of resources: the newest pictures to be mentioned, told without opening the studio and to whom may see them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, Resource, ResourceTemplateReference

from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Era
from tests.support.rooms import close_all, opened, record

SECRET = "a heron of the secret project"
LINEAGE = ResourceTemplateReference(type="ref/resource", uri="lineage://{image_id}")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def library(settings: Settings) -> Library:
    settings.database_path.parent.mkdir(parents=True)
    return Library(opened(settings.database_path.parent))


def pictures(library: Library, count: int = 1, **changes: object) -> list[ImageRecord]:
    """Pictures of the library, newest first, whose prompts and names nobody else may see."""
    begun = now() - timedelta(minutes=count)
    made = [
        record(
            created_at=begun + timedelta(seconds=number),  # the library counts in milliseconds
            **{"prompt": SECRET, "path": f"/pictures/{SECRET}-{number}.png", **changes},
        )
        for number in range(count)
    ]
    for one in made:
        library.add(one)
    return sorted(made, key=lambda one: one.created_at, reverse=True)


def images(listed: list[Resource]) -> list[Resource]:
    return [one for one in listed if str(one.uri).startswith("image://")]


def never() -> Studio:
    raise AssertionError("the list of resources opens no studio")


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, True])
async def test_the_newest_pictures_are_listed_by_id_and_size_whether_the_studio_is_open_or_not(
    connect: Connect, library: Library, make_studio: Callable[..., Studio], is_open: bool
) -> None:
    made = pictures(library, 21, width=1200, height=800, bytes=1_234_567)
    pictures(library, origin="derived")
    pictures(library, origin="imported")
    pictures(library, backend="emulator")
    pictures(library, width=0, height=0)
    library.move_to_trash(made[0], Path("/pictures/.nanobanana/trash/heron.png"))
    async with connect(open_it=make_studio if is_open else never) as client:
        if is_open:
            await client.call_tool("output_stats", {"recent": 0})
        listed = await client.list_resources()
    listed = images(listed)
    assert [str(one.uri) for one in listed] == [f"image://{one.id}" for one in made[1:21]]
    told = {(one.name, one.description, one.size, one.mime_type) for one in listed}
    assert told == {(one.id, "1200 x 800 pixels, 1.2 MB", 1_234_567, "image/png") for one in made[1:21]}
    assert "heron" not in str([one.model_dump() for one in listed])


async def test_a_listed_picture_can_be_read(client: Client[Any]) -> None:
    made = (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content["images"][0]
    (listed,) = images(await client.list_resources())
    assert (listed.name, listed.size) == (made["id"], made["bytes"])
    (read,) = await client.read_resource(listed.uri)
    assert read.mime_type == listed.mime_type


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        ("hide: [maintenance]", 1),
        ("hide: [output_stats]", 0),
        ('hide: ["*"]', 0),
        ("tools: {output_stats: {rules: [{action: deny}]}}", 0),
        ("default: deny\ntools: {generate_image: {rules: [{action: allow}]}}", 0),
        ("hide: [output_stats", 0),
    ],
)
async def test_who_may_not_see_the_statistics_is_listed_no_pictures(
    connect: Connect, library: Library, tmp_path: Path, rules: str, count: int
) -> None:
    (made,) = pictures(library)
    policy = tmp_path / "policy.yaml"
    policy.write_text(rules)
    async with connect(open_it=never, policy=policy) as client:
        assert len(images(await client.list_resources())) == count
        completed = await client.complete(LINEAGE, {"name": "image_id", "value": "img_"})
        assert len(completed.values) == count
        if not count:
            for form in ("image://{}", "image://{}/thumbnail", "lineage://{}"):
                with pytest.raises(MCPError, match="The policy does not allow output_stats") as caught:
                    await client.read_resource(form.format(made.id))
                assert caught.value.error.code == INVALID_PARAMS
        assert (await client.read_resource("models://"))[0].text.startswith("# Models")


@pytest.mark.slow
def test_the_list_of_resources_imports_nothing_of_the_studio(settings: Settings, library: Library) -> None:
    (made,) = pictures(library)
    code = """
import asyncio, json, sys
from fastmcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, Resource, ResourceTemplateReference
from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.settings import load_settings

async def run():
    async with Client(build_server(load_settings())) as client:
        listed = [one.name for one in await client.list_resources() if str(one.uri).startswith("image://")]
    heavy = ("sqlalchemy", "PIL", "google.genai", "numpy", "nanobanana_mcp.studio.studio", "nanobanana_mcp.jobs")
    print(json.dumps([listed, [name for name in heavy if name in sys.modules]]))

asyncio.run(run())
"""
    environment = {
        **os.environ,
        "NANOBANANA_OUTPUT_DIR": str(settings.output_dir),
        "NANOBANANA_DATABASE_URL": settings.database_url,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True, env=environment
    )
    assert json.loads(done.stdout) == [[made.id], []]


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, True])
async def test_ids_are_completed_from_their_beginning_newest_first_without_opening_the_studio(
    connect: Connect, library: Library, make_studio: Callable[..., Studio], era: Era, is_open: bool
) -> None:
    made = pictures(library, 3)
    async with connect(open_it=make_studio if is_open else never, mode=era) as client:
        if is_open:
            await client.call_tool("output_stats", {"recent": 0})
        for typed, found in (
            ("", made),
            ("img_", made),
            (f" {made[1].id[:-1]}", [made[1]]),
            ("img%", []),
            ("heron", []),
            (made[0].id + "x", []),
        ):
            completed = await client.complete(LINEAGE, {"name": "image_id", "value": typed})
            assert completed.values == [one.id for one in found], typed
        assert (await client.complete(LINEAGE, {"name": "other", "value": ""})).values == []


@pytest.mark.slow
async def test_what_a_picture_was_made_from_is_a_resource(client: Client[Any], tmp_path: Path) -> None:
    first = (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content["images"][0]
    arguments = {"prompt": "a hat on it", "input_images": [first["id"]]}
    second = (await client.call_tool("generate_image", arguments)).structured_content["images"][0]
    (read,) = await client.read_resource(f"lineage://{second['id']}")
    assert read.mime_type == "text/plain"
    told = await client.call_tool("output_stats", {"lineage_of": second["id"]})
    assert read.text == told.content[0].text and f"made from {first['id']}" in read.text


async def test_the_models_that_are_set_are_a_resource_with_their_prices_and_ends(connect: Connect, era: Era) -> None:
    async with connect(mode=era, open_it=never, flash_model="gemini-3.1-flash-image", lite_model="tomorrows") as client:
        assert [str(one.uri) for one in await client.list_resources()] == ["models://", "gallery://"]
        (read,) = await client.read_resource("models://")
    assert read.mime_type == "text/markdown"
    flash, pro, lite = read.text.split("\n## ")[1:]
    assert flash.startswith("flash: Nano Banana 2 (gemini-3.1-flash-image)") and "off on 2026-10-29" in flash
    assert "1k $0.151, 2k $0.151, 4k $0.257; high means 2k" in pro and "a search adds $0.014" in pro
    assert "tomorrows" in lite and "1k at an unknown price" in lite and "no Google Search" in lite


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("image://img_0000000000000000", "The library has no picture img_0000000000000000"),
        ("image://img_0000000000000000/thumbnail", "The library has no picture"),
        ("lineage://img_0000000000000000", "no picture img_0000000000000000"),
        ("image://nothing", "does not exist. The resources are image://img_"),
        ("lineage://img_0000000000000000/thumbnail", "does not exist"),
        ("models://flash", "does not exist"),
        ("file:///etc/passwd", "does not exist"),
    ],
)
async def test_what_is_not_there_is_told_by_the_code_that_mcp_has_for_it(
    client: Client[Any], uri: str, words: str
) -> None:
    with pytest.raises(MCPError, match=words) as caught:
        await client.read_resource(uri)
    assert caught.value.error.code == INVALID_PARAMS and caught.value.error.data == {"uri": uri}
