"""The gate: what becomes of claimed rows before anything is sent.

Judge (pure: delivery.rules) → reserve (one transaction: locks, probes, slots, deduplication keys) → apply (in the same
transaction: put aside, dead-letter, tell). Whatever is not sent keeps a reason and a sentence for people.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from notifier.delivery import log_lines
from notifier.delivery.endpoint_gate import limited, put_aside_for, spare_enabled
from notifier.delivery.gate_inputs import Facts
from notifier.delivery.provider_gate import ProviderGate
from notifier.delivery.rules import DUPLICATE_WORDS, Rules, dead_by_its_data
from notifier.notifications.claims import Aside, Claimed, set_aside, take_dedup_keys
from notifier.notifications.dead_letters import DeadLetterRequest, dead_letter
from notifier.notifications.status_events import emit_status_events
from notifier.observability import metrics
from notifier.runtime.isolation import broken, in_parts
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, Status
from notifier.webhooks import endpoint_slots

Verdict = Aside | DeadLetterRequest


@dataclass(frozen=True, slots=True)
class Passed:
    """The rows that may be sent now, and the places of the providers that one message each probes."""

    rows: list[Claimed]
    probes: set[int]


class Gate:
    """Lets claimed rows of one channel through, or puts them aside."""

    def __init__(self, rules: Rules, providers: ProviderGate) -> None:
        self.rules = rules
        self._providers = providers

    @property
    def channel(self) -> Channel:
        """The channel whose rows it judges."""
        return self.rules.channel

    def let_through(self, engine: Engine, rows: Sequence[Claimed], facts: Facts) -> Passed:
        """Return the rows that may be sent now; put the others aside. As many queries for one row as for many."""
        put = [verdict for row in rows if (verdict := self.rules.judge(row, facts)) is not None]
        passed = _without(put, rows)
        # In a transaction of its own: other workers must see at once that a probe is taken.
        without_provider, probes = self._providers.keep(engine, passed, facts.health, facts.without_route)
        put += without_provider
        passed = self._settle(engine, rows, put, _without(put, passed), facts)
        # A recipient's limit counts what goes: so it comes after all else that may keep a row back.
        if full := self._providers.limit(passed):
            self._settle(engine, rows, full, [], facts)
            passed = _without(full, passed)
        return Passed(passed, self._providers.release_unused(engine, probes, passed, facts.without_route))

    def _settle(
        self,
        engine: Engine,
        rows: Sequence[Claimed],
        put: Sequence[Verdict],
        passed: Sequence[Claimed],
        facts: Facts,
    ) -> list[Claimed]:
        """Reserve for what has passed, and apply all verdicts; returns what is left of `passed`.

        A row that the database refuses is dead, and keeps no other back.
        """
        known, passing = {verdict.id: verdict for verdict in put}, {row.id for row in passed}
        left: list[Claimed] = []

        def work(part: Sequence[Claimed]) -> None:
            going = [row for row in part if row.id in passing]
            verdicts = [known[row.id] for row in part if row.id in known]
            if verdicts or self._must_reserve(going, facts):
                with engine.begin() as connection:
                    verdicts = self._reserve(connection, part, going, verdicts, facts)
                    asides = _apply(connection, verdicts)
                self._count(part, verdicts, asides)
            left.extend(_without(verdicts, going))

        def give_up(row: Claimed, error: Exception) -> None:
            with engine.begin() as connection:
                dead_letter(connection, [dead_by_its_data(row, broken("rules", error, row.id))])

        in_parts([row for row in rows if row.id in passing or row.id in known], work, give_up)
        return left

    def _must_reserve(self, passed: Sequence[Claimed], facts: Facts) -> bool:
        """Whether anything that has passed needs a key, a slot or a probe."""
        keyed = any(row.dedup_claim is not None for row in passed)
        return keyed or bool(limited(passed, facts.targets)) or bool(passed and self._providers.is_paced)

    def _reserve(
        self,
        connection: Connection,
        rows: Sequence[Claimed],
        passed: Sequence[Claimed],
        put: Sequence[Verdict],
        facts: Facts,
    ) -> list[Verdict]:
        """Take the probes, slots and keys that rows need; returns `put`, and the verdicts on rows that got none.

        Locks, in this order: endpoints, their subscriptions, deduplication keys, providers.
        """
        paced, verdicts = limited(passed, facts.targets), list(put)
        endpoint_slots.lock(connection, [*paced, *put_aside_for(put, rows, Reason.BREAKER_OPEN).values()])
        verdicts += self.rules.endpoints.pace(connection, paced, facts.targets)
        waited_for = put_aside_for(verdicts, rows, Reason.BREAKER_OPEN, Reason.THROTTLED)
        endpoint_slots.mark_waited_for(connection, waited_for.values())
        verdicts = spare_enabled(connection, verdicts, rows)
        verdicts += self._duplicates(connection, passed)
        self._providers.remember_waiting(connection, verdicts, facts.health)
        if self._providers.is_paced:
            going = _without(verdicts, passed)
            verdicts += self._providers.pace(connection, going, facts.health, facts.without_route)
        return verdicts

    def _duplicates(self, connection: Connection, passed: Sequence[Claimed]) -> list[Aside]:
        """Take the deduplication keys of rows that have one; returns the verdicts on those whose key is taken."""
        keyed = [row for row in passed if row.dedup_claim is not None]
        taken = take_dedup_keys(connection, self.channel, keyed)
        return [
            Aside(row.id, row.claims, Status.SKIPPED, Reason.DUPLICATE, DUPLICATE_WORDS)
            for row in keyed
            if row.id not in taken
        ]

    def _count(self, rows: Sequence[Claimed], verdicts: Sequence[Verdict], asides: Sequence[Aside]) -> None:
        """Count and log what was put aside."""
        metrics.count(metrics.NOTIFICATIONS, self._counted(verdicts))
        by_id = {row.id: row for row in rows}
        for aside in asides:
            log_lines.log_put_aside(self.channel, by_id[aside.id], aside)

    def _counted(self, verdicts: Sequence[Verdict]) -> Iterator[tuple[str, str, str]]:
        """Channel, status and reason of what was put aside; what is queued once more goes on all the same."""
        for verdict in verdicts:
            if isinstance(verdict, Aside) and verdict.status not in {Status.QUEUED, Status.CANCELLED}:
                yield self.channel, verdict.status, verdict.reason or ""


def _apply(connection: Connection, verdicts: Sequence[Verdict]) -> Sequence[Aside]:
    """Write verdicts to their rows, and tell subscribers of those that end; returns what was put aside."""
    asides = set_aside(connection, [verdict for verdict in verdicts if isinstance(verdict, Aside)])
    dead_letter(connection, [verdict for verdict in verdicts if isinstance(verdict, DeadLetterRequest)])
    emit_status_events(
        connection, [verdict.id for verdict in verdicts if isinstance(verdict, Aside) and verdict.due_at is None]
    )
    return asides


def _without(put: Sequence[Verdict], rows: Sequence[Claimed]) -> list[Claimed]:
    gone = {verdict.id for verdict in put}
    return [row for row in rows if row.id not in gone]
