"""Notifications that somebody wants sent again by another provider."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, made, reaches, wait_for


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[SmtpReceiver, SmtpReceiver]]:
    """Two mail servers."""
    with SmtpReceiver() as first, SmtpReceiver() as second:
        yield first, second


@pytest.fixture(scope="module")
def mailing(new_system: Callable[..., Running], servers: tuple[SmtpReceiver, SmtpReceiver]) -> Iterator[Running]:
    """A system whose emails go by either of them."""
    with new_system(NOTIFIER_EMAIL=", ".join(f"{each.dsn}?tls=none" for each in servers)) as running:
        yield running


def elsewhere(system: Running, notification_id: str, body: Any = None) -> requests.Response:
    """Ask for a resend by another provider."""
    wanted = {"another_provider": True} if body is None else body
    return system.post(f"/api/v1/notifications/{notification_id}/resend", wanted)


def resent(system: Running, notification_id: str, status: str = "sent", body: Any = None) -> list[tuple[str, str]]:
    """Send it again by another provider; returns the calls of which that consisted."""
    before = system.notification(notification_id)["attempts"]
    answer = elsewhere(system, notification_id, body)
    assert answer.status_code == 202, answer.text
    wait_for(lambda: system.notification(notification_id)["attempts"] > before)
    log = reaches(system, notification_id, status)["attempt_log"]
    return [(str(each["provider"]), str(each["outcome"])) for each in log[before:]]


def test_it_goes_by_the_other_one(mailing: Running, servers: tuple[SmtpReceiver, SmtpReceiver]) -> None:
    to = "elsewhere@example.com"
    notification = made(mailing, channel="email", recipient=to)
    reaches(mailing, notification, "sent")
    ways = [resent(mailing, notification, body=body) for body in (None, None, None, {}, None)]
    assert ways == [[(f"smtp{name}", "accepted")] for name in ("-2", "", "-2", "", "-2")], "a plain one begins anew"
    assert [len(server.mails_to(to)) for server in servers] == [3, 3]
    earlier = mailing.notification(notification)["earlier_sends"]
    assert [each["how"] for each in earlier] == [*["another_provider"] * 3, "resend", "another_provider"]
    assert [each["attempts"] for each in earlier] == [1, 2, 3, 4, 5]


def test_a_retry_keeps_to_it(mailing: Running, servers: tuple[SmtpReceiver, SmtpReceiver]) -> None:
    to = "elsewhere-retried@example.com"
    notification = made(mailing, channel="email", recipient=to)
    reaches(mailing, notification, "sent")
    servers[1].refuse(to, "451 later")
    assert elsewhere(mailing, notification).status_code == 202
    wait_for(lambda: mailing.notification(notification)["attempts"] == 2)
    servers[1].refuse(to)
    log = reaches(mailing, notification, "sent")["attempt_log"]
    assert {each["provider"] for each in log[1:]} == {"smtp-2"}
    assert (log[1]["outcome"], log[-1]["outcome"]) == ("unsent", "accepted")


def test_it_goes_by_the_same_one_while_the_other_is_down(mailing: Running) -> None:
    notification = made(mailing, channel="email", recipient="elsewhere-down@example.com")
    reaches(mailing, notification, "sent")
    mailing.sql(
        "INSERT INTO providers (channel, name, failures, open_until, open_for) VALUES ('email', 'smtp-2', 5,"
        " now() + interval '1 hour', 3600) ON CONFLICT (channel, name) DO UPDATE SET failures = 5,"
        " open_until = excluded.open_until, open_for = excluded.open_for"
    )
    try:
        assert resent(mailing, notification) == [("smtp", "accepted")]
    finally:
        mailing.sql("UPDATE providers SET failures = 0, open_until = NULL WHERE name = 'smtp-2'")


def test_several_at_once_are_one(mailing: Running) -> None:
    notification = made(mailing, channel="email", recipient="elsewhere-twice@example.com")
    reaches(mailing, notification, "sent")
    codes = [elsewhere(mailing, notification).status_code for _ in range(2)]
    assert codes[0] == 202
    wait_for(lambda: mailing.notification(notification)["attempts"] == 1 + codes.count(202))
    assert len(reaches(mailing, notification, "sent")["earlier_sends"]) == codes.count(202)


@pytest.mark.parametrize("channel", ["sms", "webhook"])
def test_where_there_is_one_provider_nothing_changes(mailing: Running, http: HttpReceiver, channel: str) -> None:
    recipient = {"sms": "+4915112345678", "webhook": http.url("/elsewhere")}[channel]
    notification = made(mailing, channel=channel, recipient=recipient)
    before = reaches(mailing, notification, "sent", "delivered")
    answer = elsewhere(mailing, notification)
    assert (answer.status_code, answer.json()["detail"]) == (409, f"There is one provider for {channel}.")
    assert mailing.notification(notification) == before
    assert elsewhere(mailing, notification, {"another_provider": False}).status_code == 202


@pytest.mark.parametrize(
    "body", [{"another_provider": "maybe"}, {"another_provider": None}, {"provider": "smtp-2"}, []]
)
def test_other_wishes_are_refused(mailing: Running, body: Any) -> None:
    notification = made(mailing, channel="email", recipient="elsewhere-wrong@example.com")
    before = reaches(mailing, notification, "sent")
    assert elsewhere(mailing, notification, body).status_code == 422
    assert mailing.notification(notification) == before


def test_the_rules_are_asked_as_ever(mailing: Running) -> None:
    to = "elsewhere-suppressed@example.com"
    notification = made(mailing, channel="email", recipient=to)
    before = reaches(mailing, notification, "sent")
    mailing.post("/api/v1/suppressions", {"channel": "email", "address": to, "reason": "complaint"})
    answer = elsewhere(mailing, notification)
    assert (answer.status_code, answer.json()["reason"]) == (409, "suppressed")
    assert mailing.notification(notification) == before
