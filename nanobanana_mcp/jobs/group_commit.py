"""Gathers journal notes that arrive at the same time into one transaction, as databases do with group commit."""

import asyncio
from collections.abc import Callable


class GroupCommit:
    """Calls `note` in a thread with all ids that arrived while the last call was at work."""

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self._one_at_a_time = asyncio.Lock()
        self._gathered: list[str] = []
        self._sharing: asyncio.Task[None] | None = None

    async def __call__(self, call_id: str) -> None:
        """Return when the id is noted. Raises what `note` raised for its group."""
        self._gathered.append(call_id)
        if self._sharing is None:
            self._sharing = asyncio.create_task(self._share())
        await asyncio.shield(self._sharing)

    async def _share(self) -> None:
        async with self._one_at_a_time:
            gathered, self._gathered, self._sharing = self._gathered, [], None
            await asyncio.to_thread(self._note, *gathered)
