"""Receipts: from `sent` to `delivered`, or after a bounce to `retrying` or `failed`.

    sent, retrying                 the receipt is applied: an attempt of which nobody knew did arrive after all
    scheduled, queued, sending,    it came before our own commit, or while the notification is being sent again: it
    or not to be found             waits in Postgres, and the clock looks again, for a day
    finished otherwise             it changes nothing: late, or doubled

So a receipt may arrive at any time and any number of times, and never moves a state backwards. The exception is a
bounce after which, by its provider's word, another attempt may arrive: it is a failed attempt like any other, and uses
the same budget, so that retries end. A receipt counts only if its provider sent the notification, and so does what such
a bounce says of the address. Other statements about an address count in any state.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from notifier.models import attempt_id
from notifier.notifications.attempts import BOUNCED_ATTEMPT, attempts_of, bounced_by
from notifier.notifications.dead_letters import DeadLetterRequest, dead_letter
from notifier.notifications.retries import RetryPolicy
from notifier.notifications.status_events import emit_status_events
from notifier.observability import metrics
from notifier.people import suppressions
from notifier.people.suppressions import Address
from notifier.providers.protocol import Outcome
from notifier.providers.receipts import AddressStatus, Kind, Receipt, Report
from notifier.providers.vendors.simulator import stands_for_an_outcome
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.deferrals import EXPLANATION_IN_SQL, UNEXPLAINED_IN_SQL
from notifier.vocabulary.ids import derived_id, millisecond_of
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.masking import seal_of
from notifier.vocabulary.queues import retry_queue
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import LIVE, Channel, Status

#: Receipts that the clock looks at in one transaction, and how many of those in one tick.
_BATCH: Final = 500
_BATCHES: Final = 10
#: A notification that is under way is looked at this often, in seconds; one that nobody knows less and less.
_LONGEST_WAIT: Final = 60
#: A bounce that is so much older than the last attempt is of one before it. (Clocks differ.)
_OLDER: Final = timedelta(seconds=30)

_APPLICABLE: Final = (Status.SENT, Status.RETRYING)
_WAITING: Final = LIVE - {*_APPLICABLE}

#: The fields of a receipt that are kept.
_SAID: Final = ("notification_id", "provider", "kind", "message_id", "error", "happened_at")

_LOCK: Final = text("""
    SELECT id, status, claims, attempts, tries, channel, recipient FROM notifications
    WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""")
_DELIVERED: Final = text(f"""
    UPDATE notifications n SET status = '{Status.DELIVERED}', reason = NULL, {UNEXPLAINED_IN_SQL}, due_at = NULL,
        sent_at = coalesce(n.sent_at, given.happened_at), delivered_at = greatest(n.sent_at, given.happened_at)
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, happened_at timestamptz)
    WHERE n.id = ANY(:ids) AND n.id = given.id
    RETURNING n.channel, extract(epoch FROM n.delivered_at - n.sent_at) AS seconds
""")
# It is the clock's from now on, like any other retry; the claim shows that nobody has sent it since.
_SEND_AGAIN: Final = text(f"""
    UPDATE notifications n SET status = '{Status.RETRYING}', reason = NULL, {UNEXPLAINED_IN_SQL}, tries = n.tries + 1,
        queue = again.queue, due_at = now() + again.seconds * interval '1 second'
    FROM json_to_recordset(CAST(:given AS json)) AS again(id uuid, claims integer, queue text, seconds double precision)
    WHERE n.id = ANY(:ids) AND n.id = again.id AND n.claims = again.claims AND n.status = '{Status.SENT}'
""")
_MARK_ATTEMPTS: Final = text("""
    UPDATE attempts a SET error = given.error
    FROM json_to_recordset(CAST(:given AS json)) AS given(attempt_id uuid, error text)
    WHERE a.id = ANY(:ids) AND a.id = given.attempt_id
""")
# In a row: nothing that came later has arrived.
_REPEATED: Final = text(f"""
    SELECT given.notification_id FROM json_to_recordset(CAST(:given AS json))
        AS given(notification_id uuid, channel text, address text, error text)
    WHERE EXISTS (
        SELECT FROM notifications n WHERE n.recipient = given.address AND n.channel = given.channel
            AND n.id <> given.notification_id
            AND (n.status = '{Status.FAILED}' AND n.reason = '{Reason.BOUNCED}'
                AND {EXPLANATION_IN_SQL} = given.error
                OR EXISTS (SELECT FROM attempts a WHERE a.notification_id = n.id
                    AND a.error = '{BOUNCED_ATTEMPT}' || given.error))
            AND NOT EXISTS (
                SELECT FROM notifications later WHERE later.recipient = given.address
                    AND later.channel = given.channel AND later.status = '{Status.DELIVERED}'
                    AND later.delivered_at > n.created_at)
    )
""")
_KEEP: Final = text("""
    INSERT INTO receipts (id, notification_id, provider, kind, message_id, error, happened_at, due_at, keep_until)
    SELECT id, notification_id, provider, kind, message_id, error, happened_at, now() + interval '1 second',
        now() + interval '24 hours'
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, notification_id uuid, provider text, kind text,
        message_id text, error text, happened_at timestamptz)
    ORDER BY id ON CONFLICT (id) DO NOTHING
""")

# A receipt that waited before has a row already, and has moved its notification by now.
_REMEMBER: Final = text("""
    INSERT INTO taken_receipts (id, notification_id, provider, kind, message_id, error, happened_at, taken_at, applied)
    SELECT id, notification_id, provider, kind, message_id, error, happened_at, now(), applied
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, notification_id uuid, provider text, kind text,
        message_id text, error text, happened_at timestamptz, applied boolean)
    ORDER BY id ON CONFLICT (id) DO UPDATE SET applied = true WHERE excluded.applied AND NOT taken_receipts.applied
""")


@dataclass(frozen=True, slots=True)
class Senders:
    """The providers of each channel as attempts record them, and how their failures are retried."""

    #: Channel and recorded name of each provider, by the name of the source that reads its receipts. A source that is
    #: not here speaks for the provider of its own name.
    by_source: Mapping[str, Collection[tuple[str, str]]] = field(default_factory=dict)
    #: The names of all providers of a channel.
    by_channel: Mapping[str, Collection[str]] = field(default_factory=dict)
    #: Where a channel has none, nothing that bounces is sent again.
    policies: Mapping[str, RetryPolicy] = field(default_factory=dict)

    def is_named(self, source: str, channel: str, provider: str | None) -> bool:
        """Return whether a source speaks for a provider of a channel; without a name, for any provider of it."""
        if source not in self.by_source:
            return provider in {source, None}
        names = self.by_source[source]
        if provider is None:
            return any(each == channel for each, _ in names)
        return (channel, provider) in names


NOBODY: Final = Senders()


@dataclass(frozen=True, slots=True)
class _Found:
    """The notifications that receipts name, locked, and their attempts, the oldest first."""

    rows: Mapping[UUID, Row[Any]]
    attempts: Mapping[UUID, Sequence[Row[Any]]]
    senders: Senders

    def is_of(self, source: str, row: Row[Any]) -> bool:
        """Return whether a provider of this source was called for a notification."""
        attempts = self.attempts.get(row.id, ())
        return any(self.senders.is_named(source, row.channel, each.provider) for each in attempts)

    def last_of(self, row: Row[Any]) -> Row[Any] | None:
        """Return the attempt of the last claim; None if it is not recorded, or its time is unknown."""
        last = attempt_id(row.id, row.claims)
        return next((each for each in self.attempts.get(row.id, ()) if each.id == last and each.started_at), None)

    def is_outdated(self, receipt: Receipt) -> bool:
        """Return whether another attempt followed the bounced one: the later attempt has yet to bounce."""
        row = self.rows.get(receipt.notification_id)
        if receipt.kind is Kind.DELIVERED or row is None or row.attempts < 2:
            return False
        last = self.last_of(row)
        if last is None:
            return False
        if last.outcome == Outcome.ACCEPTED:
            if last.provider and not self.senders.is_named(receipt.provider, row.channel, last.provider):
                return True
            if receipt.message_id:
                return not _is_same(receipt.message_id, last.message_id)
        return bool(last.started_at - receipt.happened_at > _OLDER)


def _is_same(named: str, recorded: str | None) -> bool:
    """Return whether a receipt names a message. SendGrid appends its internal route to its id, after a point."""
    return bool(recorded) and f"{named}.".startswith(f"{recorded}.")


def take(engine: Engine, report: Report, senders: Senders = NOBODY, *, source: str = "") -> None:
    """Apply a source's report, and keep receipts that cannot be applied yet. Repeating it changes nothing."""
    if not report.receipts and not report.standings:
        return
    named = {receipt.notification_id for receipt in report.receipts}
    named |= {standing.notification_id for standing in report.standings if standing.notification_id is not None}
    with engine.begin() as connection:
        found = _find(connection, named, senders)
        early = _apply(connection, report.receipts, found)
        _keep(connection, early)
        _stand(connection, report.standings, found, source)


def _find(connection: Connection, ids: Collection[UUID], senders: Senders) -> _Found:
    """Lock the notifications that there are, and look up their attempts."""
    if not ids:
        return _Found({}, {}, senders)
    rows = {row.id: row for row in connection.execute(_LOCK, {"ids": sorted(ids)})}
    return _Found(rows, attempts_of(connection, rows), senders)


def _apply(connection: Connection, receipts: Collection[Receipt], found: _Found) -> set[Receipt]:
    """Apply the receipts that can be applied; returns those that are too early."""
    applicable: dict[UUID, Receipt] = {}
    early: set[Receipt] = set()
    # Of several contradicting receipts the first one wins, as it would if each came alone.
    in_order = sorted(set(receipts), key=lambda receipt: receipt.happened_at)
    for receipt in in_order:
        row = found.rows.get(receipt.notification_id)
        if found.is_outdated(receipt):
            continue
        if row is None or row.status in _WAITING:
            early.add(receipt)
        elif row.status in _APPLICABLE and found.is_of(receipt.provider, row):
            applicable.setdefault(receipt.notification_id, receipt)
    _remember(connection, in_order, applicable, found)
    _deliver(connection, [each for each in applicable.values() if each.kind is Kind.DELIVERED])
    _bounce(connection, [each for each in applicable.values() if each.kind is not Kind.DELIVERED], found)
    return early


def _remember(
    connection: Connection, receipts: Sequence[Receipt], applied: Mapping[UUID, Receipt], found: _Found
) -> None:
    """Keep the receipts of each notification, from providers that were called for it; of one id the first is kept."""
    given: dict[UUID, dict[str, object]] = {}
    for receipt in receipts:
        row = found.rows.get(receipt.notification_id)
        if row is None or not found.is_of(receipt.provider, row):
            continue
        said = (receipt.provider, receipt.kind, receipt.message_id)
        receipt_id = derived_id(millisecond_of(row.id), row.id, row.claims, *said)
        line = {name: getattr(receipt, name) for name in _SAID}
        kept = given.setdefault(receipt_id, {"id": receipt_id, **line, "applied": False})
        kept["applied"] = kept["applied"] or applied.get(row.id) == receipt
    if given:
        connection.execute(_REMEMBER, {"given": to_json(list(given.values()))})


def _bounce(connection: Connection, bounced: Sequence[Receipt], found: _Found) -> None:
    """Retry notifications that may still arrive, and dead-letter the rest."""
    requests, again = [], []
    for receipt in bounced:
        row = found.rows[receipt.notification_id]
        if row.status == Status.RETRYING and receipt.kind is not Kind.BOUNCED:
            continue  # it is tried again anyway, also where that is for the same receipt
        policy = found.senders.policies.get(row.channel)
        if policy is None or row.tries >= policy.max_retries or not _may_arrive(receipt, row, found):
            requests.append(DeadLetterRequest(row.id, row.claims, Reason.BOUNCED, receipt.error))
        else:
            again.append((receipt, row, policy.seconds(row.tries)))
    dead_letter(connection, requests, found=_APPLICABLE)
    if again:
        given = [
            {"id": row.id, "claims": row.claims, "queue": retry_queue(Channel(row.channel)), "seconds": seconds}
            for _, row, seconds in again
        ]
        values = {"given": to_json(given), "ids": [row.id for _, row, _ in again]}
        connection.execute(_SEND_AGAIN, values)
        _mark(connection, [(receipt, row) for receipt, row, _ in again], found)
        for _, row, _ in again:
            metrics.RETRIES.labels(row.channel).inc()


def _may_arrive(receipt: Receipt, row: Row[Any], found: _Found) -> bool:
    """Return whether another attempt may arrive: any, or one by a provider by which it has not bounced yet."""
    if row.recipient is None or receipt.kind is Kind.BOUNCED:
        return False
    if receipt.kind is Kind.BOUNCED_FOR_NOW:
        return True
    tried = bounced_by(found.attempts.get(row.id, ()))
    return any(
        name not in tried and not found.senders.is_named(receipt.provider, row.channel, name)
        for name in found.senders.by_channel.get(row.channel, ())
    )


def _mark(connection: Connection, bounced: Sequence[tuple[Receipt, Row[Any]]], found: _Found) -> None:
    """Say at the attempts that bounced that they have: the next one then prefers another provider."""
    given = []
    for receipt, row in bounced:
        attempts = [
            each
            for each in found.attempts.get(row.id, ())
            if found.senders.is_named(receipt.provider, row.channel, each.provider)
        ]
        named = [each for each in attempts if receipt.message_id and _is_same(receipt.message_id, each.message_id)]
        error = f"{BOUNCED_ATTEMPT}{receipt.error or 'no reason given'}"
        given.append({"attempt_id": (named or attempts)[-1].id, "error": error})
    values = {"given": to_json(given), "ids": [each["attempt_id"] for each in given]}
    connection.execute(_MARK_ATTEMPTS, values)


def _deliver(connection: Connection, receipts: Sequence[Receipt]) -> None:
    if receipts:
        given = [{"id": receipt.notification_id, "happened_at": receipt.happened_at} for receipt in receipts]
        ids = [receipt.notification_id for receipt in receipts]
        delivered = connection.execute(_DELIVERED, {"given": to_json(given), "ids": ids}).all()
        emit_status_events(connection, ids)
        metrics.count(metrics.NOTIFICATIONS, ((row.channel, Status.DELIVERED, "") for row in delivered))
        for row in delivered:
            metrics.RECEIPT_LATENCY.labels(row.channel).observe(float(row.seconds))


def _keep(connection: Connection, receipts: Collection[Receipt]) -> None:
    """Let receipts wait; one that waits already is not kept twice."""
    if receipts:
        given = [
            {
                "id": derived_id(millisecond_of(each.notification_id), each.notification_id, each.provider, each.kind),
                "notification_id": each.notification_id,
                "provider": each.provider,
                "kind": each.kind,
                "message_id": each.message_id,
                "error": each.error,
                "happened_at": each.happened_at,
            }
            for each in receipts
        ]
        connection.execute(_KEEP, {"given": to_json(given)})


def _stand(connection: Connection, standings: Sequence[AddressStatus], found: _Found, source: str) -> None:
    """Suppress addresses, and lift suppressions that their owners may lift."""
    counted = _counted(connection, standings, found, source)
    suppressions.add_new(connection, [address for each, address in counted if not each.lifted])
    suppressions.lift(connection, [address for each, address in counted if each.lifted])


def _counted(
    connection: Connection, standings: Iterable[AddressStatus], found: _Found, source: str
) -> list[tuple[AddressStatus, Address]]:
    """Return the address statuses that count, each with its address."""
    known = [
        (each, Address(each.channel, address, each.reason))
        for each in standings
        if (address := _address(each, found, source)) is not None
    ]
    asked = [
        {"notification_id": each.notification_id, "channel": each.channel, "address": address.address}
        | {"error": each.repeats}
        for each, address in known
        if each.repeats is not None
    ]
    repeated: set[UUID] = set()
    if asked:
        repeated.update(connection.scalars(_REPEATED, {"given": to_json(asked)}))
    return [(each, address) for each, address in known if each.repeats is None or each.notification_id in repeated]


def _address(standing: AddressStatus, found: _Found, source: str) -> str | None:
    """Return the address to suppress; None for one that is none of ours (a short code) or of another provider."""
    row = found.rows.get(standing.notification_id) if standing.notification_id else None
    # One that has not been sent yet, or that is gone by now, contradicts nobody.
    is_elsewhere = row is not None and row.channel != standing.channel
    if is_elsewhere or (row is not None and found.attempts.get(row.id) and not found.is_of(source, row)):
        return None
    given = standing.address or (row.recipient if row is not None else None)
    if given and seal_of(given) is not None:
        return given
    try:
        address = normalised(standing.channel, given) if given else None
    except ValueError:
        return None
    return None if address is None or stands_for_an_outcome(standing.channel, address) else address


_DUE: Final = text(f"""
    SELECT id, notification_id, provider, kind, message_id, error, happened_at, keep_until <= now() AS is_over
    FROM receipts WHERE due_at <= now() ORDER BY due_at LIMIT {_BATCH} FOR UPDATE SKIP LOCKED
""")
_DROP: Final = text("DELETE FROM receipts WHERE id = ANY(:ids)")
# After as long again as it is old: a notification that nobody knows will hardly come to be.
_LOOK_LATER: Final = text(f"""
    UPDATE receipts SET due_at = now() + greatest(interval '1 second', CASE WHEN notification_id = ANY(:known)
        THEN least(now() - happened_at, {_LONGEST_WAIT} * interval '1 second') ELSE now() - happened_at END)
    WHERE id = ANY(:ids)
""")


def apply_waiting(engine: Engine, senders: Senders = NOBODY) -> int:
    """Look at the receipts that are due, some thousands; returns how many there were.

    Any number of clocks may call it, each takes receipts that the others have not locked.
    """
    looked_at = 0
    for _ in range(_BATCHES):
        with engine.begin() as connection:
            due = connection.execute(_DUE).all()
            if due:
                _apply_due(connection, due, senders)
        looked_at += len(due)
        if len(due) < _BATCH:
            break
    return looked_at


def _apply_due(connection: Connection, due: Sequence[Row[Any]], senders: Senders) -> None:
    kinds = frozenset(Kind)
    receipts = {
        row.id: Receipt(row.provider, row.notification_id, Kind(row.kind), row.happened_at, row.error, row.message_id)
        for row in due
        if row.kind in kinds
    }
    found = _find(connection, {receipt.notification_id for receipt in receipts.values()}, senders)
    early = _apply(connection, receipts.values(), found)
    over = {row.id for row in due if row.is_over}
    later = {row_id for row_id, receipt in receipts.items() if receipt in early} - over
    # Last, because a transaction that stores the same receipt waits for us here, with its notification locked.
    connection.execute(_DROP, {"ids": sorted({row.id for row in due} - later)})
    if later:
        connection.execute(_LOOK_LATER, {"ids": sorted(later), "known": sorted(found.rows)})
