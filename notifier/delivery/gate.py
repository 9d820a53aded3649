"""The gate: what becomes of claimed rows before anything is sent.

Expired → held → nobody there → replaced → preferences (suppression, critical, channel, category, quiet hours) →
duplicate; for a subscription's rows, what delivery.endpoint_gate says. Whatever is not sent keeps a reason and a
sentence for whoever asks why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection, Engine

from notifier.delivery import log_lines
from notifier.delivery.deferral import of_use_until, put_off
from notifier.delivery.endpoint_gate import ReceiverGate, limited, put_aside_for, spare_enabled
from notifier.delivery.gate_inputs import Facts
from notifier.delivery.provider_gate import ProviderGate
from notifier.notifications.claims import Aside, Claimed, Judged, set_aside, take_dedup_keys
from notifier.notifications.dead_letters import Death, bury
from notifier.notifications.holds import RECHECK
from notifier.notifications.status_events import tell
from notifier.observability import metrics
from notifier.people.preferences import GENERAL, Circumstances, Decision, Rule, decide
from notifier.runtime.isolation import Broken, attempt, broken, in_parts
from notifier.vocabulary.addresses import folded, hash_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import ALL_CHANNELS, Channel, Status
from notifier.vocabulary.time_zones import first_known
from notifier.webhooks import endpoint_slots

DUPLICATE_WORDS: Final = "Within its window another notification with this dedup_key was sent to the same recipient."

#: Where quiet hours leave no moment free, they are asked again after this long.
_AGAIN: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one channel that concern one row at a time."""

    channel: Channel
    #: The time zone of whoever has none.
    zone: ZoneInfo
    #: How long rules may put a notification off before it is a dead letter.
    max_age: timedelta
    #: For webhooks.
    receivers: ReceiverGate

    def judge(self, row: Claimed, facts: Facts) -> Aside | Death | None:
        """Judge one row; None where it may be sent. A row whose data breaks the rules becomes a dead letter alone."""
        verdict = attempt("rules", row.id, lambda: self._judge(row, facts))
        return _dead(row, verdict) if isinstance(verdict, Broken) else verdict

    def _judge(self, row: Claimed, facts: Facts) -> Aside | Death | None:
        """The verdict on one row. Raises what its data raises."""
        if row.channel != self.channel:
            return _dead(row, Broken(f"rules: it waits in a queue of {self.channel}, and is not of that channel"))
        if row.deadline is not None and row.deadline <= row.now:
            return Aside(row.id, row.claims, Status.EXPIRED, None, of_use_until(row.deadline))
        if target := facts.held(row):
            return _held(row, target)
        if row.subscription_id is not None:
            receiver = facts.receivers.get(row.subscription_id)
            return self.receivers.judge(row, receiver) or self.receivers.divert(row, facts.slow)
        if row.recipient is None:
            return Aside(
                row.id,
                row.claims,
                Status.SKIPPED,
                Reason.NO_ADDRESS,
                "The user's address was removed.",
                needs_next=True,
            )
        if row.id in facts.superseded:
            return Aside(row.id, row.claims, Status.CANCELLED, Reason.REPLACED)
        about = self._circumstances(row, row.recipient, facts)
        decision = decide(about, row.now)
        if not decision.allowed:
            reason = Reason.SUPPRESSED if decision.rule is Rule.SUPPRESSION else Reason.OPTED_OUT
            return Aside(
                row.id,
                row.claims,
                Status.SKIPPED,
                reason,
                decision.explanation,
                needs_next=True,
                judged=_judged(decision, about, row),
            )
        if decision.rule is not Rule.QUIET_HOURS:
            return self.receivers.divert(row, facts.slow)
        verdict = put_off(row, decision.at or row.now + _AGAIN, decision.explanation, Reason.QUIET_HOURS, self.max_age)
        return replace(verdict, judged=_judged(decision, about, row)) if isinstance(verdict, Aside) else verdict

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
            # A critical notification ignores preferences, even ones that cannot be read.
            None if preferences is None or row.critical else orjson.loads(preferences),
            self.zone,
            zone,
        )


@dataclass(frozen=True, slots=True)
class Gate(Rules):
    """Judges claimed rows of one channel."""

    providers: ProviderGate

    def let_through(self, engine: Engine, rows: Sequence[Claimed], facts: Facts) -> "Passed":
        """Those rows that may be sent now; the others are put aside. As many queries for one row as for many."""
        verdicts = [(row, self.judge(row, facts)) for row in rows]
        put = [verdict for _, verdict in verdicts if verdict is not None]
        passed = [row for row, verdict in verdicts if verdict is None]
        without, probes = self.providers.keep(engine, passed, facts.health, facts.without_route)
        passed = _without(without, passed)
        passed = self._put_aside_in_parts(engine, rows, passed, put + without, facts)
        if full := self.providers.limit(passed):
            self._put_aside_in_parts(engine, rows, [], full, facts)
        passed = _without(full, passed)
        return Passed(passed, self.providers.leave(engine, probes, passed, facts.without_route))

    def _put_aside_in_parts(
        self,
        engine: Engine,
        rows: Sequence[Claimed],
        passed: Sequence[Claimed],
        put: Sequence[Aside | Death],
        facts: Facts,
    ) -> list[Claimed]:
        """Do as _put_aside does; a row that the database refuses is dead, and keeps no other back."""
        left: list[Claimed] = []
        passing, verdicts = {row.id for row in passed}, {verdict.id: verdict for verdict in put}
        concerned = [row for row in rows if row.id in passing or row.id in verdicts]

        def work(part: Sequence[Claimed]) -> None:
            going = [row for row in part if row.id in passing]
            put_now = [verdicts[row.id] for row in part if row.id in verdicts]
            left.extend(self._put_aside(engine, part, going, put_now, facts))

        def give_up(row: Claimed, error: Exception) -> None:
            with engine.begin() as connection:
                bury(connection, [_dead(row, broken("rules", error, row.id))])

        in_parts(concerned, work, give_up)
        return left

    def _put_aside(
        self,
        engine: Engine,
        rows: Sequence[Claimed],
        passed: Sequence[Claimed],
        put: Sequence[Aside | Death],
        facts: Facts,
    ) -> list[Claimed]:
        """Put aside what the verdicts say, and what must wait its turn; returns what is left of `passed`."""
        keyed = [row for row in passed if row.dedup_claim is not None]
        paced = limited(passed, facts.receivers)
        if not (put or keyed or paced or (passed and self.providers.is_paced)):
            return list(passed)
        put = list(put)
        with engine.begin() as connection:
            endpoint_slots.lock(connection, [*paced, *put_aside_for(put, rows, Reason.BREAKER_OPEN).values()])
            put += self.receivers.pace(connection, paced, facts.receivers)
            waited_for = put_aside_for(put, rows, Reason.BREAKER_OPEN, Reason.THROTTLED)
            endpoint_slots.keep_waiting(connection, waited_for.values())
            put = spare_enabled(connection, put, rows)
            put += self._duplicates(connection, keyed)
            self.providers.remember_waiting(connection, put, facts.health)
            if self.providers.is_paced:
                put += self.providers.pace(connection, _without(put, passed), facts.health, facts.without_route)
            asides = set_aside(connection, [verdict for verdict in put if isinstance(verdict, Aside)])
            bury(connection, [verdict for verdict in put if isinstance(verdict, Death)])
            tell(connection, [verdict.id for verdict in put if isinstance(verdict, Aside) and verdict.due_at is None])
        metrics.count(metrics.NOTIFICATIONS, self._counted(put))
        by_id = {row.id: row for row in rows}
        for aside in asides:
            log_lines.put_aside(self.channel, by_id[aside.id], aside)
        return _without(put, passed)

    def _counted(self, put: Sequence[Aside | Death]) -> Iterator[tuple[str, str, str]]:
        """Channel, status and reason of what was put aside; what is queued once more goes on all the same."""
        for verdict in put:
            if isinstance(verdict, Aside) and verdict.status not in {Status.QUEUED, Status.CANCELLED}:
                yield self.channel, verdict.status, verdict.reason or ""

    def _duplicates(self, connection: Connection, rows: Sequence[Claimed]) -> list[Aside]:
        """Those of some rows whose key another notification has."""
        taken = take_dedup_keys(connection, self.channel, rows)
        return [
            Aside(row.id, row.claims, Status.SKIPPED, Reason.DUPLICATE, DUPLICATE_WORDS)
            for row in rows
            if row.id not in taken
        ]


@dataclass(frozen=True, slots=True)
class Passed:
    """What may be sent now, and the places of the providers that are to be tried out with one message each."""

    rows: list[Claimed]
    probes: set[int]


def _judged(decision: Decision, about: Circumstances, row: Claimed) -> Judged:
    """Record a decision as it was made: later the person may have another zone, and other rules."""
    zone = decision.zone or first_known((about.user_zone,), about.zone).zone
    local_time = row.now.astimezone(zone).replace(microsecond=0)
    return Judged(decision.rule, local_time, zone.key, decision.explanation)


def _dead(row: Claimed, why: Broken) -> Death:
    """Make the dead letter of a row whose own data cannot be used: no later attempt would find other data."""
    return Death(row.id, row.claims, Reason.PERMANENT_ERROR, str(why))


def _without(put: Sequence[Aside | Death], rows: Sequence[Claimed]) -> list[Claimed]:
    gone = {verdict.id for verdict in put}
    return [row for row in rows if row.id not in gone]


def _held(row: Claimed, target: str) -> Aside:
    again = row.now + timedelta(seconds=RECHECK)
    words = "Everything is held" if target == ALL_CHANNELS else f"{target} is held"
    return Aside(
        row.id,
        row.claims,
        Status.SCHEDULED,
        Reason.HELD,
        f"{words} by an operator, until it is released.",
        min(again, row.deadline) if row.deadline else again,
        row.deferred_at,
    )
