"""What breaks: Redis, Postgres, workers, messages. Nothing is lost, and the receiver judges."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from deploy.child import Child
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.conftest import new_postgres
from tests.receivers import HttpReceiver
from tests.running import Running, wait_for

Start = Callable[..., Running]


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Redis to be killed."""
    server = EmbeddedValkey(tmp_path / "valkey", settings={"appendonly": "no"})
    server.start()
    yield server
    _wake(server)
    server.stop()


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres to be killed."""
    with new_postgres("notifier") as server:
        yield server


def _hang(child: Child) -> None:
    assert child.pid
    os.killpg(child.pid, signal.SIGSTOP)


def _wake(child: Child) -> None:
    if child.pid and child.alive():
        os.killpg(child.pid, signal.SIGCONT)


def _kill(child: Child) -> None:
    assert child.pid
    os.killpg(child.pid, signal.SIGKILL)
    wait_for(lambda: not child.alive())


def _post_quickly(system: Running, http: HttpReceiver, path: str, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        began = time.monotonic()
        ids.append(system.event(recipient=http.url(path), channel="webhook"))
        assert time.monotonic() - began < 1
    return ids


def _all_delivered(system: Running, http: HttpReceiver, path: str, count: int, timeout: float = 30) -> None:
    wait_for(lambda: len(http.times(path)) == count, timeout, f"{count} webhooks at {path}")
    wait_for(lambda: system.sql("SELECT count(*) FROM notifications WHERE due_at IS NOT NULL")[0][0] == 0, 10)
    rows = system.sql("SELECT status, count(*) FROM notifications GROUP BY 1")
    assert [tuple(row) for row in rows] == [("delivered", count)]


def test_redis_down_costs_seconds_and_no_events(
    start_system: Start, http: HttpReceiver, own_valkey: EmbeddedValkey
) -> None:
    system = start_system(REDIS_URL=own_valkey.url)
    _kill(own_valkey)
    _post_quickly(system, http, "/redis-down", 20)
    assert system.get("/ready").status_code == 200
    assert system.get("/ready").json()["status"] == "degraded"
    assert system.get("/ready").json()["checks"]["redis"]["status"] == "failed"
    own_valkey.start()
    _all_delivered(system, http, "/redis-down", 20)
    assert set(http.times("/redis-down").values()) == {1}
    for child in (system.fresh, system.retry, system.clock, system.beat):
        assert child.alive(), child.name


def test_a_redis_that_hangs_holds_up_no_request(
    start_system: Start, http: HttpReceiver, own_valkey: EmbeddedValkey
) -> None:
    system = start_system(REDIS_URL=own_valkey.url)
    _hang(own_valkey)
    _post_quickly(system, http, "/redis-hangs", 20)
    _wake(own_valkey)
    _all_delivered(system, http, "/redis-hangs", 20)


def test_losing_all_of_redis_loses_nothing(start_system: Start, http: HttpReceiver) -> None:
    system = start_system()
    release = http.hold("/flushed-first")
    first = system.event(recipient=http.url("/flushed-first"), channel="webhook")
    wait_for(lambda: http.received("/flushed-first"))
    _kill(system.fresh)  # so that what follows stays in Redis until it is gone
    for _ in range(20):
        system.event(recipient=http.url("/flushed"), channel="webhook")
    client = redis.Redis.from_url(system.environment["REDIS_URL"])
    wait_for(lambda: client.llen("webhook"))
    client.flushdb()
    client.close()
    release()
    system.fresh.launch()
    wait_for(lambda: len(http.times("/flushed")) == 20, 40)
    assert set(http.times("/flushed").values()) == {1}
    assert system.finished(first, 40)["status"] == "delivered"


def test_a_killed_workers_rows_are_taken_over(start_system: Start, http: HttpReceiver) -> None:
    system = start_system()
    release = http.hold("/killed")
    events = [system.event(recipient=http.url("/killed"), channel="webhook") for _ in range(3)]
    wait_for(lambda: len(http.received("/killed")) == 3)
    _kill(system.fresh)
    release()
    system.fresh.launch()
    for event_id in events:
        notification = system.finished(event_id, 40)
        assert notification["status"] == "delivered"
        lost, sent = notification["attempt_log"]
        assert (lost["number"], lost["outcome"], lost["provider"]) == (1, "ambiguous", None)
        assert lost["error"].startswith("worker lost")
        assert (sent["number"], sent["outcome"]) == (2, "accepted")
        assert notification["attempts"] == 2
    # Twice, and with the same id: the worker died in the middle of sending, so nobody could know.
    assert sorted(http.times("/killed").values()) == [2, 2, 2]


def test_a_worker_that_comes_back_late_sends_nothing_more(start_system: Start, http: HttpReceiver) -> None:
    system = start_system()
    release = http.hold("/stopped")
    event_id = system.event(recipient=http.url("/stopped"), channel="webhook")
    wait_for(lambda: http.received("/stopped"))
    _hang(system.fresh)
    other = system.add_worker("fresh", "fresh-2")
    system.start(only=[other])
    wait_for(lambda: len(http.received("/stopped")) == 2, 40)
    release()
    notification = system.finished(event_id)
    _wake(system.fresh)
    time_of_claims = system.sql("SELECT claims, attempts FROM notifications WHERE id = :id", id=notification["id"])[0]
    assert tuple(time_of_claims) == (2, 2)
    # The late worker fills in what it knows of its own attempt, and changes nothing else.
    wait_for(lambda: system.notification(notification["id"])["attempt_log"][0]["provider"] == "webhook", 20)
    later = system.notification(notification["id"])
    assert later["status"] == "delivered"
    assert [a["number"] for a in later["attempt_log"]] == [1, 2]
    assert len(http.received("/stopped")) == 2


def test_a_row_that_kills_its_workers_is_dead_in_the_end(start_system: Start, http: HttpReceiver) -> None:
    system = start_system()
    release = http.hold("/killer")
    event_id = system.event(recipient=http.url("/killer"), channel="webhook")
    for time_killed in range(1, 6):
        wait_for(lambda n=time_killed: len(http.received("/killer")) == n, 40)
        _kill(system.fresh)
        # Past its lease, without the wait.
        system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
        system.fresh.launch()
    release()
    notification = system.finished(event_id, 40)
    assert (notification["status"], notification["reason"], notification["attempts"]) == ("failed", "worker_lost", 5)
    assert system.dead_letter(event_id)["reason"] == "worker_lost"


def test_postgres_down_is_a_503_and_nothing_is_half_written(
    start_system: Start, http: HttpReceiver, own_postgres: EmbeddedPostgres
) -> None:
    system = start_system(DATABASE_URL=own_postgres.url("notifier"))
    before = system.event(recipient=http.url("/before"), channel="webhook")
    system.finished(before)
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
    assert system.sql("SELECT count(*) FROM events")[0][0] == 2
    assert http.received("/while") == []
    wait_for(lambda: system.get("/ready").json()["status"] == "ok")


def test_a_result_outlives_an_outage_of_postgres(
    start_system: Start, http: HttpReceiver, own_postgres: EmbeddedPostgres
) -> None:
    system = start_system(DATABASE_URL=own_postgres.url("notifier"))
    release = http.hold("/outage")
    event_id = system.event(recipient=http.url("/outage"), channel="webhook")
    wait_for(lambda: http.received("/outage"))
    own_postgres.stop()
    release()
    # The worker holds its result until Postgres is back; the lease has long passed by then.
    time_down = time.monotonic()
    wait_for(lambda: "record_failed" in system.fresh.log.read_text())
    own_postgres.start()
    system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")
    notification = system.finished(event_id)
    assert time.monotonic() - time_down < 30
    assert (notification["status"], notification["attempts"]) == ("delivered", 1)
    assert len(http.received("/outage")) == 1


def test_a_postgres_that_hangs_does_not_write_what_was_given_up(
    start_system: Start, own_postgres: EmbeddedPostgres
) -> None:
    system = start_system(DATABASE_URL=own_postgres.url("notifier"), NOTIFIER_INTAKE_TIMEOUT="1")
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


def test_doubled_and_stale_messages_claim_nothing(start_system: Start, http: HttpReceiver) -> None:
    system = start_system(NOTIFIER_WEBHOOK_TIMEOUT="30")
    release = http.hold("/doubled")
    event_id = system.event(recipient=http.url("/doubled"), channel="webhook")
    wait_for(lambda: http.received("/doubled"))
    [notification] = system.notifications(event_id)
    with Celery(broker=system.environment["REDIS_URL"]) as sender:
        sender.conf.task_create_missing_queues = True
        for failed_attempts in (0, 0, 0, 1, 5):
            sender.send_task(
                "tasks.deliver.webhook", args=([notification["id"]],), queue="webhook", retries=failed_attempts
            )
    # What comes behind them in the queue says when they are through.
    for _ in range(5):
        system.finished(system.event(recipient=http.url("/behind"), channel="webhook"))
    release()
    assert system.finished(event_id)["attempts"] == 1
    assert len(http.received("/doubled")) == 1
    assert system.sql("SELECT claims FROM notifications WHERE id = :id", id=notification["id"])[0].claims == 1


def test_any_number_of_beats_hand_over_once(start_system: Start, http: HttpReceiver) -> None:
    system = start_system()
    system.start(
        only=[system.add("beat-2", "beat"), system.add("beat-3", "beat"), system.add_worker("clock", "clock-2")]
    )
    system.sql("SELECT 1")
    answer = system.post(
        "/api/v1/events/batch",
        {
            "events": [
                {
                    "event_type": "x",
                    "recipient": http.url("/beats"),
                    "channel": "webhook",
                    "send_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3)),
                }
                for _ in range(300)
            ]
        },
    )
    assert answer.json()["accepted"] == 300
    _all_delivered(system, http, "/beats", 300)
    assert set(http.times("/beats").values()) == {1}


def test_an_event_that_breaks_fan_out_dies_alone(start_system: Start) -> None:
    system = start_system()
    # A trigger stands in for whatever a row may break: the batch fails, the row alone is to blame.
    system.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'cannot be fanned out'; END $$"
    )
    system.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON notifications FOR EACH ROW WHEN (NEW.user_id = 'poison')"
        " EXECUTE FUNCTION refuse()"
    )
    answer = system.post(
        "/api/v1/events/batch",
        {"events": [{"event_type": "x", "user_id": user} for user in ("fine", "poison", "fine")]},
    )
    fine, poison, other = (item["id"] for item in answer.json()["items"])
    wait_for(lambda: all(system.get(f"/api/v1/events/{e}").json()["status"] == "processed" for e in (fine, other)))

    def hurry() -> bool:
        system.sql("UPDATE events SET due_at = now() WHERE status = 'accepted'")
        return bool(system.get(f"/api/v1/events/{poison}").json()["status"] == "failed")

    wait_for(hurry, 40)
    letter = system.dead_letter(poison)
    assert (letter["notification_id"], letter["reason"]) == (None, "fan_out_failed")
    assert letter["error"]
    system.sql("DROP TRIGGER refuse ON notifications")
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 202
    wait_for(lambda: system.get(f"/api/v1/events/{poison}").json()["status"] == "processed")
    assert len(system.notifications(poison)) == 1


def test_fan_out_twice_makes_one_notification(start_system: Start) -> None:
    system = start_system()
    event_id = system.event(user_id="u_1", channel="email")
    wait_for(lambda: system.notifications(event_id))
    system.sql("UPDATE events SET status = 'accepted', due_at = now() WHERE id = :id", id=event_id)
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed")
    assert len(system.notifications(event_id)) == 1


def test_redis_holds_at_most_64_messages_a_queue(start_system: Start) -> None:
    system = start_system()
    _kill(system.fresh)
    client = redis.Redis.from_url(system.environment["REDIS_URL"])
    most = 0
    for _ in range(150):
        system.event(recipient="+4915112345678", channel="sms")
        most = max(most, client.llen("sms"))
    client.close()
    assert 0 < most <= 64
    system.fresh.launch()
    wait_for(lambda: system.sql("SELECT count(*) FROM outbox")[0][0] == 150, 40)
    wait_for(lambda: system.sql("SELECT count(*) FROM notifications WHERE due_at IS NOT NULL")[0][0] == 0)
    assert system.sql("SELECT count(*) FROM outbox")[0][0] == 150


def test_a_warm_shutdown_sends_nothing_twice(start_system: Start, http: HttpReceiver) -> None:
    system = start_system()
    for round_ in range(3):
        for _ in range(40):
            system.event(recipient=http.url("/warm"), channel="webhook")
        began = time.monotonic()
        system.fresh.stop()
        assert time.monotonic() - began < 10
        assert round_ < 3
        system.fresh.launch()
    _all_delivered(system, http, "/warm", 120, 40)
    assert set(http.times("/warm").values()) == {1}
