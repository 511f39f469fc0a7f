"""Every manifest by which clients and registries know this server, from one place: `python -m release.manifests` writes them.

Version, words, variables and the command stand here or in the package, and a test compares the files with what this makes.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from nanobanana_mcp import __version__
from nanobanana_mcp.cli.install.clients import CLIENTS
from nanobanana_mcp.domain.terms import TOOLS
from nanobanana_mcp.settings import variables

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

NAME = "nanobanana"
TITLE = "Nano Banana Studio"
REGISTRY_NAME = "io.github.nanobanana-studio/nanobanana"
WORDS = "Makes and edits pictures with Gemini's image models and keeps every one on your machine."
"""The description, of at most 100 characters: the registry takes no more."""

COMMAND: dict[str, Any] = {"command": "uvx", "args": [f"{PROJECT['name']}=={__version__}"]}
"""An exact version: without one, uvx goes on with whatever it has fetched before."""

KEY = variables()["GEMINI_API_KEY"]
OWNER = {"name": PROJECT["authors"][0]["name"]}
WRITTEN = {"name": NAME, "version": __version__, "description": WORDS}
ABOUT_US = {**WRITTEN, "author": OWNER, "license": PROJECT["license"], "keywords": PROJECT["keywords"]}


def manifests() -> dict[str, dict[str, Any]]:
    """Each file's path below the root, and what stands in it."""
    return {
        ".claude-plugin/marketplace.json": {
            "name": "nanobanana-studio",
            "description": f"{TITLE}: one plugin with the server, a skill and commands.",
            "owner": OWNER,
            "plugins": [{**WRITTEN, "source": "./plugin", "category": "design"}],
        },
        "plugin/.claude-plugin/plugin.json": {**ABOUT_US, "mcpServers": {NAME: COMMAND}},
        "plugin/plugin.json": {"$schema": "https://agent-plugins.org/schemas/1.0.0/plugin.schema.json", **ABOUT_US},
        "plugin/mcp.json": {
            "$schema": "https://agent-plugins.org/schemas/1.0.0/mcp.schema.json",
            "mcpServers": {NAME: {"type": "stdio", **COMMAND}},
        },
        "gemini-extension.json": {
            **WRITTEN,
            "mcpServers": {NAME: {**COMMAND, "timeout": 600_000}},
            "contextFileName": "plugin/skills/nanobanana/SKILL.md",
        },
        "server.json": {
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": REGISTRY_NAME,
            "title": TITLE,
            "description": WORDS,
            "version": __version__,
            "packages": [
                {
                    "registryType": "pypi",
                    "identifier": PROJECT["name"],
                    "version": __version__,
                    "runtimeHint": "uvx",
                    "transport": {"type": "stdio"},
                    "environmentVariables": [_variable(name, words) for name, words in variables().items()],
                }
            ],
        },
        "manifest.json": _bundle(),
    }


def _variable(name: str, words: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "description": words, "isRequired": False}
    return found | ({"isSecret": True} if name == "GEMINI_API_KEY" else {})


def _bundle() -> dict[str, Any]:
    """The bundle for Claude Desktop, which runs it with its own uv."""
    return {
        "manifest_version": "0.4",
        **WRITTEN,
        "display_name": TITLE,
        "author": OWNER,
        "license": PROJECT["license"],
        "keywords": PROJECT["keywords"],
        "privacy_policies": ["https://policies.google.com/privacy"],
        "server": {
            "type": "uv",
            "entry_point": "nanobanana_mcp/__main__.py",
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--directory", "${__dirname}", "nanobanana"],
                "env": {"GEMINI_API_KEY": "${user_config.gemini_api_key}"},
            },
        },
        "tools": [{"name": name} for name in sorted(TOOLS)],
        "user_config": {
            "gemini_api_key": {
                "type": "string",
                "title": "Gemini API key",
                "description": f"{KEY} Get one at https://aistudio.google.com/apikey.",
                "sensitive": True,
                "required": True,
            }
        },
        "compatibility": {
            "platforms": ["darwin", "win32", "linux"],
            "runtimes": {"python": PROJECT["requires-python"]},
        },
    }


def clients_in_readme() -> str:
    """The README's folded section of each client."""
    return "".join(
        f"<details><summary>{kind.title}</summary>\n\n`nanobanana install {kind.name} --yes`: {kind.afterwards[0].lower()}"
        f"{kind.afterwards[1:]} {kind.drops}\n\n</details>\n"
        for kind in CLIENTS.values()
    )


def text(manifest: dict[str, Any]) -> str:
    """A manifest as it stands in its file."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, manifest in manifests().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(manifest), "utf-8")
