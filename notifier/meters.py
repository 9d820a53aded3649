"""What is measured of one batch on its way through delivery, and how long its notifications waited."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

from notifier import metrics
from notifier.attempts import Record
from notifier.channels import Channel, Status
from notifier.claiming import Claimed
from notifier.providers import Outcome, Result

CLAIM: Final = "claim"
GATE: Final = "gate"
COMPOSE: Final = "compose"
RECORD: Final = "record"


def eligible_at(row: Claimed, handed_over_for: datetime | None) -> datetime | None:
    """From when on a row may go, as far as that is known: what it waited after that is latency of ours.

    What was never tried nor put off, and is no reminder: since it was made, or from its `send_at` on, so that a message
    that Redis lost counts. All else: since it became due, as the message says that the clock handed over
    (`handed_over_for`, see notifier.handover); None where there is none, as after a requeue by hand.
    """
    if row.attempts or row.deferred_at is not None or row.target_date is not None:
        return handed_over_for
    return max(row.created_at, row.send_at) if row.send_at is not None else row.created_at


class Meter:
    """Measures one batch of a channel."""

    def __init__(self, channel: Channel, handed_over_for: datetime | None) -> None:
        """`handed_over_for`: when what was due first in its message became due; None for what came at once."""
        self._channel = channel.value
        self._due = handed_over_for
        self._latency = metrics.DELIVERY_LATENCY.labels(self._channel)

    def step(self, name: str) -> AbstractContextManager[None]:
        """Observe how long a step takes."""
        return metrics.timed(metrics.STEP_SECONDS.labels(self._channel, name))

    def batch(self, seconds: float) -> None:
        """Observe how long the batch held its thread."""
        metrics.BATCH_SECONDS.labels(self._channel).observe(seconds)

    def claimed(self, rows: int) -> None:
        """Observe the size of the batch."""
        metrics.BATCH_SIZE.labels(self._channel).observe(rows)

    def accepted(self, row: Claimed, result: Result) -> None:
        """Observe how long an accepted notification waited, where that is known."""
        since = eligible_at(row, self._due)
        if since is not None:
            self._latency.observe(max(0.0, (result.ended_at - since).total_seconds()))

    def recorded(self, records: Sequence[Record], finished: Status) -> None:
        """Count results that are committed: the attempts, and those notifications that came to `finished`."""
        results = [record.result for record in records]
        channel = self._channel
        metrics.count(metrics.ATTEMPTS, ((channel, result.provider, result.outcome) for result in results))
        for result in results:
            metrics.SEND_SECONDS.labels(channel, result.provider).observe(result.duration_ms / 1000)
        accepted = sum(result.outcome is Outcome.ACCEPTED for result in results)
        if accepted:
            metrics.NOTIFICATIONS.labels(channel, finished, "").inc(accepted)
