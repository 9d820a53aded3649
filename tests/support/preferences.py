"""Preferences of a user on every channel."""

from tests.support.running import Running


def everywhere(system: Running, needle: str) -> list[str]:
    """The tables in which a text still stands."""
    tables = system.sql(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    )
    return [
        name
        for (name,) in tables
        if system.sql(f'SELECT 1 FROM "{name}" t WHERE CAST(t AS text) ILIKE :like LIMIT 1', like=f"%{needle}%")
    ]
