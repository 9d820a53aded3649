"""Slots: how many messages may go now to an endpoint or a provider that takes only so many a second, and when the rest.

A limit is one slot every 1/rate seconds. A message that finds no free slot gets a place behind all that wait already,
so that a long backlog is looked at about twice a message, and not every second.

The rules are pure. Their users keep the next slot in a table and lock its row while they decide: providers.rate_limits
for providers, webhooks.endpoint_slots for endpoints. All times are seconds from now.
"""

import math
from dataclasses import dataclass
from typing import Final

#: Whole slots of this many seconds ahead are free: a batch need not come back for each of them.
WINDOW: Final = 1.0
#: A message that has waited may take its slot this many seconds before the slot begins. The clock releases messages
#: once a second: the one before may have come late and moved the slots, and then this one would lose its place.
EARLY_AFTER_WAITING: Final = 1.0
#: The clock lets others move up if a slot has been free for this many seconds: the messages in line may be cancelled.
PATIENCE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Line:
    """The slots and the waiting messages of one limit."""

    #: Seconds until the first free slot begins; 0 if one is free now.
    next_slot: float
    #: Seconds until the last message that waits may go; 0 if none waits.
    last_place: float


@dataclass(frozen=True, slots=True)
class Grant:
    """The slots that some messages get."""

    #: Messages that may go now.
    free: int
    #: Seconds until the first free slot afterwards.
    next_slot: float
    #: Seconds until the first of the other messages may go; each further one 1/rate seconds later.
    next_place: float


def free_slots(next_slot: float, rate: float, *, early: float) -> int:
    """Return how many slots may be taken: the whole ones in the window, or else the next one, if it begins by `early`.

    The second case is that of rates under one a second, whose slots are longer than the window, and of its last part.
    """
    return max(math.floor((WINDOW - next_slot) * rate), int(next_slot <= early))


def grant(line: Line, rate: float, *, waited: int, fresh: int, fresh_early: float) -> Grant:
    """Grant slots to messages: to the `waited` ones first, and to the `fresh` ones only while no other message waits.

    `fresh_early`: how many seconds before its slot begins a fresh message may take it.
    """
    # A slot further ahead than this rate can have put it was taken while the rate was lower.
    next_slot = min(line.next_slot, max(WINDOW, EARLY_AFTER_WAITING + 1 / rate))
    wanted = waited + (0 if line.last_place else fresh)
    free = max(
        min(waited, free_slots(next_slot, rate, early=EARLY_AFTER_WAITING)),
        min(wanted, free_slots(next_slot, rate, early=fresh_early)),
    )
    taken_until = next_slot + free / rate
    return Grant(free, taken_until, max(taken_until, line.last_place + 1 / rate if line.last_place else 0.0))
