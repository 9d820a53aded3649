"""Dead letters: notifications and events that failed for good, with their reasons, and requeueing.

A failure makes one letter, however often the handler runs: the row is matched by its fence (`status` and `claims`), and
a letter is unique by (notification, claims). Requeueing keeps the row and its id, so that a receiver that did get an
earlier attempt recognises it.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, delete, or_, select, text

from notifier.models import DeadLetter, Event, Notification
from notifier.notifications.filters import error_form, ids_of_key, is_called_by_provider, last_provider_of, was_tried_by
from notifier.notifications.status_events import emit_status_events
from notifier.observability import metrics
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.queues import BATCH
from notifier.vocabulary.reasons import DEAD_LETTER_REASONS, Reason
from notifier.vocabulary.states import Channel, EventStatus, Status

log = structlog.get_logger()

#: The error of an event whose fan-out never said why.
_FAN_OUT_LOST: Final = "its worker died again and again"
metrics.begin(metrics.DEAD_LETTERS, [*product(Channel, DEAD_LETTER_REASONS), (metrics.NONE, Reason.FAN_OUT_FAILED)])

#: A channel that a stored row names may be none: no label of a metric.
_CHANNELS: Final = frozenset(Channel)
#: Logged beside a dead letter's ids. Of an error the class alone is logged, because servers' messages contain
#: addresses.
_LOGGED: Final = ("event_type", "channel", "reason", "error", "attempts", "request_id", "traceparent")


@dataclass(frozen=True, slots=True)
class DeadLetterRequest:
    """A notification that is given up: `claims` is the fence under which its worker held the row."""

    id: UUID
    claims: int
    reason: str
    error: str | None


_DEAD_LETTER: Final = text(f"""
    WITH given AS (
        SELECT * FROM json_to_recordset(CAST(:requests AS json))
            AS row(id uuid, claims integer, reason text, error text, letter_id uuid)
    ), locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
    ), dead AS (
        UPDATE notifications n SET status = '{Status.FAILED}', reason = given.reason, due_at = NULL,
            explanation = CASE WHEN n.recipient IS NULL THEN NULL ELSE given.error END,
            rule = CASE WHEN n.recipient IS NULL THEN NULL ELSE given.error END, waits_for = NULL
        FROM given JOIN locked USING (id)
        WHERE n.id = ANY(:ids) AND n.id = given.id
            AND n.status = ANY(:found) AND n.claims = given.claims
        RETURNING n.id, n.event_id, n.claims, n.channel, n.event_type, n.attempts, n.request_id, n.traceparent,
            given.reason, given.letter_id,
            CASE WHEN n.recipient IS NULL THEN split_part(given.error, ':', 1) ELSE given.error END AS error
    ), written AS (
        INSERT INTO dead_letters
            (id, notification_id, event_id, claims, channel, event_type, reason, error, attempts, created_at)
        SELECT letter_id, id, event_id, claims, channel, event_type, reason, error, attempts, now() FROM dead
        ON CONFLICT (notification_id, claims) WHERE notification_id IS NOT NULL DO NOTHING
        RETURNING id
    )
    SELECT dead.id, event_id, event_type, channel, reason, split_part(error, ':', 1) AS error, attempts, request_id,
        traceparent
    FROM dead JOIN written ON written.id = letter_id
""")
_DEAD_LETTER_EVENTS: Final = text(f"""
    WITH given AS (
        SELECT * FROM json_to_recordset(CAST(:requests AS json)) AS row(id uuid, letter_id uuid)
    ), dead AS (
        UPDATE events e SET status = '{EventStatus.FAILED}', due_at = NULL
        FROM given WHERE e.id = ANY(:ids) AND e.id = given.id AND e.status = '{EventStatus.ACCEPTED}'
        RETURNING e.id, e.event_type, coalesce(e.error, '{_FAN_OUT_LOST}') AS error, e.handovers, e.request_id,
            e.traceparent, given.letter_id
    ), written AS (
        INSERT INTO dead_letters (id, event_id, claims, event_type, reason, error, attempts, created_at)
        SELECT letter_id, dead.id, (SELECT count(*) FROM dead_letters d WHERE d.event_id = dead.id
                AND d.notification_id IS NULL), event_type, '{Reason.FAN_OUT_FAILED}', error, 0, now() FROM dead
        ON CONFLICT (event_id, claims) WHERE notification_id IS NULL DO NOTHING
        RETURNING id, reason
    )
    SELECT NULL AS id, dead.id AS event_id, event_type, NULL AS channel, reason, error, handovers AS attempts,
        request_id, traceparent
    FROM dead JOIN written ON written.id = letter_id
""")


def dead_letter(
    connection: Connection, requests: Sequence[DeadLetterRequest], *, found: Collection[Status] = (Status.SENDING,)
) -> None:
    """Mark notifications as failed and write their letters, in the connection's transaction.

    A row that is no longer held under its claim, in one of the states `found`, is left alone.
    """
    if not requests:
        return
    given = [
        {
            "id": request.id,
            "claims": request.claims,
            "reason": request.reason,
            "error": request.error,
            "letter_id": new_id(),
        }
        for request in requests
    ]
    ids = [request.id for request in requests]
    values = {"requests": to_json(given), "ids": ids, "found": [*found]}
    written = connection.execute(_DEAD_LETTER, values).all()
    emit_status_events(connection, ids)
    _log_dead_letters(written)
    letters = [(row.channel if row.channel in _CHANNELS else metrics.NONE, row.reason) for row in written]
    metrics.count(metrics.DEAD_LETTERS, letters)
    metrics.count(metrics.NOTIFICATIONS, ((channel, Status.FAILED, reason) for channel, reason in letters))


def _log_dead_letters(written: Sequence[Row[Any]]) -> None:
    """Log a line for each letter."""
    for row in written:
        ids = {"notification_id": row.id, "event_id": row.event_id}
        fields = {name: str(value) for name, value in ids.items() if value is not None}
        fields |= {name: value for name in _LOGGED if (value := getattr(row, name)) is not None}
        log.warning("dead_letter", **fields)


def dead_letter_events(connection: Connection, event_ids: Sequence[UUID]) -> None:
    """Mark events that break fan-out as failed and write their letters, in the connection's transaction."""
    if event_ids:
        given = [{"id": event_id, "letter_id": new_id()} for event_id in event_ids]
        values = {"requests": to_json(given), "ids": list(event_ids)}
        written = connection.execute(_DEAD_LETTER_EVENTS, values).all()
        _log_dead_letters(written)
        metrics.count(metrics.DEAD_LETTERS, ((metrics.NONE, row.reason) for row in written))


#: Filters on columns that notifications and events both have.
_OF_BOTH: Final = (
    *("user_id", "request_id", "source", "category", "template"),
    *("cancellation_key", "dedup_key", "recipient"),
)


@dataclass(frozen=True, slots=True)
class Died:
    """The notifications, and the events that broke fan-out, of some letters."""

    notifications: Sequence[UUID]
    events: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which dead letters are meant; None does not filter."""

    channel: str | None = None
    reason: str | None = None
    event_type: str | None = None
    event_id: UUID | None = None
    notification_id: UUID | None = None
    #: Of the notification that is dead, or of the event.
    user_id: str | None = None
    request_id: str | None = None
    source: str | None = None
    category: str | None = None
    template: str | None = None
    cancellation_key: str | None = None
    dedup_key: str | None = None
    #: All forms in which the address may be kept (`addresses.sought`).
    recipient: tuple[str, ...] | None = None
    #: As long as the key is kept.
    idempotency_key: str | None = None
    #: Of the notification alone: an event has none of these.
    subscription_id: UUID | None = None
    provider: str | None = None
    #: Of the last attempt, as `groups` have it.
    last_provider: str | None = None
    message_id: str | None = None
    #: The form of the letter's error (`error_forms`).
    error: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    #: False: open letters. True: requeued letters.
    requeued: bool | None = None

    def on(self, query: Select[Any], among: "Died | None" = None) -> Select[Any]:
        """Add the conditions to a query over DeadLetter.

        `among`: what died of the letters that are meant at all. It keeps Postgres from reading every notification.
        """
        for column in ("channel", "reason", "event_type", "event_id", "notification_id"):
            value = getattr(self, column)
            if value is not None:
                query = query.where(getattr(DeadLetter, column) == value)
        query = self._on_what_died(query, among)
        if self.idempotency_key is not None:
            ids = ids_of_key(self.idempotency_key)
            query = query.where(or_(DeadLetter.notification_id.in_(ids), DeadLetter.event_id.in_(ids)))
        if self.error is not None:
            query = query.where(error_form() == self.error)
        if self.last_provider is not None:
            query = query.where(last_provider_of(DeadLetter.notification_id) == self.last_provider)
        if self.created_after is not None:
            query = query.where(DeadLetter.created_at > self.created_after)
        if self.created_before is not None:
            query = query.where(DeadLetter.created_at < self.created_before)
        if self.requeued is not None:
            query = query.where(DeadLetter.requeued_at.is_not(None) == self.requeued)
        return query

    def _on_what_died(self, query: Select[Any], among: "Died | None") -> Select[Any]:
        """Add the conditions on a letter's notification, or on its event where that broke fan-out."""
        of_both = [(name, value) for name in _OF_BOTH if (value := getattr(self, name)) is not None]
        of_notification = [
            *((Notification.subscription_id == self.subscription_id,) if self.subscription_id is not None else ()),
            *((was_tried_by(self.provider),) if self.provider is not None else ()),
            *((is_called_by_provider(self.message_id),) if self.message_id is not None else ()),
        ]
        if not of_both and not of_notification:
            return query
        notifications = select(Notification.id).where(*_equal(Notification, of_both), *of_notification)
        if among is not None:
            notifications = notifications.where(Notification.id.in_(among.notifications))
        is_found = DeadLetter.notification_id.in_(notifications)
        if of_notification:
            return query.where(is_found)
        # Asked of each letter of an event: there are few, and events have no index of their recipients.
        event = select(Event.id).where(Event.id == DeadLetter.event_id, *_equal(Event, of_both))
        return query.where(or_(is_found, and_(DeadLetter.notification_id.is_(None), event.exists())))


def _equal(model: type[Event | Notification], given: Sequence[tuple[str, Any]]) -> list[ColumnElement[bool]]:
    """Return conditions on columns; a tuple matches any of its values."""
    columns = [(getattr(model, name), value) for name, value in given]
    return [column.in_(value) if isinstance(value, tuple) else column == value for column, value in columns]


def matching(engine: Engine, filters: Filters) -> Iterator[list[UUID]]:
    """Yield the ids of matching letters, oldest first, in batches; letters written meanwhile are not included."""
    after: UUID | None = None
    newest = new_id()
    while True:
        query = filters.on(select(DeadLetter.id)).where(DeadLetter.id < newest)
        if after is not None:
            query = query.where(DeadLetter.id > after)
        with engine.connect() as connection:
            ids = list(connection.scalars(query.order_by(DeadLetter.id).limit(BATCH)))
        if not ids:
            return
        yield ids
        after = ids[-1]


def purge(engine: Engine, letter_ids: Sequence[UUID]) -> int:
    """Delete letters permanently; their notifications stay, as failed. Returns how many there were."""
    with engine.begin() as connection:
        return connection.execute(delete(DeadLetter).where(DeadLetter.id.in_(letter_ids))).rowcount
