"""Counts how often a policy's limits were used, over all processes, each use in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Boolean, Connection, bindparam, delete, func, insert, or_, select, update

from nanobanana_mcp.domain.budget import Dated
from nanobanana_mcp.domain.errors import PolicyViolation
from nanobanana_mcp.domain.ids import now
from nanobanana_mcp.domain.policy.limits import Limit
from nanobanana_mcp.library.clock import POLICY, was_moved
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.tables import policy_calls

KEPT_S = 2 * 86_400
KEPT = 10_000
"""Entries older than every window that a rule is likely to have, and at least the rule's own, are dropped; but never the
newest, which a clock that was ahead may only take for old.
"""

_AHEAD = policy_calls.c.made_at > bindparam("at")
_SEEN_AHEAD = (
    update(policy_calls)
    .where(
        _AHEAD,
        or_(
            policy_calls.c.seen_at.is_(None),
            policy_calls.c.seen_at > bindparam("at"),
            bindparam("again", type_=Boolean),
        ),
    )
    .values(seen_at=bindparam("at"))
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The counters behind `rate_limit`."""

    database: Database

    def consume(self, limits: Sequence[Limit], tool: str) -> None:
        """Use each limit once, or none of them. Raises PolicyViolation with the numbers and when it resets."""
        refusal: PolicyViolation | None = None
        with self.database.write() as connection:
            at = now()
            connection.execute(_SEEN_AHEAD, {"at": at, "again": was_moved(connection, at, watcher=POLICY)})
            for limit in limits:
                made = _made(connection, limit, at)
                if len(made) >= limit.maximum:
                    oldest = made[limit.maximum - 1] if limit.maximum else at
                    resets = limit.resets_at(at.timestamp(), oldest.timestamp())
                    told = limit.message(tool, len(made), at.timestamp(), resets)
                    refusal = PolicyViolation(told)  # raised behind the transaction: what was seen ahead stays so
                    break
            else:
                _enter(connection, limits, at)
        if refusal is not None:
            raise refusal

    def refund(self, limits: Sequence[Limit]) -> None:
        """Undo the latest use of each limit."""
        with self.database.write() as connection:
            for limit in limits:
                latest = select(func.max(policy_calls.c.id)).where(policy_calls.c.rule == limit.key).scalar_subquery()
                connection.execute(delete(policy_calls).where(policy_calls.c.id == latest))


def _made(connection: Connection, limit: Limit, at: datetime) -> list[datetime]:
    """The moments from which the calls in a limit's window count, newest first."""
    start = limit.window_start(at.timestamp())
    near = at.timestamp() if limit.rolling else start
    since, until = (datetime.fromtimestamp(moment, UTC) for moment in (start, near + limit.window_s))
    rows = connection.execute(
        select(policy_calls.c.made_at, policy_calls.c.seen_at).where(
            policy_calls.c.rule == limit.key, policy_calls.c.made_at >= since
        )
    )
    near_by = until if limit.rolling else until - timedelta(milliseconds=1)
    moments = (Dated(made_at=made, seen_at=seen).counts_from(at, since, near_by) for made, seen in rows)
    return sorted((moment for moment in moments if moment is not None), reverse=True)


def _enter(connection: Connection, limits: Sequence[Limit], at: datetime) -> None:
    kept = max((limit.window_s for limit in limits), default=0.0) + KEPT_S
    for limit in limits:
        ids = select(policy_calls.c.id).where(policy_calls.c.rule == limit.key).order_by(policy_calls.c.id.desc())
        oldest = ids.offset(max(limit.maximum, KEPT)).limit(1).scalar_subquery()
        connection.execute(
            delete(policy_calls).where(
                policy_calls.c.rule == limit.key,
                policy_calls.c.made_at < datetime.fromtimestamp(at.timestamp() - kept, UTC),
                policy_calls.c.id <= oldest,
            )
        )
    if limits:
        connection.execute(insert(policy_calls), [{"rule": limit.key, "made_at": at} for limit in limits])
