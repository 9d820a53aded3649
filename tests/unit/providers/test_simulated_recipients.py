"""Which recipients are the simulator's, and what they ask for."""

import pytest

from notifier.providers.vendors.simulator import NUMBERS, Behaviour, behaviour_of
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.states import Channel

NAMED = {
    Channel.EMAIL: "{}@simulator.notifier",
    Channel.PUSH: "simulator:{}",
    Channel.CHAT: "simulator://{}",
    Channel.WEBHOOK: "https://{}.simulator.notifier/hook",
}


@pytest.mark.parametrize("channel", NAMED)
@pytest.mark.parametrize("behaviour", Behaviour)
def test_each_name_on_each_channel(channel: Channel, behaviour: Behaviour) -> None:
    # As it is kept: what intake would refuse simulates nothing.
    assert behaviour_of(channel, normalised(channel, NAMED[channel].format(behaviour))) is behaviour


def test_each_name_has_a_number() -> None:
    assert sorted(NUMBERS.values()) == sorted(Behaviour)
    for number, behaviour in NUMBERS.items():
        assert behaviour_of(Channel.SMS, normalised(Channel.SMS, number)) is behaviour


@pytest.mark.parametrize(
    ("channel", "recipient"),
    [
        (Channel.EMAIL, "bounce+order-42@simulator.notifier"),
        (Channel.EMAIL, "Bounce@Simulator.Notifier"),
        (Channel.PUSH, "simulator:bounce+order-42"),
        (Channel.CHAT, "simulator://bounce+order-42"),
        (Channel.CHAT, "Simulator://bounce/"),
        (Channel.WEBHOOK, "http://bounce.simulator.notifier:8080/a?b#c"),
        (Channel.WEBHOOK, "https://user:word@BOUNCE.simulator.NOTIFIER./"),
    ],
)
def test_ways_to_write_it(channel: Channel, recipient: str) -> None:
    assert behaviour_of(channel, normalised(channel, recipient)) is Behaviour.BOUNCE


@pytest.mark.parametrize(
    ("channel", "recipient"),
    [
        (Channel.EMAIL, "bouncing@simulator.notifier"),
        (Channel.PUSH, "simulator:"),
        (Channel.CHAT, "simulator://x/bounce"),
        (Channel.WEBHOOK, "https://simulator.notifier/"),
        (Channel.WEBHOOK, "https://a.bounce.simulator.notifier/"),
    ],
)
def test_an_unknown_name_reaches_no_vendor(channel: Channel, recipient: str) -> None:
    assert behaviour_of(channel, recipient) is Behaviour.REJECTED


@pytest.mark.parametrize(
    ("channel", "recipient"),
    [
        (Channel.EMAIL, "bounce@example.com"),
        (Channel.EMAIL, "bounce@simulator.notifier.example.com"),
        (Channel.EMAIL, "bounce@mail.simulator.notifier"),
        (Channel.EMAIL, "bounce@notsimulator.notifier"),
        (Channel.SMS, "+15005550009"),
        (Channel.SMS, "+4915112345678"),
        (Channel.PUSH, "simulators:bounce"),
        (Channel.PUSH, "bounce"),
        (Channel.CHAT, "slack://simulator/bounce"),
        (Channel.WEBHOOK, "https://bounce.simulator.notifier.example.com/"),
        (Channel.WEBHOOK, "https://bouncesimulator.notifier/"),
        (Channel.WEBHOOK, "https://example.com/bounce.simulator.notifier"),
        (Channel.WEBHOOK, "https://bounce.simulator.notifier@example.com/"),
        (Channel.WEBHOOK, "https://[bounce.simulator.notifier"),
    ],
)
def test_others_are_not_simulated(channel: Channel, recipient: str) -> None:
    assert behaviour_of(channel, recipient) is None
