"""The clients that are known: where each keeps its servers on each system, in which form, and what it drops.

Sources: each client's own documentation, and for Claude Code, Codex and Gemini CLI the programs themselves.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nanobanana_mcp.cli.install import jsonfile, tomlfile

ClientName = Literal[
    "claude-code", "claude-desktop", "cursor", "vscode", "codex", "gemini-cli", "antigravity", "windsurf", "zed"
]
System = Literal["linux", "darwin", "win32"]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The system, the user's home and the environment that decide where a client's files are."""

    system: System
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_machine(cls) -> "Surroundings":
        system: System = "win32" if sys.platform == "win32" else "darwin" if sys.platform == "darwin" else "linux"
        return cls(system=system, home=Path.home(), environment=os.environ)

    @property
    def applications(self) -> Path:
        """The folder where programs keep their settings for a user."""
        if self.system == "win32":
            return self._named("APPDATA") or self.home / "AppData" / "Roaming"
        if self.system == "darwin":
            return self.home / "Library" / "Application Support"
        return self.unix_settings

    @property
    def unix_settings(self) -> Path:
        return self._named("XDG_CONFIG_HOME") or self.home / ".config"

    def folder(self, variable: str, default: str) -> Path:
        """The folder that a client's own variable names, or its usual one in the home folder."""
        return self._named(variable) or self.home / default

    def _named(self, variable: str) -> Path | None:
        text = self.environment.get(variable, "")
        return Path(text) if text and Path(text).is_absolute() else None


@dataclass(frozen=True, kw_only=True)
class ClientKind:
    """One client: how it is called, where its servers stand, and what a user of it should know."""

    name: ClientName
    title: str
    group: str = "mcpServers"
    """The key in its file under which servers stand."""
    commands: tuple[str, ...] = ()
    """Commands that are on the PATH where it is installed."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that its entries have besides command, args and env."""
    drops: str
    """Says in words which parts of an answer it drops, and how the server makes up for that."""
    afterwards: str
    """Says in words how its user makes it see the new entry."""

    @property
    def form(self) -> Any:
        """The module that edits its kind of file."""
        return tomlfile if self.name == "codex" else jsonfile

    def file(self, around: Surroundings) -> Path:
        home = around.home
        match self.name:
            case "claude-code":
                return around.folder("CLAUDE_CONFIG_DIR", "") / ".claude.json"
            case "claude-desktop":
                return around.applications / "Claude" / "claude_desktop_config.json"
            case "cursor":
                return home / ".cursor" / "mcp.json"
            case "vscode":
                return around.applications / "Code" / "User" / "mcp.json"
            case "codex":
                return around.folder("CODEX_HOME", ".codex") / "config.toml"
            case "gemini-cli":
                return home / ".gemini" / "settings.json"
            case "antigravity":
                newer = home / ".gemini" / "config" / "mcp_config.json"
                return newer if newer.is_file() else home / ".gemini" / "antigravity" / "mcp_config.json"
            case "windsurf":
                return home / ".codeium" / "windsurf" / "mcp_config.json"
            case "zed":
                settings = around.applications / "Zed" if around.system == "win32" else around.unix_settings / "zed"
                return settings / "settings.json"

    def is_here(self, around: Surroundings) -> bool:
        """Tells whether the client seems to be installed: its command, its file or the folder of that file is there,
        the folder only where it is the client's own.
        """
        file = self.file(around)
        own_folder = self.name not in ("claude-code", "gemini-cli")
        return (
            file.is_file()
            or (own_folder and file.parent.is_dir())
            or any(shutil.which(command, path=around.environment.get("PATH", "")) for command in self.commands)
        )

    def entry(self, command: list[str], environment: Mapping[str, str]) -> dict[str, Any]:
        """Make the entry of its file for a server that `command` starts."""
        words: dict[str, Any] = {"command": command[0], "args": command[1:]}
        return words | dict(self.extra) | ({"env": dict(environment)} if environment else {})


CLIENTS: dict[str, ClientKind] = {
    kind.name: kind
    for kind in (
        ClientKind(
            name="claude-code",
            title="Claude Code",
            commands=("claude",),
            extra={"type": "stdio"},
            drops="Its model gets no text beside structured content, so it is sent none.",
            afterwards="New sessions have it; /mcp shows it.",
        ),
        ClientKind(
            name="claude-desktop",
            title="Claude Desktop",
            drops="It refuses answers over 1 MB; previews stay below that. Its model may see a picture a turn late, so "
            "path and id stand in the text.",
            afterwards="Quit it wholly and start it again.",
        ),
        ClientKind(
            name="cursor",
            title="Cursor",
            commands=("cursor",),
            drops="It sends numbers as text at times, which are taken as numbers.",
            afterwards="Turn the server on under Settings, Tools & MCP.",
        ),
        ClientKind(
            name="vscode",
            title="VS Code",
            group="servers",
            commands=("code",),
            extra={"type": "stdio"},
            drops="It is not known to leave anything out.",
            afterwards="Start the server with 'MCP: List Servers'.",
        ),
        ClientKind(
            name="codex",
            title="Codex",
            group="mcp_servers",
            commands=("codex",),
            extra={"startup_timeout_sec": 30, "tool_timeout_sec": 600},
            drops="Its model gets no pictures beside structured content, so it is sent none; it ends a call after 60 seconds "
            "unless tool_timeout_sec says more, as the entry does.",
            afterwards="New sessions have it; 'codex mcp list' shows it.",
        ),
        ClientKind(
            name="gemini-cli",
            title="Gemini CLI",
            commands=("gemini",),
            extra={"timeout": 600_000},
            drops="It cannot be asked anything while a tool runs; what is destructive wants an argument.",
            afterwards="New sessions in folders that it trusts have it; 'gemini mcp list' shows it.",
        ),
        ClientKind(
            name="antigravity",
            title="Antigravity",
            commands=("antigravity",),
            drops="It is not known to leave anything out.",
            afterwards="Refresh under Manage MCP Servers.",
        ),
        ClientKind(
            name="windsurf",
            title="Windsurf",
            commands=("windsurf",),
            drops="It is not known to leave anything out.",
            afterwards="Refresh its list of MCP servers.",
        ),
        ClientKind(
            name="zed",
            title="Zed",
            group="context_servers",
            commands=("zed", "zeditor"),
            extra={"source": "custom"},
            drops="It knows tools and prompts and no resources; path and id stand in the text.",
            afterwards="It takes the change up by itself.",
        ),
    )
}
