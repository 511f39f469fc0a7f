"""Lines that are no messages, clients that do not read, and long words: each is answered, and nothing else waits."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checker import check
from tests.support.processes import LONGEST_S, Server, wait_until
from tests.support.world import World, world

HALF = r"\ud83d"
LONG = "A" * 100_000


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def call(number: int, prompt: str, **more: Any) -> bytes:
    """A tool call as a client writes it, with `prompt` as JSON text."""
    arguments = f'{{"prompt": {prompt}}}'
    return f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"generate_image","arguments":{arguments}}}}}'.encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (f'"a cat {HALF}"', "half of a character"),
        ("9" * 5000, "digits"),
        ("[" * 2000 + "]" * 2000, "nested"),
        ("[" * 200 + "]" * 200, "nested"),
        ('"a cat', "not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_is_answered_in_words_and_the_next_call_goes_on(
    at: World, prompt: str, why: str
) -> None:
    with Server(at).greet() as server:
        server.write_line(call(900, prompt))
        if why != "not JSON":
            assert why in server.answer(900)["error"]["message"]
        well, _ = server.call("output_stats", recent=0)
        assert well
        errors = [json.loads(line)["error"]["message"] for line in server.lines if b'"error"' in line]
        assert len(errors) == 1 and why in errors[0]


@pytest.mark.slow
def test_long_words_from_a_client_hold_nothing_up_and_are_not_repeated(at: World) -> None:
    with Server(at).greet() as server:
        asked = [
            server.ask("resources/read", {"uri": f"image://{LONG}"}),
            server.ask("resources/read", {"uri": LONG}),
            server.ask("prompts/get", {"name": LONG}),
            server.begin(LONG),
            server.begin("generate_image", prompt="a cat", **{LONG: 1}),
            server.begin("output_stats", lineage_of=LONG),
            server.begin("maintenance", operation="restore", image_ids=[LONG]),
            server.begin("generate_image", prompt="a cat", continue_from=LONG),
            server.begin("generate_image", prompt="a cat", continue_from=f"img_{LONG}"),
            server.begin("generate_image", prompt="a cat", file_id=f"files/{LONG}"),
            server.begin("generate_image", prompt="a cat", input_images=[f"img_{LONG}"]),
            server.ask(LONG),
            server.ask("resources/read", {"uri": "image://img_1m8j90hwh878c0za"}),
        ]
        well, words = server.call("generate_image", prompt="a banana")
        assert well, words
        for number in asked:
            answer = server.answer(number)
            assert "error" in answer or answer["result"]["isError"]
            assert len(json.dumps(answer)) < 2500
    assert all(len(line) < 500 for line in server.complaints)
    assert b"Traceback" not in b"".join(server.complaints)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="how much a pipe holds is known for POSIX")
def test_a_client_that_stops_reading_and_dies_is_not_charged_when_it_asks_again(at: World) -> None:
    command = [sys.executable, "-m", "nanobanana_mcp"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=at.environment(),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "deaf", "version": "1"}}
        lists = [request(number, "tools/list", {}) for number in range(2, 20)]  # more than a pipe holds
        process.stdin.write(request(1, "initialize", hello) + b"".join(lists))
        process.stdin.write(call(100, '"a banana"') + b"\n")
        process.stdin.flush()
        wait_until(lambda: at.emulator.charges, "a picture is paid for")
        wait_until(lambda: at.states() in (["saved"], ["done"]), "it is kept")
        process.stdout.close()
        process.stdin.close()
        process.wait(LONGEST_S)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    with Server(at).greet() as server:
        well, words = server.call("generate_image", prompt="a banana")
    assert well and "made before" in words, words
    assert len(at.emulator.charges) == 1
    check(at)


def request(number: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"
