"""The revisions there are, and those that a database still lacks.

Without Alembic, whose import is a tenth of the start of every process, and which those that migrate alone need.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

FOLDER: Final = Path(__file__).parent


def all_revisions() -> list[str]:
    """Return all revisions in order: their files' names begin with them."""
    return sorted(path.name.partition("_")[0] for path in (FOLDER / "versions").glob("[0-9]*_*.py"))


def missing(connection: Connection, revision: str = "head") -> list[str]:
    """Return the revisions up to `revision` that are still to be done, in order.

    None where a later release has migrated further.
    """
    known = all_revisions()
    if revision != "head":
        known = known[: known.index(revision) + 1]
    current = _current(connection)
    if current is None:
        return known
    return known[known.index(current) + 1 :] if current in known else []


def _current(connection: Connection) -> str | None:
    """Return the revision that Alembic has written down; None in a database without our tables."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
