"""Runs the steps on the connection that the library hands over, inside its one transaction."""

from alembic import context
from sqlalchemy import create_engine

from nanobanana_mcp.library.tables import metadata

connection = context.config.attributes.get("connection")

if context.is_offline_mode():
    context.configure(dialect_name="sqlite", target_metadata=metadata, literal_binds=True)
    context.run_migrations()
elif connection is not None:
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=True, transaction_per_migration=False
    )
    context.run_migrations()
else:  # `alembic revision --autogenerate`, for developers: compares the tables with an empty library at head
    with create_engine("sqlite://").connect() as empty:
        context.configure(connection=empty, target_metadata=metadata, render_as_batch=True)
        context.run_migrations()
