"""The simulator, alone and before a provider that sends."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import pytest
from sqlalchemy import Engine, create_engine, text

from notifier.providers.protocol import Fault, Message, Outcome, Provider, Result
from notifier.providers.vendors.outbox import Outbox
from notifier.providers.vendors.simulator import Behaviour, Simulator
from notifier.providers.vendors.smtp import Smtp
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers

ACCEPTED = (Outcome.ACCEPTED, None, None)
OUTCOMES = {
    Behaviour.DELIVERED: ACCEPTED,
    Behaviour.SENT: ACCEPTED,
    Behaviour.BOUNCE: ACCEPTED,
    Behaviour.SLOW: ACCEPTED,
    Behaviour.REJECTED: (Outcome.REJECTED, Fault.RECIPIENT, None),
    Behaviour.UNAVAILABLE: (Outcome.UNSENT, None, None),
    Behaviour.THROTTLED: (Outcome.UNSENT, Fault.THROTTLED, 1.0),
    Behaviour.ROUTE: (Outcome.UNSENT, Fault.ROUTE, None),
    Behaviour.AMBIGUOUS: (Outcome.AMBIGUOUS, None, None),
}
#: Short, so that what is slow takes 0.4 s.
TIMEOUT = 0.5


def to(recipient: str, words: str = "Hello") -> Message:
    return Message(id=new_id(), recipient=recipient, subject="Hello", text=words)


def simulated(name: str) -> Message:
    return to(f"{name}@simulator.notifier")


def sent(provider: Provider, *messages: Message) -> list[Result]:
    """Return what became of some messages, in their order: one result each."""
    results = {each.id: each for each in itertools.chain.from_iterable(provider.send(iter(messages)))}
    assert set(results) == {message.id for message in messages}
    return [results[message.id] for message in messages]


def steps_of(steps: Iterator[Sequence[Result]]) -> Generator[Sequence[Result], None, None]:
    """Return what `send` gives, which the protocol allows to be closed."""
    assert isinstance(steps, Generator)
    return steps


def kept(engine: Engine) -> set[object]:
    """The notifications that the outbox holds."""
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT notification_id FROM outbox")))


def receipts(engine: Engine) -> dict[object, tuple[str, str]]:
    """The receipts that wait: notification → provider and kind."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT notification_id, provider, kind FROM receipts WHERE due_at <= now()"))
        return {row.notification_id: (row.provider, row.kind) for row in rows}


@pytest.fixture
def mailbox() -> Iterator[tuple[Smtp, receivers.Mailbox]]:
    """A mail server, and the provider that sends to it."""
    with receivers.mail() as (port, received):
        provider = Smtp(host="127.0.0.1", port=port, tls="none", sender="notifier@example.com", timeout=5.0)
        with closing(provider):
            yield provider, received


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "before-another"])
def test_what_each_name_comes_to(engine: Engine, alone: bool) -> None:
    provider = Simulator(None if alone else Outbox(Channel.EMAIL, engine), Channel.EMAIL, engine, TIMEOUT)
    provider.timeout = TIMEOUT  # the outbox has a longer one
    messages = {behaviour: simulated(behaviour) for behaviour in Behaviour}
    results = dict(zip(messages, sent(provider, *messages.values()), strict=True))
    assert {name: (each.outcome, each.fault, each.retry_after) for name, each in results.items()} == OUTCOMES
    assert {each.provider for each in results.values()} == {"simulator"}
    assert results[Behaviour.SLOW].duration_ms >= TIMEOUT * 0.8 * 1000
    assert kept(engine) == {messages[name].id for name, outcome in OUTCOMES.items() if outcome is ACCEPTED}
    assert receipts(engine) == {
        messages[Behaviour.DELIVERED].id: ("simulator", "delivered"),
        messages[Behaviour.BOUNCE].id: ("simulator", "bounced"),
    }


def test_a_receipt_waits_once_however_often_it_is_sent(engine: Engine) -> None:
    provider, message = Simulator(None, Channel.EMAIL, engine, TIMEOUT), simulated("delivered")
    for _ in range(2):
        assert sent(provider, message)[0].outcome is Outcome.ACCEPTED
    assert len(receipts(engine)) == 1


def test_webhooks_confirm_delivery_themselves(engine: Engine) -> None:
    provider = Simulator(None, Channel.WEBHOOK, engine, TIMEOUT)
    urls = [f"https://{name}.simulator.notifier/" for name in ("delivered", "sent", "bounce")]
    results = sent(provider, *map(to, [*urls, "https://example.com/"]))
    accepted, rejected = Outcome.ACCEPTED, Outcome.REJECTED
    assert provider.confirms_delivery
    assert [each.outcome for each in results] == [accepted, accepted, rejected, accepted]
    assert receipts(engine) == {}


def test_alone_it_takes_everybody(engine: Engine) -> None:
    provider = Simulator(None, Channel.EMAIL, engine, TIMEOUT)
    messages = [to(f"ada-{number}@example.com") for number in range(250)]
    assert {each.outcome for each in sent(provider, *messages)} == {Outcome.ACCEPTED}
    assert kept(engine) == {message.id for message in messages}
    assert provider.takes("ada@example.com")
    assert (provider.name, provider.confirms_delivery, provider.timeout) == ("simulator", False, TIMEOUT)


def test_mixed_traffic(engine: Engine, mailbox: tuple[Smtp, receivers.Mailbox]) -> None:
    smtp, received = mailbox
    provider = Simulator(smtp, Channel.EMAIL, engine, TIMEOUT)
    assert (provider.name, provider.confirms_delivery, provider.timeout) == ("smtp", False, 5.0)
    messages = [each for n in range(30) for each in (to(f"ada-{n}@example.com"), simulated(f"delivered+{n}"))]
    results = sent(provider, *messages)
    assert {each.outcome for each in results} == {Outcome.ACCEPTED}
    assert [each.provider for each in results] == ["smtp", "simulator"] * 30
    went_out = sorted(recipient for each in received.envelopes for recipient in each.rcpt_tos)
    assert went_out == sorted(f"ada-{n}@example.com" for n in range(30))
    assert kept(engine) == {message.id for message in messages[1::2]}


def test_what_is_slow_keeps_nobody_waiting(engine: Engine, mailbox: tuple[Smtp, receivers.Mailbox]) -> None:
    slow = [simulated(f"slow+{n}") for n in range(3)]
    messages = [*slow, *(to(f"ada-{n}@example.com") for n in range(5)), simulated("sent")]
    finished: list[object] = []
    with closing(steps_of(Simulator(mailbox[0], Channel.EMAIL, engine, 5.0).send(iter(messages)))) as steps:
        while len(finished) < 6:
            finished += [each.id for each in next(steps)]
    assert set(finished) == {message.id for message in messages[3:]}


def test_it_yields_while_something_is_slow(engine: Engine) -> None:
    steps = list(Simulator(None, Channel.EMAIL, engine, TIMEOUT).send(iter([simulated("slow")])))
    assert [len(step) for step in steps if step] == [1]
    assert len(steps) > 4, "ten times a second, for 0.4 s"


class _Endless:
    """A provider that takes one message and never ends; it tells whether it was closed."""

    name, confirms_delivery, timeout = "endless", False, 5.0
    has_ended = False

    def takes(self, recipient: str) -> bool:
        return recipient == "token"

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        next(messages)
        try:
            while True:
                yield ()
        finally:
            self.has_ended = True

    def close(self) -> None:
        """Nothing is open."""


def test_its_own_come_back_while_the_other_is_busy(engine: Engine) -> None:
    own = to("simulator:sent")
    provider = Simulator(_Endless(), Channel.PUSH, engine, TIMEOUT)
    with closing(steps_of(provider.send(iter([own, to("token")])))) as begun:
        assert [result.id for result in next(begun)] == [own.id]


def test_closing_early_closes_the_other_and_drops_what_is_under_way(engine: Engine) -> None:
    endless = _Endless()
    provider = Simulator(endless, Channel.PUSH, engine, TIMEOUT)
    begun = steps_of(provider.send(iter([to("simulator:slow"), to("token"), to("simulator:sent")])))
    assert list(next(begun)) == []
    assert not endless.has_ended
    begun.close()
    assert endless.has_ended
    assert kept(engine) == set()


def test_it_takes_its_own_and_what_the_other_takes(engine: Engine) -> None:
    provider = Simulator(_Endless(), Channel.PUSH, engine, TIMEOUT)
    assert [provider.takes(each) for each in ("simulator:sent", "token", "other")] == [True, True, False]


def test_what_postgres_cannot_hold_fails_alone(engine: Engine) -> None:
    messages = [simulated("delivered"), to("delivered@simulator.notifier", "a\0b"), simulated("bounce")]
    outcomes = [each.outcome for each in sent(Simulator(None, Channel.EMAIL, engine, TIMEOUT), *messages)]
    assert outcomes == [Outcome.ACCEPTED, Outcome.REJECTED, Outcome.ACCEPTED]
    assert set(receipts(engine)) == kept(engine) == {messages[0].id, messages[2].id}


def test_without_postgres_nothing_is_accepted() -> None:
    nowhere = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    [result] = sent(Simulator(None, Channel.EMAIL, nowhere, TIMEOUT), simulated("sent"))
    assert (result.outcome, result.error) == (Outcome.UNSENT, "postgres: OperationalError")
