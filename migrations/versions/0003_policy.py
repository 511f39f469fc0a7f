"""Calls that a policy's limits have let through, counted over all processes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_calls",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policy_calls"),
    )
    op.create_index("ix_policy_calls_rule", "policy_calls", ["rule", "made_at"])
