"""The gate: what becomes of claimed rows before anything is sent.

Expired → held → nobody there → replaced → preferences (suppression, critical, channel, category, quiet hours) →
duplicate. Whatever is not sent keeps a reason and a sentence for whoever asks why.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from notifier.addresses import folded, hash_of
from notifier.callbacks import tell
from notifier.cancelling import REPLACED
from notifier.channels import Channel, Status
from notifier.claiming import Aside, Claimed, set_aside, take_dedup_keys
from notifier.deadletters import TOO_OLD, Death, bury
from notifier.endpoints import BREAKER_OPEN, PROBE, still_open, take_probe, take_slots
from notifier.facts import Facts
from notifier.holds import ALL, HELD, RECHECK
from notifier.lanes import SLOW, retry_queue
from notifier.plans import NO_ADDRESS
from notifier.preferences import GENERAL, Circumstances, Rule, decide
from notifier.receivers import SUBSCRIPTION_DISABLED, TEST, Receiver
from notifier.reminders import deadline_of
from notifier.times import rfc3339

SUPPRESSED: Final = "suppressed"
OPTED_OUT: Final = "opted_out"
QUIET_HOURS: Final = "quiet_hours"
DUPLICATE: Final = "duplicate"
THROTTLED: Final = "throttled"
SUBSCRIPTION_DELETED: Final = "subscription_deleted"

#: The queues whose workers have time for slow receivers.
_PATIENT: Final = frozenset({SLOW, retry_queue(Channel.WEBHOOK)})
#: Seconds for which a receiver is suspected after it has kept somebody waiting.
_SUSPECTED: Final = 30.0
#: Where quiet hours leave no moment free, they are asked again after this long.
_AGAIN: Final = timedelta(days=1)


def _deadline(row: Claimed) -> datetime | None:
    return deadline_of(row.expires_at, row.target_date, row.lead_time)


def _of_use_until(deadline: datetime) -> str:
    return f"It was of use only until {rfc3339(deadline)}."


class Suspects:
    """Receivers that have kept somebody waiting, remembered for half a minute. Used by several threads at once."""

    def __init__(self) -> None:
        self._until: dict[UUID, float] = {}

    def add(self, receiver: UUID) -> None:
        """Suspect a receiver."""
        self._until[receiver] = time.monotonic() + _SUSPECTED

    def __contains__(self, receiver: UUID) -> bool:
        until = self._until.get(receiver)
        if until is not None and until < time.monotonic():
            self._until.pop(receiver, None)
            return False
        return until is not None


@dataclass(frozen=True, slots=True)
class Gate:
    """Judges claimed rows of one channel."""

    channel: Channel
    #: The time zone of whoever has none.
    zone: ZoneInfo
    #: How long rules may put a notification off before it is a dead letter.
    max_age: timedelta
    #: Receivers that keep this process waiting at the moment; what is fresh for them goes to the slow lane.
    suspects: Suspects = field(default_factory=Suspects)

    def let_through(self, engine: Engine, rows: Sequence[Claimed], facts: Facts) -> list[Claimed]:
        """Those rows that may be sent now; the others are put aside. As many queries for one row as for many."""
        verdicts = [(row, self._judge(row, facts)) for row in rows]
        passed = [row for row, verdict in verdicts if verdict is None]
        put = [verdict for _, verdict in verdicts if verdict is not None]
        keyed = [row for row in passed if row.dedup_key is not None]
        limited = self._limited(passed, facts)
        if not (put or keyed or limited):
            return passed
        with engine.begin() as connection:
            put += self._duplicates(connection, keyed)
            for receiver, waiting in limited:
                put += self._paced(connection, receiver, waiting)
            set_aside(connection, self._while_open(connection, put, rows))
            bury(connection, [verdict for verdict in put if isinstance(verdict, Death)])
            tell(connection, [verdict.id for verdict in put if isinstance(verdict, Aside) and verdict.due_at is None])
        gone = {verdict.id for verdict in put}
        return [row for row in passed if row.id not in gone]

    @staticmethod
    def _while_open(connection: Connection, put: Sequence[Aside | Death], rows: Sequence[Claimed]) -> list[Aside]:
        """What is put aside; what would wait for a breaker that was closed meanwhile is due at once."""
        asides = [verdict for verdict in put if isinstance(verdict, Aside)]
        waiting = {aside.id for aside in asides if aside.reason == BREAKER_OPEN}
        if not waiting:
            return asides
        receivers = {row.id: row.subscription_id for row in rows if row.id in waiting and row.subscription_id}
        still = still_open(connection, receivers.values())
        return [
            replace(aside, due_at=rows[0].now) if aside.id in waiting and receivers[aside.id] not in still else aside
            for aside in asides
        ]

    @staticmethod
    def _limited(rows: Sequence[Claimed], facts: Facts) -> list[tuple[Receiver, list[Claimed]]]:
        """The rows whose receivers want so many a second, or are to be tried out with one, in the receivers' order."""
        by_receiver: dict[UUID, list[Claimed]] = {}
        for row in rows:
            receiver = facts.receivers.get(row.subscription_id) if row.subscription_id else None
            if receiver and (receiver.rate_limit_per_second is not None or receiver.open_until is not None):
                by_receiver.setdefault(receiver.id, []).append(row)
        return [(facts.receivers[each], by_receiver[each]) for each in sorted(by_receiver)]

    def _paced(self, connection: Connection, receiver: Receiver, rows: list[Claimed]) -> list[Aside | Death]:
        """Those of some rows for one receiver that must wait: for their slot, or for a probe to come back."""
        if receiver.open_until is not None:
            probed = take_probe(connection, receiver.id)
            words = "The receiver does not answer: one message tries it out, the others wait."
            later = rows[1:] if probed else rows
            until = rows[0].now + timedelta(seconds=PROBE)
            return [self._put_off(row, until, _deadline(row), words, BREAKER_OPEN) for row in later]
        rate = receiver.rate_limit_per_second or math.inf
        slots = take_slots(connection, receiver.id, rate, len(rows))
        words = f"The receiver wants {rate:g} a second."
        return [
            self._put_off(
                row, row.now + timedelta(seconds=slots.next_in + place / rate), _deadline(row), words, THROTTLED
            )
            for place, row in enumerate(rows[slots.free :])
        ]

    def _judge(self, row: Claimed, facts: Facts) -> Aside | Death | None:
        """What becomes of one row; None where it may be sent."""
        deadline = _deadline(row)
        if deadline is not None and deadline <= row.now:
            return Aside(row.id, row.claims, Status.EXPIRED, None, _of_use_until(deadline))
        if target := facts.held(row):
            return self._held(row, target, deadline)
        if row.subscription_id is not None:
            return self._judge_for_receiver(row, facts.receivers.get(row.subscription_id))
        if row.recipient is None:
            return Aside(
                row.id, row.claims, Status.SKIPPED, NO_ADDRESS, "The user's address was removed.", needs_next=True
            )
        if row.id in facts.superseded:
            return Aside(row.id, row.claims, Status.CANCELLED, REPLACED)
        decision = decide(self._circumstances(row, row.recipient, facts), row.now)
        if not decision.allowed:
            reason = SUPPRESSED if decision.rule is Rule.SUPPRESSION else OPTED_OUT
            return Aside(row.id, row.claims, Status.SKIPPED, reason, decision.explanation, needs_next=True)
        if decision.rule is not Rule.QUIET_HOURS:
            return None
        return self._put_off(row, decision.at or row.now + _AGAIN, deadline, decision.explanation, QUIET_HOURS)

    def _judge_for_receiver(self, row: Claimed, receiver: Receiver | None) -> Aside | Death | None:
        """What becomes of a row for a subscription: people's preferences do not concern it."""
        if receiver is None:
            words = "The subscription was deleted."
            return Aside(row.id, row.claims, Status.SKIPPED, SUBSCRIPTION_DELETED, words)
        if not receiver.enabled and row.event_type != TEST:
            words = f"The subscription is disabled: {receiver.disabled_reason}."
            return Aside(row.id, row.claims, Status.SKIPPED, SUBSCRIPTION_DISABLED, words)
        if receiver.open_until is not None and receiver.open_until > row.now:
            words = "The receiver fails again and again; it is tried anew then."
            return self._put_off(row, receiver.open_until, _deadline(row), words, BREAKER_OPEN)
        slow = receiver.slow_until is not None and receiver.slow_until > row.now
        if row.queue not in _PATIENT and (slow or receiver.id in self.suspects):
            # It keeps callers waiting: what is fresh must not wait with it.
            return Aside(row.id, row.claims, Status.QUEUED, due_at=row.now, queue=SLOW)
        return None

    def _circumstances(self, row: Claimed, recipient: str, facts: Facts) -> Circumstances:
        zone, preferences = facts.users.get(row.user_id or "", (None, None))
        opted_out = bool(facts.opted_out) and (
            (hash_of(self.channel, recipient).hex(), row.category or GENERAL) in facts.opted_out
        )
        return Circumstances(
            self.channel,
            row.category,
            row.critical,
            facts.suppressed.get(folded(self.channel, recipient)),
            opted_out,
            preferences,
            ZoneInfo(zone) if zone else self.zone,
        )

    def _held(self, row: Claimed, target: str, deadline: datetime | None) -> Aside:
        again = row.now + timedelta(seconds=RECHECK)
        words = "Everything is held" if target == ALL else f"{target} is held"
        return Aside(
            row.id,
            row.claims,
            Status.SCHEDULED,
            HELD,
            f"{words} by an operator, until it is released.",
            min(again, deadline) if deadline else again,
            row.deferred_at,
        )

    def _put_off(
        self, row: Claimed, until: datetime, deadline: datetime | None, words: str, reason: str
    ) -> Aside | Death:
        """Put off by a rule, which costs no attempt but cannot go on for ever."""
        if deadline is not None and deadline <= until:
            return Aside(row.id, row.claims, Status.EXPIRED, None, f"{words} {_of_use_until(deadline)}")
        since = row.deferred_at or row.now
        if until - since > self.max_age:
            return Death(row.id, row.claims, TOO_OLD, f"put off for over {self.max_age}: {words}")
        return Aside(row.id, row.claims, Status.SCHEDULED, reason, words, until, since)

    def _duplicates(self, connection: Connection, rows: Sequence[Claimed]) -> list[Aside]:
        """Those of some rows whose key another notification has."""
        wanted: dict[tuple[str, str], Claimed] = {}
        for row in rows:  # in id order: of two in one batch the older one goes
            wanted.setdefault((folded(self.channel, row.recipient or ""), row.dedup_key or ""), row)
        taken = take_dedup_keys(connection, self.channel, wanted)
        words = "Within its window another notification with this dedup_key was sent to the same recipient."
        return [Aside(row.id, row.claims, Status.SKIPPED, DUPLICATE, words) for row in rows if row.id not in taken]
