"""Connections that die give their places back, however many do, and whenever."""

import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from config.settings import read_settings
from config.wiring import make_engine
from notifier.storage.engines import autocommit_of
from tests.support.paths import ROOT


def itself(engine: Engine) -> Engine:
    return engine


def _use(engine: Engine, end: Callable[[Any], None], when: str) -> None:
    """Use a connection whose server ends it: when it was just taken, within a statement, or when it is returned."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))  # what a connection was used for before tells how it is returned
    if when == "taken":
        event.listen(engine, "checkout", lambda connection, *_: end(connection), once=True)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        if when != "taken":
            end(connection.connection.dbapi_connection)
        if when == "used":
            connection.execute(text("SELECT 1"))


@pytest.mark.parametrize("when", ["taken", "used", "returned"])
@pytest.mark.parametrize("kind", [itself, autocommit_of])
def test_a_pool_outlives_more_dying_connections_than_it_has(
    database_url: str, super_engine: Engine, kind: Callable[[Engine], Engine], when: str
) -> None:
    engine = kind(make_engine(read_settings({"DATABASE_URL": database_url})))
    with super_engine.connect() as other:

        def end(connection: Any) -> None:
            pid = connection.get_backend_pid()
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

        for _ in range(18):
            with suppress(DBAPIError, psycopg2.OperationalError):
                _use(engine, end, when)
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_a_statement_of_the_second_engine_is_a_transaction(database_url: str) -> None:
    engine = make_engine(read_settings({"DATABASE_URL": database_url}))
    assert autocommit_of(engine) is autocommit_of(engine)
    hold = "INSERT INTO holds (id, target, held_by, created_at) VALUES (gen_random_uuid(), 'all', 'ops', now())"
    with autocommit_of(engine).connect() as connection:
        connection.execute(text(hold))
        with engine.connect() as other:
            assert other.scalar(text("SELECT count(*) FROM holds")) == 1
    for each in (engine, autocommit_of(engine)):
        each.dispose()


def test_no_connection_is_switched_to_autocommit_when_it_is_taken() -> None:
    switched = re.compile(r"execution_options\(\s*isolation_level")
    found = [
        str(path.relative_to(ROOT))
        for package in ("api", "config", "deploy", "notifier", "tasks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if switched.search(path.read_text(encoding="utf-8"))
    ]
    # A migration is a process of its own, which ends with its connection.
    assert found == ["notifier/migrations/online.py"]


def test_a_process_of_many_threads_has_no_more_than_ten_connections_beside_its_transactions(database_url: str) -> None:
    engine = make_engine(read_settings({"DATABASE_URL": database_url, "NOTIFIER_WORKER_CONCURRENCY": "64"}))
    beside = autocommit_of(engine)
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(beside.connect())
        with pytest.raises(PoolTimeoutError):
            beside.connect()
    beside.dispose()
    engine.dispose()
