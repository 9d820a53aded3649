"""How subscriptions' endpoints fare: breakers, the slow lane, rate limits, and when enough is enough.

Kept in Postgres and shared by all workers; an endpoint that does well has no row and costs no write.

    5 failures in a row     the breaker opens for 15 s, doubled with each probe that fails, up to 10 minutes; its rows
                            wait meanwhile (`breaker_open`), then one worker sends one probe
    a timeout               the slow lane for 10 minutes, or until it answers quickly there
    nothing but failures    for half of NOTIFIER_SUBSCRIPTION_DISABLE_AFTER: that is told; for all of it: disabled
    410                     disabled at once
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from notifier import own_events
from notifier.channels import Status
from notifier.claiming import Claimed
from notifier.providers import Outcome, Result
from notifier.receivers import Receiver
from notifier.subscriptions import FAILING, GONE, disable

log = structlog.get_logger()

#: Why a notification waits whose receiver fails again and again.
BREAKER_OPEN: Final = "breaker_open"
#: Failures in a row that open a breaker.
_OPENS_AT: Final = 5
_FIRST_OPEN: Final = 15
_LONGEST_OPEN: Final = 600
_SLOW_FOR: Final = 600
#: A success within so many milliseconds ends the slow lane.
_QUICK: Final = 3000.0
#: For a probe to come back, in seconds, before another worker may send one.
PROBE: Final = 45


@dataclass(slots=True)
class Note:
    """What one batch has seen of one endpoint."""

    id: UUID
    failures: int = 0
    succeeded: bool = False
    quick: bool = False
    timed_out: bool = False
    gone: bool = False

    def add(self, result: Result) -> None:
        """Take one result in."""
        if result.outcome is Outcome.ACCEPTED:
            self.succeeded = True
            self.quick = self.quick or result.duration_ms < _QUICK
            return
        self.failures += 1
        self.timed_out = self.timed_out or (result.error or "").startswith("timeout")
        self.gone = self.gone or result.status_code == 410


_FAILED: Final = text(f"""
    INSERT INTO endpoints AS known (id, failing_since, failures, open_until, open_for, slow_until)
    SELECT id, now(), failures,
        CASE WHEN failures >= {_OPENS_AT} THEN now() + {_FIRST_OPEN} * interval '1 second' END,
        CASE WHEN failures >= {_OPENS_AT} THEN {_FIRST_OPEN} END,
        CASE WHEN timed_out THEN now() + {_SLOW_FOR} * interval '1 second' END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(id uuid, failures integer, timed_out boolean) ORDER BY id
    ON CONFLICT (id) DO UPDATE SET
        failing_since = coalesce(known.failing_since, now()),
        failures = known.failures + excluded.failures,
        -- What was under way when it opened changes nothing; a probe that fails doubles the wait.
        open_for = CASE WHEN known.open_until > now() AND NOT known.probing THEN known.open_for
            WHEN known.failures + excluded.failures < {_OPENS_AT} THEN NULL
            ELSE least({_LONGEST_OPEN}, coalesce(2 * known.open_for, {_FIRST_OPEN})) END,
        open_until = CASE WHEN known.open_until > now() AND NOT known.probing THEN known.open_until
            WHEN known.failures + excluded.failures < {_OPENS_AT} THEN NULL
            ELSE now() + least({_LONGEST_OPEN}, coalesce(2 * known.open_for, {_FIRST_OPEN})) * interval '1 second' END,
        probing = false,
        slow_until = coalesce(excluded.slow_until, known.slow_until)
    RETURNING id, now() - failing_since AS failing_for, warned_at IS NOT NULL AS warned
""")
_SUCCEEDED: Final = text("""
    WITH was AS MATERIALIZED (
        SELECT id, open_until IS NOT NULL AS was_open FROM endpoints WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
    )
    UPDATE endpoints e SET failing_since = NULL, failures = 0, open_until = NULL, open_for = NULL, probing = false,
        warned_at = NULL, slow_until = CASE WHEN note.quick THEN NULL ELSE e.slow_until END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(id uuid, quick boolean) JOIN was USING (id)
    WHERE e.id = note.id RETURNING e.id, was.was_open
""")
# It is well again: what waited for it goes.
_BRING_FORWARD: Final = text(f"""
    UPDATE notifications SET due_at = now() WHERE subscription_id = ANY(:ids) AND status = '{Status.SCHEDULED}'
        AND reason = '{BREAKER_OPEN}' AND due_at > now()
""")
_WARNED: Final = text("UPDATE endpoints SET warned_at = now() WHERE id = ANY(:ids)")
_URLS: Final = text("SELECT id, url FROM subscriptions WHERE id = ANY(:ids)")


def note(engine: Engine, notes: Iterable[Note], known: Mapping[UUID, Receiver], disable_after: timedelta) -> None:
    """Remember what a batch has seen of some endpoints; `known`: the receivers as they were when it began."""
    notes = sorted(notes, key=lambda each: each.id)
    failed = [each for each in notes if each.failures and not each.succeeded]
    well = [each for each in notes if each.succeeded and known[each.id].troubled]
    if not failed and not well:
        return
    with engine.begin() as connection:
        if well:
            values = {"notes": orjson.dumps(well).decode(), "ids": [each.id for each in well]}
            closed = [row.id for row in connection.execute(_SUCCEEDED, values) if row.was_open]
            connection.execute(_BRING_FORWARD, {"ids": closed})
        if failed:
            rows = connection.execute(_FAILED, {"notes": orjson.dumps(failed).decode()}).all()
            given_up = [row.id for row in rows if row.failing_for >= disable_after]
            warn = [row.id for row in rows if disable_after > row.failing_for >= disable_after / 2 and not row.warned]
            _end(connection, [each.id for each in failed if each.gone], GONE)
            _end(connection, given_up, FAILING)
            _warn(connection, warn)


def _end(connection: Connection, subscription_ids: Sequence[UUID], reason: str) -> None:
    """Disable subscriptions, and say so."""
    if subscription_ids:
        _tell(connection, disable(connection, subscription_ids, reason), "disabled", reason)


def _warn(connection: Connection, subscription_ids: Sequence[UUID]) -> None:
    if subscription_ids:
        connection.execute(_WARNED, {"ids": list(subscription_ids)})
        _tell(connection, subscription_ids, "failing", FAILING)


def _tell(connection: Connection, subscription_ids: Sequence[UUID], what: str, reason: str) -> None:
    rows = connection.execute(_URLS, {"ids": list(subscription_ids)}).all() if subscription_ids else []
    own_events.emit(
        connection,
        [
            (f"notifier.subscription.{what}", {"subscription_id": str(row.id), "url": row.url, "reason": reason})
            for row in rows
        ],
    )


class Watch:
    """What one batch sees of its receivers, reported as its results are recorded."""

    def __init__(self, engine: Engine, known: Mapping[UUID, Receiver], disable_after: timedelta) -> None:
        self._engine = engine
        self._known = known
        self._disable_after = disable_after
        self._notes: dict[UUID, Note] = {}

    def add(self, row: Claimed, result: Result) -> None:
        """Take one result in."""
        if row.subscription_id is not None and row.subscription_id in self._known:
            self._notes.setdefault(row.subscription_id, Note(row.subscription_id)).add(result)

    def report(self) -> None:
        """Remember what was seen since the last report. It is not worth losing a batch over."""
        notes, self._notes = self._notes, {}
        if notes:
            try:
                note(self._engine, notes.values(), self._known, self._disable_after)
            except SQLAlchemyError as error:
                log.warning("endpoints_not_noted", error=type(error).__name__, endpoints=len(notes))


_STILL_OPEN: Final = text("""
    SELECT id FROM endpoints WHERE id = ANY(:ids) AND open_until IS NOT NULL ORDER BY id FOR SHARE
""")


def still_open(connection: Connection, endpoint_ids: Iterable[UUID]) -> set[UUID]:
    """Those whose breaker is not closed; it stays so until the connection's transaction ends.

    Whoever closes it after that finds the rows that were put off in this transaction, and brings them forward.
    """
    return set(connection.scalars(_STILL_OPEN, {"ids": sorted(set(endpoint_ids))}))


_TAKE_PROBE: Final = text(f"""
    UPDATE endpoints SET open_until = now() + {PROBE} * interval '1 second', probing = true
    WHERE id = :id AND open_until <= now() RETURNING id
""")


def take_probe(connection: Connection, endpoint_id: UUID) -> bool:
    """Whether this worker may send the one message that tries out an endpoint whose breaker was open long enough."""
    return connection.scalar(_TAKE_PROBE, {"id": endpoint_id}) is not None


_SLOT_ROW: Final = text("INSERT INTO endpoints (id) VALUES (:id) ON CONFLICT DO NOTHING")
_AHEAD: Final = text("""
    SELECT greatest(extract(epoch FROM coalesce(next_slot, now()) - now()), 0) FROM endpoints WHERE id = :id FOR UPDATE
""")
_TAKEN: Final = text("""
    UPDATE endpoints SET next_slot = greatest(coalesce(next_slot, now()), now()) + :seconds * interval '1 second'
    WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class Slots:
    """How many messages may go now, and in how many seconds the next one may."""

    free: int
    next_in: float


def take_slots(connection: Connection, endpoint_id: UUID, rate: float, wanted: int) -> Slots:
    """Take as many of an endpoint's slots (one every 1/rate seconds) as are free within a second, at most `wanted`.

    Shared by all workers: the row is locked until the connection's transaction ends.
    """
    connection.execute(_SLOT_ROW, {"id": endpoint_id})
    ahead = float(connection.scalar(_AHEAD, {"id": endpoint_id}) or 0)
    # With a rate under one a second there is a whole slot once the last one has passed.
    free = max(math.floor((1 - ahead) * rate), 1 if ahead == 0 else 0)
    taken = min(wanted, max(0, free))
    connection.execute(_TAKEN, {"id": endpoint_id, "seconds": taken / rate})
    return Slots(taken, ahead + taken / rate)
