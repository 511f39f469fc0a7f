"""The MCP conformance suite, in both eras, over HTTP on this machine, which is all that it speaks: @modelcontextprotocol/conformance
0.2.0-alpha.12 from npm, on Node 22 or newer.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.needed import client

ROOT = Path(__file__).parents[2]
LONGEST_S = 300


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address where the server listens for the suite."""
    client("conformance")  # before a server is started for nothing
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "NANOBANANA_BACKEND": "emulator",
        "NANOBANANA_OUTPUT_DIR": str(tmp_path / "pictures"),
        "NANOBANANA_DATABASE_URL": f"sqlite:///{tmp_path / 'state' / 'library.db'}",
    }
    command = [sys.executable, "-m", "tests.support.over_http", str(port)]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) as server,
    ):
        try:
            while not _is_there(port):
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()


def _is_there(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_the_conformance_suite_finds_nothing_but_what_is_listed(address: str, tmp_path: Path, revision: str) -> None:
    baseline = Path(__file__).parent / "conformance" / f"{revision}.yml"
    command = [
        client("conformance"),
        "server",
        "--url",
        address,
        "--requirements",
        revision,
        "--expected-failures",
        str(baseline),
    ]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "results")], cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST_S
    )
    assert done.returncode == 0, done.stdout[done.stdout.find("=== SUMMARY") :]
