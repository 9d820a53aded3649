"""Receipts count only from a provider that sent the message, and a bounce may bring another attempt."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine

from notifier.notifications.attempts import attempts_of, bounced_by
from notifier.notifications.delivery_receipts import Senders, apply_waiting, take
from notifier.notifications.retries import RetryPolicy
from notifier.providers.receipts import AddressStatus, Kind, Receipt, Report, SuppressionReason
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.support.receipt_rows import attempted, letters, move, of, one, row, sql, state, suppressed, waiting

# Sources may report only on their own providers.


ELSEWHERE = Senders(
    by_source={"acme": {("email", "acme"), ("email", "acme-eu")}, "other": {("sms", "other"), ("email", "third")}},
    by_channel={"email": ("acme", "acme-eu", "third"), "sms": ("other",)},
    policies={"email": RetryPolicy(backoff=30, backoff_max=600, max_retries=2, jitter=False)},
)


def say(engine: Engine, *receipts: Receipt, standings: tuple[AddressStatus, ...] = (), source: str = "acme") -> None:
    take(engine, Report(receipts, standings), ELSEWHERE, source=source)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("status", ["sent", "retrying"])
def test_a_provider_speaks_only_of_what_it_sent(engine: Engine, status: str, kind: Kind) -> None:
    row_id = row(engine, status)
    standing = AddressStatus(Channel.EMAIL, "eve@example.com", SuppressionReason.COMPLAINT, notification_id=row_id)
    say(engine, replace(of(row_id, kind, error="x"), provider="other"), standings=(standing,), source="other")
    assert state(engine, row_id) == (status, None)
    assert suppressed(engine) == []
    assert waiting(engine) == []
    say(engine, of(row_id, Kind.DELIVERED), standings=(standing,))
    assert state(engine, row_id) == ("delivered", None)
    assert suppressed(engine) == [("email", "eve@example.com", "complaint", None)]


def test_another_of_the_vendors_providers_may_have_sent_it(engine: Engine) -> None:
    row_id = row(engine, "sent")
    attempted(engine, [row_id], provider="acme-eu")
    say(engine, of(row_id))
    assert state(engine, row_id) == ("delivered", None)


@pytest.mark.parametrize(("source", "status"), [("acme", "delivered"), ("sms-only", "retrying")])
def test_a_lost_worker_may_have_called_any_of_its_channel(engine: Engine, source: str, status: str) -> None:
    row_id = row(engine, "retrying")
    attempted(engine, [row_id], provider=None)
    senders = replace(ELSEWHERE, by_source={**ELSEWHERE.by_source, "sms-only": {("sms", "other")}})
    take(engine, Report((replace(of(row_id), provider=source),)), senders, source=source)
    assert state(engine, row_id) == (status, None)


def test_what_waited_is_not_believed_either(engine: Engine) -> None:
    row_id = row(engine, "sending")
    say(engine, replace(of(row_id), provider="other"), source="other")
    assert len(waiting(engine)) == 1
    move(engine, row_id, "sent")
    sql(engine, "UPDATE receipts SET due_at = now()")
    apply_waiting(engine, ELSEWHERE)
    assert (state(engine, row_id), waiting(engine)) == (("sent", None), [])


def test_a_bounce_of_another_channel_suppresses_nobody(engine: Engine) -> None:
    row_id = row(engine, "queued", attempts=0)
    sql(engine, "DELETE FROM attempts")
    standing = AddressStatus(Channel.SMS, "+4915112340003", SuppressionReason.HARD_BOUNCE, notification_id=row_id)
    say(engine, standings=(standing,), source="other")
    assert suppressed(engine) == []


def test_a_complaint_outlives_its_notification(engine: Engine) -> None:
    say(
        engine,
        standings=(
            AddressStatus(Channel.EMAIL, "eve@example.com", SuppressionReason.COMPLAINT, notification_id=new_id()),
        ),
    )
    assert suppressed(engine) == [("email", "eve@example.com", "complaint", None)]


def test_an_address_that_is_not_named_is_the_notifications_own(engine: Engine) -> None:
    for row_id in (row(engine, "sent"), new_id()):
        say(
            engine, standings=(AddressStatus(Channel.EMAIL, "", SuppressionReason.HARD_BOUNCE, notification_id=row_id),)
        )
    assert suppressed(engine) == [("email", "ada@example.com", "hard_bounce", None)]


# Bounces after which it goes on.


def again(engine: Engine, row_id: UUID) -> None:
    """The clock and a worker: it is sent once more."""
    for status in ("queued", "sending"):
        move(engine, row_id, status)
    sql(engine, "UPDATE notifications SET claims = claims + 1, attempts = attempts + 1 WHERE id = :id", id=row_id)
    found = one(engine, "SELECT claims, attempts FROM notifications WHERE id = :id", id=row_id)
    attempted(engine, [row_id], found.claims, found.attempts, message_id=f"m{found.claims}")
    move(engine, row_id, "sent")


def test_a_bounce_for_now_is_retried_until_the_budget_is_spent(engine: Engine) -> None:
    row_id = row(engine, "sent")
    for tries, seconds in ((1, 30), (2, 60)):
        receipt = replace(of(row_id, Kind.BOUNCED_FOR_NOW, error="acme 9, busy"), message_id=f"m{tries}")
        sql(engine, "UPDATE attempts SET message_id = :id WHERE number = :tries", id=f"m{tries}", tries=tries)
        for _ in range(3):  # it changes nothing to say it again
            say(engine, receipt)
        found = one(engine, "SELECT * FROM notifications WHERE id = :id", id=row_id)
        assert (found.status, found.tries, found.queue, found.reason) == ("retrying", tries, "email.retry", None)
        assert (found.due_at - datetime.now(UTC)).total_seconds() == pytest.approx(seconds, abs=5)
        [attempt] = sql(engine, "SELECT error FROM attempts WHERE number = :tries", tries=tries)
        assert attempt.error == "bounced: acme 9, busy"
        again(engine, row_id)
        say(engine, receipt)  # old news
        assert state(engine, row_id) == ("sent", None)
    say(engine, replace(of(row_id, Kind.BOUNCED_FOR_NOW, error="acme 9, busy"), message_id="m3"))
    assert state(engine, row_id) == ("failed", "bounced")
    assert [letter.error for letter in letters(engine, row_id)] == ["acme 9, busy"]
    assert suppressed(engine) == []


def test_a_bounce_of_one_provider_is_another_ones_chance(engine: Engine) -> None:
    row_id = row(engine, "sent")
    say(engine, of(row_id, Kind.BOUNCED_HERE, error="acme 8, sender refused"))
    assert state(engine, row_id) == ("retrying", None)
    with engine.connect() as connection:
        assert bounced_by(attempts_of(connection, [row_id])[row_id]) == {"acme"}
    again(engine, row_id)
    attempted(engine, [row_id], 2, 2, provider="third")
    say(engine, replace(of(row_id, Kind.BOUNCED_HERE, error="x"), provider="other"), source="other")
    # All that there are have said no, but for the first one's other account.
    assert state(engine, row_id) == ("retrying", None)


def test_where_there_is_no_other_provider_it_is_for_good(engine: Engine) -> None:
    row_id = row(engine, "sent")
    alone = replace(ELSEWHERE, by_channel={"email": ("acme", "acme-eu")})
    take(engine, Report((of(row_id, Kind.BOUNCED_HERE, error="x"),)), alone)
    assert state(engine, row_id) == ("failed", "bounced")


def test_what_was_erased_is_not_sent_again(engine: Engine) -> None:
    row_id = row(engine, "sent")
    sql(engine, "UPDATE notifications SET recipient = NULL")
    say(engine, of(row_id, Kind.BOUNCED_FOR_NOW, error="x"))
    assert state(engine, row_id) == ("failed", "bounced")


def test_what_is_tried_again_anyway_goes_on(engine: Engine) -> None:
    row_id = row(engine, "retrying")
    say(engine, of(row_id, Kind.BOUNCED_FOR_NOW, error="x"))
    assert (state(engine, row_id), one(engine, "SELECT tries FROM notifications").tries) == (("retrying", None), 0)


def test_some_bounces_say_enough_only_the_second_time(engine: Engine) -> None:
    said = "acme 6, a landline or an unreachable carrier"

    def bounces(address: str = "ada@example.com") -> UUID:
        row_id = row(engine, "sent")
        standing = AddressStatus(
            Channel.EMAIL, address, SuppressionReason.HARD_BOUNCE, notification_id=row_id, repeats=said
        )
        for _ in range(2):  # the same callback again is no second time
            say(engine, of(row_id, Kind.BOUNCED, error=said), standings=(standing,))
        assert state(engine, row_id) == ("failed", "bounced")
        return row_id

    bounces()
    assert suppressed(engine) == []
    say(engine, of(row(engine, "sent")))  # one that arrives
    bounces()
    assert [each[1] for each in suppressed(engine)] == []
    bounces()
    assert [each[1] for each in suppressed(engine)] == ["ada@example.com"]


def test_so_they_do_where_another_provider_took_over_the_first_time(engine: Engine) -> None:
    said = "acme 6, a landline or an unreachable carrier"
    for times in range(2):
        assert len(suppressed(engine)) == 0, times
        row_id = row(engine, "sent")
        standing = AddressStatus(Channel.EMAIL, "", SuppressionReason.HARD_BOUNCE, notification_id=row_id, repeats=said)
        say(engine, of(row_id, Kind.BOUNCED_HERE, error=said), standings=(standing,))
        assert state(engine, row_id) == ("retrying", None)
    assert [each[1] for each in suppressed(engine)] == ["ada@example.com"]


def test_a_receipt_whose_text_cannot_be_kept_costs_no_other_its_effect(engine: Engine) -> None:
    bad, late, good = (row(engine, "sent"), new_id(), row(engine, "sent"))
    odd = {"error": "acme 9, \x00 \ud800", "message_id": "m\x00"}
    say(engine, replace(of(bad, Kind.BOUNCED_FOR_NOW), **odd), replace(of(late, Kind.BOUNCED), **odd), of(good))
    assert [state(engine, each) for each in (bad, good)] == [("retrying", None), ("delivered", None)]
    assert len(waiting(engine)) == 1
