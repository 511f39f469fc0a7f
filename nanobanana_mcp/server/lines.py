"""The two pipes to a client: answers or passes on each line that comes in, and notes when each answer has been written."""

import errno
import json
import logging
import os
import re
import select
import socket
import stat
import sys
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

import anyio
from mcp.types import INVALID_REQUEST, PARSE_ERROR, jsonrpc_message_adapter

from nanobanana_mcp.domain.text import shorten
from nanobanana_mcp.server.session import OnTheirWay, TakeBack

if sys.platform == "linux":
    import fcntl
    import termios

logger = logging.getLogger(__name__)

_ID = re.compile(r'"id"\s*:\s*([0-9]{1,15}|"[\w.:-]{1,100}")\s*[,}]')


_GOING_MS = 200
"""Milliseconds to wait for the other pipes of a dead process to close."""


class LineWriter:
    """The file that stdio_server() writes to. A message is delivered when the pipe has taken all of it; when the client
    ends and leaves part of it in the pipe, it was not delivered.
    """

    def __init__(self, wire: int, on_their_way: OnTheirWay) -> None:
        self._wire = wire
        self._on_their_way = on_their_way
        self._lock = anyio.Lock()
        self._given = 0
        self._answered: list[tuple[int, TakeBack]] = []
        """Answers that the client may not have read yet: where each ends, in bytes since the start, and what takes its
        delivery back.
        """

    async def write(self, text: str) -> None:
        """Raises OSError when the client has gone; the message then counts as undelivered."""
        async with self._lock:
            await anyio.to_thread.run_sync(self._write, text.encode())
            if self._on_their_way:
                number = json.loads(text).get("id")
                deliver = self._on_their_way.pop(str(number), None) if number is not None else None
                if deliver is not None:
                    read = self._given - _in_the_pipe(self._wire)
                    self._answered = [one for one in self._answered if one[0] > read]
                    self._answered.append((self._given, await deliver()))

    async def flush(self) -> None:
        """Does nothing: each write is complete."""

    async def take_back(self) -> None:
        """Called when the connection ends: an answer that the client left unread can be asked for again at no charge."""
        read = self._given - await anyio.to_thread.run_sync(_left_unread, self._wire)
        unread = [take_back for end, take_back in self._answered if end > read]
        self._answered = [one for one in self._answered if one[0] <= read]
        for take_back in reversed(unread):
            await take_back()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        # A message that is cut short counts as far as it was written: the client may have read that part.
        self._given += len(left)
        try:
            while left:
                left = left[os.write(self._wire, left) :]
        except OSError:
            self._given -= len(left)
            raise


def _in_the_pipe(wire: int) -> int:
    """Bytes in the pipe that the client has not read. A socket reports more than those; 0 where the system does not
    say.
    """
    if sys.platform != "linux":
        return 0
    mode = os.fstat(wire).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return 0
    question = termios.FIONREAD if stat.S_ISFIFO(mode) else termios.TIOCOUTQ
    return int.from_bytes(fcntl.ioctl(wire, question, bytes(4)), sys.byteorder)


def _left_unread(wire: int) -> int:
    """Counts the bytes that a client that has gone never read, at least; 0 while it is there, and where the system does
    not say.

    Linux reports the bytes in a pipe at the writing end, too. A Unix socket, which Node gives its child processes,
    forgets its bytes when the reader ends, and only tells that there were some: then the last answer was unread, and it
    is not known how many more. macOS reports them at the reading end only and Windows not at all: there, what was
    written counts as delivered.
    """
    if sys.platform != "linux":
        return 0
    ending = select.poll()
    ending.register(wire, 0)
    if not ending.poll(_GOING_MS if _in_the_pipe(wire) else 0):
        return 0  # it may still read
    if not stat.S_ISSOCK(os.fstat(wire).st_mode):
        return _in_the_pipe(wire)
    with socket.socket(fileno=os.dup(wire)) as end:
        reset = end.family == socket.AF_UNIX and end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    return int(reset)


class LineReader:
    """The file that stdio_server() reads from. It passes on lines that are messages, and answers any other line itself,
    since the SDK would drop it.
    """

    def __init__(self, file: BinaryIO, writer: LineWriter) -> None:
        self._file = file
        self._writer = writer

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await anyio.to_thread.run_sync(self._file.readline, abandon_on_cancel=True):
            text = line.decode("utf-8", "replace")
            if not text.strip():
                continue
            try:
                message = jsonrpc_message_adapter.validate_json(text, by_name=False)
                if len(getattr(message, "method", "")) > _LONGEST_NAME:
                    raise ValueError  # the SDK would repeat it
            except ValueError:
                answer = refusal(text)
                logger.warning("A line from the client was refused: %s", answer["error"]["message"])
                await self._writer.write(json.dumps(answer) + "\n")
            else:
                yield text


def refusal(text: str) -> dict[str, Any]:
    """The JSON-RPC error for a line that is no message, with the request's id where it can be read."""
    number: object = None
    try:
        message = json.loads(text, parse_int=_whole)
    except RecursionError:
        code, why = INVALID_REQUEST, "it is nested too deeply"
        number = _only_id(text)
    except _LongNumber:
        code, why = INVALID_REQUEST, "it has a number with more digits than any argument takes"
        number = _only_id(text)
    except ValueError as error:
        code, why = PARSE_ERROR, f"it is not JSON ({shorten(str(error))[1:-1]})"
    else:
        code, why = INVALID_REQUEST, "it is not a JSON-RPC message"
        if isinstance(message, dict):
            given = message.get("id")
            number = given if isinstance(given, int | str) and not isinstance(given, bool) else None
        if _half_a_character(message):
            why = "it has half of a character: a surrogate such as \\ud83d without its other half, as of an emoji cut in two"
        elif isinstance(message, dict) and len(str(message.get("method"))) > _LONGEST_NAME:
            why = "the name of its method is too long"
        elif _depth(text) > _DEEPEST:
            why = "it is nested too deeply"
    if isinstance(number, str) and _half_a_character(number):
        number = None
    told = f"This line cannot be read: {why}. Nothing was done. Send it again without that."
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": told}}


_LONGEST_NAME = 200
_DEEPEST = 100
_DIGITS = 300
"""More digits than the largest float has, and fewer than Python and the SDK fail at."""


class _LongNumber(Exception):
    """A whole number that no argument takes."""


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _LongNumber
    return int(digits)


def _only_id(text: str) -> object:
    """The id of a request that cannot be parsed; None where there could be more than one."""
    found = _ID.findall(text)
    return json.loads(found[0]) if len(found) == 1 else None


def _half_a_character(value: object) -> bool:
    return bool(
        re.search("[\ud800-\udfff]", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    )


def _depth(text: str) -> int:
    """Counts how deep brackets nest, brackets in texts included."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
