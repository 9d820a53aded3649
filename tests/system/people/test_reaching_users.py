"""Users are reached at the addresses that they have at the moment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifier.vocabulary.masking import masked
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import FINISHED, Running, wait_for
from tests.support.users import put


def by_channel(system: Running, event_id: str) -> dict[str, list[dict[str, Any]]]:
    """An event's notifications by channel, once all are finished."""

    def look() -> list[dict[str, Any]] | None:
        event = system.get(f"/api/v1/events/{event_id}").json()
        done = event["status"] == "processed" and all(n["status"] in FINISHED for n in event["notifications"])
        return event["notifications"] if done else None

    found: dict[str, list[dict[str, Any]]] = {}
    for notification in wait_for(look):
        found.setdefault(notification["channel"], []).append(notification)
    return found


# Reached.


def test_a_user_hears_over_each_channel_they_have(system: Running, smtp: SmtpReceiver, http: HttpReceiver) -> None:
    put(
        system,
        "everywhere",
        email="everywhere@example.com",
        phone="+4915123450002",
        push_tokens=["everywhere-1", "everywhere-2"],
        webhook_url=http.url("/everywhere"),
        chat_url="slack://everywhere/1",
    )
    made = by_channel(system, system.event(user_id="everywhere", payload={"n": 1}))
    counts = {channel: len(rows) for channel, rows in made.items()}
    assert counts == {"email": 1, "sms": 1, "push": 2, "webhook": 1, "chat": 1}
    for rows in made.values():
        for row in rows:
            assert row["user_id"] == "everywhere"
            assert row["status"] == ("delivered" if row["channel"] == "webhook" else "sent")
    assert len(smtp.mails_to("everywhere@example.com")) == 1
    assert len(http.received("/everywhere")) == 1
    kept = system.sql(
        "SELECT channel, recipient FROM outbox WHERE notification_id = ANY(CAST(:ids AS uuid[]))",
        ids=[row["id"] for rows in made.values() for row in rows],
    )
    assert sorted((channel, system.seals.opened(recipient)) for channel, recipient in kept) == [
        ("chat", "slack://everywhere/1"),
        ("push", "everywhere-1"),
        ("push", "everywhere-2"),
        ("sms", "+4915123450002"),
    ]


def test_a_channel_that_was_asked_for_is_the_only_one(system: Running) -> None:
    put(system, "some-channels", phone="+4915123450003", chat_url="slack://some/1")
    assert list(by_channel(system, system.event(user_id="some-channels", channel="chat"))) == ["chat"]
    [skipped] = by_channel(system, system.event(user_id="some-channels", channel="email"))["email"]
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no_address")


def test_a_token_given_twice_is_one_device(system: Running) -> None:
    put(system, "one-device", push_tokens=["one-device", "one-device"])
    body = {"user_id": "one-device", "channel": "push", "body": "x"}
    [made] = system.post("/api/v1/notifications", body).json()["items"]
    assert made["recipient"] == "one-device"


def test_a_user_without_addresses_is_skipped(system: Running) -> None:
    put(system, "unreachable", timezone="Europe/Berlin")
    [[skipped]] = by_channel(system, system.event(user_id="unreachable")).values()
    assert (skipped["status"], skipped["reason"], skipped["channel"]) == ("skipped", "no_address", None)
    assert system.notification(skipped["id"])["explanation"]


def now(system: Running, event_id: str) -> None:
    """Let what waits of an event be due."""
    system.sql("UPDATE notifications SET due_at = now() WHERE event_id = :id AND due_at IS NOT NULL", id=event_id)


@pytest.mark.parametrize(
    ("channel", "field", "old", "new"),
    [
        ("email", "email", "moves@example.com", "moved@example.com"),
        ("email", "email", "Case@example.com", "case@example.com"),
        ("sms", "phone", "+4915123450004", "+4915123450005"),
        ("chat", "chat_url", "slack://moves/1", "slack://moved/1"),
        ("webhook", "webhook_url", "/moves", "/moved"),
    ],
)
def test_what_waits_goes_to_the_new_address(
    system: Running, smtp: SmtpReceiver, http: HttpReceiver, channel: str, field: str, old: str, new: str
) -> None:
    if channel == "webhook":
        old, new = http.url(old), http.url(new)
    user_id = f"moves-{field}-{old[:4]}"
    put(system, user_id, **{field: old})
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    event_id = system.event(user_id=user_id, channel=channel, send_at=later)
    [waiting] = wait_for(lambda: system.notifications(event_id))
    assert (waiting["recipient"], waiting["status"]) == (masked(old), "scheduled")
    put(system, user_id, **{field: new})
    now(system, event_id)
    notification = system.finished(event_id)
    assert (notification["recipient"], notification["status"]) == (
        masked(new),
        "delivered" if channel == "webhook" else "sent",
    )
    if channel == "email":
        assert (len(smtp.mails_to(old)), len(smtp.mails_to(new))) == (0, 1)
    elif channel == "webhook":
        assert (http.received("/moves"), len(http.received("/moved"))) == ([], 1)
    else:
        [row] = system.sql("SELECT recipient FROM outbox WHERE notification_id = :id", id=notification["id"])
        assert system.seals.opened(row.recipient) == new


def test_what_failed_for_now_is_retried_at_the_new_address(system: Running, smtp: SmtpReceiver) -> None:
    smtp.refuse("full@example.com", "452 4.2.2 mailbox full")
    put(system, "retries", email="full@example.com")
    event_id = system.event(user_id="retries", channel="email")
    wait_for(lambda: [n for n in system.notifications(event_id) if n["status"] == "retrying"])
    put(system, "retries", email="empty@example.com")
    assert system.finished(event_id)["recipient"] == "empty@example.com"
    assert len(smtp.mails_to("empty@example.com")) == 1


def test_what_waits_for_an_address_that_is_gone_is_skipped(system: Running) -> None:
    put(system, "loses", push_tokens=["loses-1", "loses-2"], phone="+4915123450006")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    event_id = system.event(user_id="loses", send_at=later)
    wait_for(lambda: len(system.notifications(event_id)) == 3)
    put(system, "loses", push_tokens=["loses-2", "loses-3"])
    now(system, event_id)
    made = by_channel(system, event_id)
    assert [(n["status"], n["reason"]) for n in made["sms"]] == [("skipped", "no_address")]
    # Each device has its own message: the new one does not inherit the old one's.
    push = {(n["recipient"], n["status"], n["reason"]) for n in made["push"]}
    assert push == {(None, "skipped", "no_address"), ("loses-2", "sent", None)}
