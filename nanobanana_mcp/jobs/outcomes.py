"""Says in words and USD why a call made no picture."""

from dataclasses import dataclass

from nanobanana_mcp.domain.errors import NoPicture, Refused, ServiceError, StudioError, UnknownOutcome
from nanobanana_mcp.domain.plan import Plan
from nanobanana_mcp.domain.pricing import bill
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.results import Failure, KeptImage
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.domain.text import counted, size_of
from nanobanana_mcp.library.journal import Call, RequestRow


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A picture that did not come, and the error that says why."""

    failure: Failure
    error: StudioError


def problem_of(call: Call, error: StudioError, reason: str, cost_usd: float | None) -> Problem:
    failure = Failure(index=call.position + 1, reason=reason, message=str(error), cost_usd=cost_usd)
    return Problem(failure=failure, error=error)


def remembered_problem(call: Call, request_row: RequestRow) -> Problem:
    """The problem of an earlier request's call, read from the journal."""
    message = call.message or "The picture was not made."
    if call.state != "unknown":
        failure = Failure(index=call.position + 1, reason=call.reason or "", message=message, cost_usd=call.cost_usd)
        return Problem(failure=failure, error=ServiceError(message))
    keyed = request_row.idempotency_key is not None and request_row.idempotency_key.startswith("key:")
    again = "Call again with a new idempotency_key" if keyed else "Call again"
    if request_row.backend == "emulator":
        text = f"{message} {again} for a new attempt."
    else:
        text = f"{message} It may have cost ${call.estimate_usd:.3f}. {again} to pay for a new attempt."
    failure = Failure(index=call.position + 1, reason=call.reason or "", message=message, cost_usd=call.estimate_usd)
    return Problem(failure=failure, error=UnknownOutcome(text))


def undecodable(record: ImageRecord) -> Refused:
    """The failure of a call whose bytes are kept as delivered and are no picture."""
    return Refused(
        f"Gemini's picture cannot be decoded; its bytes ({size_of(record.bytes)}) are kept as delivered at "
        f"{record.path}. Try once more.",
        reason="UNDECODABLE",
    )


def price_of(refusal: NoPicture, plan: Plan, call: Call) -> float | None:
    """USD for an answer without a picture, None when the price is not known."""
    return bill(plan.choice, refusal.usage, estimate_usd=call.estimate_usd, drew=False).usd


def total(costs: list[float | None]) -> float | None:
    """The sum in USD, None as soon as one of them is not known."""
    known = [one for one in costs if one is not None]
    return round(sum(known), 6) if len(known) == len(costs) else None


def told_of_answers(answers: list[KeptImage]) -> str:
    """Says how many answers there are that no picture was made of, what they cost (USD) where that is known, and where
    they are; without a full stop.
    """
    usd = total([answer.cost_usd for answer in answers])
    count, kept = counted(len(answers), "answer"), ", ".join(str(answer.record.path) for answer in answers)
    was, are = ("was", "is") if len(answers) == 1 else ("were", "are")
    if any(answer.emulated or answer.record.backend == "emulator" for answer in answers):
        return f"{count} from the emulator {are} kept ({kept}); nothing was charged"
    price = f" (${usd:.3f})" if usd is not None else ""
    return f"{count} {was} paid for{price} and {are} kept ({kept})"


def nothing_made(problems: list[Problem], spent: float, *, backend: Backend) -> StudioError:
    """The error of a request without any picture; it says what was paid where money was charged."""
    if backend == "emulator":
        spent = 0.0
    if len(problems) == 1:
        return _with_its_price(problems[0]) if spent else problems[0].error
    messages = list(dict.fromkeys(problem.failure.message for problem in problems))
    charged = f" Up to ${spent:.3f} may have been charged." if spent >= 0.0005 else ""
    return ServiceError(f"None of the {len(problems)} pictures was made. {' / '.join(messages)}{charged}")


def _with_its_price(problem: Problem) -> StudioError:
    """The same error with a sentence about what was paid."""
    paid = problem.failure.cost_usd or 0.0
    if isinstance(problem.error, NoPicture) and problem.error.emulated:
        return problem.error
    if paid >= 0.00005 and isinstance(problem.error, Refused):
        return Refused(f"{problem.error} It cost ${paid:.4f}.", reason=problem.error.reason)
    return problem.error
