"""An answer that was paid for before, put together again from the library."""

from nanobanana_mcp.domain import Backend, Created, Failure, KeptImage
from nanobanana_mcp.errors import ServiceError, UnknownOutcome
from nanobanana_mcp.library.journal import Call, Order
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.plan import load_plan
from nanobanana_mcp.settling import Problem, nothing_made


def read_back(order: Order, calls: tuple[Call, ...], library: Library, backend: Backend) -> Created:
    """The pictures of an order whose calls have all ended. Raises a StudioError when there is none."""
    plan = load_plan(order.plan)
    images, problems = [], []
    for call in calls:
        record = library.get(call.image_id) if call.image_id is not None else None
        if record is None:
            problems.append(_problem(call, order))
        else:
            upload = library.newest_upload(record.id, backend)
            images.append(KeptImage(record=record, upload=upload, cost_usd=call.cost_usd))
    if not images:
        raise nothing_made(problems, sum(problem.failure.cost_usd or 0 for problem in problems))
    parents = [library.get(parent.image_id) for parent in plan.parents]
    costs = [image.cost_usd for image in images] + [problem.failure.cost_usd for problem in problems]
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
            f"This request was made before, at {order.created_at:%Y-%m-%d %H:%M:%S} UTC, and its answer may not have "
            "arrived: these are its pictures, and nothing was charged again.",
        ),
        cost_usd=None if None in costs else round(sum(c or 0 for c in costs), 6),
        request_id=order.id,
    )


def _problem(call: Call, order: Order) -> Problem:
    message = call.message or "The picture was not made."
    cost = call.estimate_usd if call.state == "unknown" else call.cost_usd
    failure = Failure(index=call.position + 1, reason=call.reason or "", message=message, cost_usd=cost)
    if call.state == "unknown":
        keyed = order.idempotency_key is not None and order.idempotency_key.startswith("key:")
        again = "Call again with a new idempotency_key" if keyed else "Call again"
        text = f"{message} It may have cost ${call.estimate_usd:.3f}. {again} to pay for a new attempt."
        return Problem(failure=failure, error=UnknownOutcome(text))
    return Problem(failure=failure, error=ServiceError(message))
