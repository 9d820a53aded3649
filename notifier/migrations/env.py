"""Run by Alembic: migrate over the connection that notifier.migrations hands in, or write down the SQL."""

from alembic import context

from notifier.models import Base

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata)
else:
    context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
