"""One GET to a vendor's own server, guarded as every other call: for certificates and confirmations.

A total deadline, no redirects, no proxy from the environment, a bound on what is read, and no connection to an address
that is not public (see `address_guard`), unless the operator's own setting names another server.
"""

import math
import socket
import ssl
from collections.abc import Sequence
from typing import Final, Literal

import pycurl

from notifier.providers.address_guard import Network, refusal

#: Seconds for all of it: a request of a vendor waits for it.
_TIMEOUT: Final = 5.0
_MOST: Final = 64 * 1024


class Unreachable(Exception):
    """The server gave no 200 within the bounds; the text names the failure in a word."""


class _Socket(socket.socket):
    """A socket of which libcurl took a duplicate: this one closes without a warning when it is dropped."""

    def __del__(self) -> None:
        self.close()


def fetch(url: str, allowed_networks: Sequence[Network] = ()) -> bytes:
    """Fetch the content at a URL. Raises Unreachable."""
    body = bytearray()

    def take(chunk: bytes) -> int:
        body.extend(chunk)
        return len(chunk) if len(body) <= _MOST else 0  # 0 ends the transfer

    def open_socket(_purpose: int, address: tuple[int, int, int, tuple[str, int]]) -> socket.socket | Literal[-1]:
        family, kind, protocol, (host, *_) = address
        try:
            return pycurl.SOCKET_BAD if refusal(host, allowed_networks) else _Socket(family, kind, protocol)
        except (OSError, ValueError):
            return pycurl.SOCKET_BAD

    curl = pycurl.Curl()
    options: dict[int, object] = {
        pycurl.URL: url.encode(),
        pycurl.NOSIGNAL: 1,
        pycurl.TIMEOUT_MS: math.ceil(_TIMEOUT * 1000),
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PROXY: "",
        pycurl.HTTPHEADER: ["user-agent: Notifier/0.1.0"],
        pycurl.WRITEFUNCTION: take,
        pycurl.OPENSOCKETFUNCTION: open_socket,
    }
    if ca_file := ssl.get_default_verify_paths().cafile:
        options[pycurl.CAINFO] = ca_file
    try:
        for option, value in options.items():
            curl.setopt(option, value)
        curl.perform()
        status = curl.getinfo(pycurl.RESPONSE_CODE)
    except pycurl.error as error:
        raise Unreachable(f"libcurl {error.args[0]}") from None
    finally:
        curl.close()
    if status != 200:
        raise Unreachable(f"http {status}")
    return bytes(body)
