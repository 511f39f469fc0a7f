"""Lines that are no messages, clients that do not read, and long words: each is answered, and nothing else waits."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.emulator.control import TextOnly
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
def test_a_line_that_cannot_be_read_is_answered_in_words_and_the_next_call_goes_on(at: World) -> None:
    unreadable = [
        (f'"a cat {HALF}"', "half of a character"),
        ("9" * 5000, "digits"),
        ("[" * 2000 + "]" * 2000, "nested"),
        ("[" * 200 + "]" * 200, "nested"),
        ('"a cat', "not JSON"),
    ]
    with Server(at).greet() as server:
        for number, (prompt, why) in enumerate(unreadable, 900):
            before = len(server.lines)
            server.write_line(call(number, prompt))
            if why != "not JSON":
                assert why in server.answer(number)["error"]["message"]
            well, _ = server.call("output_stats", recent=0)
            assert well
            errors = [json.loads(line)["error"]["message"] for line in server.lines[before:] if b'"error"' in line]
            assert len(errors) == 1 and why in errors[0], prompt[:20]


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
@pytest.mark.parametrize("picture", [True, False], ids=["a picture", "paid words and no picture"])
def test_a_client_that_stops_reading_and_dies_is_not_charged_when_it_asks_again(at: World, picture: bool) -> None:
    at.emulator.control.standing = None if picture else TextOnly("Which of the two bananas?")
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
        wait_until(lambda: at.states() in (["saved"], ["done"], ["failed"]), "it is kept, or it has failed")
        process.stdout.close()
        process.stdin.close()
        process.wait(LONGEST_S)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    with Server(at).greet() as server:
        well, words = server.call("generate_image", prompt="a banana")
        assert well is picture and ("made before" if picture else "Which of the two bananas?") in words, words
        assert len(at.emulator.charges) == 1
        well, words = server.call("generate_image", prompt="a banana")
        assert len(at.emulator.charges) == 2, words
    if picture:  # words are booked at the dearer price of image tokens where Google does not tell them apart
        check(at)


CLIENT = """
import json, os, socket, subprocess, sys

def run(kind, script):
    ours, theirs = socket.socketpair() if kind == "socket" else (None, subprocess.PIPE)
    command = [sys.executable, "-m", "nanobanana_mcp"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, bufsize=0)
    if ours is not None:
        theirs.close()
    out = ours.makefile("rb", buffering=0) if ours is not None else server.stdout
    for line, read in script:
        server.stdin.write(line.encode())
        while read and json.loads(out.readline()).get("id") != json.loads(line)["id"]:
            pass
    print("said all", flush=True)
    sys.stdin.read()

run(sys.argv[1], json.loads(sys.argv[2]))
"""
"""A client that starts a server, reads the answers it is told to and no others, and waits to be killed."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what was left unread is known on Linux")
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("heard", [(False,), (True,), (True, False)])
def test_an_answer_that_a_killed_client_left_unread_is_free_and_one_that_it_read_is_not_repeated(
    at: World, kind: str, heard: tuple[bool, ...]
) -> None:
    wishes = [f"a banana of number {number}" for number in range(len(heard))]
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "deaf", "version": "1"}}
    script = [(request(1, "initialize", hello).decode(), heard[0])]
    for number, (wish, read) in enumerate(zip(wishes, heard, strict=True), 100):
        script.append((call(number, json.dumps(wish)).decode() + "\n", read))
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, kind, json.dumps(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=at.environment(NANOBANANA_PREVIEW_PX="0"),  # so that a pipe takes all the answers
    ) as client:
        assert client.stdout is not None and client.stderr is not None
        assert client.stdout.readline() == b"said all\n"
        wait_until(lambda: len(at.emulator.charges) == len(heard), "the pictures are paid for")
        wait_until(lambda: at.states() == ["done"] * len(heard), "every answer is written and counts as delivered")
        client.kill()
        assert b"Traceback" not in client.stderr.read()  # until the server has ended, too
    with Server(at).greet() as server:
        for wish, read in zip(wishes, heard, strict=True):
            charged = len(at.emulator.charges)
            well, words = server.call("generate_image", prompt=wish)
            assert well and ("made before" in words) is not read, words
            assert len(at.emulator.charges) - charged == read
    check(at)


@pytest.mark.slow
def test_an_answer_that_a_client_reads_after_it_has_hung_up_is_not_repeated(at: World) -> None:
    command = [sys.executable, "-m", "nanobanana_mcp"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=at.environment(NANOBANANA_PREVIEW_PX="0"),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "slow", "version": "1"}}
        process.stdin.write(request(1, "initialize", hello) + call(100, '"a banana"') + b"\n")
        process.stdin.flush()
        wait_until(lambda: at.emulator.charges, "a picture is paid for")
        wait_until(lambda: at.states() == ["done"], "its answer is written")
        process.stdin.close()
        process.wait(LONGEST_S)
        assert b"Made 1 picture" in process.stdout.read()
    with Server(at).greet() as server:
        well, words = server.call("generate_image", prompt="a banana")
    assert well and "made before" not in words, words
    assert len(at.emulator.charges) == 2
    check(at)


def request(number: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"
