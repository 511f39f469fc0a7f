"""The real Claude Code passes our answers on to its model, when it is installed."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.messages_api import SERVER, MessagesAPI
from tests.support.needed import client

SCRIPT: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("generate_image", {"prompt": "a red fox"}, "Emulated: not a real picture, and nothing is charged"),
    ("generate_image", {"prompt": "a red fox", "dry_run": True}, "Dry run: nothing was sent."),
    ("output_stats", {}, "Spent or reserved, and the limits"),
    ("maintenance", {"operation": "cleanup_local", "max_age_hours": 0, "keep_count": 0}, "with dry_run false"),
)
LONGEST_S = 300


def received(
    folder: Path,
    script: Sequence[tuple[str, dict[str, Any]]],
    typed: str = "go",
    era: str = "auto",
    **changes: str,
) -> MessagesAPI:
    """The requests that the model gets when a person types that and the model uses the tools of a script; `changes` are
    of the server's environment.
    """
    claude = client("claude")
    home = folder / "home"
    home.mkdir()
    environment = {"NANOBANANA_BACKEND": "emulator", "NANOBANANA_OUTPUT_DIR": str(folder / "pictures")} | changes
    server = {"command": sys.executable, "args": ["-m", "nanobanana_mcp"], "env": environment, "alwaysLoad": True}
    config = folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"nanobanana": server}}))
    tools = ",".join(sorted({SERVER + name for name, _ in script}))
    with MessagesAPI(script) as api:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "MCP_CONNECTION_NONBLOCKING": "false",
            "MCP_TIMEOUT": "120000",  # ms to start the server in, which a busy machine may need
            "ENABLE_TOOL_SEARCH": "false",
            "MCP_PROTOCOL_NEGOTIATION": era,
        }
        command = [claude, "-p", typed, "--mcp-config", str(config), "--strict-mcp-config", "--allowedTools", tools]
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S
        )
    assert len(api.results) == len(script), ended
    return api


@pytest.mark.slow
def test_claude_codes_model_gets_every_sentence_and_the_picture(tmp_path: Path) -> None:
    results = received(tmp_path, [(name, arguments) for name, arguments, _ in SCRIPT]).results
    for (_, _, sentence), result in zip(SCRIPT, results, strict=True):
        assert sentence in json.dumps(result), result
    assert "image" in [block["type"] for block in results[0]]


@pytest.mark.slow
@pytest.mark.parametrize("era", ["legacy", "auto"])
def test_a_prompt_is_a_slash_command_and_a_dear_call_without_anybody_there_sends_nothing(
    tmp_path: Path, era: str
) -> None:
    dear = ("generate_image", {"prompt": "a heron", "model_tier": "pro", "n": "8"})
    api = received(
        tmp_path,
        [dear],
        f"/{SERVER}photo a red fox at dawn",
        era,
        NANOBANANA_BACKEND="gemini",
        GEMINI_API_KEY="made-up",
        GEMINI_BASE_URL="http://127.0.0.1:9/",  # nobody listens there
    )
    assert "<command-args>a red fox at dawn</command-args>" in api.heard[-1]
    assert "Where <command-args> stands above" in api.heard[-1] and "Make a photograph: a" in api.heard[-1]
    assert "Nobody answered the question whether to go on, so nothing was done." in json.dumps(api.results)
    assert "max_cost_usd" in json.dumps(api.results)
