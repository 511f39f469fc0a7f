"""One request under way: what its calls share, and how a recipe makes its own calls."""

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
    """A progress callback that tells nobody."""


@dataclass(kw_only=True)
class Run:
    """One request under way; its n calls share it."""

    plan: Plan
    request_row: RequestRow
    sources: list[Source]
    request: ModelRequest
    fresh: ModelRequest | None
    """The same request without its conversation, sent when Gemini does not accept the history."""
    continues: str | None
    """The picture whose conversation goes on; None once the request had to begin a new one."""
    progress: Progress
    total: int
    done: int = 0
    spent_usd: dict[str, float] = field(default_factory=dict)
    """USD by call id: the price of an attempt that Gemini answered without drawing, before the call was made again."""
    warnings: list[str] = field(default_factory=list)
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The inputs, as the parents of every picture that is made."""
        roles = (one.role for one in self.plan.inputs)
        return tuple(
            Parent(image_id=source.record.id, role=role) for source, role in zip(self.sources, roles, strict=True)
        )

    @property
    def name(self) -> str:
        return f"{self.plan.choice.spec.tier} ({self.plan.choice.spec.nickname})"

    async def heartbeat(self) -> None:
        """Report progress every few seconds: a client that hears nothing for minutes may give up."""
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
    """Makes one picture out of one or several answers of the model."""

    async def make(self, model_calls: "ModelCalls") -> list[KeptImage]:
        """Make the calls that are needed and put their answers together. Raises a StudioError when there is no picture."""
        ...


class CallMaker(Protocol):
    """Makes the calls of a run; a recipe sees the runner as this."""

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
        """Make one more call. Its answer is kept on disk before this returns, and is returned with its bytes. Raises
        whatever went wrong.
        """
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
        """Release the reserved calls that were not needed, so that they cost nothing."""
        for call in self._calls:
            await self._maker.give_back(call)
        self._calls.clear()
