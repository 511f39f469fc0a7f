"""The manifests of plugins, extension, bundle and registry are made from one place and taken by the real tools."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.cli.install.clients import CLIENTS, Surroundings
from nanobanana_mcp.cli.install.program import is_ours
from nanobanana_mcp.cli.main import run
from release.manifests import COMMAND, ROOT, clients_in_readme, manifests, text
from tests.support.needed import client

MADE = manifests()


def done(*command: str, home: Path) -> str:
    """Runs a program and returns what it prints on either stream; its failure is the test's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",  # elsewhere it starts no server
        "MCP_TIMEOUT": "120000",
    }
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.mark.parametrize("path", list(MADE))
def test_each_file_is_what_the_one_place_makes(path: str) -> None:
    assert (ROOT / path).read_text("utf-8") == text(MADE[path]), "python -m release.manifests writes them"


def test_every_manifest_starts_this_program_in_this_version_and_holds_no_key() -> None:
    assert is_ours(COMMAND) and re.fullmatch(r"nanobanana-studio==\d+\.\d+\.\d+", COMMAND["args"][0])
    for manifest in MADE.values():
        assert "AIza" not in text(manifest)
        for server in manifest.get("mcpServers", {}).values():
            assert server["args"] == COMMAND["args"] and "env" not in server


def test_the_readme_has_a_folded_section_for_each_client_and_its_line_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    readme = (ROOT / "README.md").read_text("utf-8")
    assert clients_in_readme() in readme
    lines = re.findall(r"^`nanobanana (install .+ --yes)`: ", readme, re.MULTILINE)
    assert len(lines) == len(CLIENTS)
    around = Surroundings.of_this_machine()
    for line in lines:
        assert run(line.split()) == 0
        kind = CLIENTS[line.split()[1]]
        assert "nanobanana" in kind.file(around).read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "entry"), [("claude", "claude-code"), ("codex", "codex"), ("gemini", "gemini-cli")]
)
def test_a_real_client_has_the_server_after_install_and_not_after_remove(
    program: str, entry: str, nobody: Path
) -> None:
    path = client(program)
    assert run(["install", entry, "--yes", "--env", "NANOBANANA_BACKEND=emulator"]) == 0
    listed = done(path, "mcp", "list", home=nobody)
    assert "nanobanana" in listed and (program == "codex" or "Connected" in listed)  # which starts none for its list
    assert run(["install", entry, "--yes", "--remove"]) == 0
    assert "nanobanana" not in done(path, "mcp", "list", home=nobody)


@pytest.mark.slow
def test_the_line_that_adds_the_server_to_claude_code_by_hand_works_with_an_empty_home(tmp_path: Path) -> None:
    claude = client("claude")
    (line,) = re.findall(r"^claude mcp add .+$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    words = shlex.split(line.replace("$PWD/.venv/bin/nanobanana", str(Path(sys.executable).with_name("nanobanana"))))
    done(claude, *words[1:], home=tmp_path)
    for asked in (["list"], ["get", "nanobanana"]):
        assert "Connected" in done(claude, "mcp", *asked, home=tmp_path)


def test_the_image_of_docker_is_not_run_by_root_and_is_named_as_in_the_registry() -> None:
    words = (ROOT / "Dockerfile").read_text("utf-8")
    assert f'"{MADE["server.json"]["name"]}"' in words and "\nUSER studio\n" in words
    assert "ENV GEMINI" not in words and "ARG GEMINI" not in words


def test_the_registrys_entry_keeps_its_rules() -> None:
    """Those of the registry's schema of 2025-12-11, which is in no package and so not at hand offline."""
    entry = MADE["server.json"]
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"])
    assert 1 <= len(entry["description"]) <= 100 and 1 <= len(entry["title"]) <= 100
    (package,) = entry["packages"]
    assert {"registryType", "identifier", "transport"} <= set(package)
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"]) and package["version"] == entry["version"]
    known = {"name", "description", "isRequired", "isSecret", "format", "default", "choices"}
    for variable in package["environmentVariables"]:
        assert set(variable) <= known and variable.get("format") in (None, "string", "number", "boolean", "filepath")
        assert all(isinstance(variable.get(name, ""), str) for name in ("name", "description", "default"))
    assert package["transport"] == {"type": "stdio"}
    secrets = [one["name"] for one in package["environmentVariables"] if one.get("isSecret")]
    assert secrets == ["GEMINI_API_KEY"]
    assert f"mcp-name: {entry['name']}" in (ROOT / "README.md").read_text("utf-8")  # by which PyPI proves the owner


def test_the_agent_plugin_has_the_closed_form_of_its_specification() -> None:
    allowed = {"$schema", "name", "version", "description", "author", "homepage", "repository", "license", "keywords"}
    plugin: dict[str, Any] = MADE["plugin/plugin.json"]
    assert set(plugin) <= allowed | {"extensions"} and re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]", plugin["name"])
    assert all(server["type"] == "stdio" for server in MADE["plugin/mcp.json"]["mcpServers"].values())
    for skill in (ROOT / "plugin" / "skills").iterdir():
        head = (skill / "SKILL.md").read_text("utf-8").split("---\n")[1]
        assert f"name: {skill.name}\n" in head and "description: " in head


def test_the_bundle_has_a_page_on_privacy_and_names_the_key_secret() -> None:
    bundle = MADE["manifest.json"]
    assert (ROOT / "docs" / "privacy.md").is_file() and bundle["privacy_policies"]
    assert (ROOT / bundle["server"]["entry_point"]).is_file()
    assert bundle["user_config"]["gemini_api_key"]["sensitive"] is True


@pytest.mark.slow
def test_claude_code_takes_plugin_and_marketplace_and_installs_it(tmp_path: Path) -> None:
    claude = client("claude")
    for folder in ("plugin", "."):
        assert "Validation passed" in done(claude, "plugin", "validate", "--strict", folder, home=tmp_path)
    done(claude, "plugin", "marketplace", "add", str(ROOT), home=tmp_path)
    done(claude, "plugin", "install", "nanobanana@nanobanana-studio", home=tmp_path)
    assert "nanobanana" in done(claude, "plugin", "list", home=tmp_path)


@pytest.mark.slow
def test_gemini_cli_takes_the_extension_and_installs_it(tmp_path: Path) -> None:
    gemini = client("gemini")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "plugin", source / "plugin")
    shutil.copy(ROOT / "gemini-extension.json", source)
    assert "successfully validated" in done(gemini, "extensions", "validate", str(source), home=tmp_path)
    done(gemini, "extensions", "install", str(source), "--consent", home=tmp_path)
    listed = done(gemini, "extensions", "list", home=tmp_path)
    assert "MCP servers:\n  nanobanana" in listed and "skills/nanobanana/SKILL.md" in listed


@pytest.mark.slow
def test_the_bundle_is_packed_by_its_own_tool_with_all_that_it_needs(tmp_path: Path) -> None:
    mcpb = client("mcpb")
    source = tmp_path / "source"
    for name in ("nanobanana_mcp", "migrations", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("manifest.json", "pyproject.toml", "README.md", "LICENSE", ".mcpbignore"):
        shutil.copy(ROOT / name, source)
    done(mcpb, "validate", str(source / "manifest.json"), home=tmp_path)
    done(mcpb, "pack", str(source), str(tmp_path / "it.mcpb"), home=tmp_path)
    done(mcpb, "unpack", str(tmp_path / "it.mcpb"), str(tmp_path / "out"), home=tmp_path)
    inside = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert {"manifest.json", "pyproject.toml", "nanobanana_mcp/__main__.py", "docs/privacy.md"} <= inside
    assert not [name for name in inside if name.endswith(".jpg") or name.startswith("tests")]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["server"]["type"] == "uv"
