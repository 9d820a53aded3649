"""Address guard: the network addresses to which untrusted URLs may lead us.

Public addresses are allowed, and those that the operator allows. The registries are IANA's special-purpose addresses
(RFC 6890) as the standard library knows them. An IPv6 address that carries an IPv4 one is judged by the latter.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: All that is assigned for global unicast in IPv6 (RFC 4291, section 2.4; IANA's registry of it).
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
#: The well-known prefix of NAT64, followed by an IPv4 address (RFC 6052, section 2.1).
_NAT64: Final = ip_network("64:ff9b::/96")
#: Carrier-grade NAT (RFC 6598). One cloud's metadata lives here too.
_SHARED: Final = ip_network("100.64.0.0/10")
#: Special-purpose networks that releases of the standard library disagree on: protocol assignments (RFC 6890;
#: another cloud's metadata lives there), 6to4's relays (RFC 7526), documentation (RFC 9637).
_PROTOCOLS: Final = (ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24"), ip_network("3fff::/20"))
#: Public in form, but inside Azure it is the virtual machine's own host, with its metadata.
_METADATA: Final = frozenset({ip_address("168.63.129.16")})


def refusal(text: str, allowed: Sequence[Network]) -> str | None:
    """Return why an address, as `inet_ntop` writes it, may not be connected to: "10.0.0.1 is private". None: it may.

    Raises ValueError if `text` is not an address.
    """
    address = ip_address(text)
    carried = _carried(address)
    if any(form in network for network in allowed for form in (address, carried)):
        return None
    kind = _kind(carried)
    return f"{text} is {kind}" if kind else None


def _carried(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one carries, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _kind(address: Address) -> str | None:
    """Return in one word why an address is not public; None if it is."""
    return next((kind for kind, holds in _KINDS if holds(address)), None)


#: The order matters: loopback and link-local addresses, for two, are private ones as well.
_KINDS: Final[Sequence[tuple[str, Callable[[Address], bool]]]] = (
    ("unspecified", lambda address: address.is_unspecified),
    ("loopback", lambda address: address.is_loopback),
    ("link-local", lambda address: address.is_link_local),
    ("multicast", lambda address: address.is_multicast),
    ("metadata", lambda address: address in _METADATA),
    ("shared", lambda address: address in _SHARED),
    ("reserved", lambda address: address.is_reserved or any(address in network for network in _PROTOCOLS)),
    ("private", lambda address: not address.is_global),
    ("reserved", lambda address: isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST),
)
