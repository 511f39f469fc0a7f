"""Notices that the clock was set: then a later time of day is no proof that time has passed."""

import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from nanobanana_mcp.library.tables import clock

CALLS, POLICY = 0, 2**40
"""The first row of each watcher of the clock; each must notice for itself that the clock was set."""

UNEVEN = timedelta(seconds=1)
"""The clocks of two processes may be this far apart at one moment."""

_LAST = select(clock.c.at).where(clock.c.id == bindparam("which"))
_FORGET = delete(clock).where(
    clock.c.id > bindparam("first"), clock.c.id < bindparam("last"), clock.c.id != bindparam("boot")
)
_SET = insert(clock)
_SET = _SET.on_conflict_do_update(index_elements=["id"], set_={"at": _SET.excluded.at})


def was_moved(connection: Connection, at: datetime, *, watcher: int = CALLS) -> bool:
    """Tells whether the clock was set since a watcher last looked at it, in any process; also notes where the clock
    stands now.

    It was set back when it stands earlier than then. That it was set forward is known only where the system tells how
    long it has run (Linux). Without that check, setting it back by a day and then forward by hours would make those
    hours pass in a second.
    """
    last = connection.execute(_LAST, {"which": watcher + 1}).scalar()
    connection.execute(_SET, {"id": watcher + 1, "at": at})
    moved = last is not None and at < last - UNEVEN
    running = since_boot()
    if running is None:
        return moved
    boot, elapsed = watcher + running[0], running[1]
    booted = at - timedelta(seconds=elapsed)
    known = connection.execute(_LAST, {"which": boot}).scalar()
    if known is None or abs(booted - known) > UNEVEN:
        connection.execute(_FORGET, {"first": watcher + 1, "last": watcher + POLICY, "boot": boot})
        connection.execute(_SET, {"id": boot, "at": booted})
        moved = moved or known is not None
    return moved


def since_boot() -> tuple[int, float] | None:
    """A number for this run of the system, above 1, and how long it has run in seconds, asleep or awake."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        return 2 + zlib.crc32(name), time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return None
