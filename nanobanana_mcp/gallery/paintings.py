"""Keeps the places that agents asked a person to paint, and the masks that came of it."""

import asyncio
import time
from dataclasses import dataclass, field

from nanobanana_mcp.domain.ids import new_image_id

MOST = 100
"""The most that are remembered; the oldest of more are forgotten."""

KEPT_S = 1800.0
"""Seconds for which a call finds what a person was asked, or painted, for an earlier one with the same wish."""


@dataclass(eq=False, kw_only=True)
class Painting:
    """A place on a picture that a person is asked to paint. `ticket` is the id that the mask will have, so that it is good
    for an edit in whatever process comes after this one.
    """

    image_id: str
    instruction: str
    ticket: str = field(default_factory=new_image_id)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: object | None = None
    """The call that waits for it: the newest, as a client that gave up an older one may not have said so."""
    taken: bool = False
    """True when an edit was made with it."""
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def page(self) -> str:
        return f"paint/{self.image_id}?ask={self.ticket}"


class Paintings:
    """By ticket."""

    def __init__(self) -> None:
        self._asked: dict[str, Painting] = {}

    def ask(self, image_id: str, instruction: str) -> Painting:
        """Returns the painting that a person was asked for before with the same wish and that no edit has taken, so
        that they need not paint it twice for a client that gave up waiting and calls again; else a new one.
        """
        for known in reversed(self._asked.values()):
            fresh = time.monotonic() - known.asked_at < KEPT_S
            if (known.image_id, known.instruction) == (image_id, instruction) and fresh and not known.taken:
                return known
        painting = Painting(image_id=image_id, instruction=instruction)
        self._asked[painting.ticket] = painting
        while len(self._asked) > MOST:
            self._asked.pop(next(iter(self._asked)))
        return painting

    def get(self, ticket: str) -> Painting | None:
        return self._asked.get(ticket)
