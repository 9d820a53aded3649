"""A failover run sends one batch through a channel's providers: what one certainly did not send, the next sends.

`choosing` decides who takes over. The last call of a claim is its result; the calls before it are attempts that were
`handed_on`.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from sqlalchemy import Engine

from notifier.providers.choosing import NO_NAMES, Chooser, Names, OrderedNames, paused
from notifier.providers.circuit import Circuit
from notifier.providers.failover import Providers
from notifier.providers.protocol import Message, Provider, Result
from notifier.runtime.isolation import contained

#: Messages that wait for a provider to have room, before no more are taken for anybody.
_KEPT: Final = 16
#: Calls of `send` of one provider at once: one that waits for its last answers takes no more messages.
_STREAMS: Final = 4


def _call(provider: Provider, messages: Iterator[Message]) -> Generator[Sequence[Result]]:
    """Provider.send, of which nothing comes but results and Exceptions."""
    results = iter(contained(provider.send, messages))
    try:
        while (found := contained(next, results, None)) is not None:
            yield found
    finally:
        if hasattr(results, "close"):
            contained(results.close)


@dataclass(slots=True)
class _Stream:
    """One call of a provider's `send`."""

    place: int
    #: It still takes messages.
    is_open: bool = True
    results: Generator[Sequence[Result]] = field(init=False)


#: A message in line for a provider, and what came of it at the one before.
_Entry = tuple[Message, Result | None]


class FailoverRun:
    """One batch on its way through the providers of a channel."""

    def __init__(
        self,
        engine: Engine,
        providers: Providers,
        health: Mapping[str, Circuit],
        probes: Collection[int],
        *,
        start_until: float,
        falls_back: Callable[[UUID], bool],
        last_resort: OrderedNames = NO_NAMES,
        without_route: Names = NO_NAMES,
    ) -> None:
        """`probes`: the places of those whose probes this batch has taken. `start_until`: when the last message may
        begin with its first provider, on the monotonic clock. `falls_back`: whether the next provider takes over a
        message that may have been sent. `last_resort`: the providers that come after the others for a message, in their
        order. `without_route`: the providers that have lately had no route to a message's recipient.
        """
        self._providers = [choice.provider for choice in providers.choices]
        self._chooser = Chooser(
            engine,
            providers,
            health,
            probes,
            falls_back=falls_back,
            last_resort=last_resort,
            without_route=without_route,
        )
        #: When a message may begin with each, so that it still has its whole time within the lease.
        self._start_until = [start_until + providers.timeout - each.timeout for each in self._providers]
        self._fresh: Iterator[Message] = iter(())
        self._is_dry = False
        self._streams: list[_Stream] = []
        self._lines: list[deque[_Entry]] = [deque() for _ in self._providers]
        self._in_hand: dict[UUID, Message] = {}
        self._finished: list[Result] = []
        self._unbegun: list[UUID] = []

    @property
    def all_open(self) -> bool:
        """Whether every breaker is open and no probe is left: no provider may be sent to."""
        return self._chooser.all_open

    def take_unbegun(self) -> list[UUID]:
        """Return the messages that were taken since the last call, but that no provider could begin."""
        unbegun, self._unbegun = self._unbegun, []
        return unbegun

    def take_report(self) -> Callable[[], None]:
        """Take how the providers fared since this was called last; returns what remembers it, in any thread."""
        return self._chooser.take_report()

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """Send what `messages` yields, as Provider.send does; results that are `handed_on` are followed by others."""
        self._fresh, self._is_dry = messages, False
        if len(self._providers) == 1:
            for results in _call(self._providers[0], self._while_well()):
                yield [paused(self._chooser.seen(result, 0)) for result in results]
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
                    yield self._take_finished()
            # Once more, for what nobody could begin at the last: its row is not to look as if it were being sent.
            yield self._take_finished()
        finally:
            for stream in self._streams:
                stream.results.close()

    def _take_finished(self) -> list[Result]:
        finished, self._finished = self._finished, []
        return finished

    def _while_well(self) -> Iterator[Message]:
        """Yield fresh messages for the only provider, until it has failed too often."""
        while not self.all_open and (message := next(self._fresh, None)) is not None:
            if self._chooser.probes:
                self._chooser.probe_with(message.id, 0)
            yield message
        self._chooser.release_probes()

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
                stream.results = _call(self._providers[place], self._messages_for(stream))
                self._streams.append(stream)
        return bool(self._streams)

    def _messages_for(self, stream: _Stream) -> Iterator[Message]:
        """Yield what a provider may begin: its line, and then fresh messages; those of others go to their lines."""
        line = self._lines[stream.place]
        while True:
            while line and (message := self._begin(stream.place, *line.popleft())) is not None:
                yield message
            if line:
                continue
            if (
                self._is_dry
                or self._chooser.is_open_at(stream.place)
                or any(len(each) >= _KEPT for each in self._lines)
            ):
                break
            self._take_fresh()
        stream.is_open = False

    def _begin(self, place: int, message: Message, before: Result | None) -> Message | None:
        """Return the message where it may begin with a provider now."""
        if self._is_late(place):
            self._give_up(message, before)
            return None
        if self._chooser.is_open_at(place, message.id):
            self._line_up(message, before)  # its breaker opened while the message stood in line
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
            self._chooser.release_probes()
            return
        self._line_up(message, None)
        if self.all_open:
            self._is_dry = True

    def _line_up(self, message: Message, before: Result | None) -> None:
        """Put a message in line for the first provider that may have it, or give it up."""
        chosen = self._chooser.choose(message, before)
        if chosen is None:
            self._give_up(message, before)
            return
        self._in_hand[message.id] = message
        self._lines[chosen].append((message, before))

    def _give_up(self, message: Message, before: Result | None) -> None:
        """End a message that no other provider can begin in time: with its last result, or as not begun."""
        if before is None:
            self._unbegun.append(message.id)
        else:
            self._finished.append(self._chooser.last_word(message, before))
        self._forget(message.id)

    def _forget(self, message_id: UUID) -> None:
        self._in_hand.pop(message_id, None)
        self._chooser.forget(message_id)

    def _settle(self, result: Result, place: int) -> None:
        """Take a result as the last word, or let the next provider take over."""
        result = self._chooser.seen(result, place)
        if self._chooser.is_for_the_next(result, place):
            self._line_up(self._in_hand[result.id], result)
            return
        self._finished.append(result)
        self._forget(result.id)
