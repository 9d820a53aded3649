"""Sick endpoints: what fails or hangs is left in peace, and costs neither itself too much nor its neighbours."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery

from tests.support.endpoints import (
    DELIVERED,
    WAITS,
    come_up,
    finished,
    hurry,
    open_breaker,
    post,
    rows_of,
    subscribe,
    wait_for_states,
)
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

Start = Callable[..., Running]


def _subscription(system: Running, subscription_id: str) -> dict[str, Any]:
    found: dict[str, Any] = system.get(f"/api/v1/subscriptions/{subscription_id}").json()
    return found


EXHAUSTED = ("failed", "retries_exhausted")


def _waits_after_failure(system: Running, row: dict[str, Any]) -> float:
    """Seconds from the last attempt for a notification's subscription until it is due."""
    last = """SELECT max(started_at) FROM attempts WHERE notification_id IN
        (SELECT id FROM notifications WHERE subscription_id = :id)"""
    due_at: datetime = datetime.fromisoformat(row["due_at"])
    return (due_at - system.sql(last, id=row["subscription_id"])[0][0]).total_seconds()


def test_five_failures_open_the_breaker_of_one_endpoint(system: Running, http: HttpReceiver) -> None:
    sick = subscribe(system, http.url("/ep/opens"), "ep.opens")
    healthy = subscribe(system, http.url("/ep/neighbour"), "ep.opens")
    rows = open_breaker(system, http, sick, "/ep/opens", "ep.opens")
    assert all(15 <= _waits_after_failure(system, row) < 30 for row in rows)
    post(system, "ep.opens", 3)
    rows = wait_for_states(system, sick, *[WAITS] * 8)
    assert [row["attempts"] for row in rows] == [1] * 5 + [0] * 3
    assert all(row["due_at"] for row in rows)
    assert system.notification(rows[-1]["id"])["attempt_log"] == []
    # However often they come up before their time, it is not tried and costs nothing.
    come_up(system, sick, 8)
    rows = wait_for_states(system, sick, *[WAITS] * 8)
    assert [row["attempts"] for row in rows] == [1] * 5 + [0] * 3
    assert len(http.received("/ep/opens")) == 5
    wait_for_states(system, healthy, *[DELIVERED] * 8)
    assert set(http.times("/ep/neighbour").values()) == {1}
    # It cannot go on for ever.
    shift = "UPDATE notifications SET deferred_at = deferred_at - interval '73 hours' WHERE subscription_id = :id"
    system.sql(shift, id=sick)
    hurry(system, sick, open_still=True)
    wait_for_states(system, sick, *[("failed", "too_old")] * 8)
    assert len(http.received("/ep/opens")) == 5
    letters = system.get("/api/v1/dead-letters?event_type=ep.opens").json()["items"]
    assert sorted((each["reason"], each["attempts"]) for each in letters) == [("too_old", 0)] * 3 + [("too_old", 1)] * 5


def test_a_probe_that_fails_doubles_the_wait_and_one_that_succeeds_ends_it(system: Running, http: HttpReceiver) -> None:
    path = "/ep/recovers"
    sick = subscribe(system, http.url(path), "ep.recovers")
    open_breaker(system, http, sick, path, "ep.recovers")
    for probes, wait in ((1, 30), (2, 60)):
        # Any of them may be the probe, and one may be it twice.
        system.sql("UPDATE notifications SET tries = 0 WHERE subscription_id = :id", id=sick)
        hurry(system, sick)
        wait_for(lambda count=5 + probes: len(http.received(path)) == count)
        wait_for_states(system, sick, *[WAITS] * (4 + probes))
        post(system, "ep.recovers", 1)
        rows = wait_for_states(system, sick, *[WAITS] * (5 + probes))
        assert wait <= _waits_after_failure(system, rows[-1]) < 2 * wait
        assert sum(row["attempts"] for row in rows) == 5 + probes
    http.answer(path, 204)
    hurry(system, sick)
    # Soon after it is back: nothing waits for the time that a lost probe would have had.
    rows = wait_for_states(system, sick, *[DELIVERED] * 7)
    assert sum(row["attempts"] for row in rows) == len(http.received(path)) == 7 + 7
    # All is forgiven: four failures more do not open it again.
    http.answer(path, 500, 500, 500, 500, 204)
    post(system, "ep.recovers", 4)
    wait_for_states(system, sick, *[DELIVERED] * 11)
    assert len(http.received(path)) == 14 + 8


def test_waiting_for_a_breaker_spends_no_retries(system: Running, http: HttpReceiver) -> None:
    sick = subscribe(system, http.url("/ep/budget"), "ep.budget")
    http.answer("/ep/budget", 500)
    post(system, "ep.budget", 3)
    # The fifth failure comes in the second round.
    rows = wait_for_states(system, sick, *[WAITS] * 3)
    made = sum(row["attempts"] for row in rows)
    while made < 9:
        come_up(system, sick, sum(row["due_at"] is not None for row in rows))
        wait_for(lambda: all(row["reason"] == "breaker_open" for row in rows_of(system, sick) if row["due_at"]))
        hurry(system, sick)
        made += 1
        wait_for(lambda count=made: sum(row["attempts"] for row in rows_of(system, sick)) == count)
        wait_for(lambda: all(row["reason"] == "breaker_open" for row in rows_of(system, sick) if row["due_at"]))
        rows = rows_of(system, sick)
    rows = wait_for_states(system, sick, *[EXHAUSTED] * 3)
    logs = [system.notification(row["id"])["attempt_log"] for row in rows]
    assert [[attempt["number"] for attempt in log] for log in logs] == [[1, 2, 3]] * 3
    assert set(http.times("/ep/budget").values()) == {3}


def test_a_timeout_leads_into_the_slow_lane_and_a_quick_answer_out(breakable: Running, http: HttpReceiver) -> None:
    """So it is with a subscription, and with a URL that is addressed directly."""
    system = breakable
    subscribe(system, http.url("/ep/slow"), "ep.slow")
    addressed = {"event_type": "ep.addressed", "recipient": http.url("/ep/slow-url"), "channel": "webhook"}

    def post_both() -> list[str]:
        return [system.event(event_type="ep.slow"), system.event(**addressed)]

    system.retry.stop()
    releases = [http.hold("/ep/slow"), http.hold("/ep/slow-url")]
    first = post_both()
    wait_for(lambda: [_status(system, event_id) for event_id in first] == ["retrying"] * 2)
    later = post_both()
    system.fresh.stop()  # what one process remembers of it
    system.fresh.launch()
    latest = post_both()
    wait_for(lambda: {_queue(system, event_id) for event_id in (*later, *latest)} == {"webhook.slow"})
    # A doubled message by which they came first does not bring them back into the way of what is fresh.
    ids = [row["id"] for event_id in (*later, *latest) for row in system.notifications(event_id)]
    with Celery(broker=system.environment["REDIS_URL"]) as sender:
        sender.conf.task_create_missing_queues = True
        sender.send_task("tasks.deliver.webhook", args=(ids,), queue="webhook")
    for _ in range(4):  # what comes behind it says when it is through
        elsewhere = system.event(**{**addressed, "recipient": http.url("/ep/quick")})
        assert finished(system, elsewhere)["status"] == "delivered"
    assert [len(http.received(path)) for path in ("/ep/slow", "/ep/slow-url")] == [1, 1]
    for release in releases:
        release()
    system.retry.launch()
    for event_id in (*first, *later, *latest):
        notification = finished(system, event_id)
        assert (notification["status"], notification["attempts"]) == ("delivered", 2 if event_id in first else 1)
    for event_id in post_both():
        assert finished(system, event_id)["status"] == "delivered"
        assert _queue(system, event_id) == "webhook"


def _status(system: Running, event_id: str) -> str | None:
    return next((row["status"] for row in system.notifications(event_id)), None)


def _queue(system: Running, event_id: str) -> str | None:
    rows = system.sql("SELECT queue FROM notifications WHERE event_id = :id", id=event_id)
    return rows[0].queue if rows else None


def test_what_hangs_is_retried_and_dead_lettered_like_everything_else(system: Running, http: HttpReceiver) -> None:
    answers = {"ok": (DELIVERED, 1), "400": (("failed", "permanent_error"), 1), "500": (EXHAUSTED, 3)}
    wanted = {**answers, "hangs": (EXHAUSTED, 3), "hangs-too": (EXHAUSTED, 3)}
    subscriptions = {
        name: subscribe(system, http.url(f"/ep/mix/{name}"), "ep.mix", permanent_statuses=[400]) for name in wanted
    }
    http.answer("/ep/mix/400", 400)
    http.answer("/ep/mix/500", 500)
    with contextlib.ExitStack() as held:
        held.callback(http.hold("/ep/mix/hangs"))
        held.callback(http.hold("/ep/mix/hangs-too"))
        event_id = system.event(event_type="ep.mix")
        for name, (state, attempts) in wanted.items():
            [row] = wait_for_states(system, subscriptions[name], state)
            log = system.notification(row["id"])["attempt_log"]
            assert row["attempts"] == attempts
            assert [attempt["number"] for attempt in log] == list(range(1, attempts + 1))
            assert [received.id for received in http.received(f"/ep/mix/{name}")] == [row["id"]] * attempts
            if name.startswith("hangs"):
                assert {attempt["outcome"] for attempt in log} == {"ambiguous"}
                assert all(attempt["error"].startswith("timeout") for attempt in log)
    letters = system.get("/api/v1/dead-letters?event_type=ep.mix").json()["items"]
    assert {letter["event_id"] for letter in letters} == {event_id}
    assert sorted(letter["attempts"] for letter in letters) == [1, 3, 3, 3]


def _told(http: HttpReceiver, path: str) -> list[tuple[str, Any]]:
    """Return what a watcher was told: type and data, in order; each event once."""
    return [(each["type"], each["data"]) for each in {each.id: each.json for each in http.received(path)}.values()]


def _watch(system: Running, http: HttpReceiver, path: str, subscription_id: str) -> None:
    """Subscribe to what becomes of a subscription."""
    its_own = f"payload.subscription_id == '{subscription_id}'"
    subscribe(system, http.url(path), "notifier.subscription.*", filter=its_own)


def test_statuses_that_a_subscription_lists_are_permanent(system: Running, http: HttpReceiver) -> None:
    strict = subscribe(system, http.url("/ep/strict"), "ep.strict", permanent_statuses=[422, 404])
    lenient = subscribe(system, http.url("/ep/lenient"), "ep.lenient")
    http.answer("/ep/strict", 404, 401, 204)
    http.answer("/ep/lenient", 404, 204)
    post(system, "ep.strict", 1)
    [dead] = wait_for_states(system, strict, ("failed", "permanent_error"))
    [attempt] = system.notification(dead["id"])["attempt_log"]
    assert (attempt["outcome"], attempt["status_code"]) == ("rejected", 404)
    post(system, "ep.lenient", 1)
    [row] = wait_for_states(system, lenient, ("delivered", None))
    assert row["attempts"] == 2
    # A status that is not listed fails for now.
    assert finished(system, system.event(event_type="ep.strict"))["attempts"] == 2
    # The list that stands when a webhook is answered counts.
    http.answer("/ep/strict", 404, 204)
    url = f"{system.url}/api/v1/subscriptions/{strict}"
    assert system.http.patch(url, json={"permanent_statuses": []}, timeout=20).json()["permanent_statuses"] == []
    again = finished(system, system.event(event_type="ep.strict"))
    assert (again["status"], again["attempts"]) == ("delivered", 2)
    assert _subscription(system, strict)["enabled"]


def test_a_410_disables_the_subscription(system: Running, http: HttpReceiver) -> None:
    gone = subscribe(system, http.url("/ep/gone"), "ep.gone")
    _watch(system, http, "/ep/gone-watch", gone)
    http.answer("/ep/gone", 410)
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    post(system, "ep.gone", 3)
    rows = wait_for_states(system, gone, *[("failed", "permanent_error")] * 3)
    assert [row["attempts"] for row in rows] == [1, 1, 1]
    [attempt] = system.notification(rows[0]["id"])["attempt_log"]
    assert (attempt["outcome"], attempt["status_code"]) == ("rejected", 410)
    assert len(system.get("/api/v1/dead-letters?event_type=ep.gone").json()["items"]) == 3
    wait_for(lambda: not _subscription(system, gone)["enabled"])
    assert _subscription(system, gone)["disabled_reason"] == "gone"
    told = {"subscription_id": gone, "url": http.url("/ep/gone"), "reason": "gone"}
    wait_for(lambda: _told(http, "/ep/gone-watch") == [("notifier.subscription.disabled", told)])
    assert finished(system, system.event(event_type="ep.gone"))["reason"] == "subscription_disabled"
    # It comes back by one call, and by another it gets all that it missed.
    http.answer("/ep/gone", 204)
    enabled = system.post(f"/api/v1/subscriptions/{gone}/enable")
    assert (enabled.status_code, enabled.json()["enabled"], enabled.json()["disabled_reason"]) == (200, True, None)
    assert finished(system, system.event(event_type="ep.gone"))["status"] == "delivered"
    recovered = system.post(f"/api/v1/subscriptions/{gone}/recover", {"since": since})
    assert (recovered.status_code, recovered.json()["recovered"]) == (202, 4)
    wait_for_states(system, gone, *[DELIVERED] * 5)
    assert sorted(http.times("/ep/gone").values()) == [1, 1, 2, 2, 2]
    assert len(_told(http, "/ep/gone-watch")) == 1


def _fail(system: Running, http: HttpReceiver, path: str, event_type: str) -> None:
    http.answer(path, 500)
    assert finished(system, system.event(event_type=event_type))["reason"] == "retries_exhausted"


def _pass_minutes(system: Running, subscription_id: str, minutes: int) -> None:
    shift = "UPDATE endpoints SET failing_since = failing_since - :minutes * interval '1 minute' WHERE id = :id"
    system.sql(shift, minutes=minutes, id=subscription_id)


def test_nothing_but_failures_is_told_and_then_disables(start_system: Start, http: HttpReceiver) -> None:
    system = start_system(NOTIFIER_SUBSCRIPTION_DISABLE_AFTER="PT1H", NOTIFIER_WEBHOOK_MAX_RETRIES="0")
    sick = subscribe(system, http.url("/ep/failing"), "ep.failing")
    _watch(system, http, "/ep/failing-watch", sick)
    _fail(system, http, "/ep/failing", "ep.failing")
    _pass_minutes(system, sick, 31)
    _fail(system, http, "/ep/failing", "ep.failing")
    data = {"subscription_id": sick, "url": http.url("/ep/failing"), "reason": "failing"}
    failing, disabled = (("notifier.subscription.failing", data), ("notifier.subscription.disabled", data))
    wait_for(lambda: _told(http, "/ep/failing-watch") == [failing])
    assert _subscription(system, sick)["enabled"]
    _fail(system, http, "/ep/failing", "ep.failing")
    _pass_minutes(system, sick, 30)
    _fail(system, http, "/ep/failing", "ep.failing")
    wait_for(lambda: _told(http, "/ep/failing-watch") == [failing, disabled])
    assert _subscription(system, sick)["disabled_reason"] == "failing"
    assert finished(system, system.event(event_type="ep.failing"))["reason"] == "subscription_disabled"
    # Enabled again it begins anew, and one success forgives it everything.
    assert system.post(f"/api/v1/subscriptions/{sick}/enable").status_code == 200
    for _ in range(2):
        _fail(system, http, "/ep/failing", "ep.failing")
    _pass_minutes(system, sick, 29)
    http.answer("/ep/failing", 204)
    assert finished(system, system.event(event_type="ep.failing"))["status"] == "delivered"
    _pass_minutes(system, sick, 2)
    for _ in range(4):
        _fail(system, http, "/ep/failing", "ep.failing")
    assert _subscription(system, sick)["enabled"]
    assert system.sql("SELECT count(*) FROM events WHERE source = 'notifier'")[0][0] == 2
