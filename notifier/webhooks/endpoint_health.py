"""Health of endpoints: circuit breakers, the slow lane, and subscriptions that are disabled because they only fail.

The state is in Postgres, shared by all workers; a healthy endpoint has no row and costs no write.

    5 failures in a row     the breaker opens for 15 s, at the most 10 minutes (providers.circuit); its rows wait
                            meanwhile (`breaker_open`), then one worker sends one probe
    a timeout               the slow lane for 10 minutes, or until it answers quickly there
    nothing but failures    for half of NOTIFIER_SUBSCRIPTION_DISABLE_AFTER: an event says so; for all of it: disabled
    410                     disabled at once

This is for subscriptions. A URL that webhooks are addressed to directly has the slow lane only: its callers learn of
each webhook what became of it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.notifications import system_events
from notifier.notifications.claims import Claimed
from notifier.observability.request_context import UNKNOWN
from notifier.providers.circuit import Circuit, Thresholds
from notifier.providers.protocol import Outcome, Result
from notifier.vocabulary.masking import masked
from notifier.webhooks.endpoint_slots import CIRCUIT, circuit_of, lock
from notifier.webhooks.subscriptions import FAILING, GONE, disable
from notifier.webhooks.targets import WebhookTarget

log = structlog.get_logger()

#: Longer than for providers: an endpoint that is down holds up nobody else.
_THRESHOLDS: Final = Thresholds(failures_to_open=5, first_open=15, longest_open=600)
_SLOW_FOR: Final = 600
#: A success within so many milliseconds ends the slow lane.
_QUICK: Final = 3000.0
#: Rows that are deleted in one transaction.
_DELETED: Final = 5000


@dataclass(slots=True)
class EndpointTally:
    """Results of one endpoint that a batch has seen since its last report."""

    id: UUID
    #: Whether it is a subscription's, and not a URL that webhooks are addressed to directly.
    subscribed: bool
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
    UPDATE endpoints known SET
        failing_since = coalesce(known.failing_since, now()),
        failures = note.failures,
        open_for = nullif(note.open_for, 0),
        open_until = now() + greatest(note.open_left, note.probe_left) * interval '1 second',
        probing = note.probe_left IS NOT NULL,
        slow_until = CASE WHEN note.timed_out THEN now() + {_SLOW_FOR} * interval '1 second' ELSE known.slow_until END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(id uuid, timed_out boolean, failures integer,
        open_for double precision, open_left double precision, probe_left double precision)
    WHERE known.id = note.id
    RETURNING known.id, now() - failing_since AS failing_for, warned_at IS NOT NULL AS warned
""")
_SUCCEEDED: Final = text("""
    UPDATE endpoints e SET failing_since = NULL, failures = 0, open_until = NULL, open_for = NULL, probing = false,
        warned_at = NULL, slow_until = CASE WHEN note.quick THEN NULL ELSE e.slow_until END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(id uuid, quick boolean) WHERE e.id = note.id
""")
_WARNED: Final = text("UPDATE endpoints SET warned_at = now() WHERE id = ANY(:ids)")
_CIRCUITS: Final = text(f"""
    SELECT e.id, s.updated_at, {CIRCUIT} FROM endpoints e JOIN subscriptions s ON s.id = e.id WHERE e.id = ANY(:ids)
""")
_URLS: Final = text("SELECT id, url FROM subscriptions WHERE id = ANY(:ids)")
_SLOW: Final = text(f"""
    UPDATE endpoints SET slow_until = CASE WHEN id = ANY(:slow) THEN now() + {_SLOW_FOR} * interval '1 second' END
    WHERE id = ANY(:ids)
""")
# Rows whose state is that of a healthy endpoint by now, and rows of subscriptions that are deleted.
_DELETE_HEALTHY: Final = text(f"""
    DELETE FROM endpoints WHERE id IN (
        SELECT id FROM endpoints e WHERE NOT waited_for AND coalesce(slow_until < now(), true) AND (
            failing_since IS NULL AND coalesce(next_slot < now(), true)
            OR NOT EXISTS (SELECT FROM subscriptions s WHERE s.id = e.id))
        ORDER BY id LIMIT {_DELETED} FOR UPDATE SKIP LOCKED
    )
""")


def delete_healthy(engine: Engine) -> int:
    """Delete some thousands of rows of healthy endpoints and deleted subscriptions; returns how many."""
    with engine.begin() as connection:
        return connection.execute(_DELETE_HEALTHY).rowcount


def _note_urls(engine: Engine, notes: Sequence[EndpointTally], slow: Collection[UUID]) -> None:
    """Record what a batch has seen of URLs that webhooks are addressed to directly."""
    timed_out = [each.id for each in notes if each.timed_out and not each.succeeded]
    quick = [each.id for each in notes if each.quick and each.id in slow]
    if timed_out or quick:
        with engine.begin() as connection:
            lock(connection, [*timed_out, *quick])
            connection.execute(_SLOW, {"ids": [*timed_out, *quick], "slow": timed_out})


def _note(
    engine: Engine, notes: Sequence[EndpointTally], known: Mapping[UUID, WebhookTarget], disable_after: timedelta
) -> None:
    """Record what a batch has seen of subscriptions. `known`: the targets as they were when it began."""
    failed = [each for each in notes if each.failures and not each.succeeded]
    well = [each for each in notes if each.succeeded and known[each.id].troubled]
    if not failed and not well:
        return
    with engine.begin() as connection:
        lock(connection, [each.id for each in (*well, *failed)])
        circuits = _circuits(connection, [known[each.id] for each in (*well, *failed)])
        well, failed = ([each for each in part if each.id in circuits] for part in (well, failed))
        if well:
            connection.execute(_SUCCEEDED, {"notes": orjson.dumps(well).decode()})
        if failed:
            after = [{**asdict(each), **asdict(_after(circuits[each.id], each))} for each in failed]
            rows = connection.execute(_FAILED, {"notes": orjson.dumps(after).decode()}).all()
            given_up = [row.id for row in rows if row.failing_for >= disable_after]
            warn = [row.id for row in rows if disable_after > row.failing_for >= disable_after / 2 and not row.warned]
            _end(connection, [each.id for each in failed if each.gone], GONE)
            _end(connection, given_up, FAILING)
            _warn(connection, warn)


def _circuits(connection: Connection, targets: Sequence[WebhookTarget]) -> dict[UUID, Circuit]:
    """Return the circuits of the targets that have not changed since they were read; old results concern no others.

    They stay unchanged: a change locks the endpoint first.
    """
    read = {each.id: each.updated_at for each in targets}
    rows = connection.execute(_CIRCUITS, {"ids": list(read)})
    return {row.id: circuit_of(row) for row in rows if row.updated_at == read[row.id]}


def _after(circuit: Circuit, seen: EndpointTally) -> Circuit:
    """Return the circuit after a batch's failures. While a probe is under way they count as its own.

    A batch does not know which of its rows is the probe: other failures at that time are of calls from before.
    """
    return circuit.fail(_THRESHOLDS, seen.failures, probe_failed=True)


def _end(connection: Connection, subscription_ids: Sequence[UUID], reason: str) -> None:
    """Disable subscriptions, and say so."""
    if subscription_ids:
        _emit(connection, disable(connection, subscription_ids, reason), "disabled", reason)


def _warn(connection: Connection, subscription_ids: Sequence[UUID]) -> None:
    if subscription_ids:
        connection.execute(_WARNED, {"ids": list(subscription_ids)})
        _emit(connection, subscription_ids, "failing", FAILING)


def _emit(connection: Connection, subscription_ids: Sequence[UUID], what: str, reason: str) -> None:
    rows = connection.execute(_URLS, {"ids": list(subscription_ids)}).all() if subscription_ids else []
    payloads = [{"subscription_id": str(row.id), "url": masked(row.url), "reason": reason} for row in rows]
    system_events.emit(connection, [(f"notifier.subscription.{what}", payload, UNKNOWN) for payload in payloads])


class Watch:
    """Collects the results of a batch by endpoint, and reports them as they are recorded."""

    def __init__(
        self, engine: Engine, known: Mapping[UUID, WebhookTarget], slow: Collection[UUID], disable_after: timedelta
    ) -> None:
        """`known`: the targets when the batch began. `slow`: the endpoints in the slow lane then."""
        self._engine = engine
        self._known = known
        self._slow = slow
        self._disable_after = disable_after
        self._notes: dict[UUID, EndpointTally] = {}

    def add(self, row: Claimed, result: Result) -> None:
        """Take one result in."""
        endpoint, subscribed = row.endpoint_id, row.subscription_id is not None
        if endpoint is not None and (not subscribed or endpoint in self._known):
            self._notes.setdefault(endpoint, EndpointTally(endpoint, subscribed)).add(result)

    def take(self) -> Callable[[], None]:
        """Take the results since the last call; returns a function that records them, in any thread."""
        notes, self._notes = self._notes, {}
        return partial(self._report, notes)

    def _report(self, notes: Mapping[UUID, EndpointTally]) -> None:
        """Record results. A failure to do so is logged: it must not cost the batch."""
        if notes:
            try:
                seen = notes.values()
                _note(self._engine, [each for each in seen if each.subscribed], self._known, self._disable_after)
                _note_urls(self._engine, [each for each in seen if not each.subscribed], self._slow)
            except SQLAlchemyError as error:
                log.warning("endpoints_not_noted", error=type(error).__name__, endpoints=len(notes))
