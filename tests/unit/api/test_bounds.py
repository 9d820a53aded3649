"""Bounds of a process: addresses behind proxies, connections of one address, memory for bodies."""

from ipaddress import ip_network

import pytest

from api.serving.bounds import SMALL_BODY, Addresses, BodyBudget, Bounds

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # no proxy of ours: anybody can say that
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.7, 198.51.100.1,10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
    ],
)
def test_the_client_is_the_last_that_no_proxy_of_ours_is(peer: str, forwarded: str, client: str) -> None:
    assert Addresses(Bounds(trusted_proxies=PROXIES)).client(peer, forwarded) == client


def test_without_proxies_nobody_is_believed() -> None:
    assert Addresses(Bounds()).client("10.0.0.1", "198.51.100.1") == "10.0.0.1"


def test_an_address_has_so_many_connections() -> None:
    addresses = Addresses(Bounds(connections_per_address=2, trusted_proxies=PROXIES))
    assert [addresses.enter("203.0.113.1") for _ in range(3)] == ["203.0.113.1", "203.0.113.1", None]
    assert addresses.enter("203.0.113.2")
    addresses.leave("203.0.113.1")
    assert addresses.enter("203.0.113.1")
    # One customer has a whole network of IPv6.
    assert [addresses.enter(f"2001:db8::{n}") for n in range(3)] == ["2001:db8::/64"] * 2 + [None]
    for free in ("127.0.0.1", "::1", "10.0.0.1", "fd00::1"):
        assert {addresses.enter(free) for _ in range(10)} == {""}


def test_strangers_fill_a_part_of_the_memory_and_small_bodies_always_fit() -> None:
    budget = BodyBudget(1_000_000)
    assert budget.take(0, 250_000, is_stranger=True)
    assert not budget.take(250_000, 1, is_stranger=True)
    assert budget.take(0, SMALL_BODY, is_stranger=True)
    assert budget.take(0, 750_000, is_stranger=False)
    assert not budget.take(750_000, 1, is_stranger=False)
    assert budget.take(0, SMALL_BODY, is_stranger=False)
    budget.give_back(750_000 + SMALL_BODY, is_stranger=False)
    assert budget.take(0, 750_000, is_stranger=False)
