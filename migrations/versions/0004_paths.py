"""An index by path, so that the picture of a file is found without reading every row."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_images_path", "images", ["path"])
