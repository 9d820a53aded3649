"""Run by Alembic: migrate over the connection that notifier.migrations hands in."""

from alembic import context

from notifier.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
