"""The choice of a provider for each message of a batch, and what the batch learns of their health.

| a call came to                                   | the next provider takes over                       |
|--------------------------------------------------|----------------------------------------------------|
| unsent, the provider's fault                     | yes                                                |
| unsent, a route's fault (not to this address)    | yes; where nobody is left, it waits for hours      |
| ambiguous                                        | only where the notification says `fallback`        |
| unsent, throttled                                | no: the same one takes it later                    |
| unsent, nobody's fault that is known             | no: it is tried again later                        |
| rejected                                         | no: no other one would take it                     |

A provider that is due for a probe is tried with one message. Some providers are the last resort of a message: those
that accepted it and could not deliver it, and all that were called before somebody wanted it sent by another one. The
others come first, and it is no probe of a last resort while one of the others is well.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from notifier.providers import breakers, rate_limits
from notifier.providers.breakers import ProviderTally
from notifier.providers.circuit import Circuit
from notifier.providers.failover import ROUTE_PAUSE, WELL, Providers
from notifier.providers.protocol import Fault, Message, Outcome, Result

log = structlog.get_logger()

#: The names of providers, by the notification's id.
Names = Mapping[UUID, Collection[str]]
OrderedNames = Mapping[UUID, Sequence[str]]
NO_NAMES: Final[Mapping[UUID, tuple[str, ...]]] = MappingProxyType({})


class Chooser:
    """Chooses a provider for each message of one batch."""

    def __init__(
        self,
        engine: Engine,
        providers: Providers,
        health: Mapping[str, Circuit],
        probes: Collection[int],
        *,
        falls_back: Callable[[UUID], bool],
        last_resort: OrderedNames = NO_NAMES,
        without_route: Names = NO_NAMES,
    ) -> None:
        """See FailoverRun, which is given the same."""
        self._began_at = time.monotonic()
        self._engine = engine
        self._providers = providers
        self._notes = [ProviderTally(choice.name, health.get(choice.name, WELL)) for choice in providers.choices]
        #: The gate lined no message up for these: it knew that their breakers are open.
        self._known_open = {place for place, note in enumerate(self._notes) if note.was_open}
        self._probes = set(probes)
        self._probe_of: dict[UUID, int] = {}
        self._falls_back = falls_back
        self._last_resort = last_resort
        self._without_route = without_route
        self._tried: dict[UUID, set[int]] = {}

    @property
    def all_open(self) -> bool:
        """Whether every breaker is open and no probe is left: no provider may be sent to."""
        return not self._probes and all(note.is_open for note in self._notes)

    def is_open_at(self, place: int, message_id: UUID | None = None) -> bool:
        """Whether a provider may not be sent to: except with the message that probes it."""
        return self._notes[place].is_open and (message_id is None or self._probe_of.get(message_id) != place)

    def choose(self, message: Message, before: Result | None) -> int | None:
        """Return the place of the provider for a message; None where no provider may have it.

        `before`: the result of the provider before, which did not send it.
        """
        order = self._order(message)
        # The gate took a slot of the one that it knew as well; there is none yet with whom takes over from that.
        lined_up = next((place for place in order if place not in self._known_open), order[0])
        ranks = self._ranks(message.id)
        tried = self._tried.get(message.id, set())
        left = sorted((place for place in order if place not in tried), key=lambda place: ranks.get(place, 0))
        chosen = next((place for place in left if not self._notes[place].is_open), None)
        if before is None and self._providers.may_probe(message.recipient):
            spared = ranks if chosen is not None and chosen not in ranks else {}
            probed = next((place for place in left if place in self._probes and place not in spared), None)
            if probed is not None:
                self.probe_with(message.id, probed)
                return probed
        if chosen is None:
            return None
        needs_slot = before is not None or chosen != lined_up
        return chosen if not needs_slot or self._has_room(chosen) else None

    def _ranks(self, message_id: UUID) -> dict[int, int]:
        """Return the places of a message's last resorts, each with its rank among them, from 1."""
        names = self._last_resort.get(message_id, ())
        return {
            place: names.index(choice.name) + 1
            for place, choice in enumerate(self._providers.choices)
            if choice.name in names
        }

    def probe_with(self, message_id: UUID, place: int) -> None:
        """Make a message the probe of a provider."""
        self._probes.discard(place)
        self._probe_of[message_id] = place

    @property
    def probes(self) -> Collection[int]:
        """The places of providers whose probe no message is yet."""
        return self._probes

    def release_probes(self) -> None:
        """Release unused probes: not every message that passed the gate can be made, or needs one."""
        places, self._probes = self._probes, set()
        since = time.monotonic() - self._began_at
        with suppress(SQLAlchemyError):
            # Where that took long, another worker may be at it by now.
            soon = [place for place in places if since < self._providers.choices[place].provider.timeout]
            self._providers.release_probes(self._engine, soon)

    def is_for_the_next(self, result: Result, place: int) -> bool:
        """Whether another provider may take over after a result; that one is not asked for the message again."""
        if result.outcome is Outcome.UNSENT:
            goes_on = result.fault in {Fault.PROVIDER, Fault.ROUTE}
        else:
            goes_on = result.outcome is Outcome.AMBIGUOUS and self._falls_back(result.id)
        if goes_on:
            self._tried.setdefault(result.id, set()).add(place)
        return goes_on

    def last_word(self, message: Message, result: Result) -> Result:
        """Return the result of a message that no other provider takes over."""
        is_last = self._tried.get(message.id, set()).issuperset(self._order(message))
        return paused(result) if is_last else result

    def forget(self, message_id: UUID) -> None:
        """Forget who was tried with a message that has ended."""
        self._tried.pop(message_id, None)

    def seen(self, result: Result, place: int) -> Result:
        """Note how a provider fared, and call it by its name among the others."""
        choice = self._providers.choices[place]
        if result.provider != choice.provider.name:
            return result  # a simulated one: it says nothing of the provider
        self._notes[place].add(result, probing=self._probe_of.get(result.id) == place)
        return result if result.provider == choice.name else replace(result, provider=choice.name)

    def take_report(self) -> Callable[[], None]:
        """Take how the providers fared since this was called last; returns what remembers it, in any thread."""
        return partial(self._report, [taken for note in self._notes if (taken := note.take()) is not None])

    def _report(self, notes: Sequence[dict[str, Any]]) -> None:
        """Remember how the providers fared. It is not worth losing a batch over."""
        if notes:
            try:
                breakers.remember(self._engine, self._providers.channel, notes)
            except SQLAlchemyError as error:
                log.warning("breakers_not_noted", error=type(error).__name__)

    def _order(self, message: Message) -> list[int]:
        return self._providers.order(message.id, message.recipient, self._without_route.get(message.id, ()))

    def _has_room(self, place: int) -> bool:
        """Whether a provider that takes only so many a second takes one more at once."""
        choice = self._providers.choices[place]
        if choice.rate is None:
            return True
        try:
            return rate_limits.take_one(self._engine, self._providers.channel, choice.name, choice.rate)
        except SQLAlchemyError:
            return False


def paused(result: Result) -> Result:
    """Return a result after which no provider is left: one that found no route is not asked for again for hours."""
    if result.fault is not Fault.ROUTE:
        return result
    return replace(result, retry_after=max(result.retry_after or 0.0, ROUTE_PAUSE.total_seconds()))
