"""A provider that cannot reach an address gives way to the next one, and is not held responsible."""

from collections.abc import Callable

from tests.providers import receivers
from tests.providers.receivers import Received
from tests.providers.vendors import twilio
from tests.support.running import Running, made, reaches, wait_for

#: Numbers of a country that is not enabled, of one who answered STOP, and of the provider's own trouble.
ABROAD, OPTED_OUT, HOME = "+4915112300", "+4915112400", "+4915112500"


def _first(request: Received) -> bytes:
    to = request.body.decode()
    if f"To=%2B{ABROAD[1:]}" in to:
        return twilio.error(21408)
    return twilio.error(21610) if f"To=%2B{OPTED_OUT[1:]}" in to else twilio.success()


def test_route_refusals_end_to_end(start_system: Callable[..., Running]) -> None:
    answers = [receivers.response(503)]
    with (
        receivers.http(_first) as (one, asked),
        receivers.http(lambda _: answers.pop() if answers else twilio.success()) as (two, taken),
    ):
        dsns = [
            f"twilio://{twilio.ACCOUNT}:x@127.0.0.1:{port}?from=%2B15550100&tls=none" for port in (one.port, two.port)
        ]
        system = start_system(
            NOTIFIER_SMS=", ".join(dsns),
            NOTIFIER_SMS_RETRY_BACKOFF="1",
            NOTIFIER_WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8",
        )
        # The second one fails at first: the retry goes to it alone, and at once.
        row = reaches(system, made(system, channel="sms", recipient=f"{ABROAD}001"), "sent")
        log = system.notification(row["id"])["attempt_log"]
        assert [(each["provider"], each["outcome"]) for each in log] == [
            ("twilio", "unsent"),
            ("twilio-2", "unsent"),
            ("twilio-2", "accepted"),
        ]
        assert len(asked) == 1
        # However many there are, everybody else is sent to by the first.
        ids = [made(system, channel="sms", recipient=f"{ABROAD}{number:03}") for number in range(100, 130)]
        for each in ids:
            reaches(system, each, "sent")
        reaches(system, made(system, channel="sms", recipient=f"{HOME}001"), "sent")
        assert b"%2B4915112500001" in asked[-1].body
        assert system.sql("SELECT count(*) FROM providers WHERE failures > 0 OR open_until IS NOT NULL")[0][0] == 0
        assert len(taken) == 2 + 30
        # A number that answered STOP is left alone from now on.
        gone = made(system, channel="sms", recipient=f"{OPTED_OUT}001")
        assert reaches(system, gone, "failed")["reason"] == "permanent_error"
        kept = "SELECT reason FROM suppressions WHERE address = :address"
        wait_for(lambda: system.sql(kept, address=f"{OPTED_OUT}001"))
        assert system.sql(kept, address=f"{OPTED_OUT}001")[0][0] == "stop"
        again = made(system, channel="sms", recipient=f"{OPTED_OUT}001")
        assert reaches(system, again, "skipped")["reason"] == "suppressed"
