"""The clock's thread that counts: once a minute, one at a time, and again after a failure."""

import threading

import pytest
import structlog
from sqlalchemy import Engine, create_engine
from structlog.testing import LogCapture

from tasks import statistics
from tasks.statistics import MinuteCounting
from tests.support.deliveries import Deliveries, minutes_ago
from tests.support.running import wait_for


def _threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "statistics"]


def _end() -> None:
    for thread in _threads():
        thread.join(30)


def test_it_counts_in_a_thread_once_a_minute(engine: Engine) -> None:
    data = Deliveries(engine)
    data.sent(minutes_ago(3))
    counting = MinuteCounting()
    for _ in range(3):
        counting.begin_if_due(engine, threading.Event())
    assert len(_threads()) <= 1
    wait_for(lambda: data.rows(dimension="channel"))
    _end()
    counting.begin_if_due(engine, threading.Event())
    # Only where the minute has ended meanwhile.
    assert len(_threads()) <= 1
    _end()


def test_it_stops_with_its_worker(engine: Engine) -> None:
    data = Deliveries(engine)
    for number in (3, 4, 5):
        data.sent(minutes_ago(number))
    stopping = threading.Event()
    stopping.set()
    MinuteCounting().begin_if_due(engine, stopping)
    _end()
    assert len(data.rows(dimension="channel")) == 1


def test_a_failure_is_logged_and_the_next_run_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = LogCapture()
    monkeypatch.setattr(statistics, "log", structlog.wrap_logger(None, processors=[logged]))
    data, counting = Deliveries(engine), MinuteCounting()
    data.sent(minutes_ago(3))
    away = create_engine("postgresql+psycopg2://nobody@127.0.0.1:9/x")
    counting.begin_if_due(away, threading.Event())
    _end()
    assert [each["event"] for each in logged.entries] == ["statistics_failed"]
    MinuteCounting().begin_if_due(engine, threading.Event())
    _end()
    assert data.rows(dimension="channel")
    away.dispose()
