"""Endpoints that hang, and what becomes of the workers that wait for them."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery

from tests.support.endpoints import (
    DELIVERED,
    WAITS,
    come_up,
    finished,
    hurry,
    open_breaker,
    post,
    subscribe,
    wait_for_states,
)
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


@pytest.fixture(scope="module")
def with_long_timeouts(new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system that waits for webhooks."""
    with new_system(NOTIFIER_WEBHOOK_TIMEOUT="30") as system:
        yield system


@pytest.fixture
def patient(with_long_timeouts: Running) -> Running:
    """The same, whole for each test."""
    with_long_timeouts.mend()
    return with_long_timeouts


def test_workers_send_one_probe_between_them(patient: Running, http: HttpReceiver) -> None:
    system = patient
    system.start(only=[system.add_worker("fresh", "fresh-2"), system.add_worker("retry", "retry-2")])
    sick = subscribe(system, http.url("/ep/probe"), "ep.probe")
    open_breaker(system, http, sick, "/ep/probe", "ep.probe")
    post(system, "ep.probe", 5)
    wait_for_states(system, sick, *[WAITS] * 10)
    http.answer("/ep/probe", 204)
    release = http.hold("/ep/probe")
    hurry(system, sick)
    with ThreadPoolExecutor(8) as threads:  # each in a message of its own
        list(threads.map(lambda _: post(system, "ep.probe", 1), range(8)))
    wait_for_states(system, sick, ("sending", None), *[WAITS] * 17)
    come_up(system, sick, 17)
    wait_for_states(system, sick, ("sending", None), *[WAITS] * 17)
    assert len(http.received("/ep/probe")) == 6
    release()
    rows = wait_for_states(system, sick, *[DELIVERED] * 18)
    assert sum(row["attempts"] for row in rows) == len(http.received("/ep/probe")) == 5 + 18


def test_endpoints_that_hang_hold_up_nobody_else(start_system: Callable[..., Running], http: HttpReceiver) -> None:
    system = start_system(NOTIFIER_WORKER_CONCURRENCY="2", NOTIFIER_WEBHOOK_TIMEOUT="60")
    paths = [f"/ep/hangs/{n}" for n in range(6)]
    sick = [subscribe(system, http.url(path), f"ep.hangs.{n}") for n, path in enumerate(paths)]
    subscribe(system, http.url("/ep/hangs/not"), "ep.well")
    http.answer("/ep/hangs/not", 500, 204)
    with contextlib.ExitStack() as held:
        for path in paths:
            held.callback(http.hold(path))
        for n in range(6):
            system.event(event_type=f"ep.hangs.{n}")
        wait_for(lambda: all(http.received(path) for path in paths))
        for n in range(6):  # and on into the slow lane
            system.event(event_type=f"ep.hangs.{n}")
        first, *others = [system.event(event_type="ep.well") for _ in range(5)]
        attempts = [finished(system, event_id)["attempts"] for event_id in (first, *others)]
        assert sorted(attempts) == [1, 1, 1, 1, 2]
        # None of those that hang has come to an end by then.
        assert system.sql("SELECT count(*) FROM attempts WHERE provider IS NULL OR outcome <> 'accepted'")[0][0] == 1
        wait_for(lambda: all(len(http.received(path)) == 2 for path in paths))
    for subscription_id, path in zip(sick, paths, strict=True):
        rows = wait_for_states(system, subscription_id, DELIVERED, DELIVERED)
        assert [row["attempts"] for row in rows] == [1, 1]
        assert set(http.times(path).values()) == {1}


def _straggle(system: Running, http: HttpReceiver, path: str, event_type: str) -> tuple[str, Callable[[], None]]:
    """An event whose delivery hangs, and that its worker's thread no longer waits for; and what lets it go."""
    subscribe(system, http.url(path), event_type)
    release = http.hold(path)
    logged = len(system.fresh.log.read_text())
    event_id = system.event(event_type=event_type)
    wait_for(lambda: http.received(path))
    wait_for(
        lambda: "claimed=1" in system.fresh.log.read_text()[logged:], what="a batch that left its straggler behind"
    )
    assert system.notifications(event_id)[0]["status"] == "sending"
    return event_id, release


@pytest.mark.parametrize(("answer", "attempts"), [(204, 1), (500, 2)])
def test_a_worker_that_is_asked_to_end_waits_for_what_hangs(
    patient: Running, http: HttpReceiver, answer: int, attempts: int
) -> None:
    system = patient
    path = f"/ep/warm/{answer}"
    http.answer(path, answer, 204)
    attempts_before = system.sql("SELECT count(*) FROM attempts")[0][0]
    event_id, release = _straggle(system, http, path, f"ep.warm.{answer}")
    system.fresh.terminate()
    wait_for(lambda: "Warm shutdown" in system.fresh.output())
    assert system.sql("SELECT count(*) FROM attempts")[0][0] == attempts_before
    release()
    notification = finished(system, event_id)
    assert (notification["status"], notification["attempts"]) == ("delivered", attempts)
    assert [attempt["provider"] for attempt in notification["attempt_log"]] == ["webhook"] * attempts
    wait_for(lambda: not system.fresh.alive())
    assert "Traceback" not in system.fresh.log.read_text()
    assert len(http.received(path)) == attempts


def test_what_hangs_in_a_killed_worker_is_taken_over(patient: Running, http: HttpReceiver) -> None:
    system = patient
    event_id, release = _straggle(system, http, "/ep/killed", "ep.killed")
    system.fresh.kill()
    wait_for(lambda: not system.fresh.alive())
    system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending'")  # its lease has passed
    release()
    system.fresh.launch()
    notification = finished(system, event_id)
    lost, sent = notification["attempt_log"]
    assert (lost["number"], lost["outcome"], lost["provider"]) == (1, "ambiguous", None)
    assert lost["error"].startswith("worker lost")
    assert (sent["number"], sent["outcome"]) == (2, "accepted")
    assert (notification["status"], notification["attempts"]) == ("delivered", 2)
    assert http.times("/ep/killed") == {notification["id"]: 2}


def test_doubled_and_stale_messages_claim_nothing(patient: Running, http: HttpReceiver) -> None:
    system = patient
    release = http.hold("/ep/doubled")
    event_id = system.event(recipient=http.url("/ep/doubled"), channel="webhook")
    wait_for(lambda: http.received("/ep/doubled"))
    [notification] = system.notifications(event_id)
    with Celery(broker=system.environment["REDIS_URL"]) as sender:
        sender.conf.task_create_missing_queues = True
        for failed_attempts in (0, 0, 0, 1, 5):
            sender.send_task(
                "tasks.deliver.webhook", args=([notification["id"]],), queue="webhook", retries=failed_attempts
            )
    # A message behind them in the queue says when they are through.
    for _ in range(5):
        system.finished(system.event(recipient=http.url("/ep/behind"), channel="webhook"))
    release()
    assert system.finished(event_id)["attempts"] == 1
    assert len(http.received("/ep/doubled")) == 1
    assert system.sql("SELECT claims FROM notifications WHERE id = :id", id=notification["id"])[0].claims == 1
