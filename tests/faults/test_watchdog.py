"""The event loop is never away for long while hostile requests are answered: nothing from outside stops the server."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanobanana_mcp.emulator.control import HttpError
from tests.support.processes import Server
from tests.support.world import World, world

pytestmark = pytest.mark.slow

AWAY_S = 25.0
"""Far more than any of these takes on a slow machine, and a quarter of what logging one such name in colours took."""

LONG = "x" * 100_000
HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("resources/read", {"uri": f"image://{LONG}"}),
    ("resources/read", {"uri": f"image://img_{'[' * 50_000}{']' * 50_000}"}),
    ("prompts/get", {"name": LONG}),
    ("tools/call", {"name": LONG, "arguments": {}}),
    ("tools/call", {"name": "generate_image", "arguments": {LONG: LONG}}),
    ("tools/call", {"name": "generate_image", "arguments": {"prompt": "a", "input_images": [LONG] * 14}}),
    ("tools/call", {"name": "output_stats", "arguments": {"lineage_of": "((((" * 25_000}}),
    ("tools/call", {"name": "generate_image", "arguments": {"prompt": "a", "model_tier": LONG}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": LONG}, "argument": {"name": LONG, "value": LONG}}),
    (LONG, {}),
]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_the_event_loop_is_never_away_for_long_whatever_is_asked(at: World) -> None:
    body = HttpError(code=400, status="INVALID_ARGUMENT", message="<b>" * 30_000)
    at.emulator.control.queue.append(body)
    with Server(at, NANOBANANA_LOG_LEVEL="DEBUG").greet() as server:
        assert server.call("output_stats")[0]
        asked = [server.begin("generate_image", prompt="an error of 90 kB")]
        for method, params in HOSTILE:
            asked.append(server.ask(method, params))
            began = time.monotonic()
            server.answer(server.ask("ping"))
            assert time.monotonic() - began < AWAY_S, (method[:40], str(params)[:80])
        for number in asked:
            assert len(str(server.answer(number))) < 5000
        server.hang_up()
        assert server.ended() == 0
    assert max(map(len, b"".join(server.complaints).splitlines()), default=0) < 5000
