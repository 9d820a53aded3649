"""Claims: a worker takes rows, gives back what it did not begin, and puts aside what it will not send.

Each is one statement a batch, and matches the claim: who comes late changes nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from notifier.models import Notification
from notifier.models.columns import in_order_of, recordset
from notifier.planning.reminders import deadline_of
from notifier.vocabulary.addresses import endpoint_of, folded
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.masking import seal_of
from notifier.vocabulary.queues import SLOW
from notifier.vocabulary.states import Channel, DedupScope, Status


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row as it was claimed."""

    id: UUID
    event_id: UUID | None
    event_type: str | None
    source: str
    user_id: str | None
    recipient: str | None
    category: str | None
    critical: bool
    route: str | None
    content: str | None
    template_id: UUID | None
    claims: int
    attempts: int
    expires_at: datetime | None
    target_date: datetime | None
    lead_time: str | None
    cancellation_key: str | None
    dedup_key: str | None
    dedup_window: str | None
    dedup_scope: str | None
    deferred_at: datetime | None
    created_at: datetime
    subscription_id: UUID | None
    queue: str
    #: One of notifier.vocabulary.states.OnAmbiguous; None is `retry`.
    on_ambiguous: str | None
    send_at: datetime | None
    request_id: str | None
    traceparent: str | None
    channel: str | None
    #: The database's clock.
    now: datetime

    @property
    def endpoint_id(self) -> UUID | None:
        """The endpoint of a webhook: a subscription, or the URL that it was addressed to directly; else None."""
        if self.subscription_id is None and self.recipient and self.queue.startswith(Channel.WEBHOOK):
            return endpoint_of(self.recipient)
        return self.subscription_id

    @property
    def dedup_claim(self) -> "DedupClaim | None":
        """The deduplication key that it needs to be sent, where it has a `dedup_key` and a recipient."""
        if self.dedup_key is None or self.recipient is None or self.channel is None:
            return None
        scope = EVERYONE if self.dedup_scope == DedupScope.EVERYONE else self.source
        return DedupClaim(compared_for_dedup(Channel(self.channel), self.recipient), scope, self.dedup_key)

    @property
    def deadline(self) -> datetime | None:
        """The time after which it is not sent any more."""
        return deadline_of(self.expires_at, self.target_date, self.lead_time)


def compared_for_dedup(channel: Channel, recipient: str) -> str:
    """Return the form of an address in deduplication keys; with a long key a sealed one is too long for their index."""
    if seal_of(recipient) is None:
        return folded(channel, recipient)
    return f"sealed:{hashlib.sha256(recipient.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class DedupClaim:
    """A deduplication key within its scope, for an address of one channel."""

    #: Folded; of a sealed one a hash.
    address: str
    #: A source, or EVERYONE.
    scope: str
    key: str

    def named(self, row: Claimed) -> dict[str, object]:
        """Return the values by which the statements below know it, for the row that wants it."""
        kept = f"{self.scope}/{self.key}"  # no source has a slash in it
        return {
            **{"address": self.address, "scope": self.scope, "key": kept, "bare": self.key},
            **{"source": row.source, "id": row.id, "span": row.dedup_window},
        }


#: The scope of keys that all sources share which ask for it.
EVERYONE: Final = "*"

#: A row with a template has so many seconds more than the lease: as long as one rendering may take by the clock.
COMPOSING: Final = 10

#: A claim's number only has to be another one than before. At the end of its type it begins anew: an overflow would
#: cost all rows of the statement.
NEXT_CLAIM_IN_SQL: Final = "CASE WHEN claims = 2147483647 THEN 1 ELSE claims + 1 END"

#: The values of a Claimed in its order, so that a row is made into one by position.
_CLAIMED_IN_SQL: Final = ", ".join(
    {"content": "CAST(n.content AS text)", "now": "now()"}.get(name, f"n.{name}")
    for name in in_order_of(Claimed, Notification, beside={"now"})
)
# `= ANY(:ids)` prunes partitions; the rows are locked in id order before they are changed, against deadlocks.
_CLAIM: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications
        WHERE id = ANY(:ids) AND status = '{Status.QUEUED}' AND tries = :tries
            AND (:from_slow_queue OR queue <> '{SLOW}')
        ORDER BY id FOR UPDATE
    )
    UPDATE notifications n SET status = '{Status.SENDING}', claims = {NEXT_CLAIM_IN_SQL},
        due_at = now() + (:lease + CASE WHEN template_id IS NULL THEN 0 ELSE {COMPOSING} END) * interval '1 second'
    FROM locked WHERE n.id = locked.id AND n.id = ANY(:ids)
    RETURNING {_CLAIMED_IN_SQL}
""")


def claim(
    connection: Connection, ids: Sequence[UUID], failures: int, lease: float, *, from_slow_queue: bool = False
) -> list[Claimed]:
    """Claim those of `ids` that are queued with so many failures; in id order.

    Rows of the slow queue are claimed only where the message came `from_slow_queue`: a doubled one may have come by
    another. They are held for `lease` seconds, those with a template for COMPOSING more.
    """
    values = {"ids": list(ids), "tries": failures, "lease": lease, "from_slow_queue": from_slow_queue}
    return sorted((Claimed(*row) for row in connection.execute(_CLAIM, values)), key=lambda row: row.id)


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule of the recipient that was judged, with the recipient's local time."""

    #: One of notifier.people.preferences.Rule.
    rule: str | None
    #: By the recipient's clock, with its offset from UTC.
    local_time: datetime
    timezone: str
    #: In words.
    explanation: str


@dataclass(frozen=True, slots=True)
class Aside:
    """A claimed row that is not sent, or not now: its next state under its claim."""

    id: UUID
    claims: int
    status: Status
    reason: str | None = None
    #: In words, for the reader.
    explanation: str | None = None
    due_at: datetime | None = None
    deferred_at: datetime | None = None
    #: Its channel cannot be used: with strategy `first` the next one takes over.
    needs_next: bool = False
    #: Another queue that it waits for from now on.
    queue: str | None = None
    judged: Judged | None = None
    #: The causes that it waits for, in the words of notifier.vocabulary.deferrals.
    waits_for: tuple[str, ...] | None = None


_SET_ASIDE: Final = text(f"""
    UPDATE notifications n SET status = aside.status, reason = aside.reason,
        explanation = aside.explanation, rule = aside.explanation, waits_for = aside.waits_for,
        due_at = aside.due_at, deferred_at = aside.deferred_at, queue = coalesce(aside.queue, n.queue),
        judged = coalesce(aside.judged, n.judged),
        next_channels = CASE WHEN aside.needs_next OR aside.due_at IS NOT NULL THEN n.next_channels END
    FROM json_to_recordset(CAST(:asides AS json)) AS aside({recordset(Aside, Notification, needs_next="boolean")})
    WHERE n.id = ANY(:ids) AND n.id = aside.id AND n.claims = aside.claims AND n.status = '{Status.SENDING}'
    RETURNING n.id
""")


def set_aside(connection: Connection, asides: Sequence[Aside]) -> list[Aside]:
    """Give claimed rows the states that the gate decided on; returns those that were still held under their claim."""
    if not asides:
        return []
    asides = sorted(asides, key=lambda aside: aside.id)
    values = {"asides": to_json(asides), "ids": [aside.id for aside in asides]}
    changed = set(connection.scalars(_SET_ASIDE, values))
    return [aside for aside in asides if aside.id in changed]


# One that is locked is being recorded, or taken back; the next time will do.
_RENEW: Final = text(f"""
    WITH held AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:claims AS integer[])) AS held(id, claims)
    ), free AS MATERIALIZED (
        SELECT n.id FROM notifications n JOIN held USING (id)
        WHERE n.id = ANY(:ids) AND n.claims = held.claims AND n.status = '{Status.SENDING}'
        ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE notifications n SET silent_claim = NULL,
        due_at = greatest(n.due_at, clock_timestamp() + :lease * interval '1 second')
    FROM free WHERE n.id = ANY(:ids) AND n.id = free.id
""")


def renew(connection: Connection, claims: Sequence[tuple[UUID, int]], lease: float) -> None:
    """Hold claimed rows (id, claims) for `lease` seconds more, as far as they are still held under their claims."""
    ids, numbers = [row_id for row_id, _ in claims], [number for _, number in claims]
    connection.execute(_RENEW, {"ids": ids, "claims": numbers, "lease": lease})


_GIVE_BACK: Final = text(f"""
    UPDATE notifications n SET status = '{Status.QUEUED}', due_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:claims AS integer[])) AS held(id, claims)
    WHERE n.id = ANY(:ids) AND n.id = held.id AND n.claims = held.claims AND n.status = '{Status.SENDING}'
""")


def give_back(connection: Connection, rows: Sequence[Claimed]) -> None:
    """Queue claimed rows again that were not begun."""
    if rows:
        rows = sorted(rows, key=lambda row: row.id)
        connection.execute(_GIVE_BACK, {"ids": [row.id for row in rows], "claims": [row.claims for row in rows]})


_MAKE_DUE: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE id = ANY(:ids) AND status = '{Status.QUEUED}' AND tries = :tries
        ORDER BY id FOR UPDATE
    )
    UPDATE notifications n SET due_at = now() FROM locked WHERE n.id = locked.id AND n.id = ANY(:ids)
""")


def make_due(connection: Connection, ids: Sequence[UUID], failures: int) -> None:
    """Make rows due now that a message named and did not claim."""
    if ids:
        connection.execute(_MAKE_DUE, {"ids": list(ids), "tries": failures})


#: A notification in one of these states never arrived: its key goes to the next.
_NEVER_ARRIVED: Final = f"('{Status.FAILED}', '{Status.CANCELLED}', '{Status.EXPIRED}', '{Status.SKIPPED}')"
_WANTED: Final = """
    json_to_recordset(CAST(:wanted AS json))
        AS wanted(address text, scope text, key text, bare text, source text, id uuid, span text)
"""
# A release without scopes kept the bare key, for all sources: it holds for the source of the one that has it.
_HAD_BEFORE_SCOPES: Final = f"""
    EXISTS (
        SELECT FROM dedup_keys older JOIN notifications owner ON owner.id = older.notification_id
        WHERE older.channel = :channel AND older.address = wanted.address AND older.key = wanted.bare
            AND older.scope IS NULL AND older.until > now() AND wanted.scope = owner.source AND owner.id <> wanted.id
            AND owner.status NOT IN {_NEVER_ARRIVED}
    )
"""
# A key belongs to whom it was given, until its window ends; one whose owner never arrived goes to the next.
_TAKE_KEYS: Final = text(f"""
    INSERT INTO dedup_keys AS known (channel, address, key, notification_id, until, scope)
    SELECT :channel, address, key, id, now() + CAST(span AS interval), scope
    FROM {_WANTED} WHERE NOT {_HAD_BEFORE_SCOPES}
    ORDER BY address, key
    ON CONFLICT (channel, address, key) DO UPDATE SET notification_id = excluded.notification_id,
        until = CASE WHEN known.notification_id = excluded.notification_id THEN known.until ELSE excluded.until END,
        scope = excluded.scope
        WHERE known.until <= now() OR known.notification_id = excluded.notification_id OR known.scope IS NULL
            OR EXISTS (SELECT FROM notifications owner WHERE owner.id = known.notification_id
                AND owner.status IN {_NEVER_ARRIVED})
    RETURNING notification_id
""")


def take_dedup_keys(connection: Connection, channel: Channel, rows: Sequence[Claimed]) -> set[UUID]:
    """Take the dedup keys of some rows, each for one of them; returns the ids of those that have theirs."""
    wanted: dict[DedupClaim, Claimed] = {}
    for row in rows:  # in id order: of two in one batch the older one goes
        if claimed := row.dedup_claim:
            wanted.setdefault(claimed, row)
    values = {"channel": channel.value, "wanted": to_json([each.named(row) for each, row in wanted.items()])}
    return set(connection.scalars(_TAKE_KEYS, values)) if wanted else set()


_DOUBLED_KEYS: Final = text(f"""
    SELECT wanted.id FROM {_WANTED} WHERE {_HAD_BEFORE_SCOPES} OR EXISTS (
        SELECT FROM dedup_keys known
        WHERE known.channel = :channel AND known.address = wanted.address AND known.key = wanted.key
            AND known.scope = wanted.scope AND known.until > now() AND known.notification_id <> wanted.id
            AND NOT EXISTS (SELECT FROM notifications owner WHERE owner.id = known.notification_id
                AND owner.status IN {_NEVER_ARRIVED})
    )
""")


def doubled_dedup_keys(connection: Connection, channel: Channel, rows: Sequence[Claimed]) -> set[UUID]:
    """Return the ids of those rows whose dedup key another notification already has; takes no key."""
    named = [claimed.named(row) for row in rows if (claimed := row.dedup_claim)]
    values = {"channel": channel.value, "wanted": to_json(named)}
    return set(connection.scalars(_DOUBLED_KEYS, values)) if named else set()
