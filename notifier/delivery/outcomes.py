"""Outcomes of a batch: attempts to record, rows that failed, and what follows for users, addresses, endpoints."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog
from sqlalchemy import Engine

from notifier.delivery.batch_failed import FailedRow
from notifier.delivery.in_flight import Call
from notifier.delivery.recorder import Results
from notifier.delivery.telemetry import RECORD, Meter
from notifier.notifications.attempts import Record, record
from notifier.notifications.claims import Claimed, give_back
from notifier.people.push_tokens import prune_tokens
from notifier.people.suppressions import Address, suppress
from notifier.providers.failover_run import FailoverRun
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.runtime.isolation import kind_of
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.queues import channel_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, OnAmbiguous, Status
from notifier.webhooks.endpoint_health import Watch

log = structlog.get_logger()


class Outcomes:
    """The outcomes of one batch. Taken in by the batch's thread; written by any."""

    def __init__(
        self,
        engine: Engine,
        *,
        failover: FailoverRun,
        watch: Watch,
        meter: Meter,
        failures: int,
        finished: Status,
        emits: bool,
    ) -> None:
        """`failures`: failed attempts that the rows have behind them. `finished`: the status of a notification that is
        accepted. `emits`: whether anybody subscribes to events about that.
        """
        self._transactions = engine
        #: Each statement is a transaction of its own: a third of the round trips.
        self._engine = autocommit_of(engine)
        self._failover = failover
        self._watch = watch
        self._meter = meter
        self._failures = failures
        self._finished = finished
        self._emits = emits
        self._failed: list[FailedRow] = []
        #: Addresses whose owners told the provider to leave them alone.
        self._refused: list[Address] = []
        #: Users and their push tokens at which nobody is any more.
        self._gone: set[tuple[str, str]] = set()

    def add(self, call: Call) -> Record:
        """Take in a call that has ended; returns its attempt, to be recorded."""
        row, result = call.row, call.result
        self._watch.add(row, result)
        if not result.handed_on:
            self._meter.end(row, result, call.number)
            if result.outcome is Outcome.ACCEPTED:
                self._meter.accepted(row, result)
            else:
                self._add_failure(row, result)
        return Record(result, row.claims, call.number, self._failures + 1, call.index)

    def add_unmade(self, row: Claimed, error: str) -> None:
        """Take in a row of which no message can be made."""
        self._failed.append(FailedRow(row.id, row.claims, True, error))

    def _add_failure(self, row: Claimed, result: Result) -> None:
        self._failed.append(_failed(row, result))
        if result.suppress is not None and row.recipient:
            self._refused.append(Address(channel_of(row.queue), row.recipient, result.suppress))
        is_gone = result.outcome is Outcome.REJECTED and result.fault is Fault.RECIPIENT
        if is_gone and row.queue.startswith(Channel.PUSH) and row.user_id and row.recipient:
            self._gone.add((row.user_id, row.recipient))

    def take_failed(self) -> list[FailedRow]:
        """Return the rows that have failed since this was called last."""
        failed, self._failed = self._failed, []
        return failed

    def put_failed(self, failed: list[FailedRow]) -> None:
        """Keep rows that take_failed returned for the next call."""
        self._failed = failed + self._failed

    def take_reports(self) -> list[Callable[[], object]]:
        """Return the reports on what was seen beside the results since this was called last."""
        gone, self._gone = self._gone, set()
        refused, self._refused = self._refused, []
        return [
            self._watch.take(),
            self._failover.take_report(),
            partial(prune_tokens, self._transactions, gone),
            partial(suppress, self._transactions, refused),
        ]

    def write(self, results: Results) -> None:
        """Commit one write of the batch, and then what follows from it. Safe to repeat."""
        if results.records:
            with self._meter.step(RECORD):
                record(self._transactions, results.records, finished=self._finished, emit_events=self._emits)
        # These reports concern finished calls: if one fails, the calls still under way must not be lost with it.
        for report in results.reports:
            try:
                report()
            except Exception as error:
                log.warning("not_noted", error=kind_of(error))
        if results.returned:
            with self._engine.connect() as connection:
                give_back(connection, results.returned)

    def committed(self, records: Sequence[Record]) -> None:
        """Count attempts that are committed."""
        self._meter.recorded(records, self._finished)


def _failed(row: Claimed, result: Result) -> FailedRow:
    if result.outcome is Outcome.AMBIGUOUS and row.on_ambiguous == OnAmbiguous.HOLD:
        return FailedRow(row.id, row.claims, True, result.error, Reason.AMBIGUOUS)
    permanent = result.outcome is Outcome.REJECTED
    return FailedRow(row.id, row.claims, permanent, result.error, retry_after=result.retry_after)
