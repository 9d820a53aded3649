"""Connections that are lent: none is dead, and one that was just used costs no round trip."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from notifier.storage import lent_connections
from notifier.storage.deadlines import BoundConnection, with_deadlines
from notifier.storage.lent_connections import with_checks
from tests.support.running import wait_for

PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def checked(database_url: str) -> Iterator[Engine]:
    """An engine over one connection."""
    url = make_url(database_url).set(drivername="postgresql+psycopg2")
    arguments = {"connection_factory": BoundConnection}
    engine = with_checks(with_deadlines(create_engine(url, pool_size=1, max_overflow=0, connect_args=arguments)))
    yield engine
    engine.dispose()


def _used(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(PID) or 0)


def _last_statement(engine: Engine, pid: int) -> str:
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT query FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid})
        return str(found)


def _terminate(engine: Engine, pid: int) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    wait_for(lambda: _last_statement(engine, pid) == "None", what="a session to end")


def test_one_that_was_just_used_is_lent_without_a_round_trip(checked: Engine, super_engine: Engine) -> None:
    pid = _used(checked)
    before = _last_statement(super_engine, pid)
    with checked.connect():
        assert _last_statement(super_engine, pid) == before


def test_one_that_was_idle_is_asked(checked: Engine, super_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lent_connections, "_RECENT", 0.0)
    pid = _used(checked)
    with checked.connect():
        assert _last_statement(super_engine, pid) == "SELECT 1"


@pytest.mark.parametrize("recent", [0.0, 60.0])
def test_one_that_the_server_has_closed_is_replaced(
    checked: Engine, super_engine: Engine, monkeypatch: pytest.MonkeyPatch, recent: float
) -> None:
    monkeypatch.setattr(lent_connections, "_RECENT", recent)
    pid = _used(checked)
    _terminate(super_engine, pid)
    assert _used(checked) not in {0, pid}
    assert checked.pool.checkedout() == 0


@pytest.mark.parametrize("recent", [0.0, 60.0])
def test_one_that_was_closed_here_is_replaced(checked: Engine, monkeypatch: pytest.MonkeyPatch, recent: float) -> None:
    monkeypatch.setattr(lent_connections, "_RECENT", recent)
    with checked.connect() as connection:
        driver = connection.connection.driver_connection
        connection.rollback()
    assert driver is not None
    driver.close()
    assert _used(checked)
    assert checked.pool.checkedout() == 0
