"""How endpoints fare: breakers, the slow lane, and when enough is enough.

Kept in Postgres and shared by all workers; an endpoint that does well has no row and costs no write.

    5 failures in a row     the breaker opens for 15 s, doubled with each probe that fails, up to 10 minutes; its rows
                            wait meanwhile (`breaker_open`), then one worker sends one probe
    a timeout               the slow lane for 10 minutes, or until it answers quickly there
    nothing but failures    for half of NOTIFIER_SUBSCRIPTION_DISABLE_AFTER: that is told; for all of it: disabled
    410                     disabled at once

That is for subscriptions. A URL that webhooks are addressed to directly has the slow lane only: what becomes of its
webhooks each caller is told for its own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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
from notifier.providers.protocol import Outcome, Result
from notifier.vocabulary.masking import masked
from notifier.webhooks.endpoint_slots import lock
from notifier.webhooks.subscriptions import FAILING, GONE, disable
from notifier.webhooks.targets import WebhookTarget

log = structlog.get_logger()

#: Failures in a row that open a breaker.
_OPENS_AT: Final = 5
_FIRST_OPEN: Final = 15
_LONGEST_OPEN: Final = 600
_SLOW_FOR: Final = 600
#: A success within so many milliseconds ends the slow lane.
_QUICK: Final = 3000.0
#: Rows that are forgotten in one transaction.
_FORGOTTEN: Final = 5000


@dataclass(slots=True)
class EndpointTally:
    """What one batch has seen of one endpoint."""

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
        failures = known.failures + note.failures,
        -- What was under way when it opened changes nothing; a probe that fails doubles the wait.
        open_for = CASE WHEN known.open_until > now() AND NOT known.probing THEN known.open_for
            WHEN known.failures + note.failures < {_OPENS_AT} THEN NULL
            ELSE least({_LONGEST_OPEN}, coalesce(2 * known.open_for, {_FIRST_OPEN})) END,
        open_until = CASE WHEN known.open_until > now() AND NOT known.probing THEN known.open_until
            WHEN known.failures + note.failures < {_OPENS_AT} THEN NULL
            ELSE now() + least({_LONGEST_OPEN}, coalesce(2 * known.open_for, {_FIRST_OPEN})) * interval '1 second' END,
        probing = false,
        slow_until = CASE WHEN note.timed_out THEN now() + {_SLOW_FOR} * interval '1 second' ELSE known.slow_until END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(id uuid, failures integer, timed_out boolean)
    WHERE known.id = note.id
    RETURNING known.id, now() - failing_since AS failing_for, warned_at IS NOT NULL AS warned
""")
_SUCCEEDED: Final = text("""
    UPDATE endpoints e SET failing_since = NULL, failures = 0, open_until = NULL, open_for = NULL, probing = false,
        warned_at = NULL, slow_until = CASE WHEN note.quick THEN NULL ELSE e.slow_until END
    FROM json_to_recordset(CAST(:notes AS json)) AS note(id uuid, quick boolean) WHERE e.id = note.id
""")
_WARNED: Final = text("UPDATE endpoints SET warned_at = now() WHERE id = ANY(:ids)")
_UPDATED: Final = text("SELECT id, updated_at FROM subscriptions WHERE id = ANY(:ids)")
_URLS: Final = text("SELECT id, url FROM subscriptions WHERE id = ANY(:ids)")
_SLOW: Final = text(f"""
    UPDATE endpoints SET slow_until = CASE WHEN id = ANY(:slow) THEN now() + {_SLOW_FOR} * interval '1 second' END
    WHERE id = ANY(:ids)
""")
# Those of which nothing is known but what is over, and those of subscriptions that are gone.
_FORGET_WELL: Final = text(f"""
    DELETE FROM endpoints WHERE id IN (
        SELECT id FROM endpoints e WHERE NOT waited_for AND coalesce(slow_until < now(), true) AND (
            failing_since IS NULL AND coalesce(next_slot < now(), true)
            OR NOT EXISTS (SELECT FROM subscriptions s WHERE s.id = e.id))
        ORDER BY id LIMIT {_FORGOTTEN} FOR UPDATE SKIP LOCKED
    )
""")


def forget_well(engine: Engine) -> int:
    """Delete some thousands of rows that say nothing any more; returns how many."""
    with engine.begin() as connection:
        return connection.execute(_FORGET_WELL).rowcount


def _note_urls(engine: Engine, notes: Sequence[EndpointTally], slow: Collection[UUID]) -> None:
    """Remember what a batch has seen of URLs that webhooks were addressed to directly."""
    timed_out = [each.id for each in notes if each.timed_out and not each.succeeded]
    quick = [each.id for each in notes if each.quick and each.id in slow]
    if timed_out or quick:
        with engine.begin() as connection:
            lock(connection, [*timed_out, *quick])
            connection.execute(_SLOW, {"ids": [*timed_out, *quick], "slow": timed_out})


def _note(
    engine: Engine, notes: Sequence[EndpointTally], known: Mapping[UUID, WebhookTarget], disable_after: timedelta
) -> None:
    """Remember what a batch has seen of subscriptions; `known`: the receivers as they were when it began."""
    failed = [each for each in notes if each.failures and not each.succeeded]
    well = [each for each in notes if each.succeeded and known[each.id].troubled]
    if not failed and not well:
        return
    with engine.begin() as connection:
        lock(connection, [each.id for each in (*well, *failed)])
        # What a receiver that was changed meanwhile did before says nothing of it as it is now.
        same = _unchanged(connection, [known[each.id] for each in (*well, *failed)])
        well, failed = ([each for each in part if each.id in same] for part in (well, failed))
        if well:
            connection.execute(_SUCCEEDED, {"notes": orjson.dumps(well).decode()})
        if failed:
            rows = connection.execute(_FAILED, {"notes": orjson.dumps(failed).decode()}).all()
            given_up = [row.id for row in rows if row.failing_for >= disable_after]
            warn = [row.id for row in rows if disable_after > row.failing_for >= disable_after / 2 and not row.warned]
            _end(connection, [each.id for each in failed if each.gone], GONE)
            _end(connection, given_up, FAILING)
            _warn(connection, warn)


def _unchanged(connection: Connection, targets: Sequence[WebhookTarget]) -> set[UUID]:
    """Those that are as they were read. They stay so: whoever changes one locks its endpoint first."""
    now = {row.id: row.updated_at for row in connection.execute(_UPDATED, {"ids": [each.id for each in targets]})}
    return {each.id for each in targets if now.get(each.id) == each.updated_at}


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
    """What one batch sees of its receivers, reported as its results are recorded."""

    def __init__(
        self, engine: Engine, known: Mapping[UUID, WebhookTarget], slow: Collection[UUID], disable_after: timedelta
    ) -> None:
        """`known` and `slow`: the receivers, and those that kept callers waiting, when the batch began."""
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
        """Take what was seen since this was called last; returns what remembers it, in any thread."""
        notes, self._notes = self._notes, {}
        return partial(self._report, notes)

    def _report(self, notes: Mapping[UUID, EndpointTally]) -> None:
        """Remember what was seen. It is not worth losing a batch over."""
        if notes:
            try:
                seen = notes.values()
                _note(self._engine, [each for each in seen if each.subscribed], self._known, self._disable_after)
                _note_urls(self._engine, [each for each in seen if not each.subscribed], self._slow)
            except SQLAlchemyError as error:
                log.warning("endpoints_not_noted", error=type(error).__name__, endpoints=len(notes))
