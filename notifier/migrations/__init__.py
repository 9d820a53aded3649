"""Alembic's migrations, and how to run them while the release before this one goes on working.

Each revision is a transaction of its own. A change of a table waits for whoever uses it, and everybody after it waits
behind it: so it waits for LOCK_TIMEOUT only, lets the others through and tries again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from notifier.migrations.revisions import FOLDER, missing
from notifier.storage.database_roles import grant
from notifier.storage.partitions import make_partitions
from notifier.vocabulary.errors import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATING: Final = 5_141_980_125  # the advisory lock of whoever migrates
#: How long a migration may hold everybody up while it waits for a lock.
LOCK_TIMEOUT: Final = "2s"
#: Seconds in which a revision tries again to get its locks.
PATIENCE: Final = 120.0
#: Seconds in which those go on who waited behind a migration, before it tries again.
_PAUSE: Final = 0.5
#: lock_not_available and deadlock_detected.
_NOT_NOW: Final = {"55P03", "40P01"}


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415 -- see notifier.migrations.revisions

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine, revision: str = "head", *, patience: float = PATIENCE) -> None:
    """Migrate up to `revision`, grant what came, and make the partitions of the days to come. Runs again without harm.

    As the role that owns the tables.

    Raises Unavailable where somebody holds a table for over `patience` seconds; what was migrated until then stays.
    """
    until = time.monotonic() + patience
    while not _is_at(engine, revision):
        try:
            if _migrate_next(engine, revision):
                until = time.monotonic() + patience
                continue
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) not in _NOT_NOW:
                raise
            if time.monotonic() > until:
                raise Unavailable(
                    f"The migration did not get its locks within {patience:g} s: a long transaction holds a table "
                    "(pg_stat_activity shows it). Nothing is half done; run it again."
                ) from error
        time.sleep(_PAUSE)
    grant(engine)
    if pending(engine) is None:
        make_partitions(engine)


def _is_at(engine: Engine, revision: str) -> bool:
    with engine.connect() as connection:
        return not missing(connection, revision)


def _migrate_next(engine: Engine, revision: str) -> bool:
    """Do the next revision; False where somebody else migrates at this moment. Raises OperationalError."""
    from alembic import command  # noqa: PLC0415 -- see `_config`

    with engine.begin() as connection:
        # Several instances may start at once. Not waited for in Postgres: the statement that waits would have a
        # snapshot, for whose end CREATE INDEX CONCURRENTLY waits in turn.
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _MIGRATING}):
            return False
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        revisions = missing(connection, revision)
        if revisions:
            command.upgrade(_config(connection), revisions[0])
    return True


def downgrade(engine: Engine, revision: str) -> None:
    """Migrate down to `revision`; `base` removes every table and all data."""
    from alembic import command  # noqa: PLC0415 -- see `_config`

    with engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def pending(engine: Engine) -> str | None:
    """The newest revision where the database has not reached it, else None.

    A database that a later release has migrated is good for this one too: migrations only add.
    """
    with engine.connect() as connection:
        return next(reversed(missing(connection)), None)
