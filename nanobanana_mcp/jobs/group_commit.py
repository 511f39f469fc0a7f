"""Writes notes for the journal that come at one moment in one transaction, as databases commit in groups."""

import asyncio
from collections.abc import Callable


class GroupCommit:
    """Passes ids on to `note`, in a thread; those that come while it is at work are the next it gets, all at once."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self._one_at_a_time = asyncio.Lock()
        self._gathered: list[str] = []
        self._sharing: asyncio.Task[None] | None = None

    async def __call__(self, call_id: str) -> None:
        """Return when the id is noted. Raises what `note` raised for those it was noted with."""
        self._gathered.append(call_id)
        if self._sharing is None:
            self._sharing = asyncio.create_task(self._share())
        await asyncio.shield(self._sharing)

    async def _share(self) -> None:
        async with self._one_at_a_time:
            gathered, self._gathered, self._sharing = self._gathered, [], None
            await asyncio.to_thread(self._note, *gathered)
