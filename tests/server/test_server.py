"""The server as a client meets it: what an answer holds, how large it is, and what happens along the way."""

import asyncio
import base64
import gc
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastmcp import Client, Context
from fastmcp.apps import AppConfig
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError
from fastmcp.server.auth import require_scopes
from mcp.shared.exceptions import MCPError
from mcp.types import ImageContent, ResourceLink, TextContent
from PIL import Image, ImageDraw

from nanobanana_mcp.domain import ids
from nanobanana_mcp.domain.text import size_of
from nanobanana_mcp.server.app import build_server, open_from
from nanobanana_mcp.server.tools.edit import edit_region
from nanobanana_mcp.server.tools.generate import generate_image
from nanobanana_mcp.server.tools.library import output_stats
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Era
from tests.support.fakes import FakeModel, jpeg, photo, refusal, reply

TOOLS = {"generate_image", "upload_file", "output_stats", "maintenance"}
FACTS = """mode model_tier model_name model_id requested_tier auto_selected selection_reason thinking_level resolution
grounding_enabled requested returned negative_prompt_applied used_input_images input_image_paths input_image_count
aspect_ratio source_file_id images file_paths files_api_ids parent_relationships total_size_mb cost_usd warnings
failures"""
IMAGE_FACTS = "id path thumbnail_path mime_type width height bytes sha256 files_api parents cost_usd"


AS_IN_GENERATE_IMAGE = {"model_tier", "thinking_level", "width", "height", "fit", "quality", "idempotency_key"}
"""Arguments of other tools, too, that mean there what generate_image says."""


async def test_the_tools_are_listed_with_every_argument_described(client: Client[Any]) -> None:
    tools = {tool.name: tool for tool in await client.list_tools()}
    assert set(tools) >= TOOLS
    for tool in tools.values():
        assert tool.description and tool.annotations
        said = {name for name, found in tool.input_schema["properties"].items() if found.get("description")}
        assert set(tool.input_schema["properties"]) - said <= AS_IN_GENERATE_IMAGE, tool.name
        assert tool.name != "generate_image" or said >= AS_IN_GENERATE_IMAGE, "it is told there"
    assert tools["generate_image"].description.startswith("Create new images or edit existing ones.")
    assert tools["generate_image"].input_schema["required"] == ["prompt"]
    assert tools["output_stats"].annotations.read_only_hint
    assert tools["maintenance"].annotations.destructive_hint


async def test_an_answer_has_text_a_preview_a_link_and_every_fact(client: Client[Any]) -> None:
    result = await client.call_tool("generate_image", {"prompt": "a cat"})
    assert [type(block) for block in result.content] == [TextContent, ImageContent, ResourceLink]
    facts = result.structured_content
    assert set(FACTS.split()) <= set(facts) and facts["generation_prompt"] == "a cat"
    (image,) = facts["images"]
    assert set(IMAGE_FACTS.split()) <= set(image)
    assert set(image["files_api"]) == {"name", "uri", "state", "expires_at"}
    assert (facts["mode"], facts["model_tier"], facts["requested_tier"]) == ("generate", "flash", "auto")
    assert facts["auto_selected"] and facts["file_paths"] == [image["path"]]
    assert facts["files_api_ids"] == [image["files_api"]["name"]]
    data = Path(image["path"]).read_bytes()
    assert (image["bytes"], image["width"], image["height"]) == (len(data), 1024, 1024)


async def test_the_text_alone_is_enough_to_go_on_from(caller: Client[Any]) -> None:
    result = await caller.call_tool("generate_image", {"prompt": "a cat", "n": 2})
    text, facts = result.content[0].text, result.structured_content
    for image in facts["images"]:
        assert image["id"] in text and image["path"] in text
    for needed in (f"${facts['cost_usd']:.4f}", "1024x1024", "kB", facts["model_id"]):
        assert needed in text


async def test_an_edit_says_what_it_was_made_from(caller: Client[Any], tmp_path: Path) -> None:
    path = str(photo(tmp_path / "heron.png"))
    arguments = {"prompt": "a hat on it", "input_image_path_1": path, "negative_prompt": "rain"}
    facts = (await caller.call_tool("generate_image", arguments)).structured_content
    assert (facts["mode"], facts["edit_instruction"]) == ("edit", "a hat on it") and "generation_prompt" not in set(
        facts
    )
    assert (facts["used_input_images"], facts["input_image_count"]) == (True, 1)
    assert facts["input_image_paths"] == [path] and facts["negative_prompt_applied"]
    (edge,) = facts["parent_relationships"]
    assert edge["image"] == facts["images"][0]["id"]
    assert edge["parents"] == [f"{facts['images'][0]['parents'][0]} (base)"]


async def test_some_failing_is_an_answer_and_all_failing_an_error(caller: Client[Any], model: FakeModel) -> None:
    model.answers += [reply(jpeg()), refusal("IMAGE_SAFETY", "Filtered.")]
    result = await caller.call_tool("generate_image", {"prompt": "a cat", "n": 2})
    facts = result.structured_content
    assert (facts["requested"], facts["returned"], len(facts["failures"])) == (2, 1, 1)
    assert facts["failures"][0]["reason"] == "IMAGE_SAFETY" and "Filtered." in facts["failures"][0]["message"]
    text = result.content[0].text
    assert "1 of 2 pictures" in text and f"Picture {facts['failures'][0]['index']} failed" in text
    model.answers += [refusal("IMAGE_SAFETY"), refusal("NO_IMAGE")]
    with pytest.raises(ToolError, match="None of the 2 pictures") as caught:
        await caller.call_tool("generate_image", {"prompt": "a dog", "n": 2})
    for words in ("safety filter", "should have drawn", "Try once more"):  # either call may get either answer
        assert words in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["claude-code", "some client"])
async def test_every_tool_that_makes_a_picture_says_its_path_and_id_in_the_text(
    settings: Settings, connect: Connect, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "source.png"
    with Image.new("RGB", (900, 700), (180, 200, 210)) as drawing:
        ImageDraw.Draw(drawing).ellipse((300, 150, 600, 550), fill=(160, 60, 40), outline=(30, 30, 30), width=12)
        drawing.save(source)
    emulated = settings.model_copy(update={"backend": "emulator"})
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("generate_image", {"prompt": "a heron"}),
        ("generate_image", {"prompt": "a heron", "output_format": "png"}),
        ("generate_image", {"prompt": "a hat", "input_images": [str(source)]}),
        ("edit_region", {"image": str(source), "instruction": "a dot", "box": [0.4, 0.4, 0.6, 0.6]}),
        ("remove_background", {"image": str(source), "subject": "the disc"}),
        ("convert_image", {"image": str(source), "width": 100}),
        ("convert_image", {"image": str(source), "assets": "favicon"}),
    )
    async with connect(open_it=open_from(emulated), name=name) as client:
        for tool, arguments in calls:
            content = (await client.call_tool(tool, arguments)).content
            links = [block for block in content if isinstance(block, ResourceLink)]
            assert content[0].text and links
            for link in links:
                image_id = str(link.uri).removeprefix("image://")
                told = [line for line in content[0].text.splitlines() if image_id in line and link.name in line]
                path = Path(re.findall(r"(/.+?) \(", told[0])[0])
                assert path.is_file() and path.name == link.name
        stats = (await client.call_tool("output_stats", {"recent": 1})).content[0].text
        assert re.search(r"img_\w+ .*/.+\.(png|jpg)", stats)


CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("generate_image", {"prompt": "a cat"}),
    ("generate_image", {"prompt": "a cat", "dry_run": True}),
    ("output_stats", {}),
    ("maintenance", {"operation": "cleanup_local"}),
)


def untold(text: str, structure: dict[str, Any]) -> list[str]:
    """The lines of an answer's text that a model which sees the structure alone does not get, as a sentence or as facts."""
    said = [*structure["summary"].split("\n"), *(f"Note: {warning}" for warning in structure.get("warnings", ()))]
    if "failures" in structure:
        headline = f"{said[0][:-1]} ({structure['model_id']})"
        said += [f"{headline}.", f"{headline}; chosen: {structure['selection_reason']}."]
        said += [f"Picture {one['index']} failed ({one['reason']}): {one['message']}" for one in structure["failures"]]
        said += [
            f"{number}. {image['id']} {image['path']} ({image['width']}x{image['height']}, {image['mime_type']}, "
            f"{size_of(image['bytes'])})"
            for number, image in enumerate(structure["images"], 1)
        ]
    return [line for line in text.split("\n") if line not in said]


def repeated(structure: dict[str, Any]) -> list[str]:
    """The paths, ids of models, notes and failures that stand in a field and are told again in the summary."""
    facts = [*structure["file_paths"], structure["model_id"], *structure["warnings"]]
    facts += [failure["message"] for failure in structure["failures"]]
    return [fact for fact in facts if fact in structure["summary"]]


async def test_the_structure_tells_no_fact_in_a_field_and_in_words(connect: Connect, model: FakeModel) -> None:
    model.answers += [reply(jpeg(), text="Here it is."), refusal("IMAGE_SAFETY")]
    async with connect(name="some client") as client:
        result = await client.call_tool("generate_image", {"prompt": "a cat", "n": 2})
    structure = result.structured_content
    assert structure["failures"] and structure["file_paths"][0] in result.content[0].text
    assert repeated(structure) == [] and untold(result.content[0].text, structure) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "structured"),
    [
        ("Codex-MCP-client", {}, False),
        ("claude-code", {}, False),
        ("opencode", {}, False),
        ("some client", {}, True),
        ("codex", {"structured": "always"}, True),
        ("some client", {"structured": "never"}, False),
    ],
)
async def test_whichever_half_of_an_answer_a_client_drops_its_model_gets_every_sentence(
    connect: Connect, era: Era, name: str, changes: dict[str, Any], structured: bool
) -> None:
    async with connect(name=name, mode=era, **changes) as client:
        results = [await client.call_tool(tool, arguments) for tool, arguments in CALLS]
    for result in results:
        assert (result.structured_content is not None) == structured
        assert not structured or untold(result.content[0].text, result.structured_content) == []
    assert any(isinstance(block, ImageContent) for block in results[0].content)


@pytest.mark.parametrize(("n", "previews"), [(1, 1), (4, 4), (5, 1)])
async def test_previews_are_bounded_and_beyond_four_become_one_sheet(connect: Connect, n: int, previews: int) -> None:
    async with connect() as client:
        result = await client.call_tool("generate_image", {"prompt": "a cat", "n": n, "aspect_ratio": "16:9"})
    shown = [block for block in result.content if isinstance(block, ImageContent)]
    assert len(shown) == previews
    for block in shown:
        with Image.open(io.BytesIO(base64.b64decode(block.data))) as image:
            assert Image.MIME[str(image.format)] == block.mime_type
            assert n > 4 or max(image.size) == 512
            assert n <= 4 or image.width > 512


async def test_previews_can_be_left_out(connect: Connect) -> None:
    async with connect(preview_px=0) as client:
        result = await client.call_tool("generate_image", {"prompt": "a cat"})
    assert [type(block) for block in result.content] == [TextContent, ResourceLink]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "preview_px"), [(4, 1024), (20, 1024)])
async def test_a_whole_answer_stays_below_one_megabyte(
    connect: Connect, model: FakeModel, n: int, preview_px: int
) -> None:
    noise = io.BytesIO()
    Image.effect_noise((1024, 1024), 100).convert("RGB").save(noise, "JPEG", quality=90)  # nothing compresses worse
    model.standing = reply(noise.getvalue(), text="I have drawn it. " * 100)
    arguments = {"prompt": "\u6a39" * 8192, "n": n, "negative_prompt": "\u6a39" * 1024}
    async with connect(preview_px=preview_px) as client:
        result = await client.call_tool("generate_image", arguments)
    blocks = [block.model_dump(mode="json") for block in result.content]
    assert len(json.dumps({"content": blocks, "structuredContent": result.structured_content})) < 1_000_000
    assert result.structured_content["returned"] == n


async def test_links_lead_to_the_full_picture_and_its_thumbnail(client: Client[Any]) -> None:
    result = await client.call_tool("generate_image", {"prompt": "a cat", "n": 2})
    links = [block for block in result.content if isinstance(block, ResourceLink)]
    for link, image in zip(links, result.structured_content["images"], strict=True):
        (full,) = await client.read_resource(str(link.uri))
        assert base64.b64decode(full.blob) == Path(image["path"]).read_bytes()
        assert full.mime_type == link.mime_type == image["mime_type"] and link.size == image["bytes"]
        (small,) = await client.read_resource(f"{link.uri}/thumbnail")
        assert base64.b64decode(small.blob) == Path(image["thumbnail_path"]).read_bytes()


@pytest.mark.parametrize("uri", ["image://img_0000000000000000", "image://nothing", "image://..%2f..%2fetc"])
async def test_a_link_to_nothing_is_an_error_in_words(caller: Client[Any], uri: str) -> None:
    with pytest.raises(MCPError, match=r"no picture|does not exist"):
        await caller.read_resource(uri)


async def test_progress_arrives_in_words(client: Client[Any], model: FakeModel) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(done: float, total: float | None, words: str | None) -> None:
        heard.append((done, total, words))

    await client.call_tool("generate_image", {"prompt": "a cat", "n": 2}, progress_handler=hear)
    assert heard[0] == (0, 2, "Asking flash (Nano Banana 2.1) for 2 pictures")
    assert heard[-1][:2] == (2, 2)
    assert all("is kept" in str(words) for done, _, words in heard if done)
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)


async def test_a_long_wait_is_not_a_silent_one(
    caller: Client[Any], model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanobanana_mcp.jobs.run.HEARTBEAT_S", 0.01)
    heard = asyncio.Event()

    async def hear(_done: float, _total: float | None, words: str | None) -> None:
        if str(words).startswith("Waiting for flash (Nano Banana 2.1)"):
            heard.set()

    async def slowly() -> bytes:
        await heard.wait()
        return reply(jpeg())

    model.answers.append(slowly)
    async with asyncio.timeout(10):
        await caller.call_tool("generate_image", {"prompt": "a cat"}, progress_handler=hear)


async def test_a_client_that_leaves_finds_its_picture_in_the_library(
    connect: Connect, make_studio: Callable[..., Studio], model: FakeModel, era: Era
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly() -> bytes:
        begun.set()
        await gate.wait()
        return reply(jpeg())

    model.answers.append(slowly)
    async with connect(mode=era) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "generate_image", {"prompt": "a cat"})
            await begun.wait()
            tasks.cancel_scope.cancel()
        gate.set()
    async with connect(mode=era) as client:
        stats = (await client.call_tool("output_stats", {})).structured_content
        again = (await client.call_tool("generate_image", {"prompt": "a cat"})).structured_content
    assert stats["pictures"] == 1 and len(model.requests) == 1
    assert Path(again["file_paths"][0]).read_bytes() == jpeg()


async def test_without_a_key_everything_but_paid_calls_works(settings: Settings, connect: Connect, era: Era) -> None:
    async with connect(mode=era, open_it=open_from(settings)) as client:
        assert {tool.name for tool in await client.list_tools()} >= TOOLS
        with pytest.raises(ToolError, match=r"Set GEMINI_API_KEY .*NANOBANANA_BACKEND=emulator"):
            await client.call_tool("generate_image", {"prompt": "a cat"})
        stats = await client.call_tool("output_stats", {})
        assert stats.structured_content["pictures"] == 0
        await client.call_tool("maintenance", {"operation": "database_hygiene"})
    assert not settings.output_dir.exists()


async def test_the_emulator_says_that_it_is_one(settings: Settings, connect: Connect) -> None:
    emulated = settings.model_copy(update={"backend": "emulator"})
    async with connect(open_it=open_from(emulated)) as client:
        result = await client.call_tool("generate_image", {"prompt": "a cat"})
    assert result.structured_content["backend"] == "emulator"
    assert "Emulated: not a real picture" in result.content[0].text


async def test_a_bug_is_named_without_its_insides_and_costs_the_other_pictures_nothing(
    connect: Connect, model: FakeModel
) -> None:
    model.answers.append(KeyError("a secret of the inside"))
    async with connect() as client:
        with pytest.raises(ToolError) as caught:
            await client.call_tool("generate_image", {"prompt": "a cat"})
        model.answers += [KeyError("a secret of the inside"), reply(jpeg()), reply(jpeg(comment="2"))]
        result = await client.call_tool("generate_image", {"prompt": "a dog", "n": 3})
    assert "has a bug (KeyError" in str(caught.value) and "may have cost" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (result.structured_content["returned"], len(result.structured_content["failures"])) == (2, 1)


async def test_asking_for_the_price_sends_and_writes_nothing(
    caller: Client[Any], model: FakeModel, settings: Settings
) -> None:
    result = await caller.call_tool("generate_image", {"prompt": "a cat", "n": 3, "dry_run": True})
    assert "$0." in result.content[0].text and "Nano Banana 2.1" in result.content[0].text
    assert model.requests == [] and not settings.output_dir.exists()


async def test_the_same_key_gives_the_same_picture_without_paying_again(caller: Client[Any], model: FakeModel) -> None:
    arguments = {"prompt": "a cat", "idempotency_key": "one"}
    first = (await caller.call_tool("generate_image", arguments)).structured_content
    second = (await caller.call_tool("generate_image", arguments)).structured_content
    other = (await caller.call_tool("generate_image", arguments | {"idempotency_key": "two"})).structured_content
    assert first["file_paths"] == second["file_paths"] != other["file_paths"]
    assert len(model.requests) == 2


@pytest.mark.slow
async def test_nothing_of_a_call_that_is_answered_stays_in_memory(connect: Connect, model: FakeModel) -> None:
    model.standing = reply(jpeg((64, 64)))
    calls = 30

    def ids_alive() -> int:
        gc.collect()
        made_there = tracemalloc.Filter(True, ids.__file__)
        return len(tracemalloc.take_snapshot().filter_traces([made_there]).traces)

    async with connect(NANOBANANA_UPLOAD="never") as client:
        await client.call_tool("generate_image", {"prompt": "the first opens the studio"})
        tracemalloc.start()
        try:
            before = ids_alive()
            for number in range(calls):
                await client.call_tool("generate_image", {"prompt": f"number {number}"})
            model.uploads.clear()
            model.remote.clear()
            assert ids_alive() - before < calls / 2
        finally:
            tracemalloc.stop()


async def test_what_fastmcp_says_of_a_tool_holds_sign_in_visibility_and_apps(settings: Settings, era: Era) -> None:
    server = build_server(settings)

    async def hide(caller: Context) -> str:
        await caller.disable_components(names={"maintenance"}, components={"tool"})
        return "hidden"

    async def locked() -> str:
        return "open"

    async def shown() -> str:
        return "an app"

    server.tool(hide, output_schema=None)
    server.tool(locked, auth=require_scopes("pictures"))
    server.tool(shown, app=AppConfig(resource_uri="ui://picture", visibility=["app"]))
    server.disable(names={"upload_file"}, components={"tool"})
    async with Client(server, mode=era) as client:
        listed = {tool.name: tool for tool in await client.list_tools()}
        assert len(listed) == 11 and not {"locked", "upload_file"} & set(listed)
        assert listed["shown"].meta["ui"] == {"resourceUri": "ui://picture", "visibility": ["app"]}
        for name in ("locked", "upload_file"):
            with pytest.raises(ToolError, match="is not a tool of this server"):
                await client.call_tool(name, {})
    async with Client(server, mode="legacy") as one, Client(server, mode="legacy") as other:
        await one.call_tool("hide", {})
        with pytest.raises(ToolError, match="is not a tool of this server"):
            await one.call_tool("maintenance", {"operation": "check_quota"})
        left = [{tool.name for tool in await client.list_tools()} for client in (one, other)]
        assert left[1] - left[0] == {"maintenance"}


@pytest.mark.slow
async def test_a_list_of_tools_loads_no_store_for_what_sessions_never_said(settings: Settings, tmp_path: Path) -> None:
    loaded = tmp_path / "imports"
    environment = {**os.environ, "NANOBANANA_DATABASE_URL": settings.database_url}
    with loaded.open("w") as log:
        command = ["-X", "importtime", "-m", "nanobanana_mcp"]
        async with Client(StdioTransport(sys.executable, command, env=environment, log_file=log)) as client:
            await client.list_tools()
            await client.list_prompts()
    found = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in loaded.read_text().splitlines() if "|" in line}
    assert "fastmcp" in found and not {"key_value", "beartype"} & found


@pytest.mark.slow
def test_pydantic_puts_off_the_types_of_the_protocol_until_they_are_used() -> None:
    code = """
import pydantic
pydantic.BaseModel.model_config["defer_build"] = True  # as __main__ does
import mcp.types
from mcp.types import CallToolResult, InitializeResult
complete = [one for one in vars(mcp.types).values() if getattr(one, "__pydantic_complete__", False) is True]
print(len(complete), InitializeResult.__pydantic_complete__)
print(CallToolResult.model_validate({"content": [{"type": "text", "text": "a"}]}).content[0].text)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    complete, put_off, text = done.stdout.split()
    assert int(complete) < 40 and put_off == "False" and text == "a"


def test_a_tool_is_a_function_of_its_module() -> None:
    assert {generate_image.__name__, output_stats.__name__} <= TOOLS and inspect.iscoroutinefunction(edit_region)
    assert "prompt" in inspect.signature(generate_image).parameters
