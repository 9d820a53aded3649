"""Deliver a batch of notifications of one channel: claim → gate → render → send → record.

    queued ──claim──> sending ──accepted──> sent | delivered
                         │ failed for now, or for good: left in `sending`, its attempt recorded and counted,
                         │ and given to the caller, who reschedules or dead-letters it
                         │ the gate ──> expired, skipped, cancelled, scheduled once more
                         └ not begun in time ──> queued again

These hold throughout: only the worker whose `claims` a row carries may change it, no transaction is open
while a provider is called, and every call leaves an attempt row whose id follows from the claim.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import Engine

from notifier.delivery import load_sizes
from notifier.delivery.batch_failed import BatchFailed, FailedRow
from notifier.delivery.composer import Composer
from notifier.delivery.gate import Gate, Passed
from notifier.delivery.gate_inputs import Facts, read
from notifier.delivery.outcomes import Outcomes
from notifier.delivery.recorder import LeaseKeeper
from notifier.delivery.sender import MARGIN, Sender, Window
from notifier.delivery.stragglers import Detach, send_until_stragglers
from notifier.delivery.telemetry import CLAIM, GATE, Meter
from notifier.notifications.claims import claim, make_due
from notifier.planning.subscribers import SubscriberCache
from notifier.providers.failover import Providers
from notifier.providers.failover_run import FailoverRun
from notifier.runtime.isolation import kind_of
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.event_types import status_event_type
from notifier.vocabulary.states import OnAmbiguous, Status
from notifier.webhooks.endpoint_health import Watch

log = structlog.get_logger()


class Delivery:
    """Delivers over one channel. Used by several threads at once."""

    def __init__(
        self,
        engine: Engine,
        *,
        providers: Providers,
        gate: Gate,
        composer: Composer,
        subscribers: SubscriberCache,
        sending_window: float,
        disable_after: timedelta,
    ) -> None:
        """`sending_window`: seconds in which sends begin. `disable_after`: how long an endpoint may fail."""
        self._transactions = engine
        #: Each statement is a transaction of its own: a third of the round trips.
        self._engine = autocommit_of(engine)
        self._providers = providers
        self._gate = gate
        self._composer = composer
        self._subscribers = subscribers
        self._finished = Status.DELIVERED if providers.confirms_delivery else Status.SENT
        self._sending_window = sending_window
        self._disable_after = disable_after
        self._keeper = LeaseKeeper(engine)

    def deliver(
        self,
        ids: Sequence[UUID],
        failures: int,
        detach: Detach,
        *,
        from_slow_queue: bool = False,
        due: datetime | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Deliver those of `ids` that are queued with `failures` failed attempts; other workers have the others.

        `from_slow_queue`: the message came by a slow queue. The calls that keep the batch waiting alone in the end
        are given to `detach`, which must see to what fails of them. `due`: when what the clock handed over became due,
        for what is measured. `traceparent`: the message's. Raises BatchFailed where any failed until then.
        Whatever else is raised leaves rows to their lease.

        Large rows are claimed and read in parts, one after the other as long as the sending window lasts.
        """
        window = self._window()
        failed: list[FailedRow] = []
        parts = load_sizes.of_notifications(self._engine, ids)
        for place, part in enumerate(parts):
            if place and time.monotonic() >= window.start_until:
                self._leave(parts[place:], failures)
                break
            meter = Meter(self._gate.channel, failures, due, traceparent)
            try:
                failed += self._deliver(part, failures, detach, meter, window, from_slow_queue=from_slow_queue)
            except Exception as error:
                meter.close(error)
                if not failed:
                    raise
                log.warning("part_failed", error=kind_of(error), rows=len(part))
                break
            meter.close()
        if failed:
            raise BatchFailed(failed)

    def _window(self) -> Window:
        # It begins before the claim: a send begins only while the row is ours for a whole send and MARGIN more.
        start_until = time.monotonic() + self._sending_window
        return Window(start_until, start_until + self._providers.timeout + MARGIN)

    def _leave(self, parts: Sequence[Sequence[UUID]], failures: int) -> None:
        """Leave the rest of a batch to other messages, so that high priority does not wait behind a large batch."""
        with self._engine.connect() as connection:
            make_due(connection, [row_id for part in parts for row_id in part], failures)

    def _deliver(
        self, ids: Sequence[UUID], failures: int, detach: Detach, meter: Meter, window: Window, *, from_slow_queue: bool
    ) -> list[FailedRow]:
        lease = self._sending_window + self._providers.timeout + MARGIN
        with meter.step(CLAIM), self._engine.connect() as connection:
            claimed = claim(connection, ids, failures, lease, from_slow_queue=from_slow_queue)
            if not claimed:
                return []
            several = len(self._providers.choices) > 1
            facts = read(connection, self._gate.channel, claimed, several_providers=several, is_retry=failures > 0)
        meter.claimed(claimed)
        with meter.step(GATE):
            passed = self._gate.let_through(self._transactions, claimed, facts)
        failed = self._send(passed, facts, failures, detach, meter, window) if passed.rows else []
        meter.batch(passed=len(passed.rows), failed=len(failed))
        return failed

    def _send(
        self, passed: Passed, facts: Facts, failures: int, detach: Detach, meter: Meter, window: Window
    ) -> list[FailedRow]:
        """Send the rows that passed the gate; return those that failed before only stragglers were left."""
        rows = passed.rows
        composition = self._composer.begin(rows, facts.targets)
        failover = self._failover(passed, facts, failures, window)
        outcomes = Outcomes(
            self._transactions,
            failover=failover,
            watch=Watch(self._transactions, facts.targets, facts.slow, self._disable_after),
            meter=meter,
            failures=failures,
            finished=self._finished,
            emits=bool(self._subscribers.at(self._transactions, facts.version).of(status_event_type(self._finished))),
        )
        sender = Sender(rows, composition=composition, failover=failover, outcomes=outcomes, meter=meter, window=window)
        return send_until_stragglers(
            sender,
            outcomes,
            self._keeper.keeping(sender, sender.steps()),
            detach=lambda finish: detach(finish, failures),
            suspect=self._gate.rules.endpoints.suspects.update,
        )

    def _failover(self, passed: Passed, facts: Facts, failures: int, window: Window) -> FailoverRun:
        falling_back = {row.id for row in passed.rows if row.on_ambiguous == OnAmbiguous.FALLBACK}
        return FailoverRun(
            self._transactions,
            self._providers,
            facts.health,
            passed.probes,
            start_until=window.start_until,
            falls_back=falling_back.__contains__,
            last_resort=facts.last_resort,
            without_route=facts.without_route,
        )
