"""The answers of tools that make pictures, as text and as structure: each has all the facts."""

from collections.abc import Mapping
from typing import Any

from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.requests import Choice
from nanobanana_mcp.domain.results import Created, KeptImage, Measure, Quote
from nanobanana_mcp.domain.selector import USUAL
from nanobanana_mcp.domain.text import counted, size_of


def created_text(created: Created) -> str:
    """Say in a few lines which pictures were made and where they are."""
    lines = [f"{_headline(created)} ({created.choice.spec.id}){_why(created.choice)}."]
    for number, image in enumerate(created.images, 1):
        lines += _image_lines(number, image, how=_how(created))
    lines += [f"Picture {failure.index} failed ({failure.reason}): {failure.message}" for failure in created.failures]
    lines += [*_parts_lines(created), cost_line(created)]
    lines += [f"Note: {warning}" for warning in created.warnings]
    return "\n".join(lines)


def _summary(created: Created) -> str:
    """The sentences of the text that no other field of the structure says."""
    lines = [f"{_headline(created)}."]
    for number, image in enumerate(created.images, 1):
        told = _image_lines(number, image, how=_how(created))[1:]
        lines += [f"{number}. {image.record.id}", *told] if told else []
    return "\n".join([*lines, *_parts_lines(created), cost_line(created, where=False)])


def _headline(created: Created) -> str:
    made, asked = len(created.images), created.request.n
    count = f"{made} of {asked} pictures" if made < asked else counted(made, "picture")
    return f"{'Edited' if created.mode == 'edit' else 'Made'} {count} with {created.choice.spec.nickname}"


def _how(created: Created) -> str:
    return "put together" if created.parts else "as delivered"


def _parts_lines(created: Created) -> list[str]:
    if not created.parts:
        return []
    ids = ", ".join(part.id for part in created.parts)
    answers = f"answer {ids}, which is" if len(created.parts) == 1 else f"answers {ids}, which are"
    return [f"Put together from the model's {answers} kept."]


def _image_lines(number: int, image: KeptImage, *, how: str = "put together") -> list[str]:
    record = image.record
    lines = [
        f"{number}. {record.id} {record.path} ({record.width}x{record.height}, {record.mime_type}, {size_of(record.bytes)})"
    ]
    if image.master is not None:
        master = image.master
        lines.append(f"   Made from {master.id} {master.path} ({master.width}x{master.height}, {how})")
    told = join_words(dict(image.report))
    lines += [f"   {told}"] if told else []
    if image.text:
        lines.append(f'   The model wrote: "{image.text}"')
    if image.sources:
        lines.append(f"   Searched: {', '.join(image.sources[:5])}")
    return lines


def join_words(report: Mapping[str, Measure]) -> str:
    """Says how a region was joined; empty for other pictures."""
    if "changed_share" not in report:
        return ""
    parts = []
    if report.get("drift") == "not known":
        parts.append("there is too little around the region to tell whether the model moved or recoloured it")
    else:
        shift = max(abs(_number(report["drift_shift_x_px"])), abs(_number(report["drift_shift_y_px"])))
        zoom = abs(_number(report["drift_scale"]) - 1)
        moved = [f"by {shift:.0f} px"] if shift >= 1 else []
        moved += [f"by {zoom:.1%} in size"] if zoom >= 0.001 else []
        within = f"to within {_number(report['drift_left_px']):g} px" if "drift_left_px" in report else ""
        if moved:
            parts.append(f"the model had moved it {' and '.join(moved)}, which is taken back{within and f' {within}'}")
        else:
            parts.append(f"it lies where it was{within and f', {within}'}")
    parts.append("the join is invisible" if report["verdict"] == "good" else "the join shows")
    share = _number(report["changed_share"])
    parts.append(f"{f'{share:.0%}' if share >= 0.01 else 'less than 1%'} of the region changed")
    if "left_share" in report:
        parts.append(f"{_number(report['left_share']):.0%} of it stays the source's, bit for bit")
    told = "; ".join(parts)
    return f"{told[:1].upper()}{told[1:]}."


def _number(value: Measure) -> float:
    assert isinstance(value, int | float)
    return value


def rejoined_text(made: KeptImage) -> str:
    """The answer to a region edit that was joined again from what is kept."""
    lines = [
        "Joined again from the answer that is kept; nothing was sent, and nothing charged.",
        *_image_lines(1, made),
    ]
    return "\n".join([*lines, *(f"Note: {note}" for note in made.notes)])


def rejoined_structure(made: KeptImage) -> dict[str, Any]:
    return {
        "images": [image_structure(made)],
        "file_paths": [made.record.path],
        "cost_usd": 0.0,
        "warnings": list(made.notes),
    }


def _why(choice: Choice) -> str:
    """Says why this model was chosen, where that is news: it was not asked for and is not the usual one."""
    return f"; chosen: {choice.reason}" if choice.auto and choice.reason != USUAL else ""


def cost_line(created: Created, *, where: bool = True) -> str:
    """Says what it cost; of an emulated picture also that it is one, and with `where` that it came from another
    address.
    """
    if created.cost_usd is None:
        return "Cost: not known for this model."
    if _is_emulated(created):
        elsewhere = where and created.images[0].record.backend != "emulator"
        served = " at GEMINI_BASE_URL" if elsewhere else ""
        return (
            f"Emulated{served}: not a real picture, and nothing is charged (Gemini would charge "
            f"${created.cost_usd:.4f})."
        )
    return f"Cost: ${created.cost_usd:.4f}."


def _is_emulated(created: Created) -> bool:
    return any(image.emulated or image.record.backend == "emulator" for image in created.images)


def created_structure(created: Created) -> dict[str, Any]:
    """The facts of an answer: what was asked for, what was sent (image_size, aspect_ratio_sent), what came (images)."""
    request, choice = created.request, created.choice
    images = [image_structure(image) for image in created.images]
    paths = [record.path for record in created.inputs if record.path is not None]
    return {
        "summary": _summary(created),
        "mode": created.mode,
        "backend": created.images[0].record.backend,
        "emulated": _is_emulated(created),
        "model_tier": choice.spec.tier,
        "model_name": choice.spec.nickname,
        "model_id": choice.spec.id,
        "requested_tier": request.model_tier,
        "auto_selected": choice.auto,
        "selection_reason": choice.reason,
        "thinking_level": choice.thinking_level,
        "resolution": request.resolution,
        "image_size": choice.image_size,
        "grounding_enabled": choice.grounding,
        "requested": request.n,
        "returned": len(images),
        "negative_prompt_applied": request.negative_prompt is not None,
        "used_input_images": bool(created.inputs),
        "input_image_paths": paths,
        "input_image_count": len(created.inputs),
        "aspect_ratio": request.aspect_ratio,
        "aspect_ratio_sent": created.sent_aspect_ratio,
        "source_file_id": request.file_id,
        ("edit_instruction" if created.mode == "edit" else "generation_prompt"): request.prompt,
        "images": images,
        "file_paths": [image["path"] for image in images],
        "files_api_ids": [image["files_api"]["name"] for image in images if image["files_api"]],
        "parent_relationships": [
            {"image": image.record.id, "parents": [f"{p.image_id} ({p.role})" for p in image.record.parents]}
            for image in created.images
            if image.record.parents
        ],
        "total_size_mb": megabytes(sum(image.record.bytes for image in created.images)),
        "cost_usd": created.cost_usd,
        **({"parts": [{"id": part.id, "path": part.path} for part in created.parts]} if created.parts else {}),
        "warnings": list(created.warnings),
        "failures": [
            {"index": f.index, "reason": f.reason, "message": f.message, "cost_usd": f.cost_usd}
            for f in created.failures
        ],
    }


def quote_text(quote: Quote) -> str:
    """Says what a request would make and cost."""
    plan, choice = quote.plan, quote.plan.choice
    spec, n = choice.spec, quote.plan.request.n
    each = plan.estimate_usd
    calls = (
        "1 call" if quote.plan.calls == 1 else f"{'up to ' if quote.plan.calls != n else ''}{quote.plan.calls} calls"
    )
    most = "at most " if quote.plan.calls != n else "about "
    emulated = quote.backend == "emulator"
    price = (
        "nothing, since it would be emulated"
        if emulated
        else f"{most}${each * quote.plan.calls:.3f} (${each:.3f} a call)"
        if each is not None
        else f"an unknown amount (up to ${quote.reserved_usd:.2f} would be reserved)"
    )
    shape = f"{choice.image_size}, aspect ratio {plan.aspect_ratio or ('of the source' if quote.inputs else 'auto')}"
    lines = [
        f"Dry run: nothing was sent. It would {plan.mode} {counted(n, 'picture')} with {spec.nickname} "
        f"({spec.id}) at {shape}, in {calls}, for {price}.",
        f"{f'Chosen: {choice.reason}. ' if _why(choice) else ''}Grounding {'on' if choice.grounding else 'off'}, {counted(len(quote.inputs), 'input image')}.",
    ]
    if not emulated:
        spent = quote.spending
        lines.append(f"Spent today: ${spent.day_usd:.3f}; in the last hour: ${spent.hour_usd:.3f}.")
    elif each is not None:
        lines.append(f"Gemini would charge {most}${each * quote.plan.calls:.3f} (${each:.3f} a call).")
    lines += [quote.refusal] if quote.refusal else []
    return "\n".join([*lines, *(f"Note: {warning}" for warning in plan.warnings)])


def quote_structure(quote: Quote) -> dict[str, Any]:
    plan, choice = quote.plan, quote.plan.choice
    each = plan.estimate_usd
    return {
        "dry_run": True,
        "backend": quote.backend,
        "mode": plan.mode,
        "model_tier": choice.spec.tier,
        "model_name": choice.spec.nickname,
        "model_id": choice.spec.id,
        "selection_reason": choice.reason,
        "image_size": choice.image_size,
        "aspect_ratio_sent": plan.aspect_ratio,
        "grounding_enabled": choice.grounding,
        "requested": plan.request.n,
        "input_image_count": len(quote.inputs),
        "estimated_usd_each": each,
        "calls_at_most": quote.plan.calls,
        "estimated_usd": round(each * quote.plan.calls, 6) if each is not None else None,
        "spent_today_usd": quote.spending.day_usd,
        "spent_last_hour_usd": quote.spending.hour_usd,
        "would_be_refused": quote.refusal,
        "warnings": list(plan.warnings),
    }


def image_structure(image: KeptImage) -> dict[str, Any]:
    record, upload = image.record, image.upload
    return record_structure(record) | {
        "cost_usd": image.cost_usd,
        "files_api": None
        if upload is None
        else {
            "name": upload.name,
            "uri": upload.uri,
            "state": upload.state,
            "expires_at": upload.expires_at.isoformat() if upload.expires_at else None,
        },
        **({"master": image.master.id, "master_path": image.master.path} if image.master else {}),
        **({"report": dict(image.report)} if image.report else {}),
        **({"text": image.text} if image.text else {}),
        **({"sources": list(image.sources)} if image.sources else {}),
    }


def record_structure(record: ImageRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "path": record.path,
        "thumbnail_path": record.thumbnail_path,
        "mime_type": record.mime_type,
        "width": record.width,
        "height": record.height,
        "bytes": record.bytes,
        "sha256": record.sha256,
        "parents": [parent.image_id for parent in record.parents],
    }


def megabytes(count: int) -> float:
    return round(count / 1e6, 2)
