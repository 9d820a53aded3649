"""Receipts: applied where they can be, kept where they come early, and never a step backwards."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
import pytest
import requests
from sqlalchemy import Engine, event, text

from notifier import suppressions
from notifier.attempts import bounced_by
from notifier.callbacks import TOLD
from notifier.channels import Channel
from notifier.ids import new_id
from notifier.models import attempt_id
from notifier.patterns import told_as
from notifier.providers.dsn import parse
from notifier.providers.receipts import Kind, Reason, Receipt, Report, Standing
from notifier.providers.vonage_receipts import callback_query
from notifier.receipts import Senders, apply_waiting, take
from notifier.retries import RetryPolicy
from tests.providers import receivers
from tests.providers.signed import (
    PATH,
    PUBLIC_URL,
    SENDGRID_KEY,
    SNS,
    TOKEN,
    TOPIC,
    certificate,
    sendgrid_callback,
    sns_callback,
    sns_message,
    twilio_signature,
)
from tests.running import Running, made, reaches, wait_for

FINISHED = ("sent", "delivered", "failed", "cancelled", "expired", "skipped")


def rows(engine: Engine, status: str, count: int, *, claims: int = 1, attempts: int = 1) -> list[UUID]:
    """Notifications in a state."""
    ids = [new_id() for _ in range(count)]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, due_at,
                    claims, attempts, created_at, sent_at)
                SELECT id, 'test', 'ada@example.com', 'email', false, 'normal', 'email', :status,
                    CASE WHEN :status = ANY(:finished) THEN NULL ELSE now() + interval '1 minute' END,
                    :claims, :attempts, now(), CASE WHEN :status = 'sent' THEN now() - interval '1 second' END
                FROM unnest(CAST(:ids AS uuid[])) AS id
            """),
            {"ids": ids, "status": status, "finished": list(FINISHED), "claims": claims, "attempts": attempts},
        )
    attempted(engine, ids, claims, attempts)
    return ids


def attempted(
    engine: Engine,
    ids: list[UUID],
    claims: int = 1,
    number: int = 1,
    *,
    provider: str | None = "acme",
    message_id: str | None = None,
) -> None:
    """A provider has accepted notifications under a claim just now."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO attempts (id, notification_id, number, provider, outcome, message_id, started_at)
                SELECT attempt_id, id, :number, :provider, 'accepted', :message_id, now()
                FROM unnest(CAST(:attempts AS uuid[]), CAST(:ids AS uuid[])) AS made(attempt_id, id)
                ON CONFLICT (id) DO UPDATE SET message_id = excluded.message_id, provider = excluded.provider
            """),
            {
                "attempts": [attempt_id(row_id, claims) for row_id in ids],
                "ids": ids,
                "number": number,
                "provider": provider,
                "message_id": message_id,
            },
        )


def row(engine: Engine, status: str, **counters: int) -> UUID:
    """A notification in a state."""
    [row_id] = rows(engine, status, 1, **counters)
    return row_id


def resent(engine: Engine, count: int = 1) -> list[UUID]:
    """Notifications that were sent a second time just now."""
    return rows(engine, "sent", count, claims=2, attempts=2)


def move(engine: Engine, row_id: UUID, status: str) -> None:
    """What workers and clocks do: nothing is checked but the state machine."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE notifications SET status = :status,
                    due_at = CASE WHEN :status = ANY(:finished) THEN NULL ELSE now() + interval '1 minute' END
                WHERE id = :id
            """),
            {"id": row_id, "status": status, "finished": list(FINISHED)},
        )


def of(row_id: UUID, kind: Kind = Kind.DELIVERED, *, ago: float = 0, error: str | None = None) -> Receipt:
    return Receipt("acme", row_id, kind, datetime.now(UTC) - timedelta(seconds=ago), error)


def bounce(row_id: UUID, **more: Any) -> Receipt:
    return of(row_id, Kind.BOUNCED, error="acme 5, nobody there", **more)


def taken(engine: Engine, *receipts: Receipt, standings: tuple[Standing, ...] = ()) -> None:
    take(engine, Report(receipts, standings))


def state(engine: Engine, row_id: UUID) -> tuple[str, str | None]:
    found = one(engine, "SELECT status, reason FROM notifications WHERE id = :id", id=row_id)
    return found.status, found.reason


def one(engine: Engine, statement: str, **values: Any) -> Any:
    [found] = sql(engine, statement, **values)
    return found


def sql(engine: Engine, statement: str, **values: Any) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []


def waiting(engine: Engine) -> list[Any]:
    return sql(engine, "SELECT * FROM receipts ORDER BY id")


def hurry(engine: Engine) -> int:
    """Make everything due that waits, and let the clock look at it."""
    ids = "SELECT id FROM receipts FOR UPDATE SKIP LOCKED"
    sql(engine, f"UPDATE receipts SET due_at = now() - interval '1 second' WHERE id IN ({ids})")
    return apply_waiting(engine)


def letters(engine: Engine, row_id: UUID) -> list[Any]:
    return sql(engine, "SELECT * FROM dead_letters WHERE notification_id = :id", id=row_id)


# Applied at once.


@pytest.mark.parametrize("status", ["sent", "retrying"])
def test_delivered(engine: Engine, status: str) -> None:
    row_id = row(engine, status)
    receipt = of(row_id)
    for _ in range(2):
        taken(engine, receipt)
        found = one(engine, "SELECT * FROM notifications WHERE id = :id", id=row_id)
        assert (found.status, found.reason, found.due_at) == ("delivered", None, None)
        assert found.delivered_at == receipt.happened_at
        assert found.sent_at <= found.delivered_at
    assert waiting(engine) == []


def test_delivered_is_never_before_sent(engine: Engine) -> None:
    row_id = row(engine, "sent")
    taken(engine, of(row_id, ago=3600))
    found = one(engine, "SELECT sent_at, delivered_at FROM notifications WHERE id = :id", id=row_id)
    assert found.delivered_at == found.sent_at


@pytest.mark.parametrize("status", ["sent", "retrying"])
def test_bounced(engine: Engine, status: str) -> None:
    row_id = row(engine, status)
    for _ in range(2):
        taken(engine, bounce(row_id))
        assert state(engine, row_id) == ("failed", "bounced")
        [letter] = letters(engine, row_id)
        assert (letter.reason, letter.error, letter.channel) == ("bounced", "acme 5, nobody there", "email")
        assert (letter.attempts, letter.requeued_at) == (1, None)
    found = one(engine, "SELECT due_at, delivered_at FROM notifications WHERE id = :id", id=row_id)
    assert tuple(found) == (None, None)
    assert waiting(engine) == []


@pytest.mark.parametrize("status", ["delivered", "failed", "cancelled", "expired", "skipped"])
@pytest.mark.parametrize("kind", ["delivered", "bounced"])
def test_what_is_finished_stays_as_it_is(engine: Engine, status: str, kind: str) -> None:
    row_id = row(engine, status)
    taken(engine, of(row_id, Kind(kind)))
    assert state(engine, row_id) == (status, None)
    assert (waiting(engine), letters(engine, row_id)) == ([], [])


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("first", "state_then"), [("delivered", "delivered"), ("bounced", "failed")])
def test_the_first_of_two_stands(engine: Engine, at_once: bool, first: str, state_then: str) -> None:
    row_id = row(engine, "sent")
    other = next(kind for kind in Kind if kind != first)
    receipts = [of(row_id, other), of(row_id, Kind(first), ago=5)]
    if at_once:
        taken(engine, *receipts)
    else:
        for receipt in reversed(receipts):
            taken(engine, receipt)
    assert state(engine, row_id)[0] == state_then
    assert waiting(engine) == []


def test_a_bounce_of_an_attempt_before_the_last_one_is_old_news(engine: Engine) -> None:
    [row_id, other] = resent(engine, 2)
    taken(engine, bounce(row_id, ago=120))
    assert state(engine, row_id) == ("sent", None)
    # Nor does it hide what came of the last one.
    taken(engine, bounce(row_id, ago=120), of(row_id))
    assert state(engine, row_id) == ("delivered", None)
    taken(engine, bounce(other, ago=120), bounce(other, ago=10))
    assert state(engine, other) == ("failed", "bounced")


def test_a_bounce_of_what_another_provider_sent_before_is_old_news(engine: Engine) -> None:
    for last in ("SM2", None):
        [row_id] = resent(engine)
        sql(engine, "UPDATE attempts SET message_id = :last WHERE notification_id = :id", last=last, id=row_id)
        taken(engine, replace(bounce(row_id), message_id="SM1"))
        assert state(engine, row_id) == ("sent", None)
    assert waiting(engine) == []


def test_so_it_is_where_it_had_to_wait(engine: Engine) -> None:
    row_id = row(engine, "sending", claims=2, attempts=2)
    sql(engine, "DELETE FROM attempts")
    taken(engine, replace(bounce(row_id), message_id="SM1"))
    assert len(waiting(engine)) == 1
    attempted(engine, [row_id], 2, 2, message_id="SM2")
    move(engine, row_id, "sent")
    sql(engine, "UPDATE receipts SET due_at = now()")
    apply_waiting(engine)
    assert (state(engine, row_id), waiting(engine)) == (("sent", None), [])


@pytest.mark.parametrize("message_id", ["14c5.dfd", "14c5.dfd.filter0001.16648", None])
def test_a_bounce_of_the_last_attempt_counts_by_its_message(engine: Engine, message_id: str | None) -> None:
    [row_id] = resent(engine)
    sql(engine, "UPDATE attempts SET message_id = '14c5.dfd' WHERE notification_id = :id", id=row_id)
    taken(engine, replace(bounce(row_id), message_id=message_id))
    assert state(engine, row_id) == ("failed", "bounced")


def test_it_bounces_again_after_a_requeue(engine: Engine) -> None:
    row_id = row(engine, "sent")
    taken(engine, bounce(row_id))
    sql(engine, "UPDATE dead_letters SET requeued_at = now()")
    for status in ("queued", "sending"):
        move(engine, row_id, status)
    sql(engine, "UPDATE notifications SET claims = 2, attempts = 2")
    attempted(engine, [row_id], 2, 2)
    move(engine, row_id, "sent")
    taken(engine, bounce(row_id))
    assert state(engine, row_id) == ("failed", "bounced")
    assert sorted(letter.claims for letter in letters(engine, row_id)) == [1, 2]


def test_many_at_the_same_moment(engine: Engine) -> None:
    ids = rows(engine, "sent", 60)
    receipts = [of(row_id) if number % 2 else bounce(row_id) for number, row_id in enumerate(ids)]
    standings = tuple(Standing(Channel.EMAIL, f"p{n}@example.com", Reason.HARD_BOUNCE) for n in range(20))
    with ThreadPoolExecutor(6) as pool:
        for turn in range(6):
            shuffled = receipts[turn * 7 :] + receipts[: turn * 7]
            pool.submit(taken, engine, *shuffled, standings=standings[turn:] + standings[:turn])
    states = {state(engine, row_id) for row_id in ids[::2]}, {state(engine, row_id) for row_id in ids[1::2]}
    assert states == ({("failed", "bounced")}, {("delivered", None)})
    assert one(engine, "SELECT count(*) FROM dead_letters")[0] == 30
    assert one(engine, "SELECT count(*) FROM suppressions")[0] == 20


# Sources may report only on their own providers.


ELSEWHERE = Senders(
    by_source={"acme": {("email", "acme"), ("email", "acme-eu")}, "other": {("sms", "other"), ("email", "third")}},
    by_channel={"email": ("acme", "acme-eu", "third"), "sms": ("other",)},
    policies={"email": RetryPolicy(backoff=30, backoff_max=600, max_retries=2, jitter=False)},
)


def say(engine: Engine, *receipts: Receipt, standings: tuple[Standing, ...] = (), source: str = "acme") -> None:
    take(engine, Report(receipts, standings), ELSEWHERE, source=source)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("status", ["sent", "retrying"])
def test_a_provider_speaks_only_of_what_it_sent(engine: Engine, status: str, kind: Kind) -> None:
    row_id = row(engine, status)
    standing = Standing(Channel.EMAIL, "eve@example.com", Reason.COMPLAINT, notification_id=row_id)
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
    standing = Standing(Channel.SMS, "+4915112340003", Reason.HARD_BOUNCE, notification_id=row_id)
    say(engine, standings=(standing,), source="other")
    assert suppressed(engine) == []


def test_a_complaint_outlives_its_notification(engine: Engine) -> None:
    say(engine, standings=(Standing(Channel.EMAIL, "eve@example.com", Reason.COMPLAINT, notification_id=new_id()),))
    assert suppressed(engine) == [("email", "eve@example.com", "complaint", None)]


def test_an_address_that_is_not_named_is_the_notifications_own(engine: Engine) -> None:
    for row_id in (row(engine, "sent"), new_id()):
        say(engine, standings=(Standing(Channel.EMAIL, "", Reason.HARD_BOUNCE, notification_id=row_id),))
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
        assert bounced_by(connection, [row_id]) == {row_id: {"acme"}}
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
        standing = Standing(Channel.EMAIL, address, Reason.HARD_BOUNCE, notification_id=row_id, repeats=said)
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
        standing = Standing(Channel.EMAIL, "", Reason.HARD_BOUNCE, notification_id=row_id, repeats=said)
        say(engine, of(row_id, Kind.BOUNCED_HERE, error=said), standings=(standing,))
        assert state(engine, row_id) == ("retrying", None)
    assert [each[1] for each in suppressed(engine)] == ["ada@example.com"]


# Early.


@pytest.mark.parametrize("kind", ["delivered", "bounced"])
@pytest.mark.parametrize("status", ["scheduled", "queued", "sending", None])
def test_what_is_early_waits(engine: Engine, kind: str, status: str | None) -> None:
    row_id = row(engine, status or "sending")
    if status is None:  # not to be seen yet
        sql(engine, "UPDATE notifications SET id = :new WHERE id = :id", id=row_id, new=(hidden := new_id()))
    receipt = of(row_id, Kind(kind), error="acme 5")
    for _ in range(3):
        taken(engine, receipt)
    [kept] = waiting(engine)
    assert (kept.notification_id, kept.provider, kept.kind, kept.error) == (row_id, "acme", kind, "acme 5")
    assert kept.happened_at == receipt.happened_at
    assert timedelta(hours=23) < kept.keep_until - datetime.now(UTC) <= timedelta(hours=24)
    assert apply_waiting(engine) == 0  # not due yet
    assert hurry(engine) == 1
    assert len(waiting(engine)) == 1
    if status is None:
        sql(engine, "UPDATE notifications SET id = :id WHERE id = :hidden", id=row_id, hidden=hidden)
    for step in {"scheduled": ["queued", "sending"], "queued": ["sending"]}.get(status or "", []):
        move(engine, row_id, step)
    move(engine, row_id, "sent")
    assert hurry(engine) == 1
    assert state(engine, row_id) == (("delivered", None) if kind == "delivered" else ("failed", "bounced"))
    assert [letter.error for letter in letters(engine, row_id)] == (["acme 5"] if kind == "bounced" else [])
    assert waiting(engine) == []
    assert hurry(engine) == 0


def test_it_is_looked_at_less_and_less(engine: Engine) -> None:
    known, unknown = row(engine, "sending"), new_id()
    for age, wait_known, wait_unknown in ((0, 1, 1), (20, 20, 20), (900, 60, 900), (-50, 1, 1)):
        sql(engine, "DELETE FROM receipts")
        taken(engine, of(known, ago=age), of(unknown, ago=age))
        hurry(engine)
        waits = {kept.notification_id: (kept.due_at - datetime.now(UTC)).total_seconds() for kept in waiting(engine)}
        assert waits[known] == pytest.approx(wait_known, abs=2)
        assert waits[unknown] == pytest.approx(wait_unknown, abs=2)


def test_it_is_forgotten_in_the_end(engine: Engine) -> None:
    late = row(engine, "sent")
    taken(engine, of(row(engine, "sending")), of(new_id()))
    move(engine, late, "queued")
    taken(engine, of(late))
    move(engine, late, "sending")
    move(engine, late, "sent")
    sql(engine, "UPDATE receipts SET keep_until = now() - interval '1 second'")
    assert hurry(engine) == 3
    assert waiting(engine) == []
    assert state(engine, late)[0] == "delivered"


def test_what_others_put_there_is_applied_too(engine: Engine) -> None:
    ids = rows(engine, "sent", 3)
    attempted(engine, ids, provider="simulator")
    for row_id, kind in zip(ids, ("delivered", "bounced", "opened"), strict=True):
        sql(
            engine,
            """
                INSERT INTO receipts (id, notification_id, provider, kind, error, happened_at, due_at, keep_until)
                VALUES (:id, :row, 'simulator', :kind, NULL, now(), now(), now() + interval '1 hour')
            """,
            id=new_id(),
            row=row_id,
            kind=kind,
        )
    assert apply_waiting(engine) == 3
    assert [state(engine, row_id)[0] for row_id in ids] == ["delivered", "failed", "sent"]
    assert waiting(engine) == []
    assert sql(engine, "SELECT 1 FROM suppressions") == []


def test_several_clocks_take_turns(engine: Engine) -> None:
    ids = rows(engine, "sending", 1200)
    taken(engine, *[of(row_id) for row_id in ids])
    sql(engine, "UPDATE notifications SET status = 'sent', due_at = NULL")
    sql(engine, "UPDATE receipts SET due_at = now()")
    with ThreadPoolExecutor(4) as pool:
        looked_at = list(pool.map(lambda _: apply_waiting(engine), range(4)))
    assert sum(looked_at) + apply_waiting(engine) == len(ids)
    assert one(engine, "SELECT count(*) FROM notifications WHERE status = 'delivered'")[0] == len(ids)
    assert waiting(engine) == []


def test_a_receipt_that_the_clock_holds_is_taken_again(engine: Engine) -> None:
    """Between clock and callback there is no deadlock, whichever comes first."""
    ids = rows(engine, "sending", 100)
    receipts = [of(row_id) for row_id in ids]
    taken(engine, *receipts)
    with ThreadPoolExecutor(4) as pool:
        turns = [pool.submit(hurry, engine) for _ in range(10)]
        turns += [pool.submit(taken, engine, *receipts[turn:]) for turn in range(10)]
        for turn in turns:
            turn.result()
    assert len(waiting(engine)) == len(ids)


# What it costs.


def test_a_callback_costs_the_same_statements_however_much_it_says(engine: Engine) -> None:
    sql(
        engine,
        """
            INSERT INTO subscriptions (id, url, event_types, enabled, secret, headers, created_at, updated_at)
            VALUES (gen_random_uuid(), 'http://127.0.0.1', CAST(:types AS text[]), true, '', '{}', now(), now())
        """,
        types=[told_as(each) for each in TOLD],
    )
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    costs = []
    for count in (1, 700):
        receipts, standings = [], []
        sent, again = rows(engine, "sent", 2 * count), resent(engine, count)
        for number in range(count):
            receipts += [of(sent[number]), bounce(sent[count + number]), bounce(again[number]), of(new_id())]
            standings += [Standing(Channel.EMAIL, f"c{number}@example.com", Reason.COMPLAINT)]
            standings += [Standing(Channel.SMS, f"+49151123{number:05}", Reason.STOP, lifted=True)]
        statements.clear()
        taken(engine, *receipts, standings=tuple(standings))
        costs.append(len(statements))
    assert costs[0] == costs[1], statements
    # And what became of them was told, of each once.
    events = sql(engine, "SELECT event_type, count(*) AS told FROM events WHERE source = 'notifier' GROUP BY 1")
    told = {row.event_type: row.told for row in events}
    assert told == {"notifier.notification.delivered": 701, "notifier.notification.failed": 1402}


# Suppressions.


def suppressed(engine: Engine) -> list[tuple[str, str, str, datetime | None]]:
    found = sql(engine, "SELECT channel, address, reason, until FROM suppressions ORDER BY 2")
    return [(row.channel, row.address, row.reason, row.until) for row in found]


def stand(engine: Engine, channel: str, address: str, reason: Reason, *, lifted: bool = False) -> None:
    taken(engine, standings=(Standing(Channel(channel), address, reason, lifted),))


@pytest.mark.parametrize("status", ["sent", "delivered", "failed", "queued"])
def test_a_hard_bounce_suppresses_whatever_the_state_is(engine: Engine, status: str) -> None:
    row_id = row(engine, status)
    for _ in range(2):
        taken(engine, bounce(row_id), standings=(Standing(Channel.EMAIL, "Ada@Example.COM", Reason.HARD_BOUNCE),))
        assert suppressed(engine) == [("email", "Ada@example.com", "hard_bounce", None)]


def test_what_stands_already_stays_as_it_is(engine: Engine) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    suppressions.add(engine, {"channel": "email", "address": "a@example.com", "reason": "asked us", "until": None})
    suppressions.add(engine, {"channel": "email", "address": "b@example.com", "reason": "asked us", "until": until})
    gone = datetime.now(UTC) - timedelta(days=1)
    suppressions.add(engine, {"channel": "email", "address": "c@example.com", "reason": "for a while", "until": gone})
    before = suppressed(engine)
    for name in "abc":
        stand(engine, "email", f"{name.upper()}@example.com", Reason.COMPLAINT)
        stand(engine, "email", f"{name}@example.com", Reason.HARD_BOUNCE)
    # One that ends gives way to one that does not: it would hold nobody back any more.
    new = [("email", f"{name}@example.com", "complaint", None) for name in "BC"]
    assert sorted(suppressed(engine)) == sorted([*new, before[0]])


def test_stop_and_start(engine: Engine) -> None:
    for _ in range(2):
        stand(engine, "sms", "+49 151 12345678", Reason.STOP)
        assert suppressed(engine) == [("sms", "+4915112345678", "stop", None)]
    for _ in range(2):
        stand(engine, "sms", "+4915112345678", Reason.STOP, lifted=True)
        assert suppressed(engine) == []


@pytest.mark.parametrize("reason", ["hard_bounce", "complaint", "manual"])
def test_start_lifts_nothing_but_a_stop(engine: Engine, reason: str) -> None:
    suppressions.add(engine, {"channel": "sms", "address": "+4915112345678", "reason": reason, "until": None})
    stand(engine, "sms", "+4915112345678", Reason.STOP)
    stand(engine, "sms", "+4915112345678", Reason.STOP, lifted=True)
    assert suppressed(engine) == [("sms", "+4915112345678", reason, None)]


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        ("email", "bounce@simulator.notifier"),
        ("email", "Bounce@Simulator.Notifier"),
        ("sms", "+15005550001"),
        ("sms", "+15005550099"),
        ("sms", "whatsapp:+4915112345678"),
        ("sms", "12345"),
        ("sms", ""),
        ("email", "nobody"),
    ],
)
def test_these_are_never_suppressed(engine: Engine, channel: str, address: str) -> None:
    stand(engine, channel, address, Reason.HARD_BOUNCE)
    assert suppressed(engine) == []


# Over HTTP.


@pytest.fixture(scope="module")
def receiving(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API whose providers are Twilio, SendGrid and SES; nobody sends."""
    with receivers.http(receivers.response(200, certificate())) as (amazon, _):
        yield from _receiving(new_system, amazon.port)


#: Which signs nothing: the address of each message's callback is its key.
VONAGE = "vonage://KEY:PASSWORD@default?from=Acme&receipts=on"


def _receiving(new_system: Callable[..., Running], amazon: int) -> Iterator[Running]:
    ses = f"ses://KEY:SECRET@127.0.0.1:{amazon}?tls=none&region=eu-central-1&topic={TOPIC}"
    sendgrid = f"sendgrid://key@default?webhook_key={quote(SENDGRID_KEY, safe='')}"
    system = new_system(
        NOTIFIER_AUTH="required",
        NOTIFIER_PUBLIC_URL=PUBLIC_URL + "/",
        NOTIFIER_SMS=f"twilio://AC1:{TOKEN}@default?from=+15550100, {VONAGE}",
        NOTIFIER_EMAIL=f"{sendgrid}, {ses}",
    )
    system.start(only=[system.api])
    yield system
    system.stop()


def twilio(system: Running, form: dict[str, str], query: str = "", **headers: str) -> requests.Response:
    url = f"{PATH}/twilio" + (f"?{query}" if query else "")
    signed = {"X-Twilio-Signature": twilio_signature(PUBLIC_URL + url, form), **headers}
    return system.http.post(system.url + url, data=form, headers=signed, timeout=20)


def sendgrid(system: Running, *events: dict[str, Any], body: bytes | None = None, **headers: str) -> requests.Response:
    callback = sendgrid_callback(orjson.dumps(events) if body is None else body)
    url = f"{system.url}{PATH}/sendgrid"
    return system.http.post(url, data=callback.body, headers={**callback.headers, **headers}, timeout=20)


def sms(engine: Engine) -> UUID:
    """A notification that Twilio has taken over."""
    row_id = row(engine, "sent")
    sql(engine, "UPDATE notifications SET channel = 'sms', recipient = '+4915112340001' WHERE id = :id", id=row_id)
    attempted(engine, [row_id], provider="twilio")
    return row_id


def test_twilio_over_http(receiving: Running) -> None:
    engine = receiving.engine
    arrives, fails = sms(engine), sms(engine)
    done = twilio(receiving, {"MessageStatus": "delivered"}, f"notification={arrives}")
    assert (done.status_code, done.headers["content-type"]) == (200, "text/xml")
    assert done.text.endswith("<Response/>")
    form = {"MessageStatus": "undelivered", "ErrorCode": "30005", "To": "+4915112340001"}
    assert twilio(receiving, form, f"notification={fails}").ok
    assert (state(engine, arrives), state(engine, fails)) == (("delivered", None), ("failed", "bounced"))
    assert ("sms", "+4915112340001", "hard_bounce", None) in suppressed(engine)
    assert twilio(receiving, {"From": "+4915112340002", "Body": "Stop"}).ok
    assert ("sms", "+4915112340002", "stop", None) in suppressed(engine)
    assert twilio(receiving, {"From": "+4915112340002", "Body": "Start"}).ok
    assert "+4915112340002" not in {each[1] for each in suppressed(engine)}


def test_a_bounce_for_now_over_http(receiving: Running) -> None:
    engine = receiving.engine
    row_id = sms(engine)
    form = {"MessageStatus": "undelivered", "ErrorCode": "30022", "To": "+4915112340001"}
    assert twilio(receiving, form, f"notification={row_id}").ok
    found = one(engine, "SELECT * FROM notifications WHERE id = :id", id=row_id)
    assert (found.status, found.tries, found.queue) == ("retrying", 1, "sms.retry")
    assert sendgrid(receiving, {"event": "delivered", "notification_id": str(row_id)}).ok
    assert state(engine, row_id) == ("retrying", None)


def test_sendgrid_over_http(receiving: Running) -> None:
    engine = receiving.engine
    ids = rows(engine, "sent", 1500)
    attempted(engine, ids, provider="sendgrid")
    events = [
        {
            "event": "bounce" if number == 7 else "delivered",
            "type": "bounce",
            "status": "5.1.1",
            "email": f"s{number}@example.com",
            "timestamp": int(datetime.now(UTC).timestamp()),
            "notification_id": str(row_id),
            "sg_event_id": "x" * 64,
            "response": "250 " + "y" * 64,
        }
        for number, row_id in enumerate(ids)
    ]
    answer = sendgrid(receiving, *events)
    assert (answer.status_code, answer.content) == (204, b"")
    counts = sql(
        engine, "SELECT status, count(*) FROM notifications WHERE id = ANY(:ids) GROUP BY 1 ORDER BY 1", ids=ids
    )
    assert [tuple(each) for each in counts] == [("delivered", 1499), ("failed", 1)]
    assert ("email", "s7@example.com", "hard_bounce", None) in suppressed(engine)


@pytest.mark.parametrize("method", ["get", "post"])
def test_vonage_over_http(receiving: Running, method: str) -> None:
    engine = receiving.engine
    row_id, other = sms(engine), sms(engine)
    attempted(engine, [row_id], provider="vonage")
    for each, status, then in ((row_id, 200, "delivered"), (other, 200, "sent")):
        url = f"{receiving.url}{PATH}/vonage?{callback_query(parse(VONAGE), each)}"
        given = {"status": "delivered", "err-code": "0", "client-ref": str(each)}
        where = {"params": given} if method == "get" else {"json": given}
        assert receiving.http.request(method, url[:-1], **where, timeout=20).status_code == 401
        assert receiving.http.request(method, url, **where, timeout=20).status_code == status
        assert state(engine, each)[0] == then


def test_ses_over_http(receiving: Running) -> None:
    engine = receiving.engine
    ids = arrives, bounces, forged = rows(engine, "sent", 3)
    attempted(engine, ids, provider="ses")

    def said(row_id: UUID, name: str, detail: dict[str, Any], **more: str) -> requests.Response:
        event = {"eventType": name, "mail": {"tags": {"notification_id": [str(row_id)]}}, name.lower(): detail}
        callback = sns_callback(sns_message(orjson.dumps(event).decode(), **more))
        url = f"{receiving.url}{PATH}/ses"
        return receiving.http.post(url, data=callback.body, headers=callback.headers, timeout=20)

    assert said(arrives, "Delivery", {}).status_code == 204
    address = {"emailAddress": "ses@example.com"}
    gone = {"bounceType": "Permanent", "bounceSubType": "General", "bouncedRecipients": [address]}
    assert said(bounces, "Bounce", gone).status_code == 204
    assert said(forged, "Bounce", gone, TopicArn=f"{TOPIC}2").status_code == 401
    assert [state(engine, row_id)[0] for row_id in ids] == ["delivered", "failed", "sent"]
    assert ("email", "ses@example.com", "hard_bounce", None) in suppressed(engine)
    # Of what SendGrid sent it knows nothing.
    attempted(engine, [forged], provider="sendgrid")
    assert said(forged, "Delivery", {}).status_code == 204
    assert state(engine, forged) == ("sent", None)
    away = f"{SNS}/none.txt"
    assert said(forged, "Delivery", {}, SigningCertURL=away).status_code == 401


def test_what_is_wrong_changes_nothing(receiving: Running) -> None:
    engine = receiving.engine
    row_id = row(engine, "sent")
    attempted(engine, [row_id], provider="sendgrid")
    sent = {"event": "delivered", "notification_id": str(row_id)}
    arrived, query = {"MessageStatus": "delivered"}, f"notification={row_id}"
    answers = {
        401: [
            twilio(receiving, arrived, query, **{"X-Twilio-Signature": "forged"}),
            receiving.http.post(f"{receiving.url}{PATH}/twilio?{query}", data=arrived, timeout=9),
            sendgrid(receiving, sent, **{"X-Twilio-Email-Event-Webhook-Timestamp": "1"}),
            receiving.post(f"{PATH}/sendgrid", [sent]),
        ],
        400: [
            twilio(receiving, arrived, "notification=1"),
            receiving.http.post(f"{receiving.url}{PATH}/twilio?{query}", data=b"\xff", timeout=9),
            sendgrid(receiving, body=b"{}"),
            sendgrid(receiving, body=b""),
        ],
        404: [receiving.post(f"{PATH}/{name}", [sent]) for name in ("plivo", "outbox", "Twilio", "x y")],
        405: [receiving.get(f"{PATH}/twilio")],
        413: [receiving.http.post(f"{receiving.url}{PATH}/sendgrid", data=b" " * (1024**2 + 1), timeout=9)],
    }
    for status, each in answers.items():
        for answer in each:
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
    assert state(engine, row_id) == ("sent", None)
    assert {answer.json()["type"] for answer in answers[401]} == {"/problems/invalid-signature"}
    assert "WWW-Authenticate" in answers[401][0].headers
    assert TOKEN not in receiving.api.output()
    assert sendgrid(receiving, sent).ok
    assert state(engine, row_id) == ("delivered", None)


def test_it_is_described(receiving: Running) -> None:
    described = receiving.get("/openapi.json").json()["paths"][f"{PATH}/{{provider}}"]["post"]
    assert described["security"] == []
    assert {"200", "204", "400", "401", "404"} <= set(described["responses"])
    assert set(described["requestBody"]["content"]) == {
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
    }


# The clock, and what it says of it.


def came(system: Running, notification_id: str, kind: str) -> None:
    """Put a receipt where it waits, and let the clock look at it."""
    system.sql(
        """
            INSERT INTO receipts (id, notification_id, provider, kind, error, happened_at, due_at, keep_until)
            VALUES (:id, :row, 'outbox', :kind, 'acme 5, nobody there', now(), now(), now() + interval '1 hour')
        """,
        id=new_id(),
        row=notification_id,
        kind=kind,
    )
    waits = "SELECT 1 FROM receipts WHERE notification_id = :id"
    wait_for(lambda: not system.sql(waits, id=notification_id), what="the clock")


def test_the_clock_applies_what_came_early(system: Running) -> None:
    event_id = system.event(channel="sms", recipient="+4915112349999")
    notification = system.finished(event_id)
    assert notification["status"] == "sent"
    assert "no receipt has confirmed it" in notification["explanation"]
    came(system, notification["id"], "bounced")
    came(system, notification["id"], "delivered")
    found = system.notification(notification["id"])
    assert (found["status"], found["reason"], found["due_at"]) == ("failed", "bounced", None)
    assert found["explanation"] == (
        "It failed for good and stands in the dead letters: the provider accepted it, and said later that it did not"
        " arrive (acme 5, nobody there)."
    )
    assert system.dead_letter(event_id)["reason"] == "bounced"


def test_a_bounce_for_now_is_sent_again(system: Running) -> None:
    sms = made(system, channel="sms", recipient="+4915112349997")
    reaches(system, sms, "sent")
    came(system, sms, "bounced_for_now")
    again = wait_for(lambda: next((each for each in [reaches(system, sms, "sent")] if each["attempts"] == 2), None))
    assert again["reason"] is None
    attempts = system.sql("SELECT outcome, error FROM attempts WHERE notification_id = :id ORDER BY number", id=sms)
    assert [(each.outcome, each.error) for each in attempts] == [
        ("accepted", "bounced: acme 5, nobody there"),
        ("accepted", None),
    ]


def test_a_bounce_brings_the_next_channel(system: Running) -> None:
    user = f"{system.url}/api/v1/users/bounces"
    assert system.http.put(user, json={"phone": "+4915112349998", "push_tokens": ["bounces"]}, timeout=20).ok
    sms = made(system, user_id="bounces", channels=["sms", "push"], strategy="first")
    assert reaches(system, sms, "sent")["reason"] is None
    came(system, sms, "bounced")
    push = wait_for(lambda: system.sql("SELECT id, channel FROM notifications WHERE follows = :id", id=sms))[0]
    assert push.channel == "push"
    assert reaches(system, str(push.id), "sent", "delivered")["attempts"] == 1


def test_a_notification_tells_its_receipts(system: Running) -> None:
    engine = system.engine
    row_id = row(engine, "sent")
    first = replace(of(row_id, ago=20), message_id="m-1")
    for _ in range(2):
        taken(engine, first)
    taken(engine, bounce(row_id))
    taken(engine, replace(of(row_id), provider="someone-else"))
    delivered, late = system.notification(str(row_id))["receipts"]
    assert (delivered["kind"], delivered["provider"], delivered["message_id"]) == ("delivered", "acme", "m-1")
    assert datetime.fromisoformat(delivered["happened_at"]) == first.happened_at.replace(
        microsecond=datetime.fromisoformat(delivered["happened_at"]).microsecond
    )
    assert delivered["taken_at"] > delivered["happened_at"]
    assert (late["kind"], late["error"]) == ("bounced", "acme 5, nobody there")
    assert (delivered["applied"], late["applied"]) == (True, False)


def test_a_receipt_that_waited_is_told_once_and_as_applied(engine: Engine) -> None:
    row_id = row(engine, "sending")
    taken(engine, of(row_id))
    assert not one(engine, "SELECT applied FROM taken_receipts WHERE notification_id = :id", id=row_id).applied
    move(engine, row_id, "sent")
    assert hurry(engine) == 1
    assert one(engine, "SELECT applied FROM taken_receipts WHERE notification_id = :id", id=row_id).applied
