"""With the emulator no sentence speaks of money that nobody took."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError

from nanobanana_mcp.emulator.control import Finish, Picture
from nanobanana_mcp.server.app import build_server
from nanobanana_mcp.settings import Settings
from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect, Emulated
from tests.support.fakes import FakeModel, refusal, reply
from tests.support.fakes import photo as saved
from tests.support.scenes import as_bytes, photo

MONEY = re.compile(r"paid for|charged|\$\d")
SAID = re.compile(r"nothing (was|is) charged|Gemini would charge \$[\d.]+")


async def test_what_is_quoted_and_counted_is_that_of_the_emulator_in_this_process(settings: Settings) -> None:
    emulated = settings.model_copy(update={"backend": "emulator"})
    for _ in range(2):  # the second process finds the first one's rows, and none of its files
        async with Client(build_server(emulated)) as client:
            before = await _text(client, "output_stats", {})
            assert "0 live uploads" in before
            quoted = await _text(client, "generate_image", {"prompt": "a cat", "dry_run": True})
            assert "nothing, since it would be emulated" in quoted and "Spent" not in quoted
            await client.call_tool("generate_image", {"prompt": "a cat"})
            after = await _text(client, "output_stats", {})
            quota = await _text(client, "maintenance", {"operation": "check_quota"})
            assert "1 live upload" in after and "1 file" in quota


@pytest.mark.slow
async def test_an_emulator_that_is_served_says_so_in_its_answers(emulated: Emulated, tmp_path: Path) -> None:
    emulated.emulator.control.named = True
    said = await emulated.call(prompt="a cat")
    assert "Emulated at GEMINI_BASE_URL: not a real picture" in said.content[0].text
    assert said.structured_content["emulated"] is True
    emulated.emulator.control.queue.append(Finish("IMAGE_SAFETY"))
    with pytest.raises(ToolError) as failed:
        await emulated.call(prompt="a dog")
    assert not MONEY.search(str(failed.value))
    emulated.emulator.control.standing = Picture(as_bytes(photo(512, 512, seed=5), "JPEG"), "image/jpeg")
    source = str(saved(tmp_path / "a.jpg"))
    with pytest.raises(ToolError) as failed:
        await emulated.client.call_tool("extend_image", {"image": source, "left": 90})
    assert not MONEY.search(SAID.sub("", str(failed.value)))


async def _text(client: Client[Any], tool: str, arguments: dict[str, Any]) -> str:
    return "\n".join(block.text for block in (await client.call_tool(tool, arguments)).content if block.type == "text")


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
async def test_a_failure_of_the_emulator_speaks_of_no_money(
    make_studio: Any, connect: Connect, model: FakeModel, tmp_path: Path, n: int
) -> None:
    studio: Studio = make_studio(backend="emulator")
    other = reply(as_bytes(photo(512, 512, seed=5), "JPEG"))
    async with connect(open_it=lambda: studio) as client:
        picture = str(saved(tmp_path / "a.jpg"))
        tools: list[tuple[str, dict[str, Any], list[Any]]] = [
            ("generate_image", {"prompt": "a cat", "n": n}, [refusal("IMAGE_SAFETY")] * n),
            ("edit_region", {"image": picture, "instruction": "a hat", "box": [0.3, 0.3, 0.6, 0.6]}, [other] * 2),
            ("extend_image", {"image": picture, "left": 90}, [other] * 4),
        ]
        for tool, arguments, answers in tools:
            model.answers.clear()
            model.answers.extend(answers)
            with pytest.raises(ToolError) as failed:
                await client.call_tool(tool, arguments)
            words = str(failed.value)
            assert not MONEY.search(SAID.sub("", words)), words
