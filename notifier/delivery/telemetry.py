"""Telemetry of one batch on its way through delivery: metrics, log lines and spans."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from notifier.delivery import log_lines
from notifier.notifications.attempts import Record
from notifier.notifications.claims import Claimed
from notifier.observability import metrics
from notifier.observability.tracing import BatchTrace
from notifier.providers.protocol import Message, Outcome, Result
from notifier.vocabulary.states import Channel, Status

log = structlog.get_logger()

CLAIM: Final = "claim"
GATE: Final = "gate"
COMPOSE: Final = "compose"
RECORD: Final = "record"


def eligible_at(row: Claimed, handed_over_for: datetime | None) -> datetime | None:
    """Return the time from which a row could have been sent, where it is known: later waiting is our latency.

    What was never tried nor put off, and is no reminder: since it was made, or from its `send_at` on, so that a message
    that Redis lost counts. All else: since it became due, as the message says that the clock handed over
    (`handed_over_for`, see notifier.scheduling.due); None where there is none, as after a requeue by hand.
    """
    if row.attempts or row.deferred_at is not None or row.target_date is not None:
        return handed_over_for
    return max(row.created_at, row.send_at) if row.send_at is not None else row.created_at


class Meter:
    """Measures one batch of a channel: its metrics, its log line and span, and those of its rows.

    Others' threads may go on with what keeps a batch waiting, after it has ended.
    """

    def __init__(
        self, channel: Channel, failures: int, handed_over_for: datetime | None, traceparent: str | None = None
    ) -> None:
        """`handed_over_for`: when what was due first in its message became due; None for what came at once.

        `traceparent`: the message's.
        """
        self._of = channel
        self._channel = channel.value
        self._failures = failures
        self._due = handed_over_for
        self._latency = metrics.DELIVERY_LATENCY.labels(self._channel)
        self._trace = BatchTrace(f"deliver {self._channel}", traceparent)
        self._began = time.monotonic()
        self._rows: dict[UUID, Claimed] = {}
        self._counts: dict[str, int] = {}

    def returned(self, row: Claimed) -> None:
        """End the span of a row that no provider could begin."""
        self._trace.end(row.id, "given back", {})

    def step(self, name: str) -> AbstractContextManager[None]:
        """Observe how long a step takes."""
        return metrics.timed(metrics.STEP_SECONDS.labels(self._channel, name))

    def claimed(self, rows: Sequence[Claimed]) -> None:
        """Observe the rows that the batch has claimed."""
        self._rows = {row.id: row for row in rows}
        self._trace.link(row.traceparent for row in rows)
        metrics.BATCH_SIZE.labels(self._channel).observe(len(rows))

    def batch(self, *, passed: int, failed: int) -> None:
        """Log the batch as it leaves its thread: how many rows passed the gate, and how many have failed so far."""
        seconds = time.monotonic() - self._began
        metrics.BATCH_SECONDS.labels(self._channel).observe(seconds)
        counts = {"claimed": len(self._rows), "put_aside": len(self._rows) - passed, "failed": failed}
        log.info("batch", channel=self._channel, tries=self._failures, **counts, seconds=round(seconds, 3))
        self._counts = {f"notifier.{name}": count for name, count in counts.items()}

    def close(self, error: BaseException | None = None) -> None:
        """Close the batch's span in this thread; stragglers may go on in others. `error`: the error that ended it."""
        self._trace.close(type(error).__name__ if error else None, self._counts)

    def begin(self, row: Claimed, message: Message) -> Message:
        """Return a message that is to be sent now, with its place in its trace."""
        attributes = {"notifier.notification_id": str(row.id), "notifier.channel": self._channel}
        if row.event_id is not None:
            attributes["notifier.event_id"] = str(row.event_id)
        if row.request_id is not None:
            attributes["notifier.request_id"] = row.request_id
        traceparent = self._trace.begin(row.id, f"send {self._channel}", row.traceparent, attributes)
        return message if traceparent is None else replace(message, traceparent=traceparent)

    def end(self, row: Claimed, result: Result, number: int) -> None:
        """End the span of a message: no other provider takes over in this batch."""
        attributes = {"notifier.provider": result.provider, "notifier.outcome": result.outcome.value}
        error = None if result.outcome is Outcome.ACCEPTED else (result.error or "").partition(":")[0][:64]
        self._trace.end(row.id, error, {**attributes, "notifier.attempt": number})

    def accepted(self, row: Claimed, result: Result) -> None:
        """Observe how long an accepted notification waited, where it is known."""
        since = eligible_at(row, self._due)
        if since is not None:
            self._latency.observe(max(0.0, (result.ended_at - since).total_seconds()))

    def recorded(self, records: Sequence[Record], finished: Status) -> None:
        """Count results that are committed: the attempts, and those notifications that came to `finished`."""
        for record in records:
            log_lines.log_attempt(self._of, self._rows[record.result.id], record)
        results = [record.result for record in records]
        channel = self._channel
        metrics.count(metrics.ATTEMPTS, ((channel, result.provider, result.outcome) for result in results))
        for result in results:
            metrics.SEND_SECONDS.labels(channel, result.provider).observe(result.duration_ms / 1000)
        accepted = sum(result.outcome is Outcome.ACCEPTED for result in results)
        if accepted:
            metrics.NOTIFICATIONS.labels(channel, finished, "").inc(accepted)
