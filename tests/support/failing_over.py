"""Several providers of a channel over their own wires, and what becomes of messages that they are given."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.providers import breakers
from notifier.providers.breakers import health_from
from notifier.providers.circuit import Circuit
from notifier.providers.failover import Providers
from notifier.providers.failover_run import FailoverRun
from notifier.providers.protocol import Message, Result
from notifier.vocabulary.ids import new_id
from tests.providers import receivers
from tests.providers.receivers import Received
from tests.providers.vendors import twilio

OK = twilio.success()
DOWN = receivers.response(503)
REFUSED = receivers.response(401)
THROTTLED = twilio.error(20429, 429)
NOBODY = twilio.error(21211)
NO_ROUTE = twilio.error(21408)
TOO_LONG = twilio.error(21617)


@dataclass
class Wire:
    """A vendor's server: what it answers, and what came."""

    answer: bytes | Callable[[Received], bytes]
    received: list[Received] = field(default_factory=list)


Open = Callable[..., Providers]


def messages(count: int = 1) -> list[Message]:
    return [Message(new_id(), f"+1555010{number:04}", None, "Hello") for number in range(count)]


def failover_of(
    engine: Engine,
    providers: Providers,
    probes: set[int] | None = None,
    *,
    falls_back: Callable[[UUID], bool] = lambda _: False,
    seconds: float = 5.0,
    last_resort: dict[UUID, tuple[str, ...]] | None = None,
    without_route: dict[UUID, frozenset[str]] | None = None,
) -> FailoverRun:
    return FailoverRun(
        engine,
        providers,
        known(engine),
        probes or set(),
        start_until=time.monotonic() + seconds,
        falls_back=falls_back,
        last_resort=last_resort or {},
        without_route=without_route or {},
    )


def known(engine: Engine) -> dict[str, Circuit]:
    with engine.connect() as connection:
        return health_from(connection.scalar(text(breakers.HEALTH_IN_SQL), {"channel": "sms"}))


def sent(failover: FailoverRun, given: list[Message]) -> dict[UUID, list[Result]]:
    """The results of some messages, in their order; what nobody could begin has none."""
    results: dict[UUID, list[Result]] = {message.id: [] for message in given}
    for result in itertools.chain.from_iterable(failover.send(iter(given))):
        results[result.id].append(result)
    for calls in results.values():
        assert [call.handed_on for call in calls] == [True] * (len(calls) - 1) + [False] * bool(calls)
    failover.take_report()()
    return results


def path_of(calls: list[Result]) -> list[tuple[str, str]]:
    return [(call.provider, call.outcome.value) for call in calls]


def half_open(engine: Engine, name: str = "twilio") -> None:
    """Let the time pass for which a breaker is open."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE providers SET open_until = now() WHERE name = :name"), {"name": name})
