"""Answers a request that was made before: waits for it, finishes it or reads its answer back, and never pays twice."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from nanobanana_mcp.domain.errors import ServiceError, SetupError, StudioError
from nanobanana_mcp.domain.results import Created
from nanobanana_mcp.jobs.active import ActiveRequests
from nanobanana_mcp.jobs.outcomes import nothing_made, total
from nanobanana_mcp.jobs.recovery import Finished, Recovery
from nanobanana_mcp.jobs.run import Progress, Sleep
from nanobanana_mcp.library.journal import UNSETTLED, Call, Journal, RequestRow, Reservation
from nanobanana_mcp.storage.processes import ProcessLock

SAME_REQUEST = (
    "The same request was already under way: these are its pictures, and nothing was charged again. For more "
    "pictures ask for n of them, or give another idempotency_key."
)

POLL_S = 0.25
LONGEST_S = 600.0
"""Seconds that a repeat waits for the process that made the request first: longer than any picture takes."""


class Repeats:
    """`process_lock` makes this process's lock file, by which others see that it is alive."""

    def __init__(
        self,
        journal: Journal,
        recovery: Recovery,
        active: ActiveRequests,
        process_lock: Callable[[], ProcessLock],
        sleep: Sleep,
    ) -> None:
        self._journal = journal
        self._recovery = recovery
        self._active = active
        self._process_lock = process_lock
        self._sleep = sleep

    async def answer(self, asking: str, reservation: Reservation, progress: Progress) -> Created:
        """The answer to the request `asking`, taken from the earlier one that it repeats.

        Raises the StudioError that the earlier request ended in, with its request_id.
        """
        earlier = reservation.request_row
        await progress(0, len(reservation.calls), "This request was made before; waiting for its pictures")
        if earlier.id in self._active:
            created = await self._active.join(asking, earlier.id)
            return replace(created, warnings=(*created.warnings, SAME_REQUEST))
        await self._ended(earlier.id)
        try:
            return _created(await asyncio.to_thread(self._recovery.finish, earlier.id))
        except StudioError as error:
            error.request_id = earlier.id  # tell this caller how the earlier request failed
            raise

    async def _ended(self, request_id: str) -> None:
        """Wait until every call of a request has ended. Raises SetupError when one cannot be finished now, ServiceError
        when another process is still working on it.
        """
        waited = 0.0
        while True:
            request_row, calls = await asyncio.to_thread(self._journal.request, request_id)
            if not _is_unsettled(calls):
                return
            if await self._is_abandoned(request_row):
                outcomes = await asyncio.to_thread(self._recovery.recover)
                _, calls = await asyncio.to_thread(self._journal.request, request_id)
                if not _is_unsettled(calls):
                    return
                ids = {call.id for call in calls}
                told = " ".join(one.outcome for one in outcomes if one.call_id in ids)
                why = told or "its answer cannot be read now."
                raise SetupError(f"This request was made before and {why} Call again later; nothing is charged.")
            if waited > LONGEST_S:
                raise ServiceError(
                    "Another window made this request before and is still waiting for Gemini. Call again later; "
                    "nothing was charged for this call."
                )
            await self._sleep(POLL_S)
            waited += POLL_S

    async def _is_abandoned(self, request_row: RequestRow) -> bool:
        lock = self._process_lock()
        return request_row.process == lock.name or not await asyncio.to_thread(lock.is_alive, request_row.process)


def _is_unsettled(calls: tuple[Call, ...]) -> bool:
    return any(call.state in UNSETTLED for call in calls)


def _created(finished: Finished) -> Created:
    """The answer to a request that was finished earlier. Raises a StudioError when there is no picture."""
    plan, request_row, problems = finished.plan, finished.request_row, finished.problems
    if not finished.images and finished.parts:
        answers = ", ".join(f"{part.record.id} at {part.record.path}" for part in finished.parts)
        why = " ".join(dict.fromkeys(problem.failure.message for problem in problems))
        raise ServiceError(
            "This request was made before, but its picture was not put together; nothing was charged again. Its "
            f"answers are kept: {answers}. {why + ' ' if why else ''}Ask again with a new idempotency_key to start "
            "over."
        )
    if not finished.images:
        spent = sum(problem.failure.cost_usd or 0 for problem in problems)
        raise nothing_made(problems, spent, backend=request_row.backend)
    paid = finished.images if plan.recipe is None else finished.parts
    return Created(
        request=plan.request,
        mode=plan.mode,
        choice=plan.choice,
        sent_aspect_ratio=plan.aspect_ratio,
        inputs=finished.inputs,
        images=tuple(finished.images),
        failures=tuple(problem.failure for problem in problems),
        warnings=(
            *plan.warnings,
            *finished.notes,
            f"This request was made before, at {request_row.created_at:%Y-%m-%d %H:%M:%S} UTC, and its answer may not have "
            "arrived: these are its pictures, and nothing was charged again.",
        ),
        cost_usd=total([image.cost_usd for image in paid] + [problem.failure.cost_usd for problem in problems]),
        request_id=request_row.id,
        parts=tuple(part.record for part in finished.parts),
    )
