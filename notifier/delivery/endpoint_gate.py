"""The endpoint gate: rules and reservations for webhook endpoints. Enabled? Circuit closed? Within its rate?

People's preferences do not concern a subscription. Decided on what was read with the claim; what has changed since is
made good by the clock (notifier.webhooks.release_waiting).
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from notifier.delivery.deferral import defer
from notifier.notifications.claims import Aside, Claimed
from notifier.notifications.dead_letters import DeadLetterRequest
from notifier.providers.slots import Grant
from notifier.vocabulary import deferrals
from notifier.vocabulary.queues import SLOW, SLOW_QUEUES
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Status
from notifier.webhooks import endpoint_slots
from notifier.webhooks.subscriptions import keep_enabled
from notifier.webhooks.targets import TEST, WebhookTarget

#: Seconds for which a receiver is suspected after it has kept somebody waiting.
_SUSPECTED: Final = 30.0
_WAITS_FOR: Final = (deferrals.ENDPOINT,)

Targets = Mapping[UUID, WebhookTarget]


class Suspects:
    """Endpoints that kept a batch waiting, remembered for half a minute. Used by several threads at once."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}

    def update(self, targets: Iterable[UUID]) -> None:
        """Remember that endpoints kept a batch waiting."""
        self._until.update(dict.fromkeys(targets, time.monotonic() + _SUSPECTED))

    def __contains__(self, target: UUID) -> bool:
        until = self._until.get(target)
        if until is not None and until < time.monotonic():
            self._until.pop(target, None)
            return False
        return until is not None


@dataclass(frozen=True, slots=True)
class EndpointGate:
    """Judges claimed rows for subscriptions; of other webhooks, whether their endpoint is slow."""

    #: How long rules may put a notification off before it is a dead letter.
    max_age: timedelta
    #: Receivers that keep this process waiting at the moment; what is fresh for them goes to the slow lane.
    suspects: Suspects = field(default_factory=Suspects)

    def judge(self, row: Claimed, target: WebhookTarget | None) -> Aside | DeadLetterRequest | None:
        """Return the verdict on a subscription's row; None where it may be sent, as far as is known without a lock."""
        if target is None:
            words = "The subscription was deleted."
            return Aside(row.id, row.claims, Status.SKIPPED, Reason.SUBSCRIPTION_DELETED, words)
        if not target.enabled and row.event_type != TEST:
            words = f"The subscription is disabled: {target.disabled_reason}."
            return Aside(row.id, row.claims, Status.SKIPPED, Reason.SUBSCRIPTION_DISABLED, words)
        if target.open_until is not None and target.open_until > row.now:
            words = "The receiver fails again and again; it is tried anew then."
            return defer(row, target.open_until, words, Reason.BREAKER_OPEN, self.max_age, _WAITS_FOR)
        return None

    def divert(self, row: Claimed, slow: Collection[UUID]) -> Aside | None:
        """Move a row for a slow endpoint to the slow queue, so that rows for other endpoints need not wait behind it.

        `slow`: those that are known to.
        """
        endpoint = row.endpoint_id
        if endpoint is None or row.queue in SLOW_QUEUES or not (endpoint in slow or endpoint in self.suspects):
            return None
        return Aside(row.id, row.claims, Status.QUEUED, due_at=row.now, deferred_at=row.deferred_at, queue=SLOW)

    def pace(
        self, connection: Connection, limited: Mapping[UUID, Sequence[Claimed]], targets: Targets
    ) -> list[Aside | DeadLetterRequest]:
        """Return the verdicts on rows, by endpoint (see `limited`), that must wait for a slot or for a probe."""
        half_open = [each for each in limited if targets[each].open_until is not None]
        put = self._wait_for_probes(
            endpoint_slots.take_probes(connection, half_open), {each: limited[each] for each in half_open}
        )
        paced = {each: rows for each, rows in limited.items() if targets[each].open_until is None}
        demands = {each: _demand(rows, targets[each]) for each, rows in paced.items()}
        for each, slots in endpoint_slots.take_slots(connection, demands).items():
            put += self._wait_for_slots(slots, demands[each].rate, paced[each])
        return put

    def _wait_for_probes(
        self, probed: set[UUID], half_open: Mapping[UUID, Sequence[Claimed]]
    ) -> list[Aside | DeadLetterRequest]:
        words = "The receiver does not answer: one message tries it out, the others wait."
        later = timedelta(seconds=endpoint_slots.PROBE_SECONDS)
        return [
            defer(row, row.now + later, words, Reason.BREAKER_OPEN, self.max_age, _WAITS_FOR)
            for each, rows in half_open.items()
            for row in rows[1 if each in probed else 0 :]
        ]

    def _wait_for_slots(self, slots: Grant, rate: float, rows: Sequence[Claimed]) -> list[Aside | DeadLetterRequest]:
        oldest_first = sorted(rows, key=lambda row: (row.deferred_at is None, row.id))
        return [
            self._wait_for_slot(row, rate, timedelta(seconds=slots.next_place + place / rate))
            for place, row in enumerate(oldest_first[slots.free :])
        ]

    def _wait_for_slot(self, row: Claimed, rate: float, wait: timedelta) -> Aside | DeadLetterRequest:
        words = f"The receiver wants {rate:g} a second."
        since, until = row.deferred_at or row.now, row.now + wait
        last = min(filter(None, (since + self.max_age, row.deadline)))
        if last <= row.now:
            return defer(row, until, words, Reason.THROTTLED, self.max_age, _WAITS_FOR)
        # Its place may be too late for it. But places get free, and limits are lifted: so it waits until its end.
        until = min(until, last)
        return Aside(row.id, row.claims, Status.SCHEDULED, Reason.THROTTLED, words, until, since, waits_for=_WAITS_FOR)


def limited(rows: Sequence[Claimed], targets: Targets) -> dict[UUID, list[Claimed]]:
    """Return, by endpoint, the rows for endpoints with a rate limit or a half-open circuit."""
    by_receiver: dict[UUID, list[Claimed]] = {}
    for row in rows:
        target = targets.get(row.subscription_id) if row.subscription_id else None
        if target and (target.rate_limit_per_second is not None or target.open_until is not None):
            by_receiver.setdefault(target.id, []).append(row)
    return by_receiver


def _demand(rows: Sequence[Claimed], target: WebhookTarget) -> endpoint_slots.Demand:
    waited = sum(row.deferred_at is not None for row in rows)
    return endpoint_slots.Demand(target.rate_limit_per_second or math.inf, waited, len(rows) - waited)


def put_aside_for(put: Sequence[Aside | DeadLetterRequest], rows: Sequence[Claimed], *reasons: str) -> dict[UUID, UUID]:
    """Return the endpoint of each row that is put aside for one of `reasons`."""
    ids = {verdict.id for verdict in put if isinstance(verdict, Aside) and verdict.reason in reasons}
    return {row.id: row.subscription_id for row in rows if row.id in ids and row.subscription_id} if ids else {}


def spare_enabled(
    connection: Connection, put: Sequence[Aside | DeadLetterRequest], rows: Sequence[Claimed]
) -> list[Aside | DeadLetterRequest]:
    """Return the verdicts, with rows queued that would be skipped for a subscription that was enabled meanwhile.

    It stays disabled or enabled until the transaction ends: whoever enables and recovers it later finds these rows.
    """
    off = put_aside_for(put, rows, Reason.SUBSCRIPTION_DISABLED)
    if not off:
        return list(put)
    on = keep_enabled(connection, off.values())
    again = {
        row.id: Aside(row.id, row.claims, Status.QUEUED, due_at=row.now, deferred_at=row.deferred_at)
        for row in rows
        if off.get(row.id) in on
    }
    return [again.get(verdict.id, verdict) for verdict in put]
