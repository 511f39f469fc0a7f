"""Words the answers of find_images and view_image: the same facts as text and as structure."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nanobanana_mcp.domain.finding import Found, FoundPage
from nanobanana_mcp.domain.text import counted, printable, size_of
from nanobanana_mcp.studio.results.answers import record_structure

if TYPE_CHECKING:
    from nanobanana_mcp.studio.view import View

SHORT = 100
"""Characters of a prompt or note in a line."""


def found_text(page: FoundPage) -> str:
    """A line or two for each picture, by the number that it has on the sheet."""
    shown = len(page.pictures)
    if page.total is None:
        lines = [f"{counted(shown, 'picture')} of more than were counted:" if shown else "Nothing was found."]
    elif page.total == shown:
        lines = [f"{counted(shown, 'picture')} found:" if shown else "Nothing was found."]
    else:
        lines = [f"{counted(shown, 'picture')} of {page.total} found:"]
    for number, found in enumerate(page.pictures, 1):
        lines += _lines(number, found)
    if page.cursor is not None:
        lines.append(f"For the next page call again with the same arguments and cursor {page.cursor}")
    return "\n".join([*lines, *(f"Note: {note}" for note in page.notes)])


def _lines(number: int, found: Found) -> list[str]:
    record = found.record
    where = printable(record.trash_path or record.path or "in the Files API only")
    kind = {"picture": record.mode or "picture", "derived": "made of another"}.get(found.kind, found.kind)
    gone = {"missing": ", its file is gone", "trashed": ", in the trash", "present": ""}[found.state]
    cost = "cost not known" if found.cost_usd is None else f"${found.cost_usd:.4f}"
    facts = [
        kind,
        *([record.tier] if record.tier else []),
        f"{record.width}x{record.height}",
        size_of(record.bytes),
        cost,
        *([f"rated {found.rating}"] if found.rating else []),
        *([f"tags {', '.join(found.tags)}"] if found.tags else []),
    ]
    lines = [f"{number}. {record.id} {record.created_at:%Y-%m-%d %H:%M} {where} ({', '.join(facts)}){gone}"]
    lines += (
        [f"   Recognised by {found.why}." if found.why.startswith("the ") else f"   It {found.why}."]
        if found.why
        else []
    )
    lines += [f"   Prompt: {_short(record.prompt)}"] if record.prompt else []
    lines += [f"   Note: {_short(found.note)}"] if found.note else []
    return lines


def found_facts(found: Found) -> dict[str, Any]:
    record = found.record
    return record_structure(record) | {
        "created_at": record.created_at.isoformat(),
        "kind": found.kind,
        "state": found.state,
        "tier": record.tier,
        "mode": record.mode,
        "cost_usd": found.cost_usd,
        "prompt": _short(record.prompt, 300),
        "rating": found.rating,
        "tags": list(found.tags),
        "note": found.note,
        **({"recognised_by": found.why} if found.why else {}),
    }


def found_structure(page: FoundPage, told: Callable[[Found], dict[str, Any]] = found_facts) -> dict[str, Any]:
    """`told` says what there is to know of each picture."""
    return {
        "images": [told(found) for found in page.pictures],
        "total": page.total,
        "cursor": page.cursor,
        "notes": list(page.notes),
    }


def view_text(view: "View") -> str:
    look, (left, top, right, bottom) = view.look, view.look.box
    whole = (left, top, right, bottom) == (0, 0, *look.size)
    what = "the whole picture" if whole else f"its box {left}, {top}, {right}, {bottom}"
    scale = "at 1:1" if look.scale == 1 else f"at {look.scale:.0%} of its size; a smaller box shows more"
    lines = [
        f"{printable(view.name)} ({look.size[0]}x{look.size[1]}): {what}, {right - left}x{bottom - top} pixels, {scale}."
    ]
    if look.difference is not None:
        found = look.difference
        lines.append(
            f"Beside it {printable(str(view.other_name))} at the same place; then a map of what differs, in magenta."
        )
        if not found.differing:
            lines.append("Every pixel there is the same.")
        else:
            lines.append(
                f"{_share(found.changed)} of the pixels there changed by more than {found.tolerance} of 255 levels; "
                f"{_share(found.differing)} differ at all."
            )
        lines += [f"- changed at {', '.join(map(str, one.box))}: {_share(one.share)} of it" for one in found.places]
        if found.changed_outside is not None:
            lines.append(f"Outside the box {_share(found.changed_outside)} of the pixels changed by that much.")
    return "\n".join([*lines, *(f"Note: {note}" for note in view.notes)])


def view_structure(view: "View") -> dict[str, Any]:
    look, found = view.look, view.look.difference
    return {
        "id": view.record.id if view.record is not None else None,
        "width": look.size[0],
        "height": look.size[1],
        "box": list(look.box),
        "scale": round(look.scale, 4),
        "compared_with": view.other_name,
        "difference": None
        if found is None
        else {
            "tolerance": found.tolerance,
            "changed_share": found.changed,
            "differing_share": found.differing,
            "changed_share_outside_box": found.changed_outside,
            "places": [{"box": list(one.box), "share": one.share} for one in found.places],
        },
        **({"panels": [[round(side, 5) for side in one] for one in look.panels]} if look.panels else {}),
        "cost_usd": 0.0,
        "notes": list(view.notes),
    }


def _share(part: float) -> str:
    """The share as a percentage that is never rounded to none or to all."""
    if part in (0, 1):
        return f"{part:.0%}"
    return "less than 0.01%" if part < 0.0001 else "more than 99.99%" if part > 0.9999 else f"{part:.2%}"


def _short(text: str | None, limit: int = SHORT) -> str:
    text = printable(" ".join((text or "").split()))
    return text if len(text) <= limit else f"{text[:limit]}..."
