"""Collects the statistics: totals, the newest pictures, and problems. Only reads."""

import os
from dataclasses import dataclass
from pathlib import Path

from nanobanana_mcp.domain.budget import Limits, Spending
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.records import ImageRecord
from nanobanana_mcp.domain.terms import Backend
from nanobanana_mcp.library.journal import Call, Journal
from nanobanana_mcp.library.pictures import KeptFile, Library
from nanobanana_mcp.library.totals import Total, totals
from nanobanana_mcp.storage.disk import Disk
from nanobanana_mcp.studio.maintenance import untracked_files

LOOKED_AT = 1000
"""The number of the newest pictures, and of files, that are checked on the disk; maintenance checks all."""

DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Bytes and USD; `by_day` is newest first and ends after 30 days on which something was made."""

    backend: Backend
    output_dir: Path
    total: Total
    by_tier: dict[str, Total]
    by_mode: dict[str, Total]
    by_day: dict[str, Total]
    recent: tuple[ImageRecord, ...]
    """The newest pictures that were drawn or edited."""
    derived: int
    """The number of files that were made of pictures here: icons, conversions, exact files."""
    recent_derived: tuple[ImageRecord, ...]
    missing: tuple[KeptFile, ...]
    untracked: tuple[Path, ...]
    live_uploads: int
    live_upload_bytes: int
    undelivered: tuple[str, ...]
    unknown_outcomes: tuple[Call, ...]
    limits: Limits
    spending: Spending
    minute_calls: int
    forgotten: bool
    """True when the library is empty although the output folder has records of pictures."""


def collect(library: Library, journal: Journal, disk: Disk, backend: Backend, limits: Limits, recent: int) -> Stats:
    database = library.database
    with database.read():  # one turn at the connection, however many pictures are being kept; files are looked at after
        newest = library.recent(recent, backend)
        derived, newest_derived = library.derived(recent, backend)
        files = library.newest_files(LOOKED_AT, backend)
        live, live_bytes = library.live_uploads(now(), backend)
        total = totals(database, backend)[""]
        by_tier, by_mode = totals(database, backend, "tier"), totals(database, backend, "mode")
        by_day = dict(list(totals(database, backend, "day").items())[:DAYS])
        undelivered, unknown = journal.undelivered(backend), journal.unknown_outcomes(backend)
        spending, empty = journal.spending(backend), library.is_empty()
    missing = [file for file in files if not os.path.lexists(file.path)]
    return Stats(
        backend=backend,
        output_dir=disk.places.output,
        total=total,
        by_tier=by_tier,
        by_mode=by_mode,
        by_day=by_day,
        recent=tuple(newest),
        derived=derived,
        recent_derived=tuple(newest_derived),
        missing=tuple(missing),
        untracked=tuple(untracked_files(library, disk, limit=LOOKED_AT)),
        live_uploads=live,
        live_upload_bytes=live_bytes,
        undelivered=tuple(undelivered),
        unknown_outcomes=tuple(unknown),
        limits=limits,
        spending=spending,
        minute_calls=spending.minute_calls,
        forgotten=empty and any(disk.places.records.glob("img_*.json")),
    )
