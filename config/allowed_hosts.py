"""Hosts by which the servers here may be addressed where they ask for no key, and the pages that may write to them.

A browser carries out the requests of any page that somebody looks at. A page can have its own name resolve to
127.0.0.1 (DNS rebinding) and then reads the answers of whatever listens there, unless that looks at the name in `Host`.
And without reading answers it can post to any address, unless `Origin` and `Sec-Fetch-Site` are looked at. A key stops
both: no browser adds it by itself.
"""

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from notifier.vocabulary.domains import ascii_domain

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::([0-9]{1,5}))?")
_PORTS: Final = {"http": 80, "https": 443}
#: Resolves to this machine, and so does each name below it (RFC 6761, section 6.3).
_LOCALHOST: Final = "localhost"


@dataclass(frozen=True, slots=True)
class Host:
    """A name or an address in its one form, and a port; None where none is given."""

    name: str
    port: int | None = None


def parse_host(text: str) -> Host:
    """Parse `name`, `name:port`, `address:port` or `[address]:port`. Raises ValueError."""
    found = _HOST.fullmatch(text)
    if found is None:
        raise ValueError("not a host")
    port = None if found[2] is None else int(found[2])
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("not a port")
    if found[1].startswith("["):
        return Host(str(IPv6Address(found[1][1:-1])), port)
    return Host(ascii_domain(found[1]).removesuffix("."), port)


def address_of(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a name is, an IPv4 address in its own form also where IPv6 carries it; None for none."""
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(name: str) -> bool:
    """Tell whether a host's name or address means this machine itself, wherever it is asked."""
    address = address_of(name)
    return address.is_loopback if address else name == _LOCALHOST or name.endswith(f".{_LOCALHOST}")


def listens_on_loopback(host: str) -> bool:
    """Tell whether a server that listens on a name or an address is reached from this machine alone.

    Raises OSError where the name does not resolve.
    """
    found = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return all(is_loopback(address.partition("%")[0]) for address in found)


class AllowedHosts:
    """The hosts that a server goes by: this machine's own names, that of its URL, and those in a setting."""

    def __init__(self, public_url: str | None = None, allowed: Iterable[Host] = ()) -> None:
        """`public_url`: where it is reached; its port does not matter. `allowed`: others, with their ports or any."""
        own = urlsplit(public_url) if public_url else None
        self._allowed = frozenset(allowed)
        self._origin: tuple[str, Host] | None = None
        with suppress(ValueError):
            if own is not None and own.hostname is not None:
                name = parse_host(f"[{own.hostname}]" if ":" in own.hostname else own.hostname).name
                self._allowed |= {Host(name)}
                self._origin = (own.scheme, Host(name, own.port or _PORTS.get(own.scheme)))

    def serves(self, header: str | None) -> bool:
        """Tell whether the server is meant by a `Host` header."""
        try:
            host = parse_host(header or "")
        except ValueError:
            return False
        return is_loopback(host.name) or host in self._allowed or Host(host.name) in self._allowed

    def is_own_page(self, header: str | None, origin: str | None, fetch_site: str | None) -> bool:
        """Tell whether a request that changes something may be from a page of this server, or from no page at all.

        `header`: its `Host`; `origin` and `fetch_site`: its `Origin` and `Sec-Fetch-Site`. Programs send neither.
        """
        if fetch_site is not None and fetch_site not in {"same-origin", "none"}:
            return False
        if origin is None:
            return True
        scheme, _, rest = origin.partition("://")
        try:
            page, host = parse_host(rest), parse_host(header or "")
        except ValueError:  # also `null`: a page that says nothing of where it is from
            return False
        usual = _PORTS.get(scheme)
        page = Host(page.name, page.port or usual)
        return page == Host(host.name, host.port or usual) or (scheme, page) == self._origin
