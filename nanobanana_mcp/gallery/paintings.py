"""Keeps what agents asked a person to paint."""

import asyncio
import time
from dataclasses import dataclass, field

from nanobanana_mcp.domain.ids import new_image_id

MOST = 100
"""The most paintings that are remembered; beyond that the oldest is forgotten."""

KEPT_S = 1800.0
"""Seconds for which a painting is found by another call with the same wish."""


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
    """The paintings that were asked for, by their tickets."""

    def __init__(self) -> None:
        self._asked: dict[str, Painting] = {}

    def ask(self, image_id: str, instruction: str) -> Painting:
        """Returns the painting with the same wish that no edit has taken, or else a new one: a person need not paint it
        twice for a client that gave up waiting and calls again.
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
