"""The simulator: accepts messages, sends none of them, and behaves as the recipient's name says.

| name          | outcome                                                  |
|---------------|----------------------------------------------------------|
| `delivered`   | accepted; then a receipt: delivered                      |
| `sent`        | accepted, and never a receipt                            |
| `bounce`      | accepted; then a receipt: bounced                        |
| `rejected`    | rejected, the recipient's fault                          |
| `unavailable` | unsent, every time                                       |
| `throttled`   | unsent, throttled: again in a second                     |
| `route`       | unsent, no route to it: again after hours                |
| `ambiguous`   | ambiguous                                                |
| `slow`        | accepted after 5 s, or 80 % of the timeout where that is less |
| any other     | as `rejected`, so that a typing error goes to no vendor  |

| channel | recipient                                                              |
|---------|------------------------------------------------------------------------|
| email   | `NAME@simulator.notifier`                                              |
| sms     | one of NUMBERS, in the range in which Twilio has its own test numbers  |
| push    | `simulator:NAME`                                                       |
| chat    | `simulator://NAME`                                                     |
| webhook | `https://NAME.simulator.notifier/`, with any port and path             |

A `+` after the name begins a suffix that distinguishes recipients: `delivered+ada@simulator.notifier`; webhooks use
their path for that. A provider that confirms delivery (webhooks) has no receipts: accepted messages are delivered, a
bounce is rejected.

Accepted messages are in the outbox. No outcome counts against the provider behind it: `unavailable` and `ambiguous` are
nobody's fault, and every result names the simulator.
"""

import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from notifier.providers.protocol import Fault, Message, Outcome, Provider, Result
from notifier.providers.vendors.outbox import ROWS, keep
from notifier.vocabulary.ids import derived_id, millisecond_of
from notifier.vocabulary.states import Channel

#: As attempts and receipts record it.
NAME: Final = "simulator"

_DOMAIN: Final = "simulator.notifier"
#: Seconds for which what is slow is under way, and the part of the timeout that it takes at the most.
_SLOW: Final = 5.0
_SLOW_PART: Final = 0.8
#: Seconds between looks at what is slow.
_SLICE: Final = 0.05


class Behaviour(StrEnum):
    """The outcome of a message; recipients carry these names."""

    DELIVERED = "delivered"
    SENT = "sent"
    BOUNCE = "bounce"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    ROUTE = "route"
    AMBIGUOUS = "ambiguous"
    SLOW = "slow"


#: 1, 6 and 8 are what they are at Twilio: not a number, a good one, too many at once.
NUMBERS: Final = {
    "+15005550000": Behaviour.SENT,
    "+15005550001": Behaviour.REJECTED,
    "+15005550002": Behaviour.BOUNCE,
    "+15005550003": Behaviour.UNAVAILABLE,
    "+15005550004": Behaviour.AMBIGUOUS,
    "+15005550005": Behaviour.SLOW,
    "+15005550006": Behaviour.DELIVERED,
    "+15005550007": Behaviour.ROUTE,
    "+15005550008": Behaviour.THROTTLED,
}

_TEST_NUMBER: Final = re.compile(r"\+1500555[0-9]{4}")
_BEHAVIOURS: Final = {behaviour.value: behaviour for behaviour in Behaviour}
#: Outcome, fault, and seconds that it asks to wait.
_REFUSALS: Final[dict[Behaviour, tuple[Outcome, Fault | None, float | None]]] = {
    Behaviour.REJECTED: (Outcome.REJECTED, Fault.RECIPIENT, None),
    Behaviour.UNAVAILABLE: (Outcome.UNSENT, None, None),
    Behaviour.THROTTLED: (Outcome.UNSENT, Fault.THROTTLED, 1.0),
    Behaviour.ROUTE: (Outcome.UNSENT, Fault.ROUTE, None),
    Behaviour.AMBIGUOUS: (Outcome.AMBIGUOUS, None, None),
}
#: The receipts that follow, by notifier.models.Receipt's kinds.
_RECEIPTS: Final = {Behaviour.DELIVERED: ("delivered", None), Behaviour.BOUNCE: ("bounced", "simulator: bounce")}

_WRITE_RECEIPTS: Final = text("""
    INSERT INTO receipts (id, notification_id, provider, kind, error, happened_at, due_at, keep_until)
    SELECT id, notification_id, :provider, kind, error, now(), now(), now() + interval '1 hour'
    FROM unnest(CAST(:ids AS uuid[]), CAST(:notification_ids AS uuid[]), CAST(:kinds AS text[]),
        CAST(:errors AS text[])) AS receipt(id, notification_id, kind, error)
    ORDER BY id ON CONFLICT (id) DO NOTHING
""")


def behaviour_of(channel: Channel, recipient: str) -> Behaviour | None:
    """Return the simulator's behaviour for a recipient (a stored address); None if it is not one of its own."""
    if channel is Channel.SMS:
        return NUMBERS.get(recipient)
    name = _name_in(channel, recipient)
    return None if name is None else _BEHAVIOURS.get(name.partition("+")[0].lower(), Behaviour.REJECTED)


def stands_for_an_outcome(channel: Channel, recipient: str) -> bool:
    """Return whether a recipient is a test recipient, ours or Twilio's, which no outcome ever suppresses."""
    is_a_test_number = channel is Channel.SMS and _TEST_NUMBER.fullmatch(recipient) is not None
    return is_a_test_number or behaviour_of(channel, recipient) is not None


def _name_in(channel: Channel, recipient: str) -> str | None:
    """Return the simulator's name in a recipient, including the text after its `+`."""
    match channel:
        case Channel.EMAIL:
            local, _, domain = recipient.rpartition("@")
            return local if domain.lower() == _DOMAIN else None
        case Channel.PUSH:
            return recipient.removeprefix(f"{NAME}:") if recipient.startswith(f"{NAME}:") else None
        case Channel.CHAT:
            scheme, mark, name = recipient.partition("://")
            return name.rstrip("/") if mark and scheme.lower() == NAME else None
        case _:
            return _name_in_url(recipient)


def _name_in_url(url: str) -> str | None:
    if _DOMAIN not in url.lower():
        return None  # all but a few end here, unparsed
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return None
    is_ours = host == _DOMAIN or host.endswith(f".{_DOMAIN}")
    return host.removesuffix(_DOMAIN).rstrip(".") if is_ours else None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A message that was taken."""

    message: Message
    behaviour: Behaviour
    started_at: datetime
    #: By the monotonic clock: when it began, and when it is finished.
    began: float
    until: float


class Simulator:
    """A provider in front of another, which keeps the simulator's recipients from it; alone, it takes every recipient.

    Alone, it is the sandbox mode: any recipient that is not one of its own is accepted like `sent`, and nothing is
    sent.
    """

    def __init__(self, provider: Provider | None, channel: Channel, engine: Engine, timeout: float) -> None:
        """`timeout`: seconds that one message may take in all, where there is no provider to say so."""
        self.name, self.confirms_delivery, self.timeout = NAME, channel is Channel.WEBHOOK, timeout
        if provider is not None:
            self.name, self.timeout = provider.name, provider.timeout
            self.confirms_delivery = provider.confirms_delivery
        self._provider = provider
        self._channel = channel
        self._engine = engine

    @property
    def behind(self) -> Provider | None:
        """The provider that it stands before."""
        return self._provider

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        if self._provider is None or behaviour_of(self._channel, recipient):
            return True
        return self._provider.takes(recipient)

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """See Provider."""
        under_way: list[_Begun] = []
        if self._provider is None:
            others = self._take_all(messages, under_way)
        else:
            others = self._provider.send(self._take_ours(messages, under_way))
        with closing(_handed_on(others)) as steps:
            for results in steps:
                yield [*results, *self._settled(under_way)] if under_way else results
        while under_way:
            yield self._settled(under_way)
            if under_way:
                time.sleep(_SLICE)

    def close(self) -> None:
        """See Provider."""
        if self._provider is not None:
            self._provider.close()

    def _take_all(self, messages: Iterator[Message], under_way: list[_Begun]) -> Iterator[Sequence[Result]]:
        """Begin all messages, a hundred at a time."""
        while batch := list(islice(messages, ROWS)):
            under_way += [self._begun(each, self._behaviour(each) or Behaviour.SENT) for each in batch]
            yield ()

    def _take_ours(self, messages: Iterator[Message], under_way: list[_Begun]) -> Iterator[Message]:
        """Begin the simulator's own messages, and give out the others."""
        for message in messages:
            behaviour = self._behaviour(message)
            if behaviour is None:
                yield message
            else:
                under_way.append(self._begun(message, behaviour))

    def _behaviour(self, message: Message) -> Behaviour | None:
        return behaviour_of(self._channel, message.recipient)

    def _begun(self, message: Message, behaviour: Behaviour) -> _Begun:
        if behaviour is Behaviour.BOUNCE and self.confirms_delivery:
            behaviour = Behaviour.REJECTED
        now = time.monotonic()
        takes = min(_SLOW, _SLOW_PART * self.timeout) if behaviour is Behaviour.SLOW else 0.0
        return _Begun(message, behaviour, datetime.now(UTC), now, now + takes)

    def _settled(self, under_way: list[_Begun]) -> list[Result]:
        """Return the finished messages and remove them; accepted ones are stored first."""
        now = time.monotonic()
        finished = [each for each in under_way if each.until <= now]
        under_way[:] = [each for each in under_way if each.until > now]
        results = [_refusal(each) for each in finished if each.behaviour in _REFUSALS]
        accepted = [each for each in finished if each.behaviour not in _REFUSALS]
        for at in range(0, len(accepted), ROWS):
            results += self._accept(accepted[at : at + ROWS])
        return results

    def _accept(self, batch: Sequence[_Begun]) -> list[Result]:
        """Keep messages, and the receipts that follow, in one transaction."""
        behaviours = {each.message.id: each.behaviour for each in batch}
        kept = keep(
            self._engine, self._channel, [each.message for each in batch], partial(self._write_receipts, behaviours)
        )
        return [_result(each, outcome, error) for each, (outcome, error) in zip(batch, kept, strict=True)]

    def _write_receipts(
        self, behaviours: Mapping[UUID, Behaviour], connection: Connection, messages: Sequence[Message]
    ) -> None:
        """Write the receipts of some messages, as a vendor would send them."""
        receipts = [
            (message.id, *_RECEIPTS[behaviours[message.id]])
            for message in messages
            if behaviours[message.id] in _RECEIPTS
        ]
        if not receipts or self.confirms_delivery:
            return
        connection.execute(
            _WRITE_RECEIPTS,
            {
                "provider": NAME,
                "ids": [derived_id(millisecond_of(each), each, NAME, kind) for each, kind, _ in receipts],
                "notification_ids": [each for each, _, _ in receipts],
                "kinds": [kind for _, kind, _ in receipts],
                "errors": [error for _, _, error in receipts],
            },
        )


def _handed_on(steps: Iterator[Sequence[Result]]) -> Generator[Sequence[Result], None, None]:
    """Yield the same as a generator: closing it closes `steps`, if that is one."""
    yield from steps


def _refusal(begun: _Begun) -> Result:
    outcome, fault, retry_after = _REFUSALS[begun.behaviour]
    return _result(begun, outcome, f"simulator: {begun.behaviour}", fault, retry_after)


def _result(
    begun: _Begun, outcome: Outcome, error: str | None, fault: Fault | None = None, retry_after: float | None = None
) -> Result:
    return Result(
        id=begun.message.id,
        outcome=outcome,
        provider=NAME,
        started_at=begun.started_at,
        duration_ms=(time.monotonic() - begun.began) * 1000,
        fault=fault,
        error=error,
        retry_after=retry_after,
    )
