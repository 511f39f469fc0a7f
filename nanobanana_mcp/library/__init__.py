"""The record of what was made, from what, and what it cost: the only place that knows SQLAlchemy and alembic."""
