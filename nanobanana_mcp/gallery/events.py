"""Tells open pages what is new: pictures of every process, and how far an edit is (server-sent events)."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nanobanana_mcp.domain.errors import StudioError

if TYPE_CHECKING:
    from nanobanana_mcp.studio.studio import Studio

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""The library is asked this often, in seconds, while a page is open."""

ALIVE_S = 15.0
"""An idle connection gets a sign of life this often, in seconds, by which one that is gone is noticed."""

BEHIND = 1000
"""The most news that wait for a page. A page that is further behind is let go, and connects again."""

News_ = dict[str, Any]


class News:
    """Tells open pages what changed in the library, which it asks as long as a page listens."""

    def __init__(self, studio: "Callable[[], Awaitable[Studio]]") -> None:
        self._studio = studio
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def tell(self, kind: str, news: News_) -> None:
        """Sends news to every open page."""
        words = f"event: {kind}\ndata: {json.dumps(news)}\n\n"
        for queue in [*self._listeners]:
            self._put(queue, words)

    async def listen(self) -> AsyncGenerator[str, None]:
        """Yields every event from now on, as the lines of an event stream."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(BEHIND)
        self._listeners.add(queue)
        if self._closed:
            self._put(queue, None)
        elif self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield "retry: 2000\n\n"
            while True:
                try:
                    words = await asyncio.wait_for(queue.get(), ALIVE_S)
                except TimeoutError:
                    words = ": still here\n\n"
                if words is None:
                    return
                yield words
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        self._closed = True
        for queue in [*self._listeners]:
            self._put(queue, None)
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        last: int | None = None
        while self._listeners:
            try:
                changes = await (await self._studio()).changes(last)
            except StudioError as error:  # the library is locked or gone for now; pages say so when they ask for more
                logger.info("The library could not be asked for news: %s", error)
            else:
                if last is not None and (changes.ids or changes.gone):
                    self.tell("pictures", {"ids": list(changes.ids), "gone": list(changes.gone)})
                last = changes.last
            await asyncio.sleep(LOOK_S)

    def _put(self, queue: asyncio.Queue[str | None], words: str | None) -> None:
        if queue.full():
            self._listeners.discard(queue)
            while not queue.empty():
                queue.get_nowait()
            words = None
        queue.put_nowait(words)
