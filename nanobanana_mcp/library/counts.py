"""How often a policy's limits were used, counted over all processes and taken in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, func, insert, select, update

from nanobanana_mcp.domain import now
from nanobanana_mcp.errors import PolicyViolation
from nanobanana_mcp.library.database import Database
from nanobanana_mcp.library.tables import policy_calls
from nanobanana_mcp.policy import Limit, Policy, limit_message

KEPT_S = 2 * 86_400
"""Entries older than every window that a rule is likely to have, and at least the rule's own, are dropped."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The counters behind `rate_limit`."""

    database: Database

    def take(self, limits: Sequence[Limit], tool: str) -> None:
        """Use each limit once, or none of them. Raises PolicyViolation with the numbers and when it resets."""
        with self.database.write() as connection:
            at = (
                now()
            )  # entries from the future, left by a clock that was ahead, count from now on, also after a refusal
            connection.execute(update(policy_calls).where(policy_calls.c.made_at > at).values(made_at=at))
        with self.database.write() as connection:
            at = max(at, now())
            for limit in limits:
                start = datetime.fromtimestamp(Policy.window_start(limit, at.timestamp()), UTC)
                made = connection.execute(
                    select(policy_calls.c.made_at)
                    .where(policy_calls.c.rule == limit.key, policy_calls.c.made_at >= start)
                    .order_by(policy_calls.c.made_at.desc())
                ).all()
                if len(made) >= limit.maximum:
                    oldest = made[limit.maximum - 1][0] if limit.maximum else at
                    resets = Policy.resets_at(limit, at.timestamp(), oldest.timestamp())
                    raise PolicyViolation(limit_message(limit, tool, len(made), at.timestamp(), resets, limit.on_deny))
            kept = max((limit.window_s for limit in limits), default=0.0) + KEPT_S
            connection.execute(
                delete(policy_calls).where(
                    policy_calls.c.made_at < datetime.fromtimestamp(at.timestamp() - kept, UTC),
                    policy_calls.c.rule.in_([limit.key for limit in limits]),
                )
            )
            if limits:
                connection.execute(insert(policy_calls), [{"rule": limit.key, "made_at": at} for limit in limits])

    def give_back(self, limits: Sequence[Limit]) -> None:
        """Undo the latest use of each limit."""
        with self.database.write() as connection:
            for limit in limits:
                latest = select(func.max(policy_calls.c.id)).where(policy_calls.c.rule == limit.key).scalar_subquery()
                connection.execute(delete(policy_calls).where(policy_calls.c.id == latest))
