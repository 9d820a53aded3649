"""Engines: one whose connections begin transactions, and one whose statements are transactions of their own.

The second has its own connections. A connection that switches to autocommit when it is checked out must switch back
when it is returned. On a dead connection that raises, and the pool counts it as checked out for ever (SQLAlchemy
2.1.9): twenty such connections leave a process without any.
"""

from typing import Any, Final

from sqlalchemy import Engine, create_engine

from notifier.storage.stored_values import read_without_fail

_OPTION: Final = "autocommit_engine"


def with_autocommit(engine: Engine, autocommit: Engine) -> Engine:
    """Return an engine, and let `autocommit_of` know the one whose statements are transactions of their own."""
    engine.update_execution_options(**{_OPTION: autocommit})
    return engine


def autocommit_of(engine: Engine) -> Engine:
    """Return the engine on the same database whose statements are transactions of their own, creating it if needed.

    It saves a third of the round trips, and has the first one's execution options.
    """
    options: dict[str, Any] = dict(engine.get_execution_options())
    found: Engine | None = options.pop(_OPTION, None)
    if found is None:
        found = create_engine(engine.url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, hide_parameters=True)
        with_autocommit(engine, read_without_fail(found))
    found.update_execution_options(**options)
    return found
