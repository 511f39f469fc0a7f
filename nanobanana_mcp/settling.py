"""From a raw answer to its outcome: a kept picture, or why there is none; and what is told of either."""

from dataclasses import dataclass

from nanobanana_mcp.domain import Failure, ImageRecord, KeptImage
from nanobanana_mcp.errors import ServiceError, StudioError
from nanobanana_mcp.gemini.reply import NoPicture, Unreadable, read_reply
from nanobanana_mcp.keeping import PrepareUpload, exact_file, keep
from nanobanana_mcp.library.journal import Call, Journal, Order
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.plan import Plan
from nanobanana_mcp.pricing import cost
from nanobanana_mcp.shapes import differences
from nanobanana_mcp.storage.paths import Places
from nanobanana_mcp.storage.state import drop_spool


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A picture that did not come, and the error that says why."""

    failure: Failure
    error: StudioError


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A raw answer that became a picture, with the picture's bytes."""

    image: KeptImage
    record: ImageRecord
    data: bytes
    warnings: tuple[str, ...]


def settle(
    raw: bytes,
    *,
    plan: Plan,
    order: Order,
    call: Call,
    places: Places,
    journal: Journal,
    again: bool = False,
    prepare_upload: PrepareUpload | None = None,
) -> Settled:
    """Read a raw answer that is in the spool and keep its picture; the journal has the outcome when this returns.

    Raises NoPicture with Gemini's reason, or Unreadable, whose raw answer stays in the spool.
    """
    try:
        reply = read_reply(raw)
    except NoPicture as error:
        price = cost(plan.choice.spec, error.usage)
        journal.failed(call.id, reason=error.reason, message=str(error), cost_usd=price)
        drop_spool(call.id, places)
        raise
    except Unreadable as error:
        journal.unknown(call.id, message=str(error))
        raise
    kept = keep(
        reply,
        plan=plan,
        order=order,
        call=call,
        places=places,
        journal=journal,
        again=again,
        prepare_upload=prepare_upload,
    )
    image = KeptImage(
        record=kept.record, upload=kept.upload, cost_usd=kept.cost_usd, text=reply.text, sources=reply.sources
    )
    warnings = list(kept.warnings)
    answered = (reply.model_version or "").removeprefix("models/")
    if answered and not answered.startswith(plan.choice.spec.id):
        warnings.append(f"{plan.choice.spec.id} was asked and {answered[:80]!r} answered.")
    if plan.request.exact is not None and plan.recipe is None and kept.record.width:
        image, notes = exact_file(
            image,
            reply.image,
            plan.request.exact,
            plan.target,
            places,
            Library(journal.database),
            number=call.position + 1 if plan.request.n > 1 else None,
        )
        warnings += notes
    return Settled(image=image, record=kept.record, data=reply.image, warnings=tuple(warnings))


def shortfalls(record: ImageRecord, plan: Plan, base: ImageRecord | None) -> list[str]:
    """Where the picture is not what was asked for; `base` is the picture that an edit started from."""
    if not record.width:
        return []
    source = (base.width, base.height) if base is not None and base.width else None
    return differences(record.width, record.height, size=plan.choice.image_size, ratio=plan.aspect_ratio, source=source)


def nothing_made(problems: list[Problem], spent: float) -> StudioError:
    if len(problems) == 1:
        return problems[0].error
    messages = list(dict.fromkeys(problem.failure.message for problem in problems))
    charged = f" Up to ${spent:.3f} may have been charged." if spent >= 0.0005 else ""
    return ServiceError(f"None of {len(problems)} pictures was made. {' / '.join(messages)}{charged}")
