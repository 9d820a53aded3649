"""Alembic's migrations, and how to run them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from notifier.partitions import make_partitions

_MIGRATING = 5_141_980_125  # the advisory lock of whoever migrates


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Migrate up to `revision` and make the partitions of the days to come. Runs again without harm."""
    with engine.begin() as connection:
        # Several instances may start at once; the second finds everything done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATING})
        command.upgrade(_config(connection), revision)
    if pending(engine) is None:
        make_partitions(engine)


def downgrade(engine: Engine, revision: str) -> None:
    """Migrate down to `revision`; `base` removes every table and all data."""
    with engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def pending(engine: Engine) -> str | None:
    """The newest revision where the database has not reached it, else None."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect() as connection:
        return None if MigrationContext.configure(connection).get_current_revision() == head else head
