"""Pictures, what each was made from, and their stays in the Files API."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("path", sa.Text),
        sa.Column("thumbnail_path", sa.Text),
        sa.Column("mime_type", sa.String, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("mode", sa.String),
        sa.Column("tier", sa.String),
        sa.Column("model_id", sa.String),
        sa.Column("backend", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
    )
    op.create_index("ix_images_created_at", "images", ["created_at"])
    op.create_index("ix_images_sha256", "images", ["sha256"])
    op.create_table(
        "image_sources",
        sa.Column("image_id", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("parent_id", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "position", name="pk_image_sources"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_image_sources_image_id_images"),
        sa.ForeignKeyConstraint(["parent_id"], ["images.id"], name="fk_image_sources_parent_id_images"),
    )
    op.create_index("ix_image_sources_parent_id", "image_sources", ["parent_id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("image_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("uri", sa.Text),
        sa.Column("mime_type", sa.String, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("display_name", sa.Text),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("backend", sa.String, nullable=False),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_uploads_image_id_images"),
        sa.UniqueConstraint("name", name="uq_uploads_name"),
    )
    op.create_index("ix_uploads_image_id", "uploads", ["image_id"])
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
