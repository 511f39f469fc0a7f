"""An answer that was paid for before, put together again from the library."""

from collections.abc import Iterator
from itertools import count

from nanobanana_mcp.domain.errors import ServiceError, UnknownOutcome
from nanobanana_mcp.domain.plan import Plan, load_plan
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.results import Created, Failure, KeptImage
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.jobs.mending import exact_again, found_again, put_together
from nanobanana_mcp.jobs.settle import Problem, nothing_made, other_id, undecodable
from nanobanana_mcp.library.journal import Call, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.storage.disk import Disk


def read_back(
    request_row: RequestRow, calls: tuple[Call, ...], library: Library, backend: Backend, disk: Disk | None = None
) -> Created:
    """The pictures of a request whose calls have all ended. Raises a StudioError when there is none.

    With `disk`, an edit of a region is finished that has its answer and not yet its picture.
    """
    plan = load_plan(request_row.plan)
    kept, problems = [], []
    for call in calls:
        record = library.get(call.image_id) if call.image_id is not None else None
        if record is not None and (record.width or _has_others(call, library)):
            kept.append((call, record))
        elif record is not None:
            problems.append(_undecodable(call, record))
        elif call.reason != "NOT_NEEDED":
            problems.append(_problem(call, request_row))
    notes: list[str] = []
    if plan.recipe is None:
        images = [image for call, record in kept for image in _plain(plan, call, record, library, backend, disk, notes)]
    else:
        images = _made(plan, kept, problems, library, disk)
    if not images:
        raise nothing_made(
            problems, sum(problem.failure.cost_usd or 0 for problem in problems), backend=request_row.backend
        )
    parents = [library.get(parent.image_id) for parent in plan.parents]
    costs = [call.cost_usd for call, _ in kept] + [problem.failure.cost_usd for problem in problems]
    return Created(
        request=plan.request,
        mode=plan.mode,
        choice=plan.choice,
        sent_aspect_ratio=plan.aspect_ratio,
        inputs=tuple(parent for parent in parents if parent is not None),
        images=tuple(images),
        failures=tuple(problem.failure for problem in problems),
        warnings=(
            *plan.warnings,
            *notes,
            f"This request was made before, at {request_row.created_at:%Y-%m-%d %H:%M:%S} UTC, and its answer may not have "
            "arrived: these are its pictures, and nothing was charged again.",
        ),
        cost_usd=None if None in costs else round(sum(c or 0 for c in costs), 6),
        request_id=request_row.id,
        parts=tuple(record for _, record in kept) if plan.recipe is not None else (),
    )


def _plain(
    plan: Plan,
    call: Call,
    record: ImageRecord,
    library: Library,
    backend: Backend,
    disk: Disk | None,
    notes: list[str],
) -> Iterator[KeptImage]:
    """A call's picture, and those that came in the same answer."""
    image = KeptImage(record=record, upload=library.newest_upload(record.id, backend), cost_usd=call.cost_usd)
    if plan.exact_of(record.mime_type) is not None and record.width:
        number = call.position + 1 if plan.request.n > 1 else None
        image, more = exact_again(plan, image, library, disk, number=number)
        notes += more
    if record.width:
        yield image
    else:
        notes.append(str(undecodable(record)))
    for number in count(2):
        other = library.get(other_id(call.id, number))
        if other is None:
            return
        cost = 0.0 if record.width or number > 2 else call.cost_usd
        yield KeptImage(record=other, upload=library.newest_upload(other.id, backend), cost_usd=cost)


def _made(
    plan: Plan,
    kept: list[tuple[Call, ImageRecord]],
    problems: list[Problem],
    library: Library,
    disk: Disk | None,
) -> list[KeptImage]:
    """The pictures that a recipe made of its answers. Raises ServiceError where it made nothing and they cannot be put together now."""
    found = [found_again(plan, record, library, cost_usd=call.cost_usd) for call, record in kept]
    images = [image for image in found if image is not None]
    if images or not kept:
        return images
    if disk is not None:
        for call, record in reversed(kept):
            image = put_together(plan, record, library, disk, cost_usd=call.cost_usd)
            if image is not None:
                return [image]
    answers = ", ".join(f"{record.id} at {record.path}" for _, record in kept)
    why = " ".join(dict.fromkeys(problem.failure.message for problem in problems))
    raise ServiceError(
        f"This request was made before, and its picture was not put together; nothing was charged again. The answers of "
        f"then are kept: {answers}. {why + ' ' if why else ''}Ask again with a new idempotency_key to begin "
        "anew."
    )


def _has_others(call: Call, library: Library) -> bool:
    return library.get(other_id(call.id, 2)) is not None


def _undecodable(call: Call, record: ImageRecord) -> Problem:
    error = undecodable(record)
    failure = Failure(index=call.position + 1, reason=error.reason, message=str(error), cost_usd=call.cost_usd)
    return Problem(failure=failure, error=error)


def _problem(call: Call, request_row: RequestRow) -> Problem:
    message = call.message or "The picture was not made."
    cost = call.estimate_usd if call.state == "unknown" else call.cost_usd
    failure = Failure(index=call.position + 1, reason=call.reason or "", message=message, cost_usd=cost)
    if call.state == "unknown":
        keyed = request_row.idempotency_key is not None and request_row.idempotency_key.startswith("key:")
        again = "Call again with a new idempotency_key" if keyed else "Call again"
        charged = f" It may have cost ${call.estimate_usd:.3f}. {again} to pay for a new attempt."
        text = f"{message} {again} for a new attempt." if request_row.backend == "emulator" else f"{message}{charged}"
        return Problem(failure=failure, error=UnknownOutcome(text))
    return Problem(failure=failure, error=ServiceError(message))
