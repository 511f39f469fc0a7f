"""What the real Claude Code passes on to its model, when it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.messages_api import SERVER, MessagesAPI

SCRIPT: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("generate_image", {"prompt": "a red fox"}, "Emulated: not a real picture and nothing is charged"),
    ("generate_image", {"prompt": "a red fox", "dry_run": True}, "Dry run: nothing was sent."),
    ("output_stats", {}, "Spent or reserved, and the limits"),
    ("maintenance", {"operation": "cleanup_local", "max_age_hours": 0, "keep_count": 0}, "with dry_run false"),
)
LONGEST_S = 300


def received(folder: Path, claude: str) -> list[Any]:
    """The content of each tool result of the script, as the model gets it."""
    home = folder / "home"
    home.mkdir()
    environment = {"NANOBANANA_BACKEND": "emulator", "NANOBANANA_OUTPUT_DIR": str(folder / "pictures")}
    server = {"command": sys.executable, "args": ["-m", "nanobanana_mcp"], "env": environment, "alwaysLoad": True}
    config = folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"nanobanana": server}}))
    tools = ",".join(sorted({SERVER + name for name, _, _ in SCRIPT}))
    with MessagesAPI([(name, arguments) for name, arguments, _ in SCRIPT]) as api:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "MCP_CONNECTION_NONBLOCKING": "false",
            "ENABLE_TOOL_SEARCH": "false",
        }
        command = [claude, "-p", "go", "--mcp-config", str(config), "--strict-mcp-config", "--allowedTools", tools]
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S
        )
    assert len(api.results) == len(SCRIPT), ended
    return api.results


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("claude") is None, reason="Claude Code is not installed here")
def test_claude_codes_model_gets_every_sentence_and_the_picture(tmp_path: Path) -> None:
    claude = shutil.which("claude")
    assert claude is not None
    results = received(tmp_path, claude)
    for (_, _, sentence), result in zip(SCRIPT, results, strict=True):
        assert sentence in json.dumps(result), result
    assert "image" in [block["type"] for block in results[0]]
