"""Receipts: from `sent` to `delivered`, or to `failed` where it bounced.

    sent, retrying                 the receipt is applied: an attempt of which nobody knew did arrive after all
    scheduled, queued, sending,    it came before our own commit, or while the notification is being sent again: it
    or not to be found             waits in Postgres, and the clock looks again, for a day
    finished otherwise             it changes nothing: late, or doubled

So a receipt may come at any time and any number of times, and never moves a state backwards. What it says of the
address holds whatever the state is.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, Row, text

from notifier import metrics, suppressions
from notifier.addresses import normalised
from notifier.callbacks import tell
from notifier.channels import LIVE, Status
from notifier.deadletters import BOUNCED, Death, bury
from notifier.ids import derived_id, millisecond_of
from notifier.models import attempt_id
from notifier.providers import Outcome
from notifier.providers.receipts import Kind, Receipt, Report, Standing
from notifier.providers.simulator import stands_for_an_outcome
from notifier.suppressions import Address

#: Receipts that the clock looks at in one transaction, and how many of those in one tick.
_BATCH: Final = 500
_BATCHES: Final = 10
#: A notification that is under way is looked at this often, in seconds; one that nobody knows less and less.
_LONGEST_WAIT: Final = 60
#: A bounce that is so much older than the last attempt is of one before it. (Clocks differ.)
_OLDER: Final = timedelta(seconds=30)

_APPLICABLE: Final = (Status.SENT, Status.RETRYING)
_WAITING: Final = LIVE - {*_APPLICABLE}

_LOCK: Final = text(
    "SELECT id, status, claims, attempts FROM notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"
)
_DELIVERED: Final = text(f"""
    UPDATE notifications n SET status = '{Status.DELIVERED}', reason = NULL, rule = NULL, due_at = NULL,
        sent_at = coalesce(n.sent_at, given.happened_at), delivered_at = greatest(n.sent_at, given.happened_at)
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, happened_at timestamptz)
    WHERE n.id = ANY(:ids) AND n.id = given.id
    RETURNING n.channel, extract(epoch FROM n.delivered_at - n.sent_at) AS seconds
""")
_LAST_ATTEMPTS: Final = text("""
    SELECT notification_id, started_at, outcome, message_id FROM attempts
    WHERE id = ANY(:ids) AND started_at IS NOT NULL
""")
_KEEP: Final = text("""
    INSERT INTO receipts (id, notification_id, provider, kind, message_id, error, happened_at, due_at, keep_until)
    SELECT id, notification_id, provider, kind, message_id, error, happened_at, now() + interval '1 second',
        now() + interval '24 hours'
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, notification_id uuid, provider text, kind text,
        message_id text, error text, happened_at timestamptz)
    ORDER BY id ON CONFLICT (id) DO NOTHING
""")


def take(engine: Engine, report: Report) -> None:
    """Apply what a callback says, and keep what cannot be applied yet. Taking it again changes nothing."""
    if not report.receipts and not report.standings:
        return
    with engine.begin() as connection:
        early, _ = _apply(connection, report.receipts)
        _keep(connection, early)
        _stand(connection, report.standings)


def _apply(connection: Connection, receipts: Collection[Receipt]) -> tuple[set[Receipt], set[UUID]]:
    """Apply what can be applied; returns what is too early for that, and the notifications that there are."""
    if not receipts:
        return set(), set()
    ids = sorted({receipt.notification_id for receipt in receipts})
    rows = {row.id: row for row in connection.execute(_LOCK, {"ids": ids})}
    outdated = _outdated(connection, receipts, rows)
    applicable: dict[UUID, Receipt] = {}
    early: set[Receipt] = set()
    # Of several that say different things the first one stands, as it would if each came alone.
    for receipt in sorted({*receipts} - outdated, key=lambda receipt: receipt.happened_at):
        row = rows.get(receipt.notification_id)
        if row is None or row.status in _WAITING:
            early.add(receipt)
        elif row.status in _APPLICABLE:
            applicable.setdefault(receipt.notification_id, receipt)
    _deliver(connection, [each for each in applicable.values() if each.kind is Kind.DELIVERED])
    bounced = [each for each in applicable.values() if each.kind is Kind.BOUNCED]
    deaths = [Death(each.notification_id, rows[each.notification_id].claims, BOUNCED, each.error) for each in bounced]
    bury(connection, deaths, found=_APPLICABLE)
    return early, set(rows)


def _outdated(connection: Connection, receipts: Collection[Receipt], rows: Mapping[UUID, Row[Any]]) -> set[Receipt]:
    """Bounces of an attempt that was followed by another one: that one has yet to bounce."""
    bounced = {each for each in receipts if each.kind is Kind.BOUNCED and each.notification_id in rows}
    again = {each.notification_id for each in bounced if rows[each.notification_id].attempts > 1}
    if not again:
        return set()
    latest = [attempt_id(row_id, rows[row_id].claims) for row_id in again]
    last = {row.notification_id: row for row in connection.execute(_LAST_ATTEMPTS, {"ids": latest})}
    return {
        each for each in bounced if each.notification_id in last and _is_of_one_before(each, last[each.notification_id])
    }


def _is_of_one_before(bounce: Receipt, last: Row[Any]) -> bool:
    """Whether a bounce is not of the last attempt: by the message's id, also where another provider sent that one."""
    if bounce.message_id and last.outcome == Outcome.ACCEPTED:
        # SendGrid adds to its id, after a point, where the message went within its own house.
        is_same = last.message_id and f"{bounce.message_id}.".startswith(f"{last.message_id}.")
        return not is_same
    return bool(last.started_at - bounce.happened_at > _OLDER)


def _deliver(connection: Connection, receipts: Sequence[Receipt]) -> None:
    if receipts:
        given = [{"id": receipt.notification_id, "happened_at": receipt.happened_at} for receipt in receipts]
        ids = [receipt.notification_id for receipt in receipts]
        delivered = connection.execute(_DELIVERED, {"given": orjson.dumps(given).decode(), "ids": ids}).all()
        tell(connection, ids)
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
        connection.execute(_KEEP, {"given": orjson.dumps(given).decode()})


def _stand(connection: Connection, standings: Sequence[Standing]) -> None:
    """Suppress addresses, and lift what their owners may lift."""
    suppressions.add_new(connection, list(_addresses(each for each in standings if not each.lifted)))
    suppressions.lift(connection, list(_addresses(each for each in standings if each.lifted)))


def _addresses(standings: Iterator[Standing]) -> Iterator[Address]:
    """What is meant by them; a sender that is no address of ours (a short code, another service's) is left out."""
    for standing in standings:
        try:
            address = normalised(standing.channel, standing.address)
        except ValueError:
            continue
        if not stands_for_an_outcome(standing.channel, address):
            yield Address(standing.channel, address, standing.reason)


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


def apply_waiting(engine: Engine) -> int:
    """Look at the receipts that are due, some thousands; returns how many there were.

    Any number of clocks may call it, each takes receipts that the others have not locked.
    """
    looked_at = 0
    for _ in range(_BATCHES):
        with engine.begin() as connection:
            due = connection.execute(_DUE).all()
            if due:
                _apply_due(connection, due)
        looked_at += len(due)
        if len(due) < _BATCH:
            break
    return looked_at


def _apply_due(connection: Connection, due: Sequence[Row[Any]]) -> None:
    kinds = frozenset(Kind)
    receipts = {
        row.id: Receipt(row.provider, row.notification_id, Kind(row.kind), row.happened_at, row.error, row.message_id)
        for row in due
        if row.kind in kinds
    }
    early, known = _apply(connection, receipts.values())
    over = {row.id for row in due if row.is_over}
    later = {row_id for row_id, receipt in receipts.items() if receipt in early} - over
    # Last, since whoever keeps the same receipt waits for us here, with its notification locked.
    connection.execute(_DROP, {"ids": sorted({row.id for row in due} - later)})
    if later:
        connection.execute(_LOOK_LATER, {"ids": sorted(later), "known": sorted(known)})
