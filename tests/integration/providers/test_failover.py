"""Several providers as one, over their own wires: who takes over, when, and who never does."""

import itertools
import socket
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine

from config.providers import make_providers
from config.settings import SettingsError, read_settings
from notifier.providers import breakers
from notifier.providers.breakers import OPENS_AT
from notifier.providers.circuit import Circuit
from notifier.providers.failover_run import FailoverRun
from notifier.providers.protocol import Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import Talk
from tests.providers.vendors import twilio
from tests.support.failing_over import (
    DOWN,
    NO_ROUTE,
    NOBODY,
    OK,
    REFUSED,
    THROTTLED,
    TOO_LONG,
    Open,
    Wire,
    failover_of,
    half_open,
    known,
    messages,
    path_of,
    sent,
)


@pytest.mark.parametrize("answer", [DOWN, REFUSED, receivers.response(302), twilio.error(20005)])
def test_what_is_the_providers_fault_goes_to_the_next_one_at_once(engine: Engine, made: Open, answer: bytes) -> None:
    first, second = Wire(answer), Wire(OK)
    [message] = given = messages()
    failover = failover_of(engine, made(first, second))
    began = time.monotonic()
    results = sent(failover, given)
    assert path_of(results[message.id]) == [("twilio", "unsent"), ("twilio-2", "accepted")]
    assert time.monotonic() - began < 1.5
    assert (len(first.received), len(second.received)) == (1, 1)


def test_one_without_a_route_gives_way_at_once_and_stays_in_use(engine: Engine, made: Open) -> None:
    first, second = Wire(NO_ROUTE), Wire(OK)
    given = messages(20)
    results = sent(failover_of(engine, made(first, second)), given)
    assert {tuple(path_of(calls)) for calls in results.values()} == {(("twilio", "unsent"), ("twilio-2", "accepted"))}
    assert len(first.received) == 20, "no breaker has opened"
    assert known(engine) == {}


@pytest.mark.parametrize("count", [1, 2])
def test_without_any_route_a_message_waits_for_hours(engine: Engine, made: Open, count: int) -> None:
    [message] = given = messages()
    calls = sent(failover_of(engine, made(*(Wire(NO_ROUTE) for _ in range(count)))), given)[message.id]
    assert len(calls) == count
    assert calls[-1].retry_after == 6 * 3600
    assert known(engine) == {}


def test_one_that_had_no_route_lately_is_left_out(engine: Engine, made: Open) -> None:
    first, second = Wire(OK), Wire(DOWN)
    [message, other] = given = messages(2)
    failover = failover_of(engine, made(first, second), without_route={message.id: frozenset({"twilio"})})
    results = sent(failover, given)
    assert path_of(results[message.id]) == [("twilio-2", "unsent")]
    assert results[message.id][0].retry_after is None, "the second one may be well in a moment"
    assert path_of(results[other.id]) == [("twilio", "accepted")]
    # Where none had a route, all are asked again: their hours are over.
    failover = failover_of(engine, made(Wire(OK)), without_route={message.id: frozenset({"twilio"})})
    assert path_of(sent(failover, [message])[message.id]) == [("twilio", "accepted")]


def test_so_does_what_finds_nobody_listening(engine: Engine, made: Open) -> None:
    second = Wire(OK)
    [message] = given = messages()
    results = sent(failover_of(engine, made(receivers.unused_port(), second)), given)
    assert path_of(results[message.id]) == [("twilio", "unsent"), ("twilio-2", "accepted")]


@pytest.mark.parametrize(("answer", "outcome"), [(NOBODY, "rejected"), (TOO_LONG, "rejected"), (THROTTLED, "unsent")])
def test_what_no_other_provider_would_do_better_stays(engine: Engine, made: Open, answer: bytes, outcome: str) -> None:
    second = Wire(OK)
    [message] = given = messages()
    results = sent(failover_of(engine, made(Wire(answer), second)), given)
    assert path_of(results[message.id]) == [("twilio", outcome)]
    assert second.received == []


def hanging(connection: socket.socket) -> None:
    receivers.read_request(connection)
    receivers.until_closed(connection)


@pytest.mark.parametrize("falls_back", [False, True])
def test_what_may_have_been_sent_goes_on_only_where_that_is_wanted(
    engine: Engine, made: Open, falls_back: bool
) -> None:
    talk: Talk = hanging
    second = Wire(OK)
    [message] = given = messages()
    with receivers.listening(talk) as first:
        failover = failover_of(engine, made(first.port, second, timeout=1), falls_back=lambda _: falls_back)
        results = sent(failover, given)
    took = [("twilio", "ambiguous"), ("twilio-2", "accepted")]
    assert path_of(results[message.id]) == (took if falls_back else took[:1])
    assert len(second.received) == (1 if falls_back else 0)


@pytest.mark.parametrize("falls_back", [False, True])
def test_what_is_lost_on_a_kept_connection_goes_on_only_where_that_is_wanted(
    engine: Engine, made: Open, falls_back: bool
) -> None:
    read: list[str] = []

    def talk(connection: socket.socket) -> None:
        if first := receivers.read_request(connection):
            read.append(first.line)
            connection.sendall(OK)
        if second := receivers.read_request(connection):
            read.append(second.line)

    other = Wire(OK)
    with receivers.listening(talk) as server:
        providers = made(server.port, other)
        for given in (messages(), messages()):
            results = sent(failover_of(engine, providers, falls_back=lambda _: falls_back), given)
    took = [("twilio", "ambiguous"), ("twilio-2", "accepted")]
    assert path_of(results[given[0].id]) == (took if falls_back else took[:1])
    assert len(read) == 2
    assert len(other.received) == (1 if falls_back else 0)


def test_a_third_one_takes_over_from_the_second(engine: Engine, made: Open) -> None:
    third = Wire(OK)
    given = messages(3)
    results = sent(failover_of(engine, made(Wire(DOWN), Wire(REFUSED), third)), given)
    way = [("twilio", "unsent"), ("twilio-2", "unsent"), ("twilio-3", "accepted")]
    assert [path_of(results[message.id]) for message in given] == [way] * 3


def test_where_all_fail_the_last_word_counts(engine: Engine, made: Open) -> None:
    [message] = given = messages()
    results = sent(failover_of(engine, made(Wire(DOWN), Wire(NOBODY))), given)
    assert path_of(results[message.id]) == [("twilio", "unsent"), ("twilio-2", "rejected")]


def test_a_batch_of_hundreds_gets_through_and_the_first_is_soon_left_alone(engine: Engine, made: Open) -> None:
    first, second = Wire(DOWN), Wire(OK)
    given = messages(300)
    results = sent(failover_of(engine, made(first, second)), given)
    assert [calls[-1].outcome for calls in results.values()] == [Outcome.ACCEPTED] * 300
    assert len(second.received) == 300
    assert OPENS_AT <= len(first.received) < 100, "those in flight when the fifth failed, and no more"
    assert known(engine)["twilio"].probe_in


def test_an_open_breaker_is_asked_by_nobody(engine: Engine, made: Open) -> None:
    first, second = Wire(DOWN), Wire(OK)
    providers = made(first, second)
    sent(failover_of(engine, providers), messages(OPENS_AT))
    before = len(first.received)
    [message] = given = messages()
    assert path_of(sent(failover_of(engine, providers), given)[message.id]) == [("twilio-2", "accepted")]
    assert len(first.received) == before


def test_one_message_tries_a_provider_out_and_brings_it_back(engine: Engine, made: Open) -> None:
    answers = {"now": DOWN}
    first, second = Wire(lambda _: answers["now"]), Wire(OK)
    providers = made(first, second)
    sent(failover_of(engine, providers), messages(OPENS_AT))
    asked = len(first.received)

    half_open(engine)
    probes = providers.take_probes(engine, known(engine), {0})
    assert probes == {0}
    assert providers.take_probes(engine, known(engine), {0}) == set(), "one worker only"
    results = sent(failover_of(engine, providers, probes), messages(20))
    assert len(first.received) == asked + 1
    assert [calls[-1].outcome for calls in results.values()] == [Outcome.ACCEPTED] * 20
    assert known(engine)["twilio"].open_for == 10, "twice as long"

    answers["now"] = OK
    half_open(engine)
    given = messages(20)
    results = sent(failover_of(engine, providers, providers.take_probes(engine, known(engine), {0})), given)
    assert results[given[0].id][-1].provider == "twilio"
    assert known(engine)["twilio"] == Circuit()
    sent(failover_of(engine, providers), messages(10))
    assert len(first.received) >= asked + 12


def test_a_probe_that_hangs_holds_nobody_up(engine: Engine, made: Open) -> None:
    second = Wire(OK)
    with receivers.listening(hanging) as first:
        providers = made(first.port, second, timeout=1.5)
        breakers.remember(
            engine,
            Channel.SMS,
            [{"name": "twilio", "failures": 5, "alive_at": None, "failed_at": "2026-01-01T00:00:00Z", "error": "x",
              "probe_failed": False}],
        )  # fmt: skip
        half_open(engine)
        failover = failover_of(engine, providers, providers.take_probes(engine, known(engine), {0}))
        given, at = messages(100), {}
        began = time.monotonic()
        for result in itertools.chain.from_iterable(failover.send(iter(given))):
            at[result.id] = time.monotonic() - began
        assert len(at) == 100
        assert sorted(at.values())[98] < 1.4, "all but the probe itself"


def test_with_one_provider_only_what_is_left_is_not_begun(engine: Engine, made: Open) -> None:
    only = Wire(DOWN)
    failover = failover_of(engine, made(only))
    given = messages(200)
    results = sent(failover, given)
    tried = [calls for calls in results.values() if calls]
    assert {path_of(calls)[0] for calls in tried} == {("twilio", "unsent")}
    assert OPENS_AT <= len(tried) < 100
    assert failover.all_open


def test_where_all_are_shut_nothing_is_begun_that_is_in_hand(engine: Engine, made: Open) -> None:
    failover = failover_of(engine, made(Wire(DOWN), Wire(DOWN)))
    given = messages(200)
    results = sent(failover, given)
    assert failover.all_open
    # Each message that was taken has one result; the rest was not taken.
    unbegun = failover.take_unbegun()
    assert len(unbegun) == len(set(unbegun))
    assert not any(results[each] for each in unbegun)


def told(failover: FailoverRun, given: list[Message]) -> list[UUID]:
    """Of which messages a failover tells anything, to whom asks after each step, as a batch does."""
    known_of = []
    for results in failover.send(iter(given)):
        known_of += [result.id for result in results if not result.handed_on]
        known_of += failover.take_unbegun()
    return known_of


def test_what_nobody_can_begin_is_told_of_before_the_end(engine: Engine, made: Open) -> None:
    wires = Wire(OK), Wire(OK)
    given = messages(3)
    failover = failover_of(engine, made(*wires), seconds=-10)
    assert told(failover, given) == [message.id for message in given], "else they look as if a worker were sending them"
    assert not any(wire.received for wire in wires)


@pytest.mark.parametrize("count", [1, 40, 300])
def test_nothing_is_told_twice_or_forgotten_while_all_fail(engine: Engine, made: Open, count: int) -> None:
    given = messages(count)
    taken = []

    def fresh() -> Iterator[Message]:
        for message in given:
            if failover.all_open:
                return
            taken.append(message.id)
            yield message

    failover = failover_of(engine, made(Wire(DOWN), Wire(REFUSED), Wire(DOWN)))
    known_of = []
    for results in failover.send(fresh()):
        known_of += [result.id for result in results if not result.handed_on]
        known_of += failover.take_unbegun()
    assert sorted(known_of) == sorted(taken)


def test_a_refused_number_and_a_throttle_say_that_a_provider_is_alive(engine: Engine, made: Open) -> None:
    answers = itertools.cycle([DOWN, DOWN, DOWN, DOWN, NOBODY])
    providers = made(Wire(lambda _: next(answers)), Wire(OK))
    for message in messages(20):
        sent(failover_of(engine, providers), [message])
    assert known(engine)["twilio"].probe_in is None


def test_what_comes_too_late_for_the_next_one_stays_as_it_is(engine: Engine, made: Open) -> None:
    second = Wire(OK)
    [message] = given = messages()
    with receivers.listening(hanging) as first:
        failover = failover_of(engine, made(first.port, second, timeout=0.5), falls_back=lambda _: True, seconds=-0.2)
        results = sent(failover, given)
    # The lease has room for one send each: begun with the first 0.3 s before its end, it is over when that is.
    assert path_of(results[message.id]) == [("twilio", "ambiguous")]
    assert second.received == []


def test_weights_share_the_traffic_and_stay_with_a_message(engine: Engine, made: Open) -> None:
    first, second, third = Wire(OK), Wire(OK), Wire(OK)
    providers = made(first, second, third, options=("&weight=80", "&weight=20", ""))
    given = messages(400)
    sent(failover_of(engine, providers), given)
    assert 280 <= len(first.received) <= 360
    assert len(first.received) + len(second.received) == 400
    assert third.received == []
    assert [providers.order(each.id, each.recipient) for each in given] == [
        providers.order(each.id, each.recipient) for each in given
    ]


def test_weights_give_way_to_breakers(engine: Engine, made: Open) -> None:
    first, second, third = Wire(DOWN), Wire(OK), Wire(OK)
    providers = made(first, second, third, options=("&weight=99", "&weight=1", ""))
    results = sent(failover_of(engine, providers), messages(50))
    assert {calls[-1].outcome for calls in results.values()} == {Outcome.ACCEPTED}
    assert third.received == []


def test_a_second_provider_takes_no_more_than_its_rate(engine: Engine, made: Open) -> None:
    second = Wire(OK)
    results = sent(failover_of(engine, made(Wire(DOWN), second, options=("", "&rate=2"))), messages(4))
    assert len(second.received) <= 2
    assert sum(calls[-1].outcome is Outcome.UNSENT for calls in results.values()) >= 2


def test_nor_does_it_where_the_first_is_left_alone_meanwhile(engine: Engine, made: Open) -> None:
    second = Wire(OK)
    given = messages(150)
    providers, began = made(Wire(DOWN), second, options=("", "&rate=3")), time.monotonic()
    known_of = told(failover_of(engine, providers), given)
    assert len(second.received) <= 3 * (2 + time.monotonic() - began), "3 a second, whatever the batch is"
    assert sorted(known_of) == [message.id for message in given]


def test_what_the_gate_lined_up_for_the_second_needs_no_other_slot(engine: Engine, made: Open) -> None:
    second = Wire(OK)
    providers = made(Wire(DOWN), second, options=("", "&rate=1"))
    for message in messages(OPENS_AT):
        sent(failover_of(engine, providers), [message])
    before = len(second.received)
    results = sent(failover_of(engine, providers), messages(3))
    assert [path_of(calls) for calls in results.values()] == [[("twilio-2", "accepted")]] * 3
    assert len(second.received) == before + 3


def test_a_name_of_its_own(engine: Engine, made: Open) -> None:
    providers = made(Wire(DOWN), Wire(OK), options=("&name=main", ""))
    [message] = given = messages()
    assert path_of(sent(failover_of(engine, providers), given)[message.id]) == [
        ("main", "unsent"),
        ("twilio", "accepted"),
    ]


@pytest.mark.parametrize(
    ("dsns", "said"),
    [
        ("outbox:?name=a, outbox:?name=a", "NOTIFIER_SMS, provider 2 of 2, has the name 'a', as one before it has"),
        ("outbox:, twilio:", "NOTIFIER_SMS, provider 2 of 2, has no account: "),
        ("outbox:?weight=0", "NOTIFIER_SMS has a weight that is not a whole number from 1 to 999999"),
        ("outbox:?rate=0", "NOTIFIER_SMS has a rate that is not a number of messages a second"),
        ("outbox:?name=A%20B", "NOTIFIER_SMS has a name that is not 1 to 32 small letters"),
    ],
)
def test_what_cannot_be_made_names_the_provider(engine: Engine, dsns: str, said: str) -> None:
    settings = read_settings({"DATABASE_URL": "postgresql://localhost/x", "NOTIFIER_SMS": dsns})
    with pytest.raises(SettingsError, match=f"^{said}"):
        make_providers(settings, Channel.SMS, engine)


def test_a_comma_in_an_option_parts_no_providers() -> None:
    dsns = "apprise:?services=slack,discord , outbox:,smtp://a:b@c"
    settings = read_settings({"DATABASE_URL": "postgresql://localhost/x", "NOTIFIER_CHAT": dsns})
    assert settings.chat == ("apprise:?services=slack,discord", "outbox:", "smtp://a:b@c")


def test_a_healthy_provider_costs_no_write(engine: Engine, made: Open) -> None:
    sent(failover_of(engine, made(Wire(OK), Wire(OK))), messages(10))
    assert known(engine) == {}
