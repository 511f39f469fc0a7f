"""An MCP server in its own process, spoken to in bare JSON-RPC so that no client library is part of what is measured."""

import itertools
import json
import os
import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ANSWER_S = 300


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A server to measure and how it is started."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, its bytes on the wire, and the seconds from the request to its last byte."""

    result: dict[str, Any]
    bytes: int
    seconds: float


class Server:
    """A running server. Times are of the monotonic clock; `born` is the moment before the process was made."""

    def __init__(self, contestant: Contestant, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = contestant.name
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[tuple[float, bytes]]] = {}
        self._lock = threading.Lock()
        self._log = (folder / "stderr.txt").open("ab")
        given = {**environment(folder), **dict(contestant.environment)}
        self.born = time.perf_counter()
        self._process = subprocess.Popen(
            contestant.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=given,
            cwd=folder,
            bufsize=0,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def greet(self) -> Reply:
        """Initialize and list the tools; `seconds` of the answer are from the birth of the process."""
        client = {"name": "benchmark", "version": "1"}
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        listed = self.ask("tools/list", {})
        return Reply(result=listed.result, bytes=listed.bytes, seconds=time.perf_counter() - self.born)

    def call(self, tool: str, arguments: dict[str, Any]) -> Reply:
        """Call a tool and wait. Raises RuntimeError when it answers with an error."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def ask(self, method: str, params: dict[str, Any]) -> Reply:
        number, waiting = next(self._numbers), Future[tuple[float, bytes]]()
        with self._lock:
            self._waiting[number] = waiting
        begun = time.perf_counter()
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        ended, line = waiting.result(ANSWER_S)
        message = json.loads(line)
        result = message.get("result")
        if result is None or result.get("isError"):
            raise RuntimeError(f"{self.name} answered {method} with {line[:600].decode(errors='replace')}")
        return Reply(result=result, bytes=len(line), seconds=ended - begun)

    @property
    def cpu_s(self) -> float:
        """Processor time of all threads so far, in seconds."""
        return time.clock_gettime((~self._process.pid << 3) | 2)  # Linux: the clock of another process

    @property
    def resident(self) -> int:
        """Bytes of memory now."""
        return memory(self._process.pid, "VmRSS")

    @property
    def peak(self) -> int:
        """The most bytes of memory since the birth or `forget_peak`."""
        return memory(self._process.pid, "VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", "ascii")

    def leave(self) -> float:
        """Close stdin and wait; the seconds until the process is gone."""
        assert self._process.stdin is not None
        begun = time.perf_counter()
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        taken = time.perf_counter() - begun
        self._reading.join(5)
        self._log.close()
        return taken

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        line = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock:
            while line:
                line = line[self._process.stdin.write(line) or 0 :]

    def _read(self) -> None:
        assert self._process.stdout is not None
        with open(self._process.stdout.fileno(), "rb", 1 << 20, closefd=False) as lines:
            for line in lines:
                at = time.perf_counter()
                head = line[:200] + line[-60:]  # the id stands at one end, so the rest need not be searched
                if b'"method"' in head and b'"result"' not in head:
                    continue
                number = json.loads(line).get("id")
                with self._lock:
                    waiting = self._waiting.pop(number, None)
                if waiting is not None:
                    waiting.set_result((at, line))
        for waiting in list(self._waiting.values()):
            waiting.set_exception(RuntimeError(f"{self.name} ended before it answered; see {self._log.name}."))


def environment(folder: Path) -> dict[str, str]:
    """A clean one: nothing of the user's settings, and compiled modules are kept."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GEMINI_API_KEY": "benchmark-key",
        "IMAGE_OUTPUT_DIR": str(folder / "pictures"),
    }


def memory(process: int, field: str) -> int:
    """Bytes that the system tells of a process under a name such as VmRSS."""
    for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"The system does not tell {field}.")
