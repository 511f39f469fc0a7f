"""Real servers over stdio, spoken to in raw JSON-RPC, so that they can be killed, hung up on and listened to."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.world import KEY, World

LONGEST_S = 300.0
"""A wait beyond this is a failure. What is waited for takes seconds; a busy machine may take ten times as long."""


class Server:
    """One `python -m nanobanana_mcp`. `lines` is all of its stdout; what it wrote goes to the world's `said`, too."""

    def __init__(self, world: World, *, limit: Callable[[], None] | None = None, **environment: str) -> None:
        self._world = world
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nanobanana_mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env=world.environment(**environment),
            preexec_fn=limit,
        )
        self.lines: list[bytes] = []
        self.complaints: list[bytes] = []
        self._answers: dict[int, Any] = {}
        self._arrived = threading.Condition()
        self._next = 0
        self._readers = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._overhear, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill() if kind else self.hang_up()
        self.ended()

    def greet(self) -> "Server":
        """Open the session as Claude Code does."""
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "claude-code", "version": "2"},
        }
        self.answer(self.ask("initialize", hello))
        self.tell("notifications/initialized")
        return self

    def tell(self, method: str, params: dict[str, Any] | None = None) -> None:
        self._write({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def ask(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send a request; its id, by which answer() finds what came."""
        self._next += 1
        self._write({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params or {}})
        return self._next

    def begin(self, tool: str, /, use: str | None = None, **arguments: Any) -> int:
        """Call a tool without waiting; `use` is Claude Code's id for this use of it."""
        meta = {"_meta": {"claudecode/toolUseId": use}} if use else {}
        return self.ask("tools/call", {"name": tool, "arguments": arguments} | meta)

    def call(self, tool: str, /, use: str | None = None, **arguments: Any) -> tuple[bool, str]:
        """Returns whether the call went well, and the text of the answer."""
        return self.outcome(self.begin(tool, use, **arguments))

    def outcome(self, number: int) -> tuple[bool, str]:
        result = self.answer(number)["result"]
        words = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
        return not result.get("isError"), words

    def answer(self, number: int) -> Any:
        with self._arrived:
            came = self._arrived.wait_for(lambda: number in self._answers, LONGEST_S)
        assert came, f"no answer to request {number}: {b''.join(self.complaints)[-2000:]!r}"
        return self._answers[number]

    def has_answered(self, number: int) -> bool:
        return number in self._answers

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Wait for the process; what it returned."""
        try:
            code = self.process.wait(LONGEST_S)
        finally:
            for reader in self._readers:
                reader.join(timeout=5)
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None and not pipe.closed:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
        self._world.said += [*self.lines, *self.complaints]
        return code

    def shows_the_key(self) -> bool:
        """Tells whether anybody who lists the processes can read the key."""
        return KEY.encode() in Path(f"/proc/{self.process.pid}/cmdline").read_bytes()

    def write_line(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def _write(self, message: dict[str, Any]) -> None:
        self.write_line(json.dumps(message).encode())

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            message = json.loads(line) if line.startswith(b"{") else {}
            if "id" in message and ("result" in message or "error" in message):
                with self._arrived:
                    self._answers[message["id"]] = message
                    self._arrived.notify_all()

    def _overhear(self) -> None:
        assert self.process.stderr is not None
        self.complaints.extend(self.process.stderr)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another process or thread brings about."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def recovered(world: World) -> str:
    """Start once more and ask for what was left behind; what the studio says."""
    with Server(world).greet() as server:
        well, words = server.call("maintenance", operation="recover", dry_run=False)
        assert well, words
        server.hang_up()
        server.ended()
    return words


class Forge:
    """The program of `steps`: one case after the other, each in processes of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        folder = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name("steps.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=world.environment() | {"PYTHONPATH": str(folder)},
        )

    def __enter__(self) -> "Forge":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=LONGEST_S)

    def run(self, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
        """Run jobs at once, each in its own process; what became of them, in their order."""
        assert self._process.stdin is not None and self._process.stdout is not None
        places = self._world.places
        common = {
            "output": str(places.output),
            "state": str(places.state),
            "base": str(places.base),
            "database": str(self._world.database),
            "url": self._world.url,
            "key": KEY,
        }
        self._process.stdin.write(json.dumps([common | job for job in jobs]) + "\n")
        self._process.stdin.flush()
        outcomes: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return outcomes

    def create(self, *, n: int = 1, wish: str | None = None, **fault: Any) -> dict[str, Any]:
        """An edit of the user's own photo, with a fault; what became of it."""
        request = {"prompt": "a banana", "inputs": [str(self._world.project / "holiday.jpg")], "n": n}
        return self.run({"act": "create", "request": request, "wish": wish} | fault)[0]

    def recover(self) -> str:
        """A new start, which must succeed; what it says."""
        outcome = self.run({"act": "recover"})[0]
        assert (outcome["status"], outcome["error"]) == (0, None), outcome
        return str(outcome["text"])
