"""Webhooks: the addresses and ports that are never connected to."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from notifier.providers.http.address_guard import refusal
from notifier.providers.protocol import Outcome
from notifier.providers.vendors.webhook import Webhooks
from notifier.security import webhook_signatures
from tests.providers import receivers
from tests.providers.webhook_calls import LOOPBACK, SECRET, Make, making, post, url_of


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as made:
        yield made


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "localhost",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
    ],
)
def test_no_way_of_writing_a_loopback_address_reaches_it(make: Make, host: str) -> None:
    with receivers.http() as (server, _):
        result = post(make(allowed=()), f"http://user:hunter2@{host}:{server.port}/")

        assert server.connections == 0
    assert result.outcome is Outcome.REJECTED
    assert result.error is not None
    assert result.error.startswith("address: ")
    assert result.error.endswith("; NOTIFIER_WEBHOOK_ALLOWED_NETWORKS can allow it")


def test_the_refusal_names_the_address_and_its_kind(make: Make) -> None:
    result = post(make(), "http://10.0.0.1/")

    assert result.error == "address: 10.0.0.1 is private; NOTIFIER_WEBHOOK_ALLOWED_NETWORKS can allow it"


def test_ports_can_be_limited() -> None:
    with receivers.http() as (allowed, _), receivers.http() as (other, _), ExitStack() as stack:
        keys = [webhook_signatures.key_of(SECRET)]
        provider = Webhooks(keys=keys, allowed_networks=(LOOPBACK,), timeout=5, allowed_ports=[allowed.port])
        stack.callback(provider.close)
        assert post(provider, url_of(allowed)).outcome is Outcome.ACCEPTED
        refused = post(provider, url_of(other))

        assert other.connections == 0
    assert refused.outcome is Outcome.REJECTED
    assert refused.error == f"address: port {other.port} is not allowed; NOTIFIER_WEBHOOK_ALLOWED_PORTS can allow it"


def test_an_allowed_network_can_be_reached_and_no_other(make: Make) -> None:
    provider = make(allowed=(ip_network("127.0.0.1/32"),))
    with receivers.http() as (server, _):
        assert post(provider, url_of(server)).outcome is Outcome.ACCEPTED
        assert post(provider, f"http://localhost:{server.port}/").outcome is Outcome.ACCEPTED
        refused = post(provider, f"http://127.0.0.2:{server.port}/")

    assert refused.outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "private"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "shared"),
        ("100.127.255.255", "shared"),
        ("127.255.0.1", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.169.254", "link-local"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "reserved"),
        ("192.0.2.1", "private"),
        ("192.88.99.1", "reserved"),
        ("192.168.0.1", "private"),
        ("198.19.0.1", "private"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::808:808", "reserved"),
        ("2001::1", "private"),
        ("2001:db8::1", "private"),
        ("2002:7f00:1::1", "loopback"),
        ("3fff::1", "reserved"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str, kind: str) -> None:
    assert refusal(address, ()) == f"{address} is {kind}"
    assert refusal(address, [ip_network(address)]) is None


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"],
)
def test_public_addresses_are_not_refused(address: str) -> None:
    assert refusal(address, ()) is None


def test_an_allowed_network_covers_the_forms_that_carry_its_addresses() -> None:
    assert refusal("::ffff:10.1.2.3", [ip_network("10.1.0.0/16")]) is None
    assert refusal("::ffff:10.2.2.3", [ip_network("10.1.0.0/16")]) is not None
