"""The record of what was made, from what, and what it cost: the only place that knows SQLAlchemy and alembic."""

HEAD = "0006"
"""The newest migration: lets a library that is up to date open without importing alembic."""
