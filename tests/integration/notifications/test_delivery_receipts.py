"""Receipts: applied where they can be, kept where they come early, and never a step backwards."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event

from notifier.notifications.delivery_receipts import apply_waiting
from notifier.notifications.status_events import EMITTED
from notifier.people import suppressions
from notifier.providers.receipts import AddressStatus, Kind, SuppressionReason
from notifier.vocabulary.event_types import status_event_type
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.support.receipt_rows import (
    attempted,
    bounce,
    hurry,
    letters,
    move,
    of,
    one,
    resent,
    row,
    rows,
    sql,
    state,
    suppressed,
    taken,
    waiting,
)

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
    standings = tuple(
        AddressStatus(Channel.EMAIL, f"p{n}@example.com", SuppressionReason.HARD_BOUNCE) for n in range(20)
    )
    with ThreadPoolExecutor(6) as pool:
        for turn in range(6):
            shuffled = receipts[turn * 7 :] + receipts[: turn * 7]
            pool.submit(taken, engine, *shuffled, standings=standings[turn:] + standings[:turn])
    states = {state(engine, row_id) for row_id in ids[::2]}, {state(engine, row_id) for row_id in ids[1::2]}
    assert states == ({("failed", "bounced")}, {("delivered", None)})
    assert one(engine, "SELECT count(*) FROM dead_letters")[0] == 30
    assert one(engine, "SELECT count(*) FROM suppressions")[0] == 20


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


# Cost.


def test_a_callback_costs_the_same_statements_however_much_it_says(engine: Engine) -> None:
    sql(
        engine,
        """
            INSERT INTO subscriptions (id, url, event_types, enabled, secret, headers, created_at, updated_at)
            VALUES (gen_random_uuid(), 'http://127.0.0.1', CAST(:types AS text[]), true, '', '{}', now(), now())
        """,
        types=[status_event_type(each) for each in EMITTED],
    )
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    costs = []
    for count in (1, 700):
        receipts, standings = [], []
        sent, again = rows(engine, "sent", 2 * count), resent(engine, count)
        for number in range(count):
            receipts += [of(sent[number]), bounce(sent[count + number]), bounce(again[number]), of(new_id())]
            standings += [AddressStatus(Channel.EMAIL, f"c{number}@example.com", SuppressionReason.COMPLAINT)]
            standings += [AddressStatus(Channel.SMS, f"+49151123{number:05}", SuppressionReason.STOP, lifted=True)]
        statements.clear()
        taken(engine, *receipts, standings=tuple(standings))
        costs.append(len(statements))
    assert costs[0] == costs[1], statements
    # And what became of them was told, of each once.
    events = sql(engine, "SELECT event_type, count(*) AS told FROM events WHERE source = 'notifier' GROUP BY 1")
    told = {row.event_type: row.told for row in events}
    assert told == {"notifier.notification.delivered": 701, "notifier.notification.failed": 1402}


# Suppressions.


def stand(engine: Engine, channel: str, address: str, reason: SuppressionReason, *, lifted: bool = False) -> None:
    taken(engine, standings=(AddressStatus(Channel(channel), address, reason, lifted),))


@pytest.mark.parametrize("status", ["sent", "delivered", "failed", "queued"])
def test_a_hard_bounce_suppresses_whatever_the_state_is(engine: Engine, status: str) -> None:
    row_id = row(engine, status)
    for _ in range(2):
        taken(
            engine,
            bounce(row_id),
            standings=(AddressStatus(Channel.EMAIL, "Ada@Example.COM", SuppressionReason.HARD_BOUNCE),),
        )
        assert suppressed(engine) == [("email", "Ada@example.com", "hard_bounce", None)]


def test_what_stands_already_stays_as_it_is(engine: Engine) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    suppressions.add(engine, {"channel": "email", "address": "a@example.com", "reason": "asked us", "until": None})
    suppressions.add(engine, {"channel": "email", "address": "b@example.com", "reason": "asked us", "until": until})
    gone = datetime.now(UTC) - timedelta(days=1)
    suppressions.add(engine, {"channel": "email", "address": "c@example.com", "reason": "for a while", "until": gone})
    before = suppressed(engine)
    for name in "abc":
        stand(engine, "email", f"{name.upper()}@example.com", SuppressionReason.COMPLAINT)
        stand(engine, "email", f"{name}@example.com", SuppressionReason.HARD_BOUNCE)
    # One that ends gives way to one that does not: it would hold nobody back any more.
    new = [("email", f"{name}@example.com", "complaint", None) for name in "BC"]
    assert sorted(suppressed(engine)) == sorted([*new, before[0]])


def test_stop_and_start(engine: Engine) -> None:
    for _ in range(2):
        stand(engine, "sms", "+49 151 12345678", SuppressionReason.STOP)
        assert suppressed(engine) == [("sms", "+4915112345678", "stop", None)]
    for _ in range(2):
        stand(engine, "sms", "+4915112345678", SuppressionReason.STOP, lifted=True)
        assert suppressed(engine) == []


@pytest.mark.parametrize("reason", ["hard_bounce", "complaint", "manual"])
def test_start_lifts_nothing_but_a_stop(engine: Engine, reason: str) -> None:
    suppressions.add(engine, {"channel": "sms", "address": "+4915112345678", "reason": reason, "until": None})
    stand(engine, "sms", "+4915112345678", SuppressionReason.STOP)
    stand(engine, "sms", "+4915112345678", SuppressionReason.STOP, lifted=True)
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
    stand(engine, channel, address, SuppressionReason.HARD_BOUNCE)
    assert suppressed(engine) == []


def test_a_receipt_that_waited_is_told_once_and_as_applied(engine: Engine) -> None:
    row_id = row(engine, "sending")
    taken(engine, of(row_id))
    assert not one(engine, "SELECT applied FROM taken_receipts WHERE notification_id = :id", id=row_id).applied
    move(engine, row_id, "sent")
    assert hurry(engine) == 1
    assert one(engine, "SELECT applied FROM taken_receipts WHERE notification_id = :id", id=row_id).applied
