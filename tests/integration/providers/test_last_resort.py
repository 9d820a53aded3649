"""Providers that come after the others for a message, since they could not deliver it or somebody wants another one."""

from sqlalchemy import Engine

from notifier.providers.breakers import OPENS_AT
from notifier.providers.protocol import Outcome
from tests.support.failing_over import (
    DOWN,
    NO_ROUTE,
    OK,
    Open,
    Wire,
    failover_of,
    half_open,
    known,
    messages,
    path_of,
    sent,
)


def test_a_message_goes_to_the_others_first(engine: Engine, made: Open) -> None:
    [avoiding, fresh] = given = messages(2)
    failover = failover_of(engine, made(Wire(OK), Wire(OK)), last_resort={avoiding.id: ("twilio",)})
    results = sent(failover, given)
    assert path_of(results[avoiding.id]) == [("twilio-2", "accepted")]
    assert path_of(results[fresh.id]) == [("twilio", "accepted")]


def test_but_only_as_fast_as_those_take_them(engine: Engine, made: Open) -> None:
    given = messages(3)
    last_resort = {message.id: ("twilio",) for message in given}
    failover = failover_of(engine, made(Wire(OK), Wire(OK), options=("", "&rate=0.1")), last_resort=last_resort)
    paths = sorted(path_of(calls) for calls in sent(failover, given).values())
    assert paths == [[], [], [("twilio-2", "accepted")]]
    assert len(failover.take_unbegun()) == 2


def test_it_comes_back_where_those_are_down(engine: Engine, made: Open) -> None:
    [message] = given = messages()
    failover = failover_of(engine, made(Wire(OK), Wire(DOWN)), last_resort={message.id: ("twilio",)})
    assert path_of(sent(failover, given)[message.id]) == [("twilio-2", "unsent"), ("twilio", "accepted")]


def test_last_resorts_have_an_order_of_their_own(engine: Engine, made: Open) -> None:
    [message] = given = messages()
    wires = [Wire(NO_ROUTE) for _ in range(4)]
    failover = failover_of(engine, made(*wires), last_resort={message.id: ("twilio-4", "twilio", "a-former-one")})
    names = [name for name, _ in path_of(sent(failover, given)[message.id])]
    assert names == ["twilio-2", "twilio-3", "twilio-4", "twilio"]


def test_they_are_asked_at_once_where_the_breakers_of_the_others_are_open(engine: Engine, made: Open) -> None:
    second = Wire(DOWN)
    providers = made(Wire(OK), second)
    given = messages(OPENS_AT)
    sent(failover_of(engine, providers, last_resort={message.id: ("twilio",) for message in given}), given)
    assert known(engine)["twilio-2"].probe_in
    [message] = given = messages()
    failover = failover_of(engine, providers, last_resort={message.id: ("twilio",)})
    assert path_of(sent(failover, given)[message.id]) == [("twilio", "accepted")]
    assert len(second.received) == OPENS_AT


def test_no_weight_is_above_them(engine: Engine, made: Open) -> None:
    given = messages(20)
    last_resort = {message.id: ("twilio",) for message in given}
    failover = failover_of(
        engine, made(Wire(OK), Wire(OK), options=("&weight=99", "&weight=1")), last_resort=last_resort
    )
    assert {tuple(path_of(calls)) for calls in sent(failover, given).values()} == {(("twilio-2", "accepted"),)}


def test_a_message_is_no_probe_of_its_last_resort_while_another_one_is_well(engine: Engine, made: Open) -> None:
    first, second = Wire(DOWN), Wire(OK)
    providers = made(first, second)
    sent(failover_of(engine, providers), messages(OPENS_AT))
    asked = len(first.received)
    half_open(engine)
    probes = providers.take_probes(engine, known(engine), {0})
    [avoiding, fresh] = given = messages(2)
    results = sent(failover_of(engine, providers, set(probes), last_resort={avoiding.id: ("twilio",)}), given)
    assert path_of(results[avoiding.id]) == [("twilio-2", "accepted")]
    assert path_of(results[fresh.id]) == [("twilio", "unsent"), ("twilio-2", "accepted")], "the probe"
    assert len(first.received) == asked + 1


def test_it_is_one_where_no_other_one_is(engine: Engine, made: Open) -> None:
    answers = {"now": DOWN}
    first, second = Wire(lambda _: answers["now"]), Wire(DOWN)
    providers = made(first, second)
    sent(failover_of(engine, providers), messages(OPENS_AT))
    answers["now"] = OK
    half_open(engine)
    probes = providers.take_probes(engine, known(engine), {0})
    assert probes == {0}
    [message] = given = messages()
    results = sent(failover_of(engine, providers, probes, last_resort={message.id: ("twilio",)}), given)
    assert [call.outcome for call in results[message.id]] == [Outcome.ACCEPTED]
    assert results[message.id][0].provider == "twilio"
