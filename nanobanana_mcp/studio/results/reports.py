"""The answers of tools that make no picture, as text and as structure: uploads, statistics, maintenance, conversions."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nanobanana_mcp.domain.catalog import PRICES_DATE
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.results import Uploaded
from nanobanana_mcp.domain.text import counted, printable, size_of
from nanobanana_mcp.library.pictures import Lineage
from nanobanana_mcp.library.totals import Total
from nanobanana_mcp.studio.maintenance import Report
from nanobanana_mcp.studio.results.answers import record_structure
from nanobanana_mcp.studio.stats import LOOKED_AT, Stats

if TYPE_CHECKING:
    from nanobanana_mcp.studio.convert import Rehearsal

SHOWN = 50


def uploaded_text(uploaded: Uploaded) -> str:
    upload = uploaded.upload
    expiry = upload.expires_at.strftime("%Y-%m-%d %H:%M UTC") if upload.expires_at else "in about 48 hours"
    how = "Already in the Files API" if uploaded.reused else "Uploaded"
    notes = "".join(f"\nNote: {note}" for note in uploaded.notes)
    return (
        f"{how}: {upload.name} ({upload.mime_type}, {size_of(upload.bytes)}), expires {expiry}. In the library it is "
        f"{uploaded.record.id}; that id keeps working after the expiry.{notes}"
    )


def uploaded_structure(uploaded: Uploaded) -> dict[str, Any]:
    upload = uploaded.upload
    return {
        "name": upload.name,
        "uri": upload.uri,
        "mime_type": upload.mime_type,
        "size_bytes": upload.bytes,
        "sha256": uploaded.record.sha256,
        "sent_sha256": upload.sha256,
        "display_name": upload.display_name,
        "state": upload.state,
        "expires_at": upload.expires_at.isoformat() if upload.expires_at else None,
        "reused": uploaded.reused,
        "image_id": uploaded.record.id,
        "path": uploaded.record.path,
        "notes": list(uploaded.notes),
    }


def stats_structure(stats: Stats) -> dict[str, Any]:
    return {
        "backend": stats.backend,
        "output_dir": str(stats.output_dir),
        "pictures": stats.total.pictures,
        "bytes": stats.total.bytes,
        "spend_usd": stats.total.usd,
        "by_tier": _totals(stats.by_tier),
        "by_mode": _totals(stats.by_mode),
        "by_day": _totals(stats.by_day),
        "recent": [_recent(record) for record in stats.recent],
        "derived_files": stats.derived,
        "recent_derived": [
            {"id": one.id, "path": one.path, "made_from": [parent.image_id for parent in one.parents]}
            for one in stats.recent_derived
        ],
        "missing_files": [record.path for record in stats.missing[:SHOWN]],
        "untracked_files": [printable(path) for path in stats.untracked[:SHOWN]],
        "live_uploads": {"count": stats.live_uploads, "bytes": stats.live_upload_bytes},
        "undelivered": list(stats.undelivered),
        "unknown_outcomes": [
            {"call": call.id, "at": call.reserved_at.isoformat(), "may_have_cost_usd": call.estimate_usd}
            for call in stats.unknown_outcomes
        ],
        "limits": asdict(stats.limits),
        "library_lost": stats.forgotten,
        "prices_date": PRICES_DATE.isoformat(),
        "spent": {
            "last_hour_usd": stats.spending.hour_usd,
            "today_usd": stats.spending.day_usd,
            "last_minute_calls": stats.minute_calls,
        },
    }


def stats_text(stats: Stats) -> str:
    emulated = " (emulator: nothing was charged)" if stats.backend == "emulator" else ""
    lines = [
        f"{_count(stats.total.pictures)} made, {size_of(stats.total.bytes)} kept, ${stats.total.usd:.2f} "
        f"spent{emulated}. They are in {stats.output_dir}.",
        *(f"{name}: {_line(total)}" for name, total in [*stats.by_tier.items(), *stats.by_mode.items()]),
        *(f"{day}: {_line(total)}" for day, total in list(stats.by_day.items())[:7]),
        _limits_line(stats),
        f"In the Files API: {counted(stats.live_uploads, 'live upload')}, {size_of(stats.live_upload_bytes)}.",
    ]
    if stats.forgotten:
        lines.append(
            "The library is empty, but the output folder has records of pictures: if it was lost, end every server and run "
            "'nanobanana rebuild'."
        )
    if stats.missing:
        lines.append(
            f"{len(stats.missing)} of the newest {LOOKED_AT} pictures "
            f"{'has lost its' if len(stats.missing) == 1 else 'have lost their'} file."
        )
    if stats.untracked:
        lines.append(
            f"{counted(len(stats.untracked), 'file')} in the output folder "
            f"{'was' if len(stats.untracked) == 1 else 'were'} not made by the studio."
        )
    if stats.undelivered:
        paid = "Drawn" if stats.backend == "emulator" else "Paid for"
        lines.append(f"{paid} and never delivered, but kept: {', '.join(stats.undelivered)}.")
    if stats.unknown_outcomes:
        possible = sum(call.estimate_usd for call in stats.unknown_outcomes)
        cost = "" if stats.backend == "emulator" else f", which may have cost ${possible:.3f}"
        lines.append(f"{counted(len(stats.unknown_outcomes), 'call')} with an unknown outcome{cost}.")
    lines += ["Newest:"] if stats.recent else []
    lines += [
        f"- {record.id} {record.created_at:%Y-%m-%d %H:%M} {record.tier or record.origin} {_shape(record)} "
        f"{record.trash_path or record.path}: {_short(record.prompt)}"
        for record in stats.recent
    ]
    if stats.derived:
        made = counted(stats.derived, "file")
        lines.append(
            f"Made of pictures here (icons, conversions, exact files): {made}. find_images with kind derived has them."
        )
    return "\n".join(lines)


def _limits_line(stats: Stats) -> str:
    limits, spending = stats.limits, stats.spending
    parts = (
        ("a request", None, limits.per_call_usd),
        ("in the last hour", spending.hour_usd, limits.per_hour_usd),
        ("today (UTC)", spending.day_usd, limits.per_day_usd),
    )
    told = []
    for when, spent, limit in parts:
        most = f"at most ${limit:.2f}" if limit is not None else "no limit"
        told.append(f"{most} {when}" if spent is None else f"${spent:.2f} {when} ({most})")
    calls = f"at most {limits.calls_per_minute}" if limits.calls_per_minute is not None else "no limit"
    told.append(f"{counted(stats.minute_calls, 'call')} in the last minute ({calls})")
    return f"Spent or reserved, and the limits: {', '.join(told)}."


def lineage_text(lineage: Lineage) -> str:
    """The picture, its sources step by step, and what was made from it."""
    record = lineage.record
    lines = [f"{record.id} {record.origin}, {_where(record)}: {_short(record.prompt)}"]
    lines += [
        f"{'  ' * step.depth}made from {step.record.id} {step.record.origin}, {_where(step.record)}: "
        f"{_short(step.record.prompt)}" + (f" (for {step.child_id})" if step.depth > 1 else "")
        for step in lineage.ancestors[:SHOWN]
    ]
    lines += [
        f"source of {child.id} {child.origin}, {_where(child)}: {_short(child.prompt)}"
        for child in lineage.children[:SHOWN]
    ]
    return "\n".join(lines)


def lineage_structure(lineage: Lineage) -> dict[str, Any]:
    return {
        "image": _recent(lineage.record) | {"origin": lineage.record.origin},
        "ancestors": [
            _recent(step.record) | {"origin": step.record.origin, "child": step.child_id, "depth": step.depth}
            for step in lineage.ancestors[:SHOWN]
        ],
        "children": [_recent(child) | {"origin": child.origin} for child in lineage.children[:SHOWN]],
        "ancestor_count": len(lineage.ancestors),
        "child_count": lineage.child_count,
    }


def _shape(record: ImageRecord) -> str:
    return f"{record.width}x{record.height}" if record.width else "(not a picture: its bytes cannot be decoded)"


def _where(record: ImageRecord) -> str:
    return printable(record.trash_path or record.path or "in the Files API only")


def report_structure(report: Report) -> dict[str, Any]:
    return {
        "operation": report.operation,
        "dry_run": report.dry_run,
        "count": len(report.actions),
        "bytes": report.bytes,
        "actions": [
            {
                "kind": action.kind,
                "subject": action.subject,
                "path": action.path,
                "bytes": action.bytes,
                "why": action.why,
            }
            for action in report.actions[:SHOWN]
        ],
        "left_alone": list(report.left[:SHOWN]),
        "findings": list(report.findings[:SHOWN]),
    }


def report_text(report: Report) -> str:
    words = {
        "forget_upload": ("Would mark", "Marked", "upload", " as gone from the Files API"),
        "to_trash": ("Would move", "Moved", "picture", " to the trash"),
        "restore": ("Would bring back", "Brought back", "picture", " from the trash"),
        "relink": ("Would find", "Found", "picture", " again"),
        "note_trash": ("Would note", "Noted", "picture", " as in the trash"),
        "put_back": ("Would note", "Noted", "picture", " as out of the trash"),
        "drop_link": ("Would remove the second name of", "Removed the second name of", "picture", " from the trash"),
    }
    lines = []
    for kind, (would, did, what, where) in words.items():
        actions = [action for action in report.actions if action.kind == kind]
        if actions:
            size = sum(action.bytes for action in actions)
            lines.append(
                f"{would if report.dry_run else did} {counted(len(actions), what)}{where}{f' ({size_of(size)})' if size else ''}."
            )
            lines += [
                f"- {action.subject}{f' {action.path}' if action.path else ''}: {action.why}"
                for action in actions[:SHOWN]
            ]
            lines += [f"  and {len(actions) - SHOWN} more"] if len(actions) > SHOWN else []
    if not report.actions and not (report.operation == "recover" and report.findings):
        lines.append("Nothing to do." if not report.findings else "Nothing to change.")
    lines += [f"Left alone: {left}" for left in report.left[:SHOWN]]
    lines += list(report.findings[:SHOWN])
    if report.dry_run and (report.actions or (report.operation == "recover" and report.findings)):
        lines.append("This was a dry run: nothing was changed. Call again with dry_run false to do exactly this.")
    elif any(action.kind == "to_trash" for action in report.actions):
        lines.append("Operation 'restore' brings them back; records and lineage are unchanged.")
    return "\n".join(lines)


def _recent(record: ImageRecord) -> dict[str, Any]:
    return record_structure(record) | {
        "created_at": record.created_at.isoformat(),
        "tier": record.tier,
        "mode": record.mode,
        "prompt": _short(record.prompt, 300),
        "in_trash": record.trash_path is not None,
    }


def _totals(found: dict[str, Total]) -> dict[str, dict[str, float]]:
    return {name: asdict(total) for name, total in found.items()}


def _line(total: Total) -> str:
    return f"{_count(total.pictures)}, {size_of(total.bytes)}, ${total.usd:.2f}"


def _count(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _short(text: str | None, limit: int = 80) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def converted_text(made: list[ImageRecord], notes: list[str]) -> str:
    lines = [
        f"{record.id} {record.path} ({record.width}x{record.height}, {record.mime_type}, {size_of(record.bytes)})"
        for record in made
    ]
    return "\n".join(["Made without cost:", *lines, *(f"Note: {note}" for note in notes)])


def converted_structure(made: list[ImageRecord], notes: list[str]) -> dict[str, Any]:
    return {
        "images": [record_structure(record) for record in made],
        "file_paths": [record.path for record in made],
        "cost_usd": 0.0,
        "notes": notes,
    }


_KNOWN_LATER = (
    "Only the real run tells the sizes in bytes, and whether the same files were made before: then it gives "
    "those. A file whose name is taken gets a number."
)


def rehearsed_text(rehearsal: "Rehearsal") -> str:
    lines = [
        f"{draft.stem or 'a picture'}: {draft.width}x{draft.height}, {draft.mime_type}" for draft in rehearsal.drafts
    ]
    where = f"{'a folder of their own in ' if rehearsal.is_within else ''}{printable(rehearsal.folder)}"
    told = f"Dry run: nothing was written. It would make, without cost, in {where}:"
    return "\n".join([told, *lines, *(f"Note: {note}" for note in rehearsal.notes), _KNOWN_LATER])


def rehearsed_structure(rehearsal: "Rehearsal") -> dict[str, Any]:
    return {
        "dry_run": True,
        "folder": str(rehearsal.folder),
        "images": [
            {
                "name": draft.stem,
                "width": draft.width,
                "height": draft.height,
                "mime_type": draft.mime_type,
                "bytes": None,
            }
            for draft in rehearsal.drafts
        ],
        "cost_usd": 0.0,
        "notes": list(rehearsal.notes),
    }
