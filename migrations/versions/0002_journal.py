"""A journal of paid calls, so that a picture or a charge is never forgotten; a trash; totals a day, so that
statistics cost the same with a hundred thousand pictures as with ten."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("images") as batch:
        batch.add_column(sa.Column("call_id", sa.String))
        batch.add_column(sa.Column("trash_path", sa.Text))
    op.create_index("ix_images_call_id", "images", ["call_id"])
    op.create_table(
        "requests",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("process", sa.String, nullable=False),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("model_id", sa.String, nullable=False),
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("idempotency_key", sa.String),
        sa.Column("delivered_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.UniqueConstraint("idempotency_key", name="uq_requests_idempotency_key"),
    )
    op.create_index("ix_requests_fingerprint", "requests", ["fingerprint"])
    op.create_table(
        "calls",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("estimate_usd", sa.Float, nullable=False),
        sa.Column("cost_usd", sa.Float),
        sa.Column("reserved_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("image_id", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("message", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_calls_request_id_requests"),
    )
    op.create_index("ix_calls_request_id", "calls", ["request_id"])
    op.create_index("ix_calls_reserved_at", "calls", ["reserved_at"])
    op.create_index(
        "ix_calls_open",
        "calls",
        ["state"],
        sqlite_where=sa.text("state IN ('reserved', 'sent', 'spooled', 'saved')"),
    )
    op.create_table(
        "days",
        sa.Column("day", sa.String, nullable=False),
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("usd", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("day", "backend", "tier", "mode", name="pk_days"),
    )
    op.execute(
        """
        INSERT INTO days (day, backend, tier, mode, pictures, bytes, usd)
        SELECT date(created_at / 1000, 'unixepoch'), coalesce(backend, 'gemini'), coalesce(tier, ''),
               coalesce(mode, ''), count(*), sum(bytes), 0.0
        FROM images WHERE origin != 'imported' GROUP BY 1, 2, 3, 4
        """
    )
