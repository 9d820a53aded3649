"""The provider gate: is a provider's circuit closed, is it within its rate, and is the recipient within theirs?

A row that must wait is deferred without spending an attempt.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from notifier.delivery.deferral import defer
from notifier.notifications.claims import Aside, Claimed
from notifier.notifications.dead_letters import DeadLetterRequest
from notifier.providers import breakers, rate_limits
from notifier.providers.circuit import Circuit
from notifier.providers.failover import Providers
from notifier.providers.rate_limits import RecipientLimits
from notifier.vocabulary import deferrals
from notifier.vocabulary.reasons import Reason

_WELL: Final = Circuit()
#: Nothing is looked at again sooner, in seconds.
_SOONEST: Final = 1.0

Put = list[Aside | DeadLetterRequest]
#: The names of providers, by the notification's id.
Names = Mapping[UUID, Collection[str]]
NONE: Final[Names] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ProviderGate:
    """Judges claimed rows of one channel by the providers that may send them."""

    providers: Providers
    limits: RecipientLimits
    #: How long rules may put a notification off before it is a dead letter.
    max_age: timedelta

    def keep(
        self, engine: Engine, rows: Sequence[Claimed], health: Mapping[str, Circuit], without_route: Names = NONE
    ) -> tuple[Put, set[int]]:
        """Defer rows for which every provider's breaker is open; returns them, and the places of the probes taken."""
        if all(each.is_closed for each in health.values()):
            return [], set()
        orders = [self._order(row, without_route) for row in rows]
        wanted = {
            place
            for row, order in zip(rows, orders, strict=True)
            if self.providers.may_probe(row.recipient or "")
            for place in order
        }
        probes = self.providers.take_probes(engine, health, wanted)
        left, put = set(probes), Put()
        for row, order in zip(rows, orders, strict=True):
            may_probe = self.providers.may_probe(row.recipient or "")
            probed = next((place for place in order if place in left), None) if may_probe else None
            if probed is not None:
                left.remove(probed)
            elif all(self._is_open(place, health) for place in order):
                put.append(self._wait_for_one(row, order, health))
        return put, probes

    def release_unused(
        self, engine: Engine, probes: set[int], passed: Sequence[Claimed], without_route: Names = NONE
    ) -> set[int]:
        """Return the `probes` for which a row has passed, and release the others to the next batch."""
        if not probes:
            return probes
        rows = [row for row in passed if self.providers.may_probe(row.recipient or "")]
        kept = {place for row in rows for place in self._order(row, without_route)} & probes
        self.providers.release_probes(engine, probes - kept)
        return kept

    def _order(self, row: Claimed, without_route: Names) -> list[int]:
        return self.providers.order(row.id, row.recipient or "", without_route.get(row.id, ()))

    def _is_open(self, place: int, health: Mapping[str, Circuit]) -> bool:
        return not health.get(self.providers.choices[place].name, _WELL).is_closed

    def _wait_for_one(
        self, row: Claimed, order: Sequence[int], health: Mapping[str, Circuit]
    ) -> Aside | DeadLetterRequest:
        """Defer a row until one of its providers may be tried again, spread over time."""
        known = [health.get(self.providers.choices[place].name, _WELL) for place in order]
        first = min(known, key=lambda each: each.probe_in or 0.0)
        seconds = max(first.probe_in or 0.0, _SOONEST) + random.uniform(0, first.open_for)  # noqa: S311 -- no secret
        names = [self.providers.choices[place].name for place in order]
        words = (
            f"{' and '.join(names)} {'is' if len(order) == 1 else 'are'} down; what waits goes as soon as one answers."
        )
        until = row.now + timedelta(seconds=seconds)
        return defer(row, until, words, Reason.BREAKER_OPEN, self.max_age, deferrals.providers(names))

    def remember_waiting(self, connection: Connection, put: Put, health: Mapping[str, Circuit]) -> None:
        """Mark providers that rows wait for, so that the clock releases the rows once a provider recovers."""
        if any(isinstance(each, Aside) and each.reason == Reason.BREAKER_OPEN for each in put):
            choices = list(enumerate(self.providers.choices))
            # Not those that are well: the clock would let rows go at once that only others can send, again and again.
            names = [choice.name for place, choice in choices if self._is_open(place, health)]
            # And those that `pace` locks afterwards, so that all are locked in one order.
            paced = [choice.name for _, choice in choices if choice.rate is not None]
            breakers.lock(connection, self.providers.channel, sorted({*names, *paced}))
            breakers.mark_waited_for(connection, self.providers.channel, names)

    @property
    def is_paced(self) -> bool:
        """Whether any provider has a rate limit."""
        return any(choice.rate is not None for choice in self.providers.choices)

    def pace(
        self,
        connection: Connection,
        rows: Sequence[Claimed],
        health: Mapping[str, Circuit],
        without_route: Names = NONE,
    ) -> Put:
        """Defer the rows for which their provider has no slot now; returns them."""
        by_place: dict[int, list[Claimed]] = {}
        for row in rows:
            order = self._order(row, without_route)
            place = next((place for place in order if not self._is_open(place, health)), order[0])
            if self.providers.choices[place].rate is not None:
                by_place.setdefault(place, []).append(row)
        places = sorted(by_place, key=lambda place: self.providers.choices[place].name)  # as breakers.lock locks them
        return [put for place in places for put in self._line_up(connection, place, by_place[place])]

    def _line_up(self, connection: Connection, place: int, rows: Sequence[Claimed]) -> Put:
        choice = self.providers.choices[place]
        rate = choice.rate or 1.0
        oldest_first = sorted(rows, key=lambda row: (row.deferred_at is None, row.id))
        waited = sum(row.deferred_at is not None for row in rows)
        channel, fresh = self.providers.channel, len(rows) - waited
        go, wait = rate_limits.take_slots(connection, channel, choice.name, rate, waited=waited, fresh=fresh)
        words, waits_for = f"{choice.name} takes {rate:g} a second.", deferrals.providers([choice.name])
        put, last = Put(), None
        for row in oldest_first[go:]:
            until = row.now + timedelta(seconds=wait)
            put.append(defer(row, until, words, Reason.THROTTLED, self.max_age, waits_for))
            if put[-1].reason == Reason.THROTTLED:  # else it is expired or too old, and its place is the next one's
                last, wait = wait, wait + 1 / rate
        if last is not None:
            rate_limits.line_up(connection, channel, choice.name, last)
        return put

    def limit(self, rows: Sequence[Claimed]) -> Put:
        """Return the verdicts on rows whose recipients have reached their limit. Critical rows and retries go."""
        put = Put()
        if not self.limits.are_there:
            return put
        for row in rows:
            if row.critical or row.attempts or row.recipient is None:
                continue
            if wait := self.limits.wait(row.recipient):
                words = "The recipient has had as many messages as one may in that time."
                until = row.now + timedelta(seconds=wait)
                put.append(defer(row, until, words, Reason.THROTTLED, self.max_age, (deferrals.RECIPIENT,)))
        return put
