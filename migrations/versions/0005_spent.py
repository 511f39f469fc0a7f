"""Adds the sums of money and calls by second, minute and day. Triggers of the database keep them up to date, so a limit
costs the same at the millionth call and holds whichever version of the program writes. More triggers keep the dates of
calls as they were entered.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SPANS = "(SELECT 1000 AS span UNION ALL SELECT 60000 UNION ALL SELECT 86400000)"
"""Milliseconds of a second, a minute and a day."""


def _calls(row: str) -> str:
    """1 for a call that was made, 0 for one that was reserved and never made."""
    return f"(coalesce({row}.reason, '') NOT IN ('NOT_NEEDED', 'NEVER_SENT', 'CANCELLED'))"


def _usd(row: str) -> str:
    """The cost of a call in millionths of a dollar, which add up exactly; never below 0."""
    return f"CAST(round(1e6 * min(max(coalesce({row}.cost_usd, {row}.estimate_usd), 0.0), 1e6)) AS INTEGER)"


def _add(row: str, calls: str, usd: str) -> str:
    return (
        "INSERT INTO spent (backend, span, start, latest, calls, microusd)"  # noqa: S608 - made of this file's own words
        f" SELECT r.backend, s.span, {row}.reserved_at - {row}.reserved_at % s.span, {row}.reserved_at, {calls}, {usd}"
        f" FROM requests r, {SPANS} s WHERE r.id = {row}.request_id"
        " ON CONFLICT (backend, span, start) DO UPDATE"
        " SET calls = calls + excluded.calls, microusd = microusd + excluded.microusd"
    )


def upgrade() -> None:
    op.create_table(
        "spent",
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("span", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("latest", sa.BigInteger, nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("microusd", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("backend", "span", "start", name="pk_spent"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clock"),
    )
    # Answers whose count of tokens was negative were entered below nothing: they count at what was expected of them.
    below = "FROM calls c JOIN requests r ON r.id = c.request_id WHERE c.cost_usd < 0"
    day = "date(c.reserved_at / 1000, 'unixepoch')"
    op.execute(
        f"UPDATE days SET usd = usd + coalesce((SELECT sum(c.estimate_usd - c.cost_usd) {below}"  # noqa: S608 - made of this file's own words
        f" AND {day} = days.day AND r.backend = days.backend AND r.tier = days.tier AND r.mode = days.mode), 0.0)"
        f" WHERE day IN (SELECT {day} {below})"
    )
    op.execute("UPDATE calls SET cost_usd = NULL WHERE cost_usd < 0")
    op.execute(
        "INSERT INTO spent (backend, span, start, latest, calls, microusd)"  # noqa: S608 - made of this file's own words
        " SELECT r.backend, s.span, c.reserved_at - c.reserved_at % s.span, max(c.reserved_at),"
        f" sum({_calls('c')}), sum({_usd('c')})"
        f" FROM calls c JOIN requests r ON r.id = c.request_id CROSS JOIN {SPANS} s GROUP BY 1, 2, 3"
    )
    op.execute(
        f"CREATE TRIGGER calls_entered AFTER INSERT ON calls BEGIN {_add('NEW', _calls('NEW'), _usd('NEW'))},"
        " latest = max(latest, excluded.latest), seen_at = NULL; END"
    )
    calls, usd = f"{_calls('NEW')} - {_calls('OLD')}", f"{_usd('NEW')} - {_usd('OLD')}"
    op.execute(
        "CREATE TRIGGER calls_settled AFTER UPDATE OF cost_usd, estimate_usd, reason ON calls"
        f" WHEN {calls} <> 0 OR {usd} <> 0 BEGIN {_add('OLD', calls, usd)}; END"
    )
    op.execute(
        f"CREATE TRIGGER calls_removed AFTER DELETE ON calls BEGIN"
        f" {_add('OLD', '-' + _calls('OLD'), '-' + _usd('OLD'))}; END"
    )
    op.create_index("ix_calls_unknown", "calls", ["reserved_at"], sqlite_where=sa.text("state = 'unknown'"))
    op.add_column("policy_calls", sa.Column("seen_at", sa.BigInteger))
    # An older program beside this one dates what lies ahead of its clock anew, which opens every window.
    for table, date in (("calls", "reserved_at"), ("policy_calls", "made_at")):
        op.execute(
            f"CREATE TRIGGER {table}_keep_their_dates BEFORE UPDATE OF {date} ON {table}"
            f" WHEN NEW.{date} <> OLD.{date} BEGIN SELECT RAISE(IGNORE); END"
        )
