"""The rules that concern one row at a time: pure, decided on what was read with the claim.

Expired → held → nobody there → replaced → preferences (suppression, critical, channel, category, quiet hours); for a
subscription's rows, the rules of delivery.endpoint_gate.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from notifier.delivery.deferral import defer, of_use_until
from notifier.delivery.endpoint_gate import EndpointGate
from notifier.delivery.gate_inputs import Facts
from notifier.notifications.claims import Aside, Claimed, Judged
from notifier.notifications.dead_letters import DeadLetterRequest
from notifier.notifications.holds import RECHECK
from notifier.people.preferences import GENERAL, Circumstances, Decision, Rule, decide
from notifier.runtime.isolation import Broken, attempt
from notifier.vocabulary.addresses import folded, hash_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import ALL_CHANNELS, Channel, Status
from notifier.vocabulary.time_zones import first_known

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
    endpoints: EndpointGate

    def judge(self, row: Claimed, facts: Facts) -> Aside | DeadLetterRequest | None:
        """Judge one row; None where it may be sent. A row whose data breaks the rules becomes a dead letter alone."""
        verdict = attempt("rules", row.id, lambda: self._judge(row, facts))
        return dead_by_its_data(row, verdict) if isinstance(verdict, Broken) else verdict

    def _judge(self, row: Claimed, facts: Facts) -> Aside | DeadLetterRequest | None:
        """The verdict on one row. Raises what its data raises."""
        if row.channel != self.channel:
            return dead_by_its_data(
                row, Broken(f"rules: it waits in a queue of {self.channel}, and is not of that channel")
            )
        if row.deadline is not None and row.deadline <= row.now:
            return Aside(row.id, row.claims, Status.EXPIRED, None, of_use_until(row.deadline))
        if target := facts.held(row):
            return _held(row, target)
        if row.subscription_id is not None:
            receiver = facts.targets.get(row.subscription_id)
            return self.endpoints.judge(row, receiver) or self.endpoints.divert(row, facts.slow)
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
            return self.endpoints.divert(row, facts.slow)
        verdict = defer(row, decision.at or row.now + _AGAIN, decision.explanation, Reason.QUIET_HOURS, self.max_age)
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


def _judged(decision: Decision, about: Circumstances, row: Claimed) -> Judged:
    """Record a decision as it was made: later the person may have another zone, and other rules."""
    zone = decision.zone or first_known((about.user_zone,), about.zone).zone
    local_time = row.now.astimezone(zone).replace(microsecond=0)
    return Judged(decision.rule, local_time, zone.key, decision.explanation)


def dead_by_its_data(row: Claimed, why: Broken) -> DeadLetterRequest:
    """Make the dead letter of a row whose own data cannot be used: no later attempt would find other data."""
    return DeadLetterRequest(row.id, row.claims, Reason.PERMANENT_ERROR, str(why))


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
