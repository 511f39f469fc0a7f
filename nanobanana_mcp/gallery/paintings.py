"""What agents asked a person to paint, and the masks that came of it."""

import asyncio
from dataclasses import dataclass, field

from nanobanana_mcp.domain.ids import new_image_id

MOST = 100
"""The most that are remembered; the oldest of more are forgotten."""


@dataclass(eq=False, kw_only=True)
class Painting:
    """A place on a picture that a person is asked to paint. `ticket` stands for the mask until there is one, and looks
    like its id, so that it goes wherever the id of a picture goes.
    """

    image_id: str
    instruction: str
    ticket: str = field(default_factory=new_image_id)
    mask_id: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def page(self) -> str:
        return f"paint/{self.image_id}?ask={self.ticket}"

    def finish(self, mask_id: str) -> None:
        self.mask_id = mask_id
        self.done.set()


class Paintings:
    """By ticket."""

    def __init__(self) -> None:
        self._asked: dict[str, Painting] = {}

    def ask(self, image_id: str, instruction: str) -> Painting:
        painting = Painting(image_id=image_id, instruction=instruction)
        self._asked[painting.ticket] = painting
        while len(self._asked) > MOST:
            self._asked.pop(next(iter(self._asked)))
        return painting

    def get(self, ticket: str) -> Painting | None:
        return self._asked.get(ticket)
