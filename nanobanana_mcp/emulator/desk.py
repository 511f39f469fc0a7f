"""Turns each request for a picture into an answer and a charge, whether it came over a connection or in a batch."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive

from nanobanana_mcp.emulator import delivery, rules
from nanobanana_mcp.emulator.answers import Artist, Charge
from nanobanana_mcp.emulator.control import Behaviour, Control, Delay, Drop, Foreign, Hang, HttpError, Huge, Redirect
from nanobanana_mcp.emulator.delivery import Dropped
from nanobanana_mcp.emulator.files import Files
from nanobanana_mcp.emulator.models import Model
from nanobanana_mcp.emulator.wire import GoogleError

BATCH_PRICE = 0.5
"""The part of every price that a batch pays."""

LOOK_S = 0.01
"""A call that is held back looks this often, in seconds, whether it may go on."""


class Desk:
    """Answers requests that are parsed; `charges` is where it books what Google would bill."""

    def __init__(self, *, clock: Callable[[], float], control: Control, files: Files, charges: list[Charge]) -> None:
        self._clock = clock
        self._control = control
        self._files = files
        self._charges = charges
        self._artist = Artist(clock=clock, control=control)
        self._repeats: Counter[bytes] = Counter()

    def understand(self, parsed: dict[str, Any], *, model: Model, key: str) -> rules.Ask:
        """The request as something to draw. Takes CPU time for large pictures; call it in a thread."""
        return rules.understand(
            parsed,
            model=model,
            control=self._control,
            now=self._clock(),
            find_file=lambda file_id: self._files.get(file_id, key=key),
        )

    async def respond(
        self,
        parsed: dict[str, Any],
        *,
        model: Model,
        key: str,
        receive: Receive,
        form: Callable[[dict[str, Any]], Response],
    ) -> Response:
        """The answer over a connection, a GenerateContentResponse put into its `form`. Raises GoogleError and Dropped."""
        ask = await asyncio.to_thread(self.understand, parsed, model=model, key=key)
        behaviour = self._control.take()
        instead = await delivery.instead(behaviour, model=model, receive=receive)
        if instead is not None:
            return instead
        refused = delivery.refused(behaviour, ask, serial=self._repeats[ask.digest], named=self._control.named)
        if refused is not None:
            return form(refused)
        delay = self._control.latency_s + (behaviour.seconds if isinstance(behaviour, Delay) else 0)
        if delay:
            await asyncio.sleep(delay)
        while self._control.paused:
            await asyncio.sleep(LOOK_S)
        answer = await self._draw(ask, behaviour)
        if isinstance(behaviour, Huge):
            return delivery.flood(behaviour)
        response = form(answer)
        if isinstance(behaviour, Drop):
            whole = bytes(response.body)
            raise Dropped(whole[: len(whole) // 2] if behaviour.when == "mid_body" else None)
        return response

    async def respond_in_batch(self, parsed: dict[str, Any], *, model: Model, key: str) -> dict[str, Any]:
        """The GenerateContentResponse to one request of a batch, at the batch's price. Raises GoogleError.

        A batch has no connection to lose: behaviours of one are an internal error here, and delays mean nothing.
        """
        ask = await asyncio.to_thread(self.understand, parsed, model=model, key=key)
        behaviour = self._control.take()
        if isinstance(behaviour, HttpError):
            raise delivery.error(behaviour, model=model.id)
        if isinstance(behaviour, Foreign | Redirect | Drop | Hang | Huge):
            raise GoogleError(500, "Internal error encountered.", status="INTERNAL")
        refused = delivery.refused(behaviour, ask, serial=self._repeats[ask.digest], named=self._control.named)
        return refused if refused is not None else await self._draw(ask, behaviour, price=BATCH_PRICE)

    async def _draw(self, ask: rules.Ask, behaviour: Behaviour | None, *, price: float = 1.0) -> dict[str, Any]:
        serial = self._repeats[ask.digest]
        self._repeats[ask.digest] += 1
        answer = await asyncio.to_thread(self._artist.answer, ask, behaviour, serial=serial, price=price)
        self._charges.append(answer.charge)
        return answer.json

    def clear(self) -> None:
        """Forget what was drawn before."""
        self._artist.clear()
        self._repeats.clear()
