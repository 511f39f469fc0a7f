"""What the library has seen of the clock: a clock that was set back is no proof that time has passed."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from nanobanana_mcp.library.tables import clock

UNEVEN = timedelta(seconds=1)
"""So much the clocks of processes at one moment may differ."""

_LAST = select(clock.c.at)
_SET = insert(clock)
_SET = _SET.on_conflict_do_update(index_elements=["id"], set_={"at": _SET.excluded.at})


def went_back(connection: Connection, at: datetime) -> bool:
    """Whether the clock stood further on when it was last looked at, by any process; notes where it stands now."""
    last = connection.execute(_LAST).scalar()
    connection.execute(_SET, {"id": 1, "at": at})
    return last is not None and at < last - UNEVEN
