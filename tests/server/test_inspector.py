"""The MCP Inspector's command line (@modelcontextprotocol/inspector 2.12, Node 22 or newer) lists, calls and reads all there is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image, ImageDraw

from nanobanana_mcp.domain.terms import TOOLS
from tests.support.needed import client

LONGEST_S = 300
Era = Literal["legacy", "modern"]


class Inspector:
    """Each question is a server of its own, over stdio, on one library."""

    def __init__(self, folder: Path, era: Era) -> None:
        self._folder = folder
        self._era = era

    def ask(self, method: str, *arguments: str) -> Any:
        """The result's JSON; an error of a tool or of the protocol fails."""
        own = {
            "NANOBANANA_BACKEND": "emulator",
            "NANOBANANA_OUTPUT_DIR": str(self._folder / "pictures"),
            "NANOBANANA_DATABASE_URL": f"sqlite:///{self._folder / 'state' / 'library.db'}",
        }
        settings = [part for name, value in own.items() for part in ("-e", f"{name}={value}")]
        server = [sys.executable, "-m", "nanobanana_mcp", "--method", method, "--protocol-era", self._era]
        done = subprocess.run(
            [client("mcp-inspector"), "--cli", *settings, *server, *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )
        assert done.returncode == 0, done.stdout[-600:] + done.stderr[-600:]
        return json.loads(done.stdout)

    def call(self, tool: str, **arguments: Any) -> Any:
        """The structure of a tool's answer."""
        found = self.ask("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
        assert not found.get("isError"), found
        return found["structuredContent"]


@pytest.fixture
def source(tmp_path: Path) -> str:
    """The path of a picture with one thing on it."""
    with Image.new("RGB", (900, 700), (180, 200, 210)) as drawing:
        ImageDraw.Draw(drawing).ellipse((300, 150, 600, 550), fill=(160, 60, 40), outline=(30, 30, 30), width=12)
        drawing.save(tmp_path / "source.png")
    return str(tmp_path / "source.png")


@pytest.mark.slow
def test_the_inspector_lists_and_calls_every_tool_and_reads_resources_and_prompts(tmp_path: Path, source: str) -> None:
    inspector = Inspector(tmp_path, "legacy")
    tools = {tool["name"] for tool in inspector.ask("tools/list", "--strict")["tools"]}
    made = inspector.call("generate_image", prompt="a heron", n=2)["images"][0]["id"]
    called = {
        "generate_image": made,
        "edit_region": inspector.call("edit_region", image=source, instruction="a dot", box=[0.4, 0.4, 0.6, 0.6]),
        "extend_image": inspector.call("extend_image", image=source, right=200, dry_run=True),
        "remove_background": inspector.call("remove_background", image=source, subject="the disc"),
        "convert_image": inspector.call("convert_image", image=made, width=100),
        "find_images": inspector.call("find_images", query="heron"),
        "view_image": inspector.call("view_image", image=made),
        "upload_file": inspector.call("upload_file", path=source),
        "output_stats": inspector.call("output_stats", lineage_of=made),
        "maintenance": inspector.call("maintenance", operation="check_quota"),
    }
    assert set(called) == tools == TOOLS and all(called.values())
    listed = [one["uri"] for one in inspector.ask("resources/list")["resources"]]
    assert listed[:2] == ["models://", "gallery://"] and f"image://{made}" in listed
    assert len(inspector.ask("resources/templates/list")["resourceTemplates"]) == 3
    for uri in ("models://", f"lineage://{made}", f"image://{made}", f"image://{made}/thumbnail"):
        (content,) = inspector.ask("resources/read", "--uri", uri)["contents"]
        assert content["uri"] == uri and (content.get("text") or content.get("blob"))
    prompts = [prompt["name"] for prompt in inspector.ask("prompts/list")["prompts"]]
    assert len(prompts) == 10
    _tell_a_story(inspector)


@pytest.mark.slow
def test_the_inspector_does_each_kind_of_thing_in_the_newest_era(tmp_path: Path, source: str) -> None:
    inspector = Inspector(tmp_path, "modern")
    assert {tool["name"] for tool in inspector.ask("tools/list", "--strict")["tools"]} == TOOLS
    made = inspector.call("generate_image", prompt="a heron", n=2)["images"][0]["id"]
    assert inspector.call("edit_region", image=source, instruction="a dot", box=[0.4, 0.4, 0.6, 0.6])
    (content,) = inspector.ask("resources/read", "--uri", f"image://{made}")["contents"]
    assert content["blob"]
    _tell_a_story(inspector)


def _tell_a_story(inspector: Inspector) -> None:
    told = inspector.ask("prompts/get", "--prompt-name", "story", "--prompt-args", "plot=an otter", "pictures=3")
    assert "an otter" in told["messages"][0]["content"]["text"]
