"""Notes, tags and ratings; what models wrote; and which pictures changed, in order, kept by the database itself."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SHOWN = ("created_at", "id", "origin", "tier", "mode", "backend", "trash_path")


def _noted(image_id: str, gone: int = 0) -> str:
    """A new number for a picture in the place of its old one."""
    return (
        f" BEGIN DELETE FROM changes WHERE image_id = {image_id};"  # noqa: S608 - made of this file's own words
        f" INSERT INTO changes (image_id, gone) VALUES ({image_id}, {gone}); END"
    )


def upgrade() -> None:
    op.add_column("images", sa.Column("words", sa.Text))
    op.create_index("ix_images_shown", "images", list(SHOWN))
    op.create_index("ix_images_derived", "images", ["created_at"], sqlite_where=sa.text("origin = 'derived'"))
    op.drop_index("ix_images_created_at", "images")  # the new one begins with the same column
    op.create_table(
        "annotations",
        sa.Column("image_id", sa.String, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("rating", sa.Integer),
        sa.PrimaryKeyConstraint("image_id", name="pk_annotations"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_annotations_image_id_images"),
    )
    op.create_index("ix_annotations_rating", "annotations", ["rating"])
    op.create_table(
        "tags",
        sa.Column("tag", sa.String, nullable=False),
        sa.Column("image_id", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("tag", "image_id", name="pk_tags"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_tags_image_id_images"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tags_image_id", "tags", ["image_id"])
    op.create_table(
        "changes",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("image_id", sa.String, nullable=False),
        sa.Column("gone", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_changes"),
        sa.UniqueConstraint("image_id", name="uq_changes_image_id"),
        sqlite_autoincrement=True,
    )
    op.execute("INSERT INTO changes (image_id, gone) SELECT id, 0 FROM images ORDER BY created_at, id")
    op.execute(f"CREATE TRIGGER images_entered AFTER INSERT ON images{_noted('NEW.id')}")
    op.execute(
        "CREATE TRIGGER images_changed AFTER UPDATE OF path, trash_path, thumbnail_path, prompt, words ON images"
        + _noted("NEW.id")
    )
    op.execute(f"CREATE TRIGGER images_deleted AFTER DELETE ON images{_noted('OLD.id', gone=1)}")
    for table in ("annotations", "tags"):
        op.execute(f"CREATE TRIGGER {table}_entered AFTER INSERT ON {table}{_noted('NEW.image_id')}")
        op.execute(f"CREATE TRIGGER {table}_changed AFTER UPDATE ON {table}{_noted('NEW.image_id')}")
        still = "WHEN EXISTS (SELECT 1 FROM images WHERE id = OLD.image_id)"
        op.execute(f"CREATE TRIGGER {table}_removed AFTER DELETE ON {table} {still}{_noted('OLD.image_id')}")
    # Tells this library from every other, so that a search index of another is never taken for its own.
    op.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
