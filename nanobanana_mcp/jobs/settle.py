"""Turns one raw Gemini answer into a kept picture, or into the reason why there is none."""

from concurrent.futures import Executor
from dataclasses import dataclass

from nanobanana_mcp.domain.errors import NotAnImage, Refused, ServiceError, StudioError
from nanobanana_mcp.domain.ids import child_id
from nanobanana_mcp.domain.plan import Plan, Target
from nanobanana_mcp.domain.pricing import bill
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.results import Failure, KeptImage
from nanobanana_mcp.domain.shapes import differences
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.domain.text import size_of
from nanobanana_mcp.domain.wire import ModelReply
from nanobanana_mcp.gemini.response import NoPicture, Unreadable, read_reply
from nanobanana_mcp.jobs.store import PrepareUpload, Shared, exact_file, keep, keep_made, rescued
from nanobanana_mcp.library.journal import Call, Journal, RequestRow
from nanobanana_mcp.library.pictures import Library
from nanobanana_mcp.pixels.outputs.thumbnails import examine
from nanobanana_mcp.storage.disk import Disk


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
    others: tuple[KeptImage, ...] = ()
    """Further pictures of the same answer; what they cost is in the first one's price."""


class Reading:
    """A raw answer while it is read and its picture is examined: in other threads, since decoding and the disk wait for
    each other in vain.
    """

    def __init__(self, raw: bytes, threads: Executor) -> None:
        self.reply = threads.submit(read_reply, raw)
        self.examined = threads.submit(lambda: examine(self.reply.result().image, made=True))


def settle(
    reading: Reading,
    *,
    plan: Plan,
    request_row: RequestRow,
    call: Call,
    disk: Disk,
    journal: Journal,
    again: bool = False,
    spent_usd: float = 0.0,
    prepare_upload: PrepareUpload | None = None,
) -> Settled:
    """Keep the picture of a raw answer that is in the spool; the journal has the outcome when this returns.

    `spent_usd` is what the call cost before this answer. Raises NoPicture with Gemini's reason, or Unreadable, whose raw answer stays in the spool.
    """
    try:
        reply = reading.reply.result()
    except NoPicture as error:
        price = _with(spent_usd, price_of(error, plan, call))
        journal.failed(call.id, reason=error.reason, message=str(error), cost_usd=price)
        disk.spool.drop(call.id)
        raise
    except Unreadable as error:
        journal.unknown(call.id, message=str(error))
        raise
    library = Library(journal.database)
    others, warnings = _keep_others(reply, plan, request_row, call, disk, library)
    kept = keep(
        reply,
        reading.examined,
        plan=plan,
        request_row=request_row,
        call=call,
        disk=disk,
        journal=journal,
        again=again,
        spent_usd=spent_usd,
        prepare_upload=prepare_upload,
    )
    image = KeptImage(
        record=kept.record,
        upload=kept.upload,
        cost_usd=kept.cost_usd,
        text=reply.text,
        sources=reply.sources,
        emulated=reply.emulated,
    )
    warnings += kept.warnings
    if reply.thought:
        warnings.append("Gemini marked its only picture as a draft of its thinking; it is kept as the result.")
    answered = (reply.model_version or "").removeprefix("models/")
    if answered and not answered.startswith(plan.choice.spec.id):
        warnings.append(f"{plan.choice.spec.id} was asked and {answered[:80]!r} answered.")
    exact = plan.exact_of(kept.record.mime_type) if plan.recipe is None and kept.record.width else None
    if exact is not None:
        image, notes = exact_file(
            image,
            reply.image,
            exact,
            plan.target,
            disk,
            library,
            number=call.position + 1 if plan.request.n > 1 else None,
        )
        warnings += notes
    return Settled(image=image, record=kept.record, data=reply.image, warnings=tuple(warnings), others=others)


def undecodable(record: ImageRecord) -> Refused:
    """The failure of a call whose bytes are kept as delivered and are no picture."""
    return Refused(
        f"What Gemini delivered does not decode as a picture; its {size_of(record.bytes)} are kept as delivered at "
        f"{record.path}. Try once more.",
        reason="UNDECODABLE",
    )


def price_of(refusal: NoPicture, plan: Plan, call: Call) -> float | None:
    """USD for an answer without a picture, None when the price is not known."""
    return bill(plan.choice, refusal.usage, estimate_usd=call.estimate_usd, drew=False).usd


def _with(spent_usd: float, usd: float | None) -> float | None:
    return usd if usd is None else round(spent_usd + usd, 9)


def other_id(call_id: str, number: int) -> str:
    """The id of a further picture of one answer, which are counted from 2."""
    return child_id(f"img_{call_id}", f"picture {number}")


def _keep_others(
    reply: ModelReply, plan: Plan, request_row: RequestRow, call: Call, disk: Disk, library: Library
) -> tuple[tuple[KeptImage, ...], list[str]]:
    """Keep what Gemini drew beside the picture that stands for the answer: it is paid for, too."""
    shared = Shared(
        call_id=call.id,
        created_at=call.reserved_at,
        mode=plan.mode,
        tier=plan.choice.spec.tier,
        model_id=plan.choice.spec.id,
        backend=request_row.backend,
    )
    target = Target(folder=plan.target.folder if plan.recipe is None else disk.places.parts)
    kept, warnings = [], []
    for number, data in enumerate(reply.others, 2):
        image_id = other_id(call.id, number)
        try:
            record, notes = keep_made(
                data,
                image_id=image_id,
                origin=plan.origin,
                prompt=plan.request.prompt,
                like=shared,
                parents=plan.parents,
                target=target,
                disk=disk,
                library=library,
            )
        except (NotAnImage, OSError) as error:
            path = rescued(data, image_id, plan.request.prompt, target.folder, disk, since=call.reserved_at)
            where = f"Its bytes are at {path}." if path is not None else "No disk takes it."
            why = str(error).rstrip(".") if isinstance(error, NotAnImage) else error.strerror
            warnings.append(f"Picture {number} of Gemini's answer is not in the library: {why}. {where}")
            continue
        kept.append(KeptImage(record=record, upload=None, cost_usd=0.0))
        warnings += notes
    if kept:
        names = ", ".join(image.record.id for image in kept)
        warnings.append(
            f"Gemini drew {len(kept) + 1} pictures in one answer, for the price that is told; also kept: {names}."
        )
    return tuple(kept), warnings


def shortfalls(record: ImageRecord, plan: Plan, base: ImageRecord | None) -> list[str]:
    """Where the picture is not what was asked for; `base` is the picture that an edit started from."""
    if not record.width:
        return []
    source = (base.width, base.height) if base is not None and base.width else None
    return differences(record.width, record.height, size=plan.choice.image_size, ratio=plan.aspect_ratio, source=source)


def nothing_made(problems: list[Problem], spent: float, *, backend: Backend) -> StudioError:
    """The error of a request without a picture; what it cost is told where money is charged."""
    if backend == "emulator":
        spent = 0.0
    if len(problems) == 1:
        return _with_its_price(problems[0]) if spent else problems[0].error
    messages = list(dict.fromkeys(problem.failure.message for problem in problems))
    charged = f" Up to ${spent:.3f} may have been charged." if spent >= 0.0005 else ""
    return ServiceError(f"None of {len(problems)} pictures was made. {' / '.join(messages)}{charged}")


def _with_its_price(problem: Problem) -> StudioError:
    """The error itself, which says what was paid for no picture."""
    paid = problem.failure.cost_usd or 0.0
    if isinstance(problem.error, NoPicture) and problem.error.emulated:
        return problem.error
    if paid >= 0.00005 and isinstance(problem.error, Refused):
        return Refused(f"{problem.error} It cost ${paid:.4f}.", reason=problem.error.reason)
    return problem.error
