"""Rate limits of endpoints: kept by all workers together, at no cost in attempts, and nobody else waits."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


def _subscribe(system: Running, url: str, event_type: str, rate: float | None) -> str:
    body = {"url": url, "event_types": [event_type], "rate_limit_per_second": rate}
    answer = system.post("/api/v1/subscriptions", body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["rate_limit_per_second"] == rate
    subscription_id: str = answer.json()["id"]
    return subscription_id


def _post(system: Running, event_type: str, count: int) -> None:
    answer = system.post("/api/v1/events/batch", {"events": [{"event_type": event_type}] * count})
    assert answer.json()["accepted"] == count, answer.text


def _rows(system: Running, subscription_id: str, status: str) -> list[dict[str, Any]]:
    path = f"/api/v1/subscriptions/{subscription_id}/notifications?limit=200&status={status}"
    found: list[dict[str, Any]] = system.get(path).json()["items"]
    return found


def _delivered(system: Running, subscription_id: str, count: int, timeout: float = 60) -> list[dict[str, Any]]:
    return wait_for(lambda: len(rows := _rows(system, subscription_id, "delivered")) == count and rows, timeout)


def _assert_never_faster(http: HttpReceiver, path: str, rate: float) -> None:
    """In no stretch of time came more than its share and what one second's burst and one on its way late add to it."""
    times = [received.at for received in http.received(path)]
    for (first, begin), (last, end) in combinations(enumerate(times), 2):
        came, allowed = last - first + 1, rate * (end - begin) + 2 * max(rate, 1)
        assert came <= allowed, f"{came} in {end - begin:.2f} s: {[round(at - times[0], 2) for at in times]}"


@pytest.fixture(scope="module")
def wide(new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system with two workers for fresh notifications, and two for retries."""
    system = new_system()
    system.add_worker("fresh", "fresh-2")
    system.add_worker("retry", "retry-2")
    with system as running:
        yield running


def test_all_workers_share_one_limit(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/five"), "rate.five", 5)
    free = _subscribe(wide, http.url("/rate/free"), "rate.five", None)
    _post(wide, "rate.five", 15)
    for _ in range(15):  # each in a message of its own, for whichever worker is free
        wide.event(event_type="rate.five")
    _delivered(wide, free, 30)
    # A notification that waits says so, and has spent no attempt.
    waiting = wait_for(lambda: _rows(wide, limited, "scheduled"))
    assert {(row["reason"], row["attempts"]) for row in waiting} == {("throttled", 0)}
    assert all(row["due_at"] for row in waiting)
    assert wide.notification(waiting[-1]["id"])["attempt_log"] == []
    rows = _delivered(wide, limited, 30)
    assert {row["attempts"] for row in rows} == {1}
    assert {(row["reason"], row["due_at"]) for row in rows} == {(None, None)}
    assert set(http.times("/rate/five").values()) == {1}
    _assert_never_faster(http, "/rate/five", 5)


def test_retries_count_as_well(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/retried"), "rate.retried", 4)
    http.answer("/rate/retried", 503, 503, 503, 503, 204)
    _post(wide, "rate.retried", 8)
    rows = _delivered(wide, limited, 8)
    assert sum(row["attempts"] for row in rows) == 12
    _assert_never_faster(http, "/rate/retried", 4)


def test_less_than_one_a_second(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/half"), "rate.half", 0.5)
    _post(wide, "rate.half", 4)
    assert {row["attempts"] for row in _delivered(wide, limited, 4)} == {1}
    _assert_never_faster(http, "/rate/half", 0.5)


def test_what_waits_knows_until_when(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/rare"), "rate.rare", 0.01)
    _post(wide, "rate.rare", 3)
    _delivered(wide, limited, 1)
    waiting = wait_for(lambda: len(rows := _rows(wide, limited, "scheduled")) == 2 and rows)
    assert {row["reason"] for row in waiting} == {"throttled"}
    first, second = sorted(datetime.fromisoformat(row["due_at"]) for row in waiting)
    assert first > datetime.now(UTC) + timedelta(seconds=50)
    assert timedelta(seconds=90) < second - first < timedelta(seconds=110)


def test_waiting_for_a_turn_too_long_ends_in_a_dead_letter(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/too-old"), "rate.too-old", 0.01)
    _post(wide, "rate.too-old", 2)
    _delivered(wide, limited, 1)
    [waiting] = wait_for(lambda: _rows(wide, limited, "scheduled"))
    statement = (
        "UPDATE notifications SET deferred_at = deferred_at - interval '73 hours', due_at = now() WHERE id = :id"
    )
    wide.sql(statement, id=waiting["id"])
    [dead] = wait_for(lambda: _rows(wide, limited, "failed"))
    assert (dead["id"], dead["reason"], dead["attempts"]) == (waiting["id"], "too_old", 0)
    [letter] = wide.get("/api/v1/dead-letters?event_type=rate.too-old").json()["items"]
    assert (letter["notification_id"], letter["reason"]) == (waiting["id"], "too_old")


def test_a_limit_that_is_lifted_holds_no_longer(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/lifted"), "rate.lifted", 0.01)
    _post(wide, "rate.lifted", 300)
    # For most of them it would take more than the 72 hours that anything waits; but that may change.
    statement = "SELECT status, reason, count(*) FROM notifications WHERE subscription_id = :id GROUP BY 1, 2"
    states = {("delivered", None, 1), ("scheduled", "throttled", 299)}
    wait_for(lambda: {tuple(row) for row in wide.sql(statement, id=limited)} == states)
    changed = wide.http.patch(
        f"{wide.url}/api/v1/subscriptions/{limited}", json={"rate_limit_per_second": None}, timeout=20
    )
    assert (changed.status_code, changed.json()["rate_limit_per_second"]) == (200, None)
    _post(wide, "rate.lifted", 5)
    wait_for(lambda: [tuple(row) for row in wide.sql(statement, id=limited)] == [("delivered", None, 305)])


def test_a_backlog_waits_in_line_and_is_not_asked_about_again_and_again(wide: Running, http: HttpReceiver) -> None:
    limited = _subscribe(wide, http.url("/rate/backlog"), "rate.backlog", 40)
    for _ in range(8):
        _post(wide, "rate.backlog", 50)
    in_line = """SELECT count(*) FROM notifications
        WHERE subscription_id = :id AND (deferred_at IS NOT NULL OR status = 'delivered')"""
    wait_for(lambda: wide.sql(in_line, id=limited)[0][0] == 400)
    late = wide.event(event_type="rate.backlog")
    statement = "SELECT count(*) FROM notifications WHERE subscription_id = :id AND status = 'delivered'"
    wait_for(lambda: wide.sql(statement, id=limited)[0][0] == 401, 60)
    _assert_never_faster(http, "/rate/backlog", 40)
    # Once at its coming, once when its turn is; here and there one finds its slot taken.
    claims = wide.sql("SELECT sum(claims) FROM notifications WHERE subscription_id = :id", id=limited)[0][0]
    assert claims <= 401 * 2.5, f"{claims / 401:.1f} looks at each"
    [last] = wide.notifications(late)
    order = [received.id for received in http.received("/rate/backlog")]
    assert order.index(last["id"]) > 300
