"""Cancelling: by id in every state, by key, and in a race with the workers. What is said is true."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.support.receivers import HttpReceiver
from tests.support.running import FINISHED, Running, ahead, made, reaches, wait_for

FAR = "2040-06-01T12:00:00Z"


def cancel(system: Running, notification_id: str) -> requests.Response:
    return system.post(f"/api/v1/notifications/{notification_id}/cancel")


def by_key(system: Running, key: str) -> dict[str, int]:
    answer = system.post("/api/v1/notifications/cancel", {"cancellation_key": key})
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    return counts


# By id.


def test_what_is_scheduled_is_cancelled_and_never_goes(system: Running, http: HttpReceiver) -> None:
    due = ahead(seconds=1.5)
    fields = {"recipient": http.url("/cancel-scheduled"), "channel": "webhook", "send_at": due}
    cancelled, other = made(system, **fields), made(system, **fields)
    answer = cancel(system, cancelled)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["id"] == cancelled
    assert (found["status"], found["reason"], found["due_at"], found["attempts"]) == ("cancelled", None, None, 0)
    assert "cancelled" in found["explanation"]
    again = cancel(system, cancelled)
    assert (again.status_code, again.json()) == (200, found)
    reaches(system, other, "delivered")
    last = made(system, recipient=http.url("/cancel-scheduled"), channel="webhook")
    reaches(system, last, "delivered")
    assert [each.id for each in http.received("/cancel-scheduled")] == [other, last]


def test_what_is_retrying_is_cancelled_and_not_tried_again(system: Running, http: HttpReceiver) -> None:
    http.answer("/cancel-retrying", 500)
    notification = made(system, recipient=http.url("/cancel-retrying"), channel="webhook")
    reaches(system, notification, "retrying")
    answer = cancel(system, notification)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["reason"]) == ("cancelled", None)
    attempts = answer.json()["attempts"]
    other = made(system, recipient=http.url("/cancel-retrying"), channel="webhook")
    reaches(system, other, "failed")  # its retries came later than those of the cancelled one would have
    assert http.times("/cancel-retrying") == {notification: attempts, other: 3}
    assert system.notification(notification)["status"] == "cancelled"


def test_what_is_being_sent_can_not_be_cancelled_and_arrives(system: Running, http: HttpReceiver) -> None:
    release = http.hold("/cancel-sending")
    notification = made(system, recipient=http.url("/cancel-sending"), channel="webhook")
    wait_for(lambda: http.received("/cancel-sending"))
    answer = cancel(system, notification)
    release()
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["notification"]["id"] == notification
    assert answer.json()["notification"]["status"] == "sending"
    reaches(system, notification, "delivered")
    assert len(http.received("/cancel-sending")) == 1


def test_after_an_ambiguous_attempt_it_says_that_it_may_have_been_sent(system: Running, http: HttpReceiver) -> None:
    release = http.hold("/cancel-ambiguous")
    notification = made(system, recipient=http.url("/cancel-ambiguous"), channel="webhook")
    reaches(system, notification, "retrying")
    answer = cancel(system, notification)
    release()
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["status"], found["reason"]) == ("cancelled", "may_have_been_sent")
    assert "ambiguous" in {attempt["outcome"] for attempt in found["attempt_log"]}
    assert "may have" in found["explanation"]
    assert cancel(system, notification).json()["reason"] == "may_have_been_sent"


def _delivered(system: Running, http: HttpReceiver) -> str:
    return made(system, recipient=http.url("/cancel-ended"), channel="webhook")


def _sent(system: Running, _: HttpReceiver) -> str:
    return made(system, recipient="cancel-ended", channel="push")


def _failed(system: Running, http: HttpReceiver) -> str:
    http.answer("/cancel-dead", 410)
    return made(system, recipient=http.url("/cancel-dead"), channel="webhook")


def _expired(system: Running, _: HttpReceiver) -> str:
    return made(system, recipient="cancel-ended", channel="push", expires_at=ahead(seconds=-1))


def _skipped(system: Running, _: HttpReceiver) -> str:
    return made(system, user_id="u-cancel-nobody", channel="push")


@pytest.mark.parametrize("make", [_delivered, _sent, _failed, _expired, _skipped])
def test_what_has_ended_otherwise_stays_as_it_is(
    system: Running, http: HttpReceiver, make: Callable[[Running, HttpReceiver], str]
) -> None:
    notification = make(system, http)
    status = make.__name__.removeprefix("_")
    before = reaches(system, notification, status)
    answer = cancel(system, notification)
    assert answer.status_code == 409
    assert status in answer.json()["detail"]
    assert answer.json()["notification"] == before
    assert system.notification(notification) == before


@pytest.mark.parametrize(
    "unknown", ["8ef29821-99ef-4a15-9d9d-b989aeac2f5f", "01890000-0000-7000-8000-000000000000", "not-an-id"]
)
def test_what_is_unknown_is_not_found(system: Running, unknown: str) -> None:
    answer = cancel(system, unknown)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


# By key.


def test_a_key_cancels_all_that_still_can_be_and_can_be_used_again(system: Running, http: HttpReceiver) -> None:
    fields = {"recipient": http.url("/cancel-by-key"), "channel": "webhook"}
    done = made(system, **fields, cancellation_key="k-cancel")
    reaches(system, done, "delivered")
    waiting = [made(system, **fields, cancellation_key="k-cancel", send_at=FAR) for _ in range(3)]
    event = system.event(**fields, cancellation_key="k-cancel", send_at=FAR)
    other = made(system, **fields, cancellation_key="k-cancel-other", send_at=FAR)
    assert by_key(system, "k-cancel") == {"cancelled": 4, "too_late": 1}
    assert by_key(system, "k-cancel") == {"cancelled": 0, "too_late": 1}
    assert {system.notification(each)["status"] for each in waiting} == {"cancelled"}
    wait_for(lambda: [each["status"] for each in system.notifications(event)] == ["cancelled"])
    assert system.notification(other)["status"] == "scheduled"
    again = made(system, **fields, cancellation_key="k-cancel")
    reaches(system, again, "delivered")
    assert [each.id for each in http.received("/cancel-by-key")] == [done, again]


def test_an_event_that_others_hear_of_too_is_counted_once(system: Running, http: HttpReceiver) -> None:
    listening = {"url": http.url("/cancel-heard"), "event_types": ["cancel.heard"]}
    assert system.post("/api/v1/subscriptions", listening).status_code == 201
    fields = {"event_type": "cancel.heard", "recipient": http.url("/cancel-own"), "channel": "webhook"}
    events = [system.event(**fields, cancellation_key="k-cancel-heard", send_at=FAR) for _ in range(20)]
    counted = by_key(system, "k-cancel-heard")
    # Each has a row of its own from the start, and one for the subscription once it is fanned out.
    assert 20 <= counted["cancelled"] + counted["too_late"] <= 40
    for event in events:
        wait_for(lambda event=event: len(system.notifications(event)) == 2)
    rows = [row["status"] for event in events for row in system.notifications(event)]
    late = rows.count("delivered") + rows.count("sending") + rows.count("sent")
    assert counted["too_late"] <= late
    assert counted["cancelled"] <= rows.count("cancelled")
    assert not http.received("/cancel-own")


def test_a_key_finds_what_is_retrying_and_what_is_being_sent(system: Running, http: HttpReceiver) -> None:
    http.answer("/cancel-key-retrying", (429, {"Retry-After": "60"}))
    release = http.hold("/cancel-key-sending")
    key = {"channel": "webhook", "cancellation_key": "k-cancel-states"}
    retrying = made(system, recipient=http.url("/cancel-key-retrying"), **key)
    reaches(system, retrying, "retrying")
    sending = made(system, recipient=http.url("/cancel-key-sending"), **key)
    wait_for(lambda: http.received("/cancel-key-sending"))
    assert by_key(system, "k-cancel-states") == {"cancelled": 1, "too_late": 1}
    release()
    reaches(system, sending, "delivered")
    assert system.notification(retrying)["status"] == "cancelled"


def test_an_unknown_key_cancels_nothing(system: Running) -> None:
    assert by_key(system, "k-unknown-to-all") == {"cancelled": 0, "too_late": 0}


@pytest.mark.parametrize("body", [{}, {"cancellation_key": ""}, {"cancellation_key": 1}, {"cancellation_key": None}])
def test_a_key_must_be_one(system: Running, body: dict[str, Any]) -> None:
    answer = system.post("/api/v1/notifications/cancel", body)
    assert answer.status_code == 422
    assert "cancellation_key" in answer.json()["errors"]


def test_more_than_a_key_is_refused(system: Running) -> None:
    body = {"cancellation_key": "k-cancel-extra", "user_id": "u"}
    assert "user_id" in system.post("/api/v1/notifications/cancel", body).json()["errors"]


def test_what_no_worker_has_seen_yet_is_cancelled_for_good(
    new_system: Callable[..., Running], http: HttpReceiver
) -> None:
    """Queued notifications, and events not yet fanned out, which become cancelled notifications."""
    system = new_system()
    try:
        system.start(only=[system.api])
        route = {"event_type": "cancel.routed", "to": {"recipient": "payload.url", "channel": "webhook"}}
        system.http.put(f"{system.url}/api/v1/routes/cancel", json=route, timeout=20).raise_for_status()
        fields = {"recipient": http.url("/cancel-unseen"), "channel": "webhook"}
        by_id, keyed = made(system, **fields), made(system, **fields, cancellation_key="k-unseen")
        assert system.notification(by_id)["status"] == system.notification(keyed)["status"] == "queued"
        payload = {"url": http.url("/cancel-unseen")}
        event = system.event(event_type="cancel.routed", payload=payload, cancellation_key="k-unseen")
        assert system.get(f"/api/v1/events/{event}").json()["status"] == "accepted"
        assert cancel(system, by_id).status_code == 200
        assert by_key(system, "k-unseen") == {"cancelled": 2, "too_late": 0}
        later = system.event(event_type="cancel.routed", payload=payload, cancellation_key="k-unseen")
        system.start(only=[child for child in system.children if child is not system.api])
        after = _of(system, later, "delivered")
        [never] = wait_for(lambda: system.notifications(event))
        assert (never["status"], never["attempts"]) == ("cancelled", 0)
        assert {system.notification(each)["status"] for each in (by_id, keyed)} == {"cancelled"}
        assert [each.id for each in http.received("/cancel-unseen")] == [after["id"]]
    finally:
        system.stop()


def _of(system: Running, event_id: str, status: str) -> dict[str, Any]:
    found = wait_for(lambda: [each for each in system.notifications(event_id) if each["status"] == status])
    return found[0]


# The race.


def _truth(system: Running, http: HttpReceiver, path: str, answers: dict[str, int]) -> None:
    """Hold each answer to what became of its notification."""
    too_late = [each for each, code in answers.items() if code == 409]
    wait_for(lambda: all(system.notification(each)["status"] in FINISHED for each in too_late), 40)
    after = made(system, recipient=http.url(f"{path}-after"), channel="webhook")
    reaches(system, after, "delivered")
    times = http.times(path)
    for notification, code in answers.items():
        status = system.notification(notification)["status"]
        if code == 200:
            assert (status, times[notification]) == ("cancelled", 0)
        else:
            assert (code, status, times[notification]) == (409, "delivered", 1)
    # Both came to pass, or it was no race.
    assert set(answers.values()) == {200, 409}


def test_a_cancel_that_races_the_workers_tells_the_truth(system: Running, http: HttpReceiver) -> None:
    def race(number: int) -> tuple[str, int]:
        with requests.Session() as session:
            body = {"recipient": http.url("/race"), "channel": "webhook", "body": str(number)}
            posted = session.post(f"{system.url}/api/v1/notifications", json=body, timeout=30).json()
            notification = posted["items"][0]["id"]
            for _ in range(number % 5):  # some are cancelled at once, some a little later
                session.get(f"{system.url}/api/v1/notifications/{notification}", timeout=30)
            answer = session.post(f"{system.url}/api/v1/notifications/{notification}/cancel", timeout=30)
            return notification, answer.status_code

    answers: dict[str, int] = {}
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):  # on a busy machine one side may win a whole round
            answers |= dict(pool.map(race, range(200)))
            if len(set(answers.values())) == 2:
                break
    assert len(answers) % 200 == 0
    _truth(system, http, "/race", answers)


def test_so_it_does_when_their_hour_has_come(system: Running, http: HttpReceiver) -> None:
    first = datetime.now(UTC) + timedelta(seconds=2)
    event = {"event_type": "test.race.due", "recipient": http.url("/race-due"), "channel": "webhook"}
    events = [{**event, "send_at": (first + timedelta(milliseconds=20 * n)).isoformat()} for n in range(200)]
    assert system.post("/api/v1/events/batch", {"events": events}).json()["accepted"] == 200
    wait_for(lambda: http.received("/race-due"))
    rows = system.sql("SELECT id FROM notifications WHERE event_type = 'test.race.due'")
    ids = random.Random(1).sample([str(row.id) for row in rows], len(rows))

    def race(notification: str) -> tuple[str, int]:
        return notification, requests.post(
            f"{system.url}/api/v1/notifications/{notification}/cancel", timeout=30
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = dict(pool.map(race, ids))
    assert len(answers) == 200
    _truth(system, http, "/race-due", answers)


def test_cancels_by_key_race_the_workers_too(system: Running, http: HttpReceiver) -> None:
    event = {"event_type": "test.race", "recipient": http.url("/race-key"), "channel": "webhook"}
    events = [{**event, "cancellation_key": "k-race"} for _ in range(200)]
    items = system.post("/api/v1/events/batch", {"events": events}).json()["items"]
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: by_key(system, "k-race"), range(8)))
    ended = wait_for(lambda: _all_ended(system, [item["id"] for item in items]), 40)
    cancelled = {each["id"] for each in ended if each["status"] == "cancelled"}
    assert sum(each["cancelled"] for each in counts) == len(cancelled)
    assert http.times("/race-key") == {each["id"]: 1 for each in ended if each["id"] not in cancelled}


def _all_ended(system: Running, event_ids: list[str]) -> list[dict[str, Any]] | None:
    found = [system.notifications(each) for each in event_ids]
    if any(not each or each[0]["status"] not in FINISHED for each in found):
        return None
    return [notification for [notification] in found]
