"""Finds the programs that some tests need and that no Python package brings."""

import os
import shutil
from typing import Literal, NoReturn

import pytest

REQUIRED = os.environ.get("TESTS_REQUIRE", "").split()
"""Kinds of programs that .ci/run has installed: there one that is missing is a failure."""

PACKAGES = {
    "claude": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "conformance": "@modelcontextprotocol/conformance",
    "gemini": "@google/gemini-cli",
    "mcp-inspector": "@modelcontextprotocol/inspector",
    "mcpb": "@anthropic-ai/mcpb",
}


def client(name: str) -> str:
    """The path of a client or tool of npm's; without it the test is left out, and says so."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} (npm install -g {PACKAGES[name]})", "clients")
    return found


def missing(what: str, kind: Literal["browser", "clients"]) -> NoReturn:
    """Leave the test out; where .ci/run installs this kind, fail."""
    if kind in REQUIRED:
        pytest.fail(f"{what} is missing, and .ci/run installs it")
    pytest.skip(f"{what} is not installed here")
