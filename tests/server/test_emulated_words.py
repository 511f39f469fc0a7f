"""With the emulator no sentence speaks of money that nobody took."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastmcp.exceptions import ToolError

from nanobanana_mcp.studio.studio import Studio
from tests.conftest import Connect
from tests.support.fakes import FakeModel, refusal, reply
from tests.support.fakes import photo as saved
from tests.support.scenes import as_bytes, photo

MONEY = re.compile(r"paid for|charged|\$\d")
SAID = re.compile(r"nothing (was|is) charged|Gemini would take \$[\d.]+")


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
