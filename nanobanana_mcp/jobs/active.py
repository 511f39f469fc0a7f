"""The requests under way in this process: who waits for each, and when a request that nobody waits for stops sending."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from nanobanana_mcp.domain.results import Created


class ActiveRequests:
    """Each request is a task of its own, not of its caller: when the last caller leaves, nothing more is sent, and
    answers to what was sent are still kept.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Created]] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._callers: Counter[str] = Counter()
        self._joined: dict[str, str] = {}

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._tasks

    def begin(self, request_id: str, work: Coroutine[Any, Any, Created]) -> None:
        """Start a request. It is listed here before its row is written, so that recovery never takes it for abandoned."""
        task = asyncio.create_task(work)
        self._tasks[request_id] = task
        task.add_done_callback(lambda done: self._ended(request_id, done))

    def stop_of(self, request_id: str) -> asyncio.Event:
        """The event that is set once nothing more is to be sent for a request."""
        return self._stops.setdefault(request_id, asyncio.Event())

    async def answer(self, request_id: str) -> Created:
        """Wait for a request on behalf of its caller."""
        task = self._tasks[request_id]
        self._callers[request_id] += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._callers[request_id] == 1:
                self._stop(request_id)
            raise
        finally:
            self._leave(request_id)

    async def join(self, asking: str, request_id: str) -> Created:
        """Wait for a request on behalf of another one that repeats it."""
        task = self._tasks[request_id]
        self._callers[request_id] += 1
        self._joined[asking] = request_id
        try:
            return await asyncio.shield(task)
        finally:
            if self._joined.pop(asking, None) is not None:
                self._leave(request_id)

    async def drain(self, seconds: float) -> None:
        """Send nothing more, and wait up to `seconds` for the answers to what was sent."""
        for request_id in list(self._tasks):
            self._stop(request_id)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)

    def _stop(self, request_id: str) -> None:
        self.stop_of(request_id).set()
        joined = self._joined.pop(request_id, None)
        if joined is not None:
            self._leave(joined)
            if joined not in self._callers:
                self._stop(joined)

    def _leave(self, request_id: str) -> None:
        """One caller leaves; the last one removes the entry."""
        self._callers[request_id] -= 1
        if not self._callers[request_id]:
            del self._callers[request_id]

    def _ended(self, request_id: str, task: asyncio.Task[Created]) -> None:
        self._tasks.pop(request_id, None)
        self._stops.pop(request_id, None)
        if not task.cancelled():
            task.exception()  # the callers got it, or the journal has it; asyncio need not warn
