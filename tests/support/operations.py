"""Operations on events and notifications at random, and what a test itself knows of them."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis.stateful import (
    RuleBasedStateMachine,
)
from sqlalchemy import Engine, text

from notifier.events import fan_out
from notifier.events.intake import Intake
from notifier.notifications import cancellation, delivery_receipts
from notifier.notifications.attempts import Record, record
from notifier.notifications.claims import Claimed, claim, renew
from notifier.notifications.dead_letters import DeadLetterRequest, dead_letter
from notifier.notifications.retries import RetryPolicy, Wait, schedule_retry
from notifier.observability.request_context import RequestContext
from notifier.observability.tracing import BatchTrace
from notifier.planning.plans import Planner
from notifier.planning.subscribers import SubscriberCache
from notifier.providers.protocol import Outcome, Result
from notifier.providers.receipts import Kind, Receipt, Report
from notifier.resending import reschedule, resend
from notifier.scheduling.due import hand_over
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.queues import FAN_OUT, handover_queue, retry_queue
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, Priority, Status

POLICY = RetryPolicy(backoff=1, backoff_max=1, max_retries=2, jitter=False)
PLANNER = Planner(lambda _: 60.0, frozenset(Channel))
SENDERS = delivery_receipts.Senders(policies={"sms": POLICY})
LEASE = 60.0
#: Rows of this run, for their ids begin with the time.
OURS = "id BETWEEN :first AND :last"
QUEUES = ("sms", handover_queue("sms"), retry_queue(Channel.SMS))
ADDRESSED = {"recipient": "+4915112345678", "user_id": None}
FOR_A_USER = {"recipient": None, "user_id": "somebody"}
PLAIN = {
    **dict.fromkeys(["category", "send_at", "expires_at", "target_date", "lead_time", "timezone", "template"]),
    **dict.fromkeys(["dedup_key", "dedup_window", "dedup_scope", "on_ambiguous", "cancellation_key", "occurred_at"]),
    **{"event_type": "x", "channel": Channel.SMS, "critical": False, "priority": Priority.NORMAL},
}


class NoHints:
    """A Redis that has lost everything."""

    def hint(self, hints: Sequence[tuple[str, UUID]], causes: Sequence[RequestContext]) -> None:
        """Lose them."""

    def lease(self, queue: str) -> float:
        """Return the seconds of a row's lease."""
        return LEASE


@dataclass
class ClaimedRow:
    """A row in a worker's hands."""

    row: Claimed
    failures: int
    #: Whether the provider was called.
    called: bool = False
    #: Whether its lease has passed: it may finish what it began, and begin nothing.
    late: bool = False


@dataclass
class Seen:
    """The test's own knowledge of one notification."""

    #: How often its lease passed while a worker held it.
    leases_lost: int = 0
    #: How often somebody asked that it be sent again, and was told that it is.
    revived: int = 0
    #: How often it bounced.
    bounced: int = 0
    #: How often its provider said that it was delivered, whatever it had answered before.
    confirmed: int = 0
    #: How often the provider took it, as far as the provider knows.
    taken: int = 0
    #: How often the provider took it, and the worker never heard.
    unheard: int = 0
    #: The numbers of its claims, and of those under which its provider was called.
    claims: list[int] = field(default_factory=list)
    calls: set[int] = field(default_factory=set)


class Operations(RuleBasedStateMachine):
    """The operations of all processes. Each may be done by several connections at once."""

    def __init__(self, engine: Engine, owner: Engine, intake: Intake) -> None:
        super().__init__()
        self.engine = engine
        self.owner = owner
        self.intake = intake
        self.subscribers = SubscriberCache()
        self.keys: dict[str, UUID] = {}
        self.events: list[UUID] = []
        self.held: list[ClaimedRow] = []
        self.seen: defaultdict[UUID, Seen] = defaultdict(Seen)
        self.before: dict[UUID, Any] = {}
        self.revivals_before: Counter[UUID] = Counter()
        self.pool = ThreadPoolExecutor(3)
        #: How often the fan-out of an event was begun and not ended.
        self.begun: Counter[UUID] = Counter()
        #: The bounds of its ids: so statements of the test itself look into one day, not into all.
        now = time.time_ns() // 1_000_000
        self.bounds = {"first": UUID(int=now << 80), "last": UUID(int=now + 3_600_000 << 80)}

    def sql(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def rows(self) -> dict[UUID, Any]:
        return {row.id: row for row in self.sql(f"SELECT * FROM notifications WHERE {OURS} ORDER BY id", **self.bounds)}

    def event_rows(self) -> dict[UUID, Any]:
        return {row.id: row for row in self.sql(f"SELECT * FROM events WHERE {OURS} ORDER BY id", **self.bounds)}

    def pick(self, place: int) -> UUID | None:
        ids = list(self.rows())
        return ids[place % len(ids)] if ids else None

    def do_fan_out(self, place: int) -> None:
        ids = list(self.event_rows())
        fan_out.fan_out(self.engine, ids[place % max(1, len(ids)) :], PLANNER, self.subscribers, BatchTrace("fan out"))

    def do_claim(self, place: int) -> None:
        failures = place % (POLICY.max_retries + 1)
        with self.engine.begin() as connection:
            claimed = claim(connection, list(self.rows()), failures, LEASE, from_slow_queue=True)
        for row in claimed:
            seen = self.seen[row.id]
            assert row.claims not in seen.claims, "two workers hold one claim"
            seen.claims.append(row.claims)
            self.held.append(ClaimedRow(row, failures))

    def do_record(self, place: int, outcome: Outcome = Outcome.ACCEPTED) -> None:
        """A worker hears of one of its calls, and writes down what came of it."""
        called = [each for each in self.held if each.called]
        if not called:
            return
        held = called[place % len(called)]
        self.held.remove(held)
        row, failures = held.row, held.failures + 1
        if outcome in {Outcome.ACCEPTED, Outcome.AMBIGUOUS}:
            self.seen[row.id].taken += 1
            self.seen[row.id].unheard += outcome is Outcome.AMBIGUOUS
        result = Result(row.id, outcome, "tester", datetime.now(UTC), 1.0)
        record(
            self.engine,
            [Record(result, row.claims, row.attempts + 1, failures)],
            finished=Status.SENT,
            emit_events=False,
        )
        if outcome is Outcome.ACCEPTED:
            return
        with self.engine.begin() as connection:
            if outcome is Outcome.REJECTED:
                dead_letter(connection, [DeadLetterRequest(row.id, row.claims, Reason.PERMANENT_ERROR, "no")])
            elif failures > POLICY.max_retries:
                dead_letter(connection, [DeadLetterRequest(row.id, row.claims, Reason.RETRIES_EXHAUSTED, "no")])
            else:
                schedule_retry(connection, Channel.SMS, [Wait(row.id, row.claims, 1.0)])

    def do_renew(self, place: int) -> None:
        """Workers say that they still hold their rows, also those that are late."""
        with self.engine.begin() as connection:
            renew(connection, [(each.row.id, each.row.claims) for each in list(self.held)], LEASE)

    def do_hand_over(self, place: int) -> None:
        for queue in (*QUEUES, FAN_OUT):
            hand_over(self.engine, queue, place % 4, LEASE, None if queue == FAN_OUT else POLICY)

    def do_cancel(self, place: int) -> None:
        if row_id := self.pick(place):
            cancellation.cancel(self.engine, row_id)

    def do_requeue(self, place: int) -> None:
        letters = self.sql("SELECT id, notification_id FROM dead_letters WHERE requeued_at IS NULL ORDER BY id")
        chosen = letters[place % max(1, len(letters)) :]
        done = resend.requeue(self.engine, [row.id for row in chosen], lambda _: LEASE, "tester")
        for queue, row_id in done.hints:
            if queue != FAN_OUT:
                self.seen[row_id].revived += 1

    def do_resend(self, place: int) -> None:
        if row_id := self.pick(place):
            try:
                reschedule.resend(self.engine, row_id, lambda _: LEASE, "tester")
            except Conflict:
                return
            self.seen[row_id].revived += 1

    def do_bounce(self, place: int) -> None:
        if row_id := self.pick(place):
            kind = list(Kind)[place % len(Kind)]
            receipt = Receipt("tester", row_id, kind, datetime.now(UTC), "gone")
            self.seen[row_id].bounced += kind is not Kind.DELIVERED
            self.seen[row_id].confirmed += kind is Kind.DELIVERED
            delivery_receipts.take(self.engine, Report([receipt]), SENDERS)
