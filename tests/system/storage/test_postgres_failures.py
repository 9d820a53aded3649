"""Failures of Postgres: nothing is half written, and the receiver judges."""

import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from sqlalchemy import text

from deploy.embedded import EmbeddedPostgres
from tests.conftest import app_url, new_postgres
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres to be killed."""
    with new_postgres("notifier") as server:
        yield server


@pytest.fixture(scope="module")
def on_own_postgres(new_system: Callable[..., Running], own_postgres: EmbeddedPostgres) -> Iterator[Running]:
    """A system on it."""
    # A busy machine takes its time to lock and to freeze: meanwhile no call may time out.
    with new_system(DATABASE_URL=app_url(own_postgres, "notifier"), NOTIFIER_WEBHOOK_TIMEOUT="8") as system:
        yield system


@pytest.fixture
def impatient(system: Running, new_system: Callable[..., Running], own_postgres: EmbeddedPostgres) -> Iterator[Running]:
    """An API beside the same system, which waits a second for Postgres."""
    beside = new_system(DATABASE_URL=app_url(own_postgres, "notifier"), NOTIFIER_INTAKE_TIMEOUT="1")
    try:
        beside.start(only=[beside.api])
        yield beside
    finally:
        beside.stop()


@pytest.fixture
def system(on_own_postgres: Running, own_postgres: EmbeddedPostgres) -> Running:
    """The same, whole for each test."""
    own_postgres.start()
    on_own_postgres.mend()
    return on_own_postgres


def test_postgres_down_is_a_503_and_nothing_is_half_written(
    system: Running, http: HttpReceiver, own_postgres: EmbeddedPostgres
) -> None:
    before = system.event(recipient=http.url("/before"), channel="webhook")
    system.finished(before)
    events = system.sql("SELECT count(*) FROM events")[0][0]
    own_postgres.stop()
    for path, body in (
        ("/api/v1/events", {"event_type": "x", "recipient": http.url("/while"), "channel": "webhook"}),
        ("/api/v1/events/batch", {"events": [{"event_type": "x"}]}),
        ("/api/v1/notifications", {"recipient": http.url("/while"), "channel": "webhook", "body": "x"}),
    ):
        answer = system.post(path, body)
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) >= 1
    assert system.get(f"/api/v1/events/{before}").status_code == 503
    assert system.get("/ready").status_code == 503
    assert system.get("/health").status_code == 200
    own_postgres.start()
    after = wait_for(
        lambda: (
            (
                a := system.post(
                    "/api/v1/events", {"event_type": "x", "recipient": http.url("/after"), "channel": "webhook"}
                )
            ).status_code
            == 202
            and a
        )
    )
    assert system.finished(after.json()["id"])["status"] == "delivered"
    assert system.sql("SELECT count(*) FROM events")[0][0] == events + 1
    assert http.received("/while") == []
    wait_for(lambda: system.get("/ready").json()["status"] == "ok")


def test_a_postgres_that_is_read_only_is_a_503_and_nothing_is_lost(
    system: Running, http: HttpReceiver, own_postgres: EmbeddedPostgres
) -> None:
    processes = {child.name: child.pid for child in system.children}
    release = http.hold("/held")
    held = system.event(recipient=http.url("/held"), channel="webhook")
    wait_for(lambda: http.received("/held"))
    logged = len(system.fresh.log.read_text())
    _set_read_only(own_postgres, "on")
    try:
        event = {"event_type": "x", "recipient": http.url("/later"), "channel": "webhook"}
        # Each server process reads its settings anew when it gets to it.
        wait_for(lambda: system.post("/api/v1/events", event).status_code == 503)
        release()
        for path, body in (
            ("/api/v1/events", event),
            ("/api/v1/events/batch", {"events": [event]}),
            ("/api/v1/notifications", {"recipient": http.url("/later"), "channel": "webhook", "body": "x"}),
            ("/api/v1/suppressions", {"channel": "sms", "address": "+4915112345678"}),
        ):
            answer = system.post(path, body)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert "no writes" in answer.json()["detail"]
        wait_for(lambda: "record_failed" in system.fresh.log.read_text()[logged:])
        wait_for(lambda: "heartbeat_failed" in system.fresh.log.read_text()[logged:])
    finally:
        _set_read_only(own_postgres, "off")
    since = system.sql("SELECT now()")[0][0]
    assert system.finished(held)["status"] == "delivered"
    assert len(http.received("/held")) == 1
    assert system.finished(system.event(recipient=http.url("/later"), channel="webhook"))["status"] == "delivered"
    signed = "SELECT count(*) FROM heartbeats WHERE kind IN ('worker', 'clock') AND seen_at > :since"
    wait_for(lambda: system.sql(signed, since=since)[0][0] == 4)
    assert {child.name: child.pid for child in system.children} == processes


def _set_read_only(server: EmbeddedPostgres, value: str) -> None:
    """Have all transactions from now on read only, or no longer, as on a standby."""
    connection = psycopg2.connect(server.url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()


def test_a_result_outlives_an_outage_of_postgres(
    system: Running, http: HttpReceiver, own_postgres: EmbeddedPostgres
) -> None:
    logged = len(system.fresh.log.read_text())
    release = http.hold("/outage")
    event_id = system.event(recipient=http.url("/outage"), channel="webhook")
    wait_for(lambda: http.received("/outage"))
    own_postgres.stop()
    release()
    # The worker holds its result until Postgres is back; the lease has long passed by then.
    time_down = time.monotonic()
    wait_for(lambda: "record_failed" in system.fresh.log.read_text()[logged:])
    own_postgres.start()
    system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
    notification = system.finished(event_id)
    assert time.monotonic() - time_down < 30
    assert (notification["status"], notification["attempts"]) == ("delivered", 1)
    assert len(http.received("/outage")) == 1


@pytest.mark.parametrize("how", ["locked", "frozen"])
def test_a_worker_that_waited_for_postgres_wins_over_the_clock(
    system: Running, http: HttpReceiver, own_postgres: EmbeddedPostgres, how: str
) -> None:
    path = f"/{how}"
    release = http.hold(path)
    events = [system.event(recipient=http.url(path), channel="webhook") for _ in range(40)]
    wait_for(lambda: len(http.received(path)) == 40)
    # The leases end while Postgres answers nobody, and the receivers answer meanwhile.
    over = text("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
    waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
    with system.engine.begin() as connection:
        if how == "locked":
            connection.execute(text("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"))
            connection.execute(over)
            release()
            wait_for(lambda: system.sql(waiting)[0][0] >= 3, 30, "the clock and workers to wait")
    if how == "frozen":
        with system.engine.connect() as connection:
            pids = connection.scalars(text("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")).all()
            connection.execute(over)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            connection.commit()
        release()
        time.sleep(2)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not system.sql("SELECT FROM notifications WHERE due_at IS NOT NULL"), 40)
    assert set(http.times(path).values()) == {1}
    lost = "SELECT count(*) FROM notifications WHERE lost > 0 AND event_id = ANY(CAST(:events AS uuid[]))"
    assert system.sql(lost, events=events) == [(0,)]


def test_a_postgres_that_hangs_does_not_write_what_was_given_up(
    impatient: Running, own_postgres: EmbeddedPostgres
) -> None:
    system = impatient
    backends = [row[0] for row in system.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")]
    system.engine.dispose()
    for pid in [own_postgres.pid, *backends]:
        assert pid
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            continue
    try:
        # The first is taken by the writer and hangs with it; the second waits behind it and is withdrawn.
        answers = [system.post("/api/v1/events", {"event_type": f"hung.{n}"}) for n in range(2)]
    finally:
        for pid in [own_postgres.pid, *backends]:
            assert pid
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "nothing was written" in answers[1].json()["detail"]
    system.event(event_type="after")
    assert system.sql("SELECT count(*) FROM events WHERE event_type = 'hung.1'")[0][0] == 0


def test_sessions_that_are_cut_again_and_again_cost_time_alone(
    system: Running, http: HttpReceiver, own_postgres: EmbeddedPostgres
) -> None:
    cut = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE usename = 'notifier_app' AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    """
    accepted: list[str] = []
    ended = threading.Event()

    def post() -> None:
        while not ended.wait(0.05):
            body = {"event_type": "cut", "recipient": http.url("/cut"), "channel": "webhook"}
            answer = system.post("/api/v1/events", body)
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
            assert answer.status_code in {202, 503}, answer.text

    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        psycopg2.connect(own_postgres.url("notifier")) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        posting = pool.submit(post)
        try:
            # More often than a pool has places.
            for count in range(30):
                before = len(accepted)
                wait_for(lambda before=before: len(accepted) > before or posting.done())
                cursor.execute(cut)
                assert count < 3 or cursor.fetchone()[0] > 0
        finally:
            ended.set()
        posting.result()
    for event_id in accepted:
        # One whose claim was cut off waits for its lease.
        assert system.finished(event_id, 60)["status"] == "delivered"
    wait_for(lambda: system.get("/ready").json()["status"] == "ok")
    for child in (system.api, system.fresh, system.retry, system.clock):
        assert "QueuePool limit" not in child.log.read_text()
