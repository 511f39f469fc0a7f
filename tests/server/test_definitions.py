"""The definitions that a client gets of the tools: their size, their number, and how they look."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from mcp.types import SERVER_INFO_META_KEY

from nanobanana_mcp.domain.catalog import BY_ID, DEFAULTS, ImageSize
from nanobanana_mcp.domain.errors import SetupError
from nanobanana_mcp.domain.pricing import estimate
from nanobanana_mcp.domain.requests import Choice
from nanobanana_mcp.domain.terms import CORE, TOOLS
from nanobanana_mcp.server.app import CurrentSettings, build_server
from nanobanana_mcp.settings import Settings, load_settings
from tests.conftest import Connect, Era

ALL_BYTES, CORE_BYTES = 18_000, 9_000


async def defined(client: Client[Any]) -> dict[str, dict[str, Any]]:
    """Each tool's definition as it goes over the wire."""
    return {
        tool.name: tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in await client.list_tools()
    }


@pytest.mark.parametrize(("tools", "most"), [("all", ALL_BYTES), ("core", CORE_BYTES)])
async def test_all_definitions_together_fit_into_the_room_that_clients_have(
    connect: Connect, era: Era, tools: str, most: int
) -> None:
    async with connect(mode=era, tools=tools) as client:
        sizes = {name: len(json.dumps(tool, separators=(",", ":"))) for name, tool in (await defined(client)).items()}
    assert sum(sizes.values()) < most, sizes


async def test_tools_say_all_four_hints_and_nothing_of_the_library_they_are_made_with(client: Client[Any]) -> None:
    tools = await defined(client)
    for name, tool in tools.items():
        hints = tool["annotations"]
        assert set(hints) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}, name
        assert "fastmcp" not in tool.get("_meta", {})
    assert [name for name, tool in tools.items() if tool["annotations"]["readOnlyHint"]] == [
        "find_images",
        "view_image",
        "output_stats",
    ]
    assert [name for name, tool in tools.items() if tool["annotations"]["destructiveHint"]] == ["maintenance"]
    assert {name for name, tool in tools.items() if not tool["annotations"]["openWorldHint"]} == {
        "convert_image",
        "find_images",
        "view_image",
        "output_stats",
    }


async def test_the_server_and_every_tool_have_an_icon_that_is_a_picture_of_its_own(client: Client[Any]) -> None:
    tools = await defined(client)
    info = client.server_info
    assert info is not None
    found = [*(tool["icons"] for tool in tools.values()), [icon.model_dump() for icon in info.icons or ()]]
    shapes = set()
    for ((icon),) in found:
        head, svg = icon["src"].split(",", 1)
        assert head == "data:image/svg+xml" and not set(svg) & set(' "<>#')
        root = ElementTree.fromstring(unquote(svg))
        (path,) = root
        assert root.get("viewBox") and path.get("fill")
        shapes.add(path.get("d"))
    assert len(shapes) == len(tools) + 1


async def test_no_answer_carries_the_servers_icon_along(connect: Connect, era: Era) -> None:
    async with connect(mode=era) as client:
        answer = await client.call_tool("output_stats", {})
        info = client.server_info
    assert info is not None and info.icons
    told = (answer.meta or {}).get(SERVER_INFO_META_KEY)
    assert told == (None if era == "legacy" else {"name": info.name, "version": info.version})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tools", "offered"),
    [
        ("all", TOOLS),
        ("Core", CORE),
        ("core, remove-background", CORE | {"remove_background"}),
        (" output_stats maintenance ", {"output_stats", "maintenance"}),
        ("generate_image", {"generate_image"}),
        ("core,all", TOOLS),
    ],
)
async def test_only_the_tools_that_are_chosen_are_offered_and_pictures_can_be_read_all_the_same(
    connect: Connect, era: Era, monkeypatch: pytest.MonkeyPatch, tools: str, offered: set[str]
) -> None:
    monkeypatch.setenv("NANOBANANA_TOOLS", tools)
    async with connect(mode=era, tools=load_settings().tools) as client:
        assert set(await defined(client)) == offered
        for name in TOOLS - offered:
            with pytest.raises(
                ToolError, match=f"'{name}' is not a tool of this server, because NANOBANANA_TOOLS leaves it out. The"
            ):
                await client.call_tool(name, {})
        if "generate_image" in offered:
            await client.call_tool("generate_image", {"prompt": "a cat"})
            (listed,) = [one for one in await client.list_resources() if str(one.uri).startswith("image://")]
            assert await client.read_resource(listed.uri)


@pytest.mark.parametrize("tools", ["all,paint", " , "])
def test_a_tool_that_is_none_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, tools: str) -> None:
    monkeypatch.setenv("NANOBANANA_TOOLS", tools)
    with pytest.raises(SetupError, match="NANOBANANA_TOOLS must be all, core or names out of convert_image"):
        load_settings()


async def test_a_choice_of_tools_holds_once_the_settings_were_put_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "settings.env"
    monkeypatch.setenv("NANOBANANA_ENV_FILE", str(file))
    monkeypatch.setenv("NANOBANANA_DATABASE_URL", f"sqlite:///{tmp_path / 'state' / 'library.db'}")
    file.write_text("NANOBANANA_TOOLS=paint\n")
    async with Client(build_server(CurrentSettings(None))) as client:
        with pytest.raises(ToolError, match="NANOBANANA_TOOLS"):
            await client.call_tool("output_stats", {})
        file.write_text("NANOBANANA_TOOLS=core\nNANOBANANA_BACKEND=emulator\n")
        await client.call_tool("output_stats", {})
        assert set(await defined(client)) == CORE


def test_every_tool_has_its_word(settings: Settings) -> None:
    assert settings.offered == TOOLS >= CORE


@pytest.mark.parametrize(
    ("tool", "calls", "sizes"),
    [
        ("generate_image", 1, "high"),
        ("edit_region", 1, "up to 2K"),
        ("extend_image", 1, "up to 2K"),
        ("remove_background", 2, "up to 2K"),
    ],
)
async def test_a_description_names_the_price_that_its_calls_are_expected_to_have(
    client: Client[Any], tool: str, calls: int, sizes: str
) -> None:
    told = (await defined(client))[tool]["description"]
    for tier in ("flash", "pro"):
        spec = BY_ID[DEFAULTS[tier]]
        usual: list[ImageSize] = ["1K"] if tier == "flash" else ["2K"]
        asked = usual if sizes == "high" else ["1K", "2K"]
        for size in asked:
            choice = Choice(spec=spec, reason="", auto=False, image_size=size, grounding=False, thinking_level=None)
            usd = estimate(choice, inputs=int(tool != "generate_image"), prompt_characters=300)
            assert usd is not None
            assert f"{calls * usd:.2f}" in told, f"{tool} with {tier} at {size}: ${calls * usd:.3f}"
