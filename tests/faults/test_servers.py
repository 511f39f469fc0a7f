"""Real servers that are killed, hung up on and signalled, alone and eight at a time."""

import io
import json
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from nanobanana_mcp.emulator.control import Delay, Drop, Hang, HttpError, Picture
from tests.support.checker import check
from tests.support.processes import Server, recovered, wait_until
from tests.support.world import KEY, World, world

pytestmark = pytest.mark.slow
resource = pytest.importorskip("resource", reason="signals and limits are those of POSIX")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def requests_to(world: World) -> int:
    return sum(request.path.endswith(":generateContent") for request in world.emulator.requests)


def _reached(world: World, count: int) -> bool:
    return requests_to(world) == count


def _charged(world: World, count: int) -> bool:
    return len(world.emulator.charges) == count


def test_servers_killed_at_random_lose_no_picture_that_was_paid_for(at: World) -> None:
    chance = random.Random(20)
    at.emulator.control.latency_s = 0.15
    asked = 0
    while asked < 24:
        with Server(at, NANOBANANA_MAX_USD_PER_HOUR="off", NANOBANANA_MAX_CALLS_PER_MINUTE="off").greet() as server:
            server.call("output_stats", recent=0)
            for _ in range(6):
                asked += 1
                server.begin("generate_image", use=f"use-{asked}", prompt=f"banana {asked}", n=chance.choice((1, 2)))
                time.sleep(chance.uniform(0, 0.15))
            server.kill()
    recovered(at)
    check(at)
    assert len(at.emulator.charges) > 10
    for index in (1, 8, 20):
        with Server(at, NANOBANANA_MAX_USD_PER_HOUR="off", NANOBANANA_MAX_CALLS_PER_MINUTE="off").greet() as server:
            before, calls = len(at.emulator.charges), at.rows("SELECT count(*) FROM requests")[0][0]
            _, words = server.call("generate_image", use=f"use-{index}", prompt=f"banana {index}")
            assert "Made" in words or "may have been charged" in words or "different request" in words, words
            assert len(at.emulator.charges) - before == at.rows("SELECT count(*) FROM requests")[0][0] - calls
    check(at)


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TZ": "XXX-25"},
        {"TZ": "XXX+26:59"},
        {"TZ": "no/such:zone"},
    ],
    ids=["ascii", "a day ahead", "a day behind", "no zone"],
)
def test_a_picture_is_kept_in_any_locale_and_any_time_zone(at: World, environment: dict[str, str]) -> None:
    with Server(at, **environment).greet() as server:
        for n in (1, 2):
            well, words = server.call("generate_image", prompt="Ein Bär isst バナナ 🍌", n=n)
            assert well, words
        well, words = server.call("convert_image", image=str(next(at.output.glob("*isst*"))), width=20)
        assert well, words
        if "LC_ALL" in environment:
            well, words = server.call("generate_image", prompt="a cat", output_path=str(at.root / "Bär.png"))
            assert not well
            assert "PYTHONUTF8=1" in words
    assert len(at.emulator.charges) == 3
    assert set(at.states()) == {"done"}
    assert all(path.name.isascii() or "LC_ALL" not in environment for path in at.output.glob("*"))
    recovered(at)


def test_a_client_that_closes_stdin_while_a_picture_is_drawn_finds_it_later_without_a_charge(at: World) -> None:
    at.emulator.control.paused = True
    with Server(at).greet() as server:
        server.begin("generate_image", use="one", prompt="a banana")
        wait_until(lambda: requests_to(at) == 1, "the request reached Gemini")
        server.hang_up()
        at.emulator.control.paused = False
        assert server.ended() == 0
    assert at.states() == ["saved"]
    with Server(at).greet() as server:
        assert "1" in server.call("output_stats")[1]
        well, words = server.call("generate_image", use="one", prompt="a banana")
        assert well, words
        assert "nothing was charged again" in words
    assert len(at.emulator.charges) == 1
    check(at)


def test_a_client_that_cancels_at_any_moment_finds_its_picture_and_asking_again_is_free(at: World) -> None:
    """Cancelled just after it was sent, half-way, and when the picture is as good as there."""
    at.emulator.control.standing = Delay(seconds=0.6)
    with Server(at).greet() as server:
        for turn, after_s in enumerate((0.0, 0.3, 0.58)):
            number = server.begin("generate_image", prompt=f"banana {turn}")
            wait_until(partial(_reached, at, turn + 1), "the request reached Gemini")
            time.sleep(after_s)
            server.tell("notifications/cancelled", {"requestId": number})
            wait_until(partial(_charged, at, turn + 1), "Gemini has drawn it")
            well, words = server.call("generate_image", prompt=f"banana {turn}")
            assert well, words
            assert server.call("output_stats")[0]
        server.hang_up()
        server.ended()
    assert at.states() == ["done"] * 3
    assert len(at.emulator.charges) == 3
    check(at)


def test_sigint_and_sigterm_right_behind_it_let_a_picture_come_home(at: World) -> None:
    at.emulator.control.paused = True
    with Server(at).greet() as server:
        server.begin("generate_image", prompt="a banana")
        wait_until(lambda: requests_to(at) == 1, "the request reached Gemini")
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.1)  # as Claude Code does
        server.process.send_signal(signal.SIGTERM)
        at.emulator.control.paused = False
        assert server.ended() == 0
    assert at.states() in (["saved"], ["done"])
    recovered(at)
    check(at)


@pytest.mark.parametrize("ending", ["stdin", "SIGINT", "SIGTERM"])
def test_an_idle_server_leaves_when_its_client_does(at: World, ending: str) -> None:
    with Server(at).greet() as server:
        assert server.call("output_stats")[0]
        if ending == "stdin":
            server.hang_up()
        else:
            server.process.send_signal(getattr(signal, ending))
        assert server.ended() == 0
    check(at)


def test_neither_the_list_of_tools_nor_a_call_waits_for_what_it_does_not_need(at: World) -> None:
    def imported() -> set[str]:
        return {line.rpartition(b"|")[2].strip().decode() for line in server.complaints}

    with Server(at, PYTHONPROFILEIMPORTTIME="1").greet() as server:
        server.answer(server.ask("tools/list"))
        assert "fastmcp" in imported()
        assert not {"google.genai", "sqlalchemy", "PIL", "numpy", "key_value", "beartype"} & imported()
        assert server.call("generate_image", prompt="a banana")[0]
        assert "google.genai" in imported()
        assert not {"numpy", "key_value", "beartype", "pillow_heif"} & imported()


def test_a_drain_is_bounded_and_the_next_start_tells_the_unknown_outcome(at: World) -> None:
    at.emulator.control.standing = Hang()
    with Server(at).greet() as server:
        server.begin("generate_image", prompt="a banana")
        wait_until(lambda: requests_to(at) == 1, "the request reached Gemini")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
    at.emulator.control.standing = None
    assert "may have been charged" in recovered(at)
    with Server(at).greet() as server:
        well, words = server.call("generate_image", prompt="a banana")
        assert not well
        assert "may have cost $" in words
        assert "unknown" in server.call("output_stats")[1].lower()
        well, words = server.call("generate_image", prompt="a banana")
        assert well, words
    assert len(at.emulator.charges) == 1
    check(at)


def test_stdout_carries_nothing_but_json_rpc_over_a_session_full_of_trouble(at: World) -> None:
    at.emulator.control.queue.extend([HttpError(code=500, status="INTERNAL"), Drop(when="after_charge")])
    with Server(at, NANOBANANA_LOG_LEVEL="DEBUG", PYTHONWARNINGS="always", PYTHONUNBUFFERED="1").greet() as server:
        assert server.process.stdin is not None
        surrogate = b'{"jsonrpc":"2.0","id":99,"method":"tools/call","params":{"name":"output_stats","arguments":{"a":"\\ud800"}}}'
        server.process.stdin.write(b"this is not JSON\n\n{\n" + surrogate + b"\n")
        numbers = [
            server.begin("generate_image", prompt="a banana"),
            server.begin("generate_image", prompt="two"),
            server.begin("generate_image", prompt=""),
            server.begin("generate_image", prompt="x", input_images=["/etc/passwd"]),
            server.begin("no_such_tool"),
            server.ask("no/such/method"),
            server.begin("output_stats"),
        ]
        for number in numbers:
            server.answer(number)
        assert not server.shows_the_key()
        server.hang_up()
        assert server.ended() == 0
        for line in server.lines:
            assert json.loads(line)["jsonrpc"] == "2.0", line
    recovered(at)
    check(at)


def test_an_environment_with_the_key_shows_it_to_nobody(at: World) -> None:
    at.emulator.control.queue.append(HttpError(code=400, status="INVALID_ARGUMENT", message=f"API key {KEY} is bad."))
    with Server(at, NANOBANANA_LOG_LEVEL="DEBUG").greet() as server:
        well, words = server.call("generate_image", prompt="a banana")
        assert not well
        assert "[key]" in words
        assert not server.shows_the_key()
        server.hang_up()
        server.ended()
    check(at)


def test_eight_servers_on_one_library_start_draw_and_die_together_without_harm(at: World) -> None:
    at.emulator.control.latency_s = 0.1
    free = {"NANOBANANA_MAX_USD_PER_HOUR": "off", "NANOBANANA_MAX_CALLS_PER_MINUTE": "off"}
    servers = [Server(at, **free) for _ in range(8)]
    try:
        for server in servers:
            server.greet()
        numbers = [
            (server, server.begin("generate_image", use=f"{index}-{turn}", prompt="the same banana", output_path=name))
            for index, server in enumerate(servers)
            for turn, name in enumerate((None, str(at.output / "banana.jpg")))
        ]
        for server, number in numbers:
            well, words = server.outcome(number)
            assert well, words
        assert len(at.emulator.charges) == 16
        waiting = [
            (server, server.begin("generate_image", use=f"{index}-more", prompt="the same banana", n=2))
            for index, server in enumerate(servers)
        ]
        for server in servers[:3]:
            server.kill()
        for server, number in waiting[3:]:
            well, words = server.outcome(number)
            assert well, words
        for server in servers[3:]:
            assert server.call("output_stats")[0]
            server.hang_up()
        assert [server.ended() for server in servers[3:]] == [0] * 5
    finally:
        for server in servers:
            server.__exit__()
    recovered(at)
    check(at)


def test_eight_servers_together_never_spend_more_than_the_hour_allows(at: World) -> None:
    servers = [Server(at, NANOBANANA_MAX_USD_PER_HOUR="0.5") for _ in range(8)]
    try:
        for server in servers:
            server.greet()
        numbers = [
            (server, server.begin("generate_image", use=f"{index}-{turn}", prompt=f"banana {turn}"))
            for turn in range(3)
            for index, server in enumerate(servers)
        ]
        outcomes = [server.outcome(number) for server, number in numbers]
        assert {well for well, _ in outcomes} == {True, False}
        for well, words in outcomes:
            assert well or "NANOBANANA_MAX_USD_PER_HOUR" in words, words
        for server in servers:
            server.hang_up()
            server.ended()
    finally:
        for server in servers:
            server.__exit__()
    assert 0.4 < sum(charge.usd for charge in at.emulator.charges) <= 0.5
    check(at)


def test_a_picture_that_no_place_can_take_is_called_lost_and_its_cost_stays_in_the_books(at: World) -> None:
    noise = io.BytesIO()
    Image.effect_noise((3000, 2600), 90).save(noise, "PNG")
    assert len(noise.getvalue()) > 7_000_000
    at.emulator.control.queue.extend([None, Picture(data=noise.getvalue())])

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (7_000_000, 7_000_000))

    with Server(at, limit=small_files).greet() as server:
        assert server.call("generate_image", prompt="one")[0]
        well, words = server.call("generate_image", prompt="two")
        assert not well
        assert "lost, although it was paid for" in words
        assert server.call("generate_image", prompt="three")[0]
        server.hang_up()
        assert server.ended() == 0
    assert "may have been charged" in recovered(at)
    assert sorted(at.states()) == ["done", "done", "unknown"]
    assert len(at.emulator.charges) == 3
    check(at)
