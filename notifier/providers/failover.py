"""Several providers of a channel as one: an ordered list of choices for each message.

A message goes to the first provider that takes its address and whose breaker is not open (providers.breakers), or by
weight where any provider has one. A provider that has lately had no route to the address is left out. `failover_run`
sends a batch through them, `choosing` decides who takes over.
"""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Final
from uuid import UUID

from sqlalchemy import Engine

from notifier.observability import metrics
from notifier.providers import breakers
from notifier.providers.circuit import Circuit
from notifier.providers.protocol import Outcome, Provider
from notifier.providers.vendors.simulator import behaviour_of
from notifier.runtime.isolation import contained
from notifier.vocabulary.states import Channel

#: The time for which a provider without a route to a notification's recipient is not tried for it again.
ROUTE_PAUSE: Final = timedelta(hours=6)
#: Seconds that a probe may take beyond the provider's own timeout, before another worker sends one.
_PROBE_MARGIN: Final = 5.0
WELL: Final = Circuit()


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider among those of its channel."""

    provider: Provider
    #: Its name in attempts and breakers, unique within the channel.
    name: str
    #: Its share of the traffic. Where any have one, the others only take over from those.
    weight: int | None = None
    #: Messages a second that it takes at the most.
    rate: float | None = None


def _takes(choice: Choice, recipient: str) -> bool:
    """Return whether a provider takes an address; False if its check raises."""
    try:
        return contained(choice.provider.takes, recipient)
    except Exception:
        return False


class Providers:
    """The providers of a channel, in order of preference. Used by several threads at once."""

    def __init__(self, channel: Channel, choices: Sequence[Choice]) -> None:
        """`choices`: at least one."""
        self.channel = channel
        self.choices = tuple(choices)
        #: The longest that one message may take with all of them in turn, in seconds.
        self.timeout = sum(choice.provider.timeout for choice in choices)
        self.confirms_delivery = choices[0].provider.confirms_delivery
        metrics.begin(metrics.ATTEMPTS, product([channel.value], (choice.name for choice in choices), Outcome))

    def order(self, message_id: UUID, recipient: str, without_route: Collection[str] = ()) -> list[int]:
        """The places of those that a message may go to, the preferred one first; the same in every attempt.

        `without_route`: the names of those that have lately had no route to it. They are left out, unless they are all.
        """
        if len(self.choices) == 1:
            return [0]
        able = [place for place, choice in enumerate(self.choices) if _takes(choice, recipient)]
        able = [place for place in able if self.choices[place].name not in without_route] or able
        shares = [(place, weight) for place in able if (weight := self.choices[place].weight) is not None]
        if shares:
            point = message_id.int % 2**48 % sum(weight for _, weight in shares)  # the id's last bits are random
            for place, weight in shares:
                if point < weight:
                    return [place, *(other for other in able if other != place)]
                point -= weight
        return able or [0]  # which says what is wrong with the address

    def may_probe(self, recipient: str) -> bool:
        """Whether a message to an address can be a probe: not if the simulator takes it, and no provider sees it."""
        return behaviour_of(self.channel, recipient) is None

    def take_probes(self, engine: Engine, health: Mapping[str, Circuit], wanted: Container[int]) -> set[int]:
        """Take the probes of the `wanted` places whose breakers are half-open; returns the places that it took."""
        due = set()
        for place, choice in enumerate(self.choices):
            if place in wanted and health.get(choice.name, WELL).probe_in == 0:
                seconds = choice.provider.timeout + _PROBE_MARGIN
                if breakers.take_probe(engine, self.channel, choice.name, seconds):
                    due.add(place)
        return due

    def release_probes(self, engine: Engine, places: Collection[int]) -> None:
        """Release probes that this worker took and has not sent."""
        if places:
            breakers.release_probes(engine, self.channel, [self.choices[place].name for place in sorted(places)])

    def close(self) -> None:
        """Close idle connections."""
        for choice in self.choices:
            choice.provider.close()
