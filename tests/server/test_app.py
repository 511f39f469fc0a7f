"""The page in which clients that render MCP Apps show pictures: an extra that nobody else notices."""

import json
import re
from typing import Any

from fastmcp import Client

APP = "ui://nanobanana/pictures"
SHOWN_BY = {"generate_image", "find_images", "view_image"}


async def _defined(client: Client[Any]) -> dict[str, Any]:
    return {
        tool.name: tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in await client.list_tools()
    }


async def test_definitions_name_the_page_and_grow_by_little(client: Client[Any]) -> None:
    tools = await _defined(client)
    assert {name for name, tool in tools.items() if "ui" in tool.get("_meta", {})} == SHOWN_BY
    added = [json.dumps({"ui": tools[name]["_meta"]["ui"]}, separators=(",", ":")) for name in SHOWN_BY]
    assert {tools[name]["_meta"]["ui"]["resourceUri"] for name in SHOWN_BY} == {APP}
    assert sum(len(one) + len('"_meta":{},') for one in added) < 600


async def test_the_page_is_read_by_its_address_and_listed_for_nobody(client: Client[Any]) -> None:
    (page,) = await client.read_resource(APP)
    assert page.mime_type == "text/html;profile=mcp-app"
    assert APP not in {str(one.uri) for one in await client.list_resources()}


async def test_the_page_loads_nothing_from_anywhere(client: Client[Any]) -> None:
    (page,) = await client.read_resource(APP)
    text = page.text
    assert not re.findall(r"https?://|\bimport\b|\bfetch\(|XMLHttpRequest|WebSocket|innerHTML|eval\(", text)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']""", text)
