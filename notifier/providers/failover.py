"""Several providers of a channel as one: what one of them certainly did not send, the next one sends at once.

| a call came to                                   | the next provider takes over                       |
|--------------------------------------------------|----------------------------------------------------|
| unsent, the provider's fault                     | yes                                                |
| unsent, a route's fault (not to this address)    | yes; where nobody is left, it waits for hours      |
| ambiguous                                        | only where the notification says `fallback`        |
| unsent, throttled                                | no: the same one takes it later                    |
| unsent, nobody's fault that is known             | no: it is tried again later                        |
| rejected                                         | no: no other one would take it                     |

A message goes to the first of those that take its address and are not shut by their breakers (providers.breakers), or
by weight where any have one; a provider that has lately had no route to it is left out. A provider that
is due for a probe is tried with one message. The last call of a claim is its result; the calls before it are attempts
that were `handed_on`.
A message that a provider took, and could not deliver, goes to the others first when it is sent again.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Container, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from notifier.observability import metrics
from notifier.providers import breakers, rate_limits
from notifier.providers.breakers import Health, Note
from notifier.providers.protocol import Fault, Message, Outcome, Provider, Result
from notifier.providers.vendors.simulator import behaviour_of
from notifier.runtime.isolation import contained
from notifier.vocabulary.states import Channel

log = structlog.get_logger()

#: Messages that wait for a provider to have room, before no more are taken for anybody.
_KEPT: Final = 16
#: Calls of `send` of one provider at once: one that waits for its last answers takes no more messages.
_STREAMS: Final = 4
#: The time for which a provider without a route to a notification's recipient is not tried for it again.
ROUTE_PAUSE: Final = timedelta(hours=6)
#: What a probe may take beyond the provider's own time, in seconds, before another worker sends one.
_PROBE_MARGIN: Final = 5.0
_WELL: Final = Health()


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider among those of its channel."""

    provider: Provider
    #: What attempts and breakers call it: unlike every other one's of the channel.
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


def _call(provider: Provider, messages: Iterator[Message]) -> Generator[Sequence[Result]]:
    """Provider.send, of which nothing comes but results and Exceptions."""
    results = iter(contained(provider.send, messages))
    try:
        while (found := contained(next, results, None)) is not None:
            yield found
    finally:
        if hasattr(results, "close"):
            contained(results.close)


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

    def may_try_out(self, recipient: str) -> bool:
        """Whether a message to an address says something of a provider: not where that would never see it."""
        return behaviour_of(self.channel, recipient) is None

    def due_probes(self, engine: Engine, health: Mapping[str, Health], wanted: Container[int]) -> set[int]:
        """Those `wanted` places whose breakers are half open, that this worker may try out with one message each."""
        due = set()
        for place, choice in enumerate(self.choices):
            if place in wanted and health.get(choice.name, _WELL).shut_for == 0:
                seconds = choice.provider.timeout + _PROBE_MARGIN
                if breakers.take_probe(engine, self.channel, choice.name, seconds):
                    due.add(place)
        return due

    def leave_probes(self, engine: Engine, places: Collection[int]) -> None:
        """Let others try out what this worker was to, and has not begun to."""
        if places:
            breakers.leave_probes(engine, self.channel, [self.choices[place].name for place in sorted(places)])

    def close(self) -> None:
        """Close idle connections."""
        for choice in self.choices:
            choice.provider.close()


@dataclass(slots=True)
class _Stream:
    """One call of a provider's `send`."""

    place: int
    #: It still takes messages.
    is_open: bool = True
    results: Generator[Sequence[Result]] = field(init=False)


#: A message in line for a provider, and what came of it at the one before.
_Entry = tuple[Message, Result | None]


class Relay:
    """One batch on its way through the providers of a channel."""

    def __init__(
        self,
        engine: Engine,
        providers: Providers,
        health: Mapping[str, Health],
        probes: set[int],
        *,
        start_until: float,
        falls_back: Callable[[UUID], bool],
        bounced_by: Mapping[UUID, Collection[str]] = MappingProxyType({}),
        without_route: Mapping[UUID, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """`probes`: the places of those that may be tried out. `start_until`: when the last message may begin with its
        first provider, on the monotonic clock. `falls_back`: whether the next provider takes over a message that may
        have been sent. `bounced_by`: the providers that took a message before, but could not deliver it; they come
        after the others. `without_route`: the providers that have lately had no route to a message's recipient.
        """
        self._began_at = time.monotonic()
        self._engine = engine
        self._providers = providers
        self._choices = providers.choices
        self._notes = [Note(choice.name, health.get(choice.name, _WELL)) for choice in self._choices]
        #: Those that the gate had no message line up for: it knew that they are shut.
        self._known_shut = {place for place, note in enumerate(self._notes) if note.was_shut}
        self._probes = set(probes)
        self._probe_of: dict[UUID, int] = {}
        #: When a message may begin with each, so that it still has its whole time within the lease.
        self._start_until = [start_until + providers.timeout - each.provider.timeout for each in self._choices]
        self._falls_back = falls_back
        self._bounced_by = bounced_by
        self._without_route = without_route
        self._fresh: Iterator[Message] = iter(())
        self._is_dry = False
        self._streams: list[_Stream] = []
        self._lines: list[deque[_Entry]] = [deque() for _ in self._choices]
        self._in_hand: dict[UUID, Message] = {}
        self._tried: dict[UUID, set[int]] = {}
        self._finished: list[Result] = []
        self._unbegun: list[UUID] = []

    @property
    def is_shut(self) -> bool:
        """Whether there is no provider left that may be sent to."""
        return not self._probes and all(note.is_shut for note in self._notes)

    def take_unbegun(self) -> list[UUID]:
        """The messages that were taken since this was asked last, but that nobody could begin."""
        unbegun, self._unbegun = self._unbegun, []
        return unbegun

    def take(self) -> Callable[[], None]:
        """Take how the providers fared since this was called last; returns what remembers it, in any thread."""
        return partial(self._report, [taken for note in self._notes if (taken := note.take()) is not None])

    def _report(self, notes: Sequence[dict[str, Any]]) -> None:
        """Remember how the providers fared. It is not worth losing a batch over."""
        if notes:
            try:
                breakers.remember(self._engine, self._providers.channel, notes)
            except SQLAlchemyError as error:
                log.warning("breakers_not_noted", error=type(error).__name__)

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """Send what `messages` yields, as Provider.send does; results that are `handed_on` are followed by others."""
        self._fresh, self._is_dry = messages, False
        if len(self._choices) == 1:
            for results in _call(self._choices[0].provider, self._while_well()):
                yield [_paused(self._seen(result, 0)) for result in results]
            return
        try:
            while self._open_streams():
                for stream in list(self._streams):
                    try:
                        results = next(stream.results)
                    except StopIteration:
                        self._streams.remove(stream)
                        continue
                    for result in results:
                        self._settle(result, stream.place)
                    finished, self._finished = self._finished, []
                    yield finished
            # Once more, for what nobody could begin at the last: its row is not to look as if it were being sent.
            finished, self._finished = self._finished, []
            yield finished
        finally:
            for stream in self._streams:
                stream.results.close()

    def _while_well(self) -> Iterator[Message]:
        """What is fresh, for the only provider, until it has failed too often."""
        while not self.is_shut and (message := next(self._fresh, None)) is not None:
            if self._probes:
                self._probes.clear()
                self._probe_of[message.id] = 0
            yield message
        self._leave_probes()

    def _open_streams(self) -> bool:
        """Begin `send` where messages are in line for a provider; false where nothing is left to do."""
        for place, line in enumerate(self._lines):
            while line and self._is_late(place):
                self._give_up(*line.popleft())
        while not self._is_dry and not any(self._lines) and not any(stream.is_open for stream in self._streams):
            self._take_fresh()
        for place, line in enumerate(self._lines):
            own = [stream for stream in self._streams if stream.place == place]
            if line and len(own) < _STREAMS and not any(stream.is_open for stream in own):
                stream = _Stream(place)
                stream.results = _call(self._choices[place].provider, self._messages_for(stream))
                self._streams.append(stream)
        return bool(self._streams)

    def _messages_for(self, stream: _Stream) -> Iterator[Message]:
        """What a provider may begin: what is in line for it, and then what is fresh; others' go to their lines."""
        line = self._lines[stream.place]
        while True:
            while line and (message := self._begin(stream.place, *line.popleft())) is not None:
                yield message
            if line:
                continue
            if self._is_dry or self._notes[stream.place].is_shut or any(len(each) >= _KEPT for each in self._lines):
                break
            self._take_fresh()
        stream.is_open = False

    def _begin(self, place: int, message: Message, before: Result | None) -> Message | None:
        """The message, where it may begin with a provider now."""
        if self._is_late(place):
            self._give_up(message, before)
            return None
        if self._notes[place].is_shut and self._probe_of.get(message.id) != place:
            self._place(message, before)  # it was shut while the message stood in line
            return None
        if before is not None:
            self._finished.append(replace(before, handed_on=True))
        return message

    def _is_late(self, place: int) -> bool:
        return time.monotonic() >= self._start_until[place]

    def _take_fresh(self) -> None:
        message = next(self._fresh, None)
        if message is None:
            self._is_dry = True
            self._leave_probes()
            return
        self._place(message, None)
        if self.is_shut:
            self._is_dry = True

    def _leave_probes(self) -> None:
        """Nothing is left to try providers out with: not all that passes the gate can be made, or needs them all."""
        places, self._probes = self._probes, set()
        since = time.monotonic() - self._began_at
        with suppress(SQLAlchemyError):
            # Where that took long, another worker may be at it by now.
            soon = [place for place in places if since < self._choices[place].provider.timeout]
            self._providers.leave_probes(self._engine, soon)

    def _place(self, message: Message, before: Result | None) -> None:
        """Put a message in line for the first provider that may have it, or give it up."""
        order = self._order(message)
        # The gate took a slot of the one that it knew as well; there is none yet with whom takes over from that.
        lined_up = next((place for place in order if place not in self._known_shut), order[0])
        if message.id in self._bounced_by:
            order.sort(key=lambda place: self._choices[place].name in self._bounced_by[message.id])
        tried = self._tried.get(message.id, set())
        probed = next((place for place in order if place in self._probes and place not in tried), None)
        if probed is not None and before is None and self._providers.may_try_out(message.recipient):
            self._probes.discard(probed)
            self._probe_of[message.id] = probed
        else:
            probed = None
        well = (place for place in order if place not in tried and not self._notes[place].is_shut)
        chosen = probed if probed is not None else next(well, None)
        needs_slot = before is not None or (probed is None and chosen != lined_up)
        if chosen is None or (needs_slot and not self._has_room(chosen)):
            self._give_up(message, before)
            return
        self._in_hand[message.id] = message
        self._lines[chosen].append((message, before))

    def _order(self, message: Message) -> list[int]:
        return self._providers.order(message.id, message.recipient, self._without_route.get(message.id, ()))

    def _has_room(self, place: int) -> bool:
        """Whether a provider that takes only so many a second takes one more at once."""
        choice = self._choices[place]
        if choice.rate is None:
            return True
        try:
            return rate_limits.take_one(self._engine, self._providers.channel, choice.name, choice.rate)
        except SQLAlchemyError:
            return False

    def _give_up(self, message: Message, before: Result | None) -> None:
        """Nobody else can begin it in time: what came of it last is its result, or it has not begun at all."""
        if before is None:
            self._unbegun.append(message.id)
        else:
            is_last = self._tried.get(message.id, set()).issuperset(self._order(message))
            self._finished.append(_paused(before) if is_last else before)
        self._forget(message.id)

    def _forget(self, message_id: UUID) -> None:
        self._in_hand.pop(message_id, None)
        self._tried.pop(message_id, None)

    def _settle(self, result: Result, place: int) -> None:
        """A result is the last word, or the next provider takes over."""
        result = self._seen(result, place)
        message = self._in_hand[result.id]
        if not self._is_for_the_next(result):
            self._finished.append(result)
            self._forget(result.id)
            return
        self._tried.setdefault(result.id, set()).add(place)
        self._place(message, result)

    def _is_for_the_next(self, result: Result) -> bool:
        if result.outcome is Outcome.UNSENT:
            return result.fault in {Fault.PROVIDER, Fault.ROUTE}
        return result.outcome is Outcome.AMBIGUOUS and self._falls_back(result.id)

    def _seen(self, result: Result, place: int) -> Result:
        """Note how a provider fared, and call it by its name among the others."""
        choice = self._choices[place]
        if result.provider != choice.provider.name:
            return result  # a simulated one: it says nothing of the provider
        self._notes[place].add(result, probing=self._probe_of.get(result.id) == place)
        return result if result.provider == choice.name else replace(result, provider=choice.name)


def _paused(result: Result) -> Result:
    """A result after which no provider is left: one that found no route is not asked for again for hours."""
    if result.fault is not Fault.ROUTE:
        return result
    return replace(result, retry_after=max(result.retry_after or 0.0, ROUTE_PAUSE.total_seconds()))
