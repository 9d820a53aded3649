"""Trying it out without sending: the simulator's recipients in any system, and a system in which nothing is sent."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.commands import manage, succeed
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, made, reaches

#: Email goes to a mail server, the others to the outbox, webhooks to whoever is named.
RECIPIENTS = {
    "email": "{}@simulator.notifier",
    "push": "simulator:{}",
    "chat": "simulator://{}",
    "webhook": "https://{}.simulator.notifier/hook",
}


@pytest.mark.parametrize("channel", RECIPIENTS)
def test_recipients_of_the_simulator_end_as_they_say(system: Running, smtp: SmtpReceiver, channel: str) -> None:
    accepted, rejected = (
        made(system, channel=channel, recipient=RECIPIENTS[channel].format(name)) for name in ("sent", "rejected")
    )
    ended = reaches(system, accepted, "sent", "delivered", "failed")
    assert ended["status"] == ("delivered" if channel == "webhook" else "sent")
    assert [each["provider"] for each in ended["attempt_log"]] == ["simulator"]
    ended = reaches(system, rejected, "sent", "delivered", "failed")
    assert (ended["status"], ended["attempt_log"][0]["outcome"]) == ("failed", "rejected")
    assert system.sql("SELECT FROM outbox WHERE notification_id = :id", id=accepted)
    assert not smtp.mails_to("sent@simulator.notifier")


def test_what_fails_is_retried_and_buried_as_ever(system: Running) -> None:
    notification_id = made(system, channel="email", recipient="unavailable@simulator.notifier")
    ended = reaches(system, notification_id, "failed")
    assert [each["outcome"] for each in ended["attempt_log"]] == ["unsent"] * 3
    assert {each["error"] for each in ended["attempt_log"]} == {"simulator: unavailable"}


def test_a_number_whose_messages_bounce(system: Running) -> None:
    notification_id = made(system, channel="sms", recipient="+15005550002")
    # Its receipt may have been applied.
    assert reaches(system, notification_id, "sent", "failed")["attempt_log"][0]["outcome"] == "accepted"


@pytest.fixture
def sandbox(new_system: Callable[..., Running], smtp: SmtpReceiver) -> Iterator[Running]:
    """A sandbox whose settings would send, or stop the start."""
    settings = {
        "NOTIFIER_EMAIL": f"{smtp.dsn}?tls=none",
        "NOTIFIER_SMS": "twilio://what is this",
        "NOTIFIER_PUSH": "fcm:///no/such/file.json",
        "NOTIFIER_CHAT": "nobody:, outbox:",
    }
    system = new_system(NOTIFIER_SANDBOX="1", **settings)
    del system.environment["NOTIFIER_WEBHOOK_SECRET"]
    with system:
        yield system


def test_a_sandbox_sends_nothing(sandbox: Running, http: HttpReceiver, smtp: SmtpReceiver) -> None:
    assert sandbox.get("/ready").json()["sandbox"] is True
    for child in (sandbox.api, sandbox.fresh):
        assert "sends=nothing" in child.log.read_text()
    recipients = {
        "email": "sandboxed@example.com",
        "sms": "+4915112345678",
        "push": "a-token",
        "chat": "slack://token/channel",
        "webhook": http.url("/sandboxed"),
    }
    ids = {channel: made(sandbox, channel=channel, recipient=each) for channel, each in recipients.items()}
    ended = {channel: reaches(sandbox, each, "sent", "delivered", "failed") for channel, each in ids.items()}
    assert {channel: each["status"] for channel, each in ended.items()} == {
        **dict.fromkeys(recipients, "sent"),
        "webhook": "delivered",
    }
    assert {each["attempt_log"][0]["provider"] for each in ended.values()} == {"simulator"}
    kept = sandbox.sql("SELECT channel, recipient FROM outbox")
    assert {row.channel: sandbox.seals.opened(row.recipient) for row in kept} == recipients
    bounced = made(sandbox, channel="email", recipient="rejected@simulator.notifier")
    assert reaches(sandbox, bounced, "failed")["attempt_log"][0]["outcome"] == "rejected"
    assert not smtp.mails_to("sandboxed@example.com")
    assert not http.received("/sandboxed")


def test_the_shell_says_so(system: Running) -> None:
    environment = {**system.environment, "NOTIFIER_SANDBOX": "1", "NOTIFIER_SMS": "twilio://what is this"}
    listed = succeed("providers", "list", environment=environment)
    assert listed.startswith("NOTIFIER_SANDBOX is on: nothing is sent anywhere")
    assert listed.count("simulator") == 4
    assert "NOTIFIER_SANDBOX" not in succeed("providers", "list", environment=dict(system.environment))
    done = manage("providers", "test", "sms", "+4915112345678", environment=environment)
    assert "simulator" in done.stdout
