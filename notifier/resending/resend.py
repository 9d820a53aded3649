"""Resend: a resend, a requeue or a recovery checks the rules first, and records the previous state.

The rules are the gate's own (delivery.rules), asked in one batch with the rows locked. A row that they would not let
through is refused and stays as it is, with its status, reason and times. A row that is sent again leaves a line in
`resends` with its previous state and the requester. Rules may change between the answer and the send: then the gate
stops the row, and the line still shows the earlier send.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text

from notifier.delivery.endpoint_gate import EndpointGate
from notifier.delivery.gate_inputs import read
from notifier.delivery.rules import DUPLICATE_WORDS, Rules
from notifier.models import Notification, Resend
from notifier.models.columns import in_order_of, names_of
from notifier.notifications.claims import Aside, Claimed, doubled_dedup_keys
from notifier.notifications.dead_letters import DeadLetterRequest
from notifier.planning.plans import Lease
from notifier.vocabulary.deferrals import EXPLANATION_IN_SQL, UNEXPLAINED_IN_SQL
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.queues import FAN_OUT, QUEUE_IN_SQL
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, EventStatus, How, Status
from notifier.vocabulary.time_zones import UTC_ZONE


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a rule forbids that a notification is sent again."""

    #: The reason for programs, such as `opted_out`.
    reason: str
    #: The reason for people.
    explanation: str


class Refused(Conflict):
    """A rule forbids that a notification is sent again; nothing was changed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"It is not sent again: {refusal.explanation}")
        self.reason = refusal.reason


@dataclass(frozen=True, slots=True)
class Standards:
    """The settings for the rules: the time zone of people who have none, and how long rules may defer."""

    zone: ZoneInfo = UTC_ZONE
    max_age: timedelta = timedelta(hours=72)


#: The standards of the default settings.
DEFAULT: Final = Standards()
_CLAIMED: Final = in_order_of(Claimed, Notification, beside={"now"})
_COLUMNS: Final = ", ".join(name for name in _CLAIMED if name not in {"content", "now"})
_LOCK: Final = text(f"""
    SELECT {_COLUMNS}, NULL AS content, now() AS now, status, reason FROM notifications
    WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""")


def locked(connection: Connection, ids: Collection[UUID]) -> dict[UUID, Mapping[str, Any]]:
    """Lock notifications, in id order, and read the data that the rules need; missing ones are left out."""
    rows = connection.execute(_LOCK, {"ids": sorted(ids)}).mappings()
    return {row["id"]: dict(row) for row in rows}


def refusals(
    connection: Connection, rows: Iterable[Mapping[str, Any]], standards: Standards = DEFAULT
) -> dict[UUID, Refusal]:
    """Return the reasons why some of the rows (as `locked` gives them) would not be sent now, by id.

    The number of queries is constant for each channel.

    Rules that only defer a notification (quiet hours, holds, breakers, limits) refuse nothing.
    """
    by_channel: dict[Channel, list[Claimed]] = {}
    for row in rows:
        if row["channel"] is None:
            continue  # nobody could be reached; there is nothing to ask of a channel
        values = {name: row[name] for name in _CLAIMED}
        # It begins anew: nothing has put it off yet.
        by_channel.setdefault(Channel(row["channel"]), []).append(Claimed(**{**values, "deferred_at": None}))
    found: dict[UUID, Refusal] = {}
    for channel, claimed in by_channel.items():
        found |= _refused(connection, channel, claimed, standards)
    return found


def _refused(
    connection: Connection, channel: Channel, rows: Sequence[Claimed], standards: Standards
) -> dict[UUID, Refusal]:
    rules = Rules(channel, standards.zone, standards.max_age, EndpointGate(standards.max_age))
    facts = dataclasses.replace(read(connection, channel, rows), holds=frozenset())
    found: dict[UUID, Refusal] = {}
    for row in rows:
        verdict = rules.judge(row, facts)
        if isinstance(verdict, DeadLetterRequest):
            found[row.id] = Refusal(verdict.reason, verdict.error or "It would fail at once.")
        elif isinstance(verdict, Aside) and verdict.due_at is None:
            reason = verdict.reason or verdict.status.value
            found[row.id] = Refusal(reason, verdict.explanation or f"A later reminder took its place ({reason}).")
    doubled = doubled_dedup_keys(connection, channel, [row for row in rows if row.id not in found])
    return found | {row_id: Refusal(Reason.DUPLICATE, DUPLICATE_WORDS) for row_id in doubled}


@dataclass(frozen=True, slots=True)
class Asked:
    """The requester of a resend, and the way in which it is sent."""

    how: How
    by: str


#: The columns of `resends` that a notification has too: how it stood.
_STATE: Final = tuple(name for name in names_of(Resend) if name in names_of(Notification) and name != "id")
_STATE_IN_SQL: Final = ", ".join({"explanation": EXPLANATION_IN_SQL}.get(name, f"n.{name}") for name in _STATE)
_KEEP: Final = text(f"""
    INSERT INTO resends (id, notification_id, how, asked_by, asked_at, {", ".join(_STATE)})
    SELECT given.id, n.id, :how, :by, now(), {_STATE_IN_SQL}
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, notification_id uuid)
        JOIN notifications n ON n.id = given.notification_id
    WHERE n.id = ANY(:ids)
""")


def keep(connection: Connection, ids: Sequence[UUID], asked: Asked) -> None:
    """Record the state of locked notifications, before they are sent again."""
    given = [{"id": new_id(), "notification_id": each} for each in ids]
    values = {"how": asked.how.value, "by": asked.by, "given": to_json(given), "ids": list(ids)}
    connection.execute(_KEEP, values)


#: The columns of a row that is sent again: queued, with its full number of attempts.
REVIVED_IN_SQL: Final = f"""
    status = '{Status.QUEUED}', reason = NULL, {UNEXPLAINED_IN_SQL}, deferred_at = NULL, tries = 0, lost = 0,
    next_channels = NULL, queue = {QUEUE_IN_SQL}
"""
_REVIVE: Final = text(f"""
    UPDATE notifications SET {REVIVED_IN_SQL}, due_at = now() + :lease * interval '1 second'
    WHERE id = ANY(:ids) RETURNING queue, id
""")


def revive(connection: Connection, ids: Sequence[UUID], asked: Asked, lease: float) -> list[tuple[str, UUID]]:
    """Queue locked notifications again, and record their state; returns the (queue, id) of rows that are due now."""
    if not ids:
        return []
    keep(connection, ids, asked)
    return [(str(row.queue), row.id) for row in connection.execute(_REVIVE, {"ids": list(ids), "lease": lease})]


# Letters before rows, everywhere: of two requeues at once the second waits here, and then finds none standing.
_LOCK_LETTERS: Final = text("""
    SELECT id, notification_id, event_id FROM dead_letters
    WHERE id = ANY(:ids) AND requeued_at IS NULL ORDER BY id FOR UPDATE
""")
_LOCK_LETTERS_OF: Final = text("""
    SELECT id FROM dead_letters WHERE notification_id = ANY(:ids) AND requeued_at IS NULL ORDER BY id FOR UPDATE
""")
_TAKE_LETTERS: Final = text("UPDATE dead_letters SET requeued_at = now() WHERE id = ANY(:ids)")
_TAKE_LETTERS_OF: Final = text("""
    UPDATE dead_letters SET requeued_at = now() WHERE notification_id = ANY(:ids) AND requeued_at IS NULL
""")
_REVIVE_EVENTS: Final = text(f"""
    UPDATE events SET status = '{EventStatus.ACCEPTED}', handovers = 0,
        due_at = now() + :lease * interval '1 second'
    WHERE id = ANY(:ids) AND status = '{EventStatus.FAILED}'
    RETURNING id
""")


def lock_letters_of(connection: Connection, notification_ids: Sequence[UUID]) -> None:
    """Lock the standing letters of notifications; to be called before the notifications are locked."""
    connection.execute(_LOCK_LETTERS_OF, {"ids": list(notification_ids)}).all()


def take_letters_of(connection: Connection, notification_ids: Sequence[UUID]) -> None:
    """Mark the standing letters of notifications as requeued."""
    connection.execute(_TAKE_LETTERS_OF, {"ids": list(notification_ids)})


@dataclass(frozen=True, slots=True)
class Requeued:
    """The result of requeueing dead letters; a letter that no longer stands is in neither list."""

    letters: list[UUID]
    #: The letters that a rule forbids to requeue, and why.
    refused: dict[UUID, Refusal]
    #: (queue, id) of the rows that are due now.
    hints: list[tuple[str, UUID]]


def requeue(
    engine: Engine,
    letter_ids: Sequence[UUID],
    lease: Lease,
    by: str,
    standards: Standards = DEFAULT,
    *,
    dry_run: bool = False,
) -> Requeued:
    """Resend the notifications or events of these letters, each with its full number of attempts; at most one batch.

    Letters that do not exist or were requeued before are skipped, also by another call at the same moment. If a rule
    would stop a notification, it and its letter stay as they are. `dry_run`: change nothing.
    """
    with engine.connect() as connection, connection.begin() as transaction:
        done = requeue_in(connection, letter_ids, lease, by, standards)
        if not dry_run:
            return done
        transaction.rollback()
    return dataclasses.replace(done, hints=[])


def requeue_in(
    connection: Connection, letter_ids: Sequence[UUID], lease: Lease, by: str, standards: Standards = DEFAULT
) -> Requeued:
    """Requeue letters as `requeue` does, in the connection's transaction."""
    letters = connection.execute(_LOCK_LETTERS, {"ids": list(letter_ids)}).all()
    rows = locked(connection, {row.notification_id for row in letters if row.notification_id})
    dead = {row_id: row for row_id, row in rows.items() if row["status"] == Status.FAILED}
    refused = refusals(connection, dead.values(), standards)
    taken = [row for row in letters if row.notification_id not in refused]
    events = [row.event_id for row in taken if not row.notification_id]
    asked = Asked(How.REQUEUE, by)
    hints = revive(connection, [each for each in dead if each not in refused], asked, lease(""))
    connection.execute(_TAKE_LETTERS, {"ids": [row.id for row in taken]})
    if events:
        values = {"ids": sorted(events), "lease": lease(FAN_OUT)}
        hints += [(FAN_OUT, row.id) for row in connection.execute(_REVIVE_EVENTS, values)]
    left = {row.id: refused[row.notification_id] for row in letters if row.notification_id in refused}
    return Requeued([row.id for row in taken], left, hints)


def counted(refused: Iterable[Refusal]) -> dict[str, int]:
    """Return the number of refusals by reason, the most frequent first."""
    return dict(Counter(each.reason for each in refused).most_common())
