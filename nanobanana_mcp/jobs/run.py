"""One request under way: what its calls share, and what a recipe that makes a picture of several answers has of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from nanobanana_mcp.domain.errors import ServiceError, StudioError
from nanobanana_mcp.domain.plan import Plan
from nanobanana_mcp.domain.records import Parent
from nanobanana_mcp.domain.results import KeptImage
from nanobanana_mcp.domain.wire import ModelRequest
from nanobanana_mcp.jobs.inputs import Source
from nanobanana_mcp.jobs.origins import PaidCall
from nanobanana_mcp.jobs.outcomes import Problem
from nanobanana_mcp.jobs.store import PictureStore
from nanobanana_mcp.library.journal import Call, RequestRow

Progress = Callable[[float, float, str], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]

HEARTBEAT_S = 5.0


async def silent(_done: float, _total: float, _words: str) -> None:
    """Progress that nobody hears."""


@dataclass(kw_only=True)
class Run:
    """One request under way: what its n calls share."""

    plan: Plan
    request_row: RequestRow
    sources: list[Source]
    request: ModelRequest
    fresh: ModelRequest | None
    """The same wish without its conversation, for when Gemini does not take the history."""
    continues: str | None
    """The picture whose conversation goes on; None from when it had to begin afresh."""
    progress: Progress
    total: int
    done: int = 0
    spent_usd: dict[str, float] = field(default_factory=dict)
    """By call, what an attempt cost that Gemini answered without drawing, before it was made afresh."""
    warnings: list[str] = field(default_factory=list)
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The inputs as they have their rows."""
        roles = (one.role for one in self.plan.inputs)
        return tuple(
            Parent(image_id=source.record.id, role=role) for source, role in zip(self.sources, roles, strict=True)
        )

    @property
    def name(self) -> str:
        return f"{self.plan.choice.spec.tier} ({self.plan.choice.spec.nickname})"

    async def heartbeat(self) -> None:
        """Say that it goes on: a client that hears nothing for minutes may give up."""
        waited = 0.0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            waited += HEARTBEAT_S
            await self.progress(self.done, self.total, f"Waiting for {self.name}: {waited:.0f} s")

    def paid(self, call: Call) -> PaidCall:
        return PaidCall(
            plan=self.plan,
            request_row=self.request_row,
            call=call,
            parents=self.parents,
            continues=self.continues,
            spent_usd=self.spent_usd.get(call.id, 0.0),
        )


class Recipe(Protocol):
    """Makes a picture out of one or several answers of the model."""

    async def make(self, model_calls: "ModelCalls") -> list[KeptImage]:
        """Paint what is needed and put it together. Raises a StudioError when there is no picture."""
        ...


class CallMaker(Protocol):
    """Makes the calls of a run: the runner, as a recipe sees it."""

    store: PictureStore

    async def make_one(self, run: Run, call: Call, request: ModelRequest | None = None) -> KeptImage | Problem: ...

    async def report_bug(self, run: Run, call: Call, error: Exception) -> Problem: ...

    async def give_back(self, call: Call) -> None: ...


class ModelCalls:
    """Gives a recipe the calls that were reserved for it, one answer each."""

    def __init__(self, maker: CallMaker, run: Run, calls: tuple[Call, ...]) -> None:
        self.run = run
        self.store = maker.store
        self._maker = maker
        self._calls = list(calls)
        self.answered: list[KeptImage] = []
        self.problems: list[Problem] = []

    @property
    def calls_left(self) -> int:
        return len(self._calls)

    async def ask(self, request: ModelRequest) -> KeptImage:
        """Ask the model once more; its answer is kept before this returns, with its bytes. Raises what went wrong."""
        if self.run.stop.is_set():
            raise ServiceError("The request was cancelled, so nothing more was asked for.")
        call = self._calls.pop(0)
        (made,) = await asyncio.gather(self._maker.make_one(self.run, call, request), return_exceptions=True)
        if isinstance(made, Exception) and not isinstance(made, StudioError):
            made = await self._maker.report_bug(self.run, call, made)
        if isinstance(made, BaseException):
            raise made
        if isinstance(made, Problem):
            self.problems.append(made)
            raise made.error
        self.answered.append(replace(made, data=b""))
        return made

    async def give_back(self) -> None:
        """Calls that were not needed are not paid for."""
        for call in self._calls:
            await self._maker.give_back(call)
        self._calls.clear()
