"""Callbacks: what becomes of notifications, told to those who subscribe to it, and never told about telling."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.support.receivers import HttpReceiver, Received, SmtpReceiver
from tests.support.running import Running, wait_for

PATH = "/api/v1/subscriptions"
PREFIX = "notifier.notification."


@pytest.fixture(scope="module")
def own(new_system: Callable[..., Running], smtp: SmtpReceiver) -> Iterator[Running]:
    """A system in which nobody else listens."""
    with new_system(NOTIFIER_EMAIL=f"{smtp.dsn}?tls=none") as system:
        yield system


@pytest.fixture
def subscribe(own: Running, http: HttpReceiver) -> Iterator[Callable[..., dict[str, Any]]]:
    """Subscribes paths of the receiver; they are all gone after the test."""
    made: list[dict[str, Any]] = []

    def subscribe(path: str, *event_types: str, **fields: Any) -> dict[str, Any]:
        answer = own.post(PATH, {"url": http.url(path), "event_types": event_types, **fields})
        assert answer.status_code == 201, answer.text
        made.append(answer.json())
        return made[-1]

    yield subscribe
    for each in made:
        own.http.delete(f"{own.url}{PATH}/{each['id']}", timeout=9)


Subscribe = Callable[..., dict[str, Any]]


def told(http: HttpReceiver, path: str, notification_id: str) -> list[Received]:
    """Return what came to a path about a notification, in order."""
    return [each for each in http.received(path) if each.json["data"].get("notification_id") == notification_id]


def posted(system: Running, **fields: Any) -> dict[str, Any]:
    """The one notification of a new event that is for no subscription."""
    event_id = system.event(**fields)
    made = wait_for(lambda: system.notifications(event_id))
    [notification] = [each for each in made if each["subscription_id"] is None]
    return notification


def own_events(system: Running) -> list[str]:
    """The types of all events of our own so far."""
    return [
        row[0] for row in system.sql("SELECT event_type FROM events WHERE event_type LIKE 'notifier.%' ORDER BY id")
    ]


def rest(system: Running) -> None:
    """Wait until nothing is under way: what has not been told by then will never be."""
    # Where a process could not know that somebody listens by now, it leaves the event to the clock, for 5 s.
    system.sql("UPDATE events SET due_at = now() WHERE status = 'accepted'")
    due = "SELECT (SELECT count(*) FROM events WHERE status = 'accepted'), "
    due += "(SELECT count(*) FROM notifications WHERE status IN ('queued', 'sending', 'retrying'))"
    wait_for(lambda: tuple(system.sql(due)[0]) == (0, 0), 40, "the system to come to rest")


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def one_of_each(system: Running, smtp: SmtpReceiver, http: HttpReceiver, case: str) -> dict[str, dict[str, Any]]:
    """A notification that comes to each end, by what it comes to."""
    smtp.refuse(f"{case}@example.com", "550 No such user")
    http.answer(f"/{case}-refuses", 410)
    address = f"skip-{case}@example.com"
    assert system.post("/api/v1/suppressions", {"address": address, "channel": "email", "reason": "x"}).ok
    common = {"event_type": f"{case}.event", "category": "news"}
    past, sms = soon(-1), {"recipient": "+4915112345678", "channel": "sms"}
    made = {
        "sent": posted(system, **common, **sms),
        "delivered": posted(system, **common, recipient=http.url(f"/{case}-to"), channel="webhook"),
        "failed": posted(system, **common, recipient=http.url(f"/{case}-refuses"), channel="webhook"),
        "failed by mail": posted(system, **common, recipient=f"{case}@example.com", channel="email"),
        "expired": posted(system, **common, **sms, expires_at=past),
        "expired in the end": posted(system, **common, **sms, send_at=soon(2), expires_at=soon(1.5)),
        "skipped": posted(system, **common, recipient=address, channel="email"),
        "skipped: nobody": posted(system, **common, user_id="u_told_nobody", channel="email"),
    }
    for what, each in made.items():
        status = what.partition(":")[0].partition(" ")[0]
        wait_for(lambda i=each["id"], s=status: system.notification(i)["status"] == s, what=f"{what} ({each['id']})")
    return {what: system.notification(each["id"]) for what, each in made.items()}


def test_nothing_is_written_while_nobody_wants_to_know(
    own: Running, smtp: SmtpReceiver, http: HttpReceiver, subscribe: Subscribe
) -> None:
    subscribe("/quiet", "quietly.*", "notifier.subscription.*", "notifier.test", "notification.*")
    one_of_each(own, smtp, http, "quiet")
    rest(own)
    assert own_events(own) == []


def test_each_end_is_told_once_with_all_that_is_known(
    own: Running, smtp: SmtpReceiver, http: HttpReceiver, subscribe: Subscribe
) -> None:
    made = subscribe("/told", f"{PREFIX}*")
    ends = one_of_each(own, smtp, http, "told")
    for what, notification in ends.items():
        [received] = wait_for(lambda i=notification["id"]: told(http, "/told", i), what=f"word of {what}")
        status = what.partition(":")[0].partition(" ")[0]
        assert received.json["type"] == f"{PREFIX}{status}"
        assert received.json["data"] == {
            "notification_id": notification["id"],
            "event_id": notification["event_id"],
            "event_type": "told.event",
            "user_id": notification["user_id"],
            "channel": notification["channel"],
            "category": "news",
            "status": status,
            "reason": notification["reason"],
            "attempts": notification["attempts"],
            "subscription_id": None,
        }
        event = own.get(f"/api/v1/events/{received.json['id']}").json()
        assert (event["event_type"], event["source"]) == (f"{PREFIX}{status}", "notifier")
        assert event["payload"] == received.json["data"]
        Webhook(made["secret"]).verify(received.body, received.headers)
    rest(own)
    assert len(http.received("/told")) == len(ends)
    assert {ends[what]["reason"] for what in ("failed", "failed by mail")} == {"permanent_error"}
    assert (ends["skipped"]["reason"], ends["skipped: nobody"]["reason"]) == ("suppressed", "no_address")


def test_what_becomes_of_other_subscriptions_notifications_is_told_too(
    own: Running, http: HttpReceiver, subscribe: Subscribe
) -> None:
    subscribe("/others", f"{PREFIX}*")
    http.answer("/others-fails", 404)
    heard = [
        subscribe(f"/others-{each}", "others.event", enabled=each != "off", permanent_statuses=[404])
        for each in ("hears", "fails", "off")
    ]
    event_id = own.event(event_type="others.event")
    wait_for(lambda: len(own.notifications(event_id)) == 3)
    for subscription, status in zip(heard, ("delivered", "failed", "skipped"), strict=True):
        [made] = [each for each in own.notifications(event_id) if each["subscription_id"] == subscription["id"]]
        [received] = wait_for(lambda i=made["id"]: told(http, "/others", i), what=f"word of {status}")
        assert received.json["type"] == f"{PREFIX}{status}"
        assert received.json["data"]["subscription_id"] == subscription["id"]
        assert received.json["data"]["event_id"] == event_id


def test_a_notification_without_an_event_is_told(own: Running, http: HttpReceiver, subscribe: Subscribe) -> None:
    subscribe("/direct-told", f"{PREFIX}*")
    bodies = [{"recipient": "+4915112345678", "channel": "sms"}, {"user_id": "u_told_unknown", "channel": "sms"}]
    for body, status in zip(bodies, ("sent", "skipped"), strict=True):
        [made] = own.post("/api/v1/notifications", {**body, "body": "hi"}).json()["items"]
        [received] = wait_for(lambda i=made["id"]: told(http, "/direct-told", i), what=f"word of {status}")
        assert received.json["type"] == f"{PREFIX}{status}"
        assert (received.json["data"]["event_id"], received.json["data"]["event_type"]) == (None, None)
        assert received.json["data"]["user_id"] == body.get("user_id")


def test_the_very_next_end_is_told(own: Running, http: HttpReceiver, subscribe: Subscribe) -> None:
    made = []
    for turn in range(6):
        posted(own, recipient="+4915112345678", channel="sms")  # the worker has just looked who listens
        path = f"/next-end-{turn}"
        subscription = subscribe(path, f"{PREFIX}{('sent', 'delivered')[turn % 2]}")
        to = {"recipient": "+4915112345678", "channel": "sms"}
        if turn % 2:
            to = {"recipient": http.url("/next-end"), "channel": "webhook"}
        notification = posted(own, **to)
        made.append((path, notification["id"]))
        rest(own)
        own.http.delete(f"{own.url}{PATH}/{subscription['id']}", timeout=9)
    assert [len(told(http, path, notification_id)) for path, notification_id in made] == [1] * 6


def test_a_retry_is_no_end_and_each_end_is_told(own: Running, http: HttpReceiver, subscribe: Subscribe) -> None:
    subscribe("/ends", f"{PREFIX}*")
    http.answer("/ends-to", 500, 500, 500, 204)
    made = posted(own, event_type="ends.event", recipient=http.url("/ends-to"), channel="webhook")
    letter = own.dead_letter(made["event_id"])
    wait_for(lambda: len(told(http, "/ends", made["id"])) == 1)
    assert own.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 202
    wait_for(lambda: len(told(http, "/ends", made["id"])) == 2)
    assert own.post(f"/api/v1/notifications/{made['id']}/resend").status_code == 202
    wait_for(lambda: len(told(http, "/ends", made["id"])) == 3)
    rest(own)
    seen = [(each.json["data"]["status"], each.json["data"]["attempts"]) for each in told(http, "/ends", made["id"])]
    assert sorted(seen) == [("delivered", 4), ("delivered", 5), ("failed", 3)]


def test_one_that_is_moved_past_its_deadline_is_told(own: Running, http: HttpReceiver, subscribe: Subscribe) -> None:
    subscribe("/moved-told", f"{PREFIX}expired")
    made = posted(own, recipient="+4915112345678", channel="sms", send_at=soon(3600))
    url = f"{own.url}/api/v1/notifications/{made['id']}"
    assert own.http.patch(url, json={"expires_at": soon(-1)}, timeout=9).json()["status"] == "expired"
    [received] = wait_for(lambda: told(http, "/moved-told", made["id"]))
    assert received.json["type"] == f"{PREFIX}expired"


def test_a_cancelled_one_is_not_told(own: Running, http: HttpReceiver, subscribe: Subscribe) -> None:
    subscribe("/cancelled-told", f"{PREFIX}*")
    made = posted(own, recipient="+4915112345678", channel="sms", send_at=soon(3600))
    assert own.post(f"/api/v1/notifications/{made['id']}/cancel").status_code == 200
    last = posted(own, recipient="+4915112345678", channel="sms")
    wait_for(lambda: told(http, "/cancelled-told", last["id"]))
    assert told(http, "/cancelled-told", made["id"]) == []


def test_only_the_ends_that_somebody_wants_are_written(
    own: Running, smtp: SmtpReceiver, http: HttpReceiver, subscribe: Subscribe
) -> None:
    subscribe("/failures", f"{PREFIX}failed", filter="payload.channel == 'email'")
    before = len(own_events(own))
    ends = one_of_each(own, smtp, http, "failures")
    wait_for(lambda: told(http, "/failures", ends["failed by mail"]["id"]))
    rest(own)
    assert len(http.received("/failures")) == 1
    assert set(own_events(own)[before:]) == {f"{PREFIX}failed"}


def test_a_receiver_of_everything_that_fails_comes_to_rest(
    own: Running, http: HttpReceiver, subscribe: Subscribe
) -> None:
    http.answer("/loop", 404)
    http.answer("/loop-too", 404)
    made = [subscribe(path, "*", permanent_statuses=[404]) for path in ("/loop", "/loop-too")]
    before = len(own_events(own))
    event_id = own.event(event_type="loop.begins")
    wait_for(lambda: len(own.notifications(event_id)) == 2)
    wait_for(lambda: {each["status"] for each in own.notifications(event_id)} == {"failed"})
    # Two failures, each told to both; that those fail as well is told to nobody.
    wait_for(lambda: len(http.received("/loop")) == len(http.received("/loop-too")) == 3)
    rest(own)
    assert own_events(own)[before:] == [f"{PREFIX}failed"] * 2
    for each in made:
        items = own.get(f"{PATH}/{each['id']}/notifications").json()["items"]
        assert [item["status"] for item in items] == ["failed"] * 3
    assert len(http.received("/loop")) == len(http.received("/loop-too")) == 3


@pytest.mark.parametrize("pattern", ["*", "n*", "notifier.*", "notifier.notification.d*", f"{PREFIX}delivered"])
def test_a_receiver_of_its_own_deliveries_comes_to_rest(
    own: Running, http: HttpReceiver, subscribe: Subscribe, pattern: str
) -> None:
    path = f"/own-deliveries-{len(pattern)}"
    made = subscribe(path, pattern)
    before = len(own_events(own))
    first = posted(own, event_type="own.delivery", recipient=http.url("/own-deliveries-to"), channel="webhook")
    wait_for(lambda: told(http, path, first["id"]))
    own.post(f"{PATH}/{made['id']}/test")
    wait_for(lambda: "notifier.test" in {each.json["type"] for each in http.received(path)})
    rest(own)
    # With `*` it hears the event itself too, and of that delivery.
    expected = 2 if pattern == "*" else 1
    assert own_events(own)[before:] == [f"{PREFIX}delivered"] * expected
    assert len(http.received(path)) == expected + (2 if pattern == "*" else 1)


def test_one_that_is_gone_is_disabled_and_that_is_told(own: Running, http: HttpReceiver, subscribe: Subscribe) -> None:
    subscribe("/gone-told", "notifier.subscription.*")
    http.answer("/is-gone", 410)
    gone = subscribe("/is-gone", "gone.told")
    own.event(event_type="gone.told")
    [received] = wait_for(lambda: http.received("/gone-told"))
    assert received.json["type"] == "notifier.subscription.disabled"
    assert received.json["data"] == {"subscription_id": gone["id"], "url": http.url("/is-gone"), "reason": "gone"}


@pytest.mark.parametrize("event_type", [f"{PREFIX}failed", "notifier.test", "notifier.x", "notifier.."])
def test_our_own_types_are_reserved(own: Running, event_type: str) -> None:
    before = len(own_events(own))
    answer = own.post("/api/v1/events", {"event_type": event_type})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["event_type"]
    batch = own.post("/api/v1/events/batch", {"events": [{"event_type": event_type}, {"event_type": "fine"}]}).json()
    assert (batch["accepted"], batch["rejected"]) == (1, 1)
    assert list(batch["items"][0]["errors"]) == ["event_type"]
    assert len(own_events(own)) == before


@pytest.mark.parametrize("event_type", ["notifier", "notifierx.y", "notifier-x", "notifier:x", "x.notifier.y"])
def test_types_that_merely_look_like_ours_are_free(own: Running, event_type: str) -> None:
    own.event(event_type=event_type)
