"""Parsers of settings' values: each function parses one kind of value, or returns a parser.

All raise ValueError, in words that go on from the setting's name: "NOTIFIER_AUTH is not one of required, off". Each
carries the words for its values that docs/settings.md has.

Modules that take long to import are imported by the parser that needs them: every command reads the settings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from config.allowed_hosts import Host, parse_host
from notifier.content.sender_rules import sender_pattern
from notifier.providers.formats.mailboxes import mailbox
from notifier.security.secret_box import Vault
from notifier.security.webhook_signatures import key_of
from notifier.vocabulary import time_zones
from notifier.vocabulary.durations import parse_iso
from notifier.vocabulary.uris import ascii_uri, has_port_zero, scheme_of

if TYPE_CHECKING:
    from limits import RateLimitItem

    from notifier.providers.vendors.imap_mailbox import Address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Parser = TypeVar("Parser", bound=Callable[[str], Any])

_FORM: Final = "form"
#: Larger than any setting that has no bound of its own.
_UNBOUNDED: Final = 2**31 - 1
_DAY: Final = 86_400


def _takes(form: str) -> Callable[[Parser], Parser]:
    """Return a decorator that notes the form of the values that a parser takes, in Markdown."""

    def note(parse: Parser) -> Parser:
        vars(parse)[_FORM] = form
        return parse

    return note


def form_of(parse: Callable[[str], Any]) -> str:
    """Return the form of the values that a parser takes, in Markdown."""
    form: str = vars(parse)[_FORM]
    return form


@_takes("any text")
def text(value: str) -> str:
    """Any text."""
    return value


@_takes("boolean")
def boolean(value: str) -> bool:
    """`0`, `1`, `true` or `false`."""
    try:
        return {"0": False, "1": True, "false": False, "true": True}[value.lower()]
    except KeyError:
        raise ValueError("is neither 0, 1, true nor false") from None


def integer(minimum: int, maximum: int = _UNBOUNDED) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range."""
    bounded = maximum != _UNBOUNDED
    form = f"whole number from {minimum:,} to {maximum:,}" if bounded else f"whole number, at least {minimum:,}"

    @_takes(form)
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]+", value.strip()) or not minimum <= int(value) <= maximum:
            raise ValueError(f"is not a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def parse_duration(value: str) -> timedelta:
    """Seconds (`90`, `1.5`) or an ISO 8601 duration without years and months, which have no fixed length.

    Raises ValueError.
    """
    text = value.strip()
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return timedelta(seconds=float(text))
        return parse_iso(text).total
    except (ValueError, OverflowError):
        raise ValueError("is not a duration: write seconds (90) or ISO 8601 (PT90S, P3D)") from None


def duration(minimum: float) -> Callable[[str], timedelta]:
    """Return a parser of durations of at least so many seconds."""

    @_takes(f"duration, at least {'a day' if minimum == _DAY else f'{minimum:g} s'}")
    def parse(value: str) -> timedelta:
        duration = parse_duration(value)
        if duration.total_seconds() < minimum:
            raise ValueError(f"is under {minimum:g} seconds")
        return duration

    return parse


@_takes("duration in whole seconds")
def whole_seconds(value: str) -> int:
    """Parse a duration into whole seconds."""
    seconds = parse_duration(value).total_seconds()
    if seconds != int(seconds):
        raise ValueError("is not a whole number of seconds")  # Celery would truncate it without a word
    return int(seconds)


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a parser that accepts one of some words."""

    @_takes(", ".join(f"`{choice}`" for choice in choices))
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return value

    return parse


def texts(value: str) -> tuple[str, ...]:
    """Texts, with commas between them."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


@_takes("names, comma-separated")
def names(value: str) -> tuple[str, ...]:
    """Parse the names of people, with commas between them."""
    return texts(value)


@_takes("the name of a header")
def header_name(value: str) -> str:
    """Parse the name of an HTTP header (RFC 9110, section 5.6.2)."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", value):
        raise ValueError("is not the name of a header")
    return value


@_takes("DSNs, comma-separated")
def dsns(value: str) -> tuple[str, ...]:
    """DSNs, with commas between them."""
    # A comma may stand in an option of a DSN; what comes after one that parts two of them begins with a scheme.
    return tuple(part.strip() for part in re.split(r",(?=\s*[a-z][a-z0-9+.-]*:)", value) if part.strip())


@_takes("URL: `imap://`, `imaps://`")
def imap(value: str) -> Address:
    """Parse the URL of a mailbox on an IMAP server. Raises ValueError."""
    from notifier.providers.vendors import imap_mailbox  # noqa: PLC0415 -- see above

    return imap_mailbox.parse(value)


@_takes("limits, with semicolons between them")
def limits(value: str) -> tuple[RateLimitItem, ...]:
    """Limits as the limits library writes them: `5/minute; 50/day`."""
    from limits import parse_many  # noqa: PLC0415 -- see above

    try:
        return tuple(parse_many(value))
    except ValueError:
        raise ValueError("is not a list of limits, such as 5/minute; 50/day") from None


@_takes("networks, comma-separated")
def networks(value: str) -> tuple[Network, ...]:
    """IP networks, with commas between them."""
    try:
        return tuple(ipaddress.ip_network(part) for part in texts(value))
    except ValueError as error:
        raise ValueError(f"is not a list of networks: {error}") from None


@_takes("ports, comma-separated")
def ports(value: str) -> tuple[int, ...]:
    """Ports, with commas between them."""
    return tuple(integer(1, 65535)(part) for part in texts(value))


@_takes("`host:port`")
def address(value: str) -> tuple[str, int]:
    """Parse an address to listen on: `host:port`."""
    host, colon, port = value.strip().rpartition(":")
    if not (host and colon):
        raise ValueError("is not an address to listen on, such as 127.0.0.1:9090")
    return host.strip("[]"), integer(1, 65535)(port)


def _single_urls(value: str) -> Iterator[str]:
    """Yield a URL, or one for each of its sentinels, of which there may be several with commas between them."""
    if scheme_of(value) != "sentinel":
        yield value
        return
    for part in value.replace(";", ",").split(","):
        yield f"//{part.removeprefix('sentinel://').rpartition('@')[2]}"


def url(*schemes: str) -> Callable[[str], str]:
    """Return a parser of URLs with one of some schemes."""

    @_takes("URL: " + ", ".join(f"`{scheme}://`" for scheme in schemes))
    def parse(value: str) -> str:
        if scheme_of(value) not in schemes:
            raise ValueError(f"is not a URL that begins with {' or '.join(s + '://' for s in schemes)}")
        try:
            for each in _single_urls(value):
                urlsplit(each)
        except ValueError:
            raise ValueError("is a URL of a host that cannot be read") from None
        if has_port_zero(value):
            raise ValueError("has port 0, on which nothing listens")
        return value

    return parse


@_takes("URL: `http://`, `https://`")
def public_url(value: str) -> str:
    """Parse a URL that messages contain, into ASCII as their headers carry it."""
    checked = url("http", "https")(value)
    try:
        return ascii_uri(checked)
    except ValueError:
        raise ValueError("is not a URL of a host with a name that IDNA 2008 allows, or an address") from None


@_takes("hosts, comma-separated")
def hosts(value: str) -> tuple[Host, ...]:
    """Names or addresses of hosts, with commas between them; each may have a port."""
    try:
        return tuple(
            parse_host(f"[{part}]" if part.count(":") > 1 and part[0] != "[" else part) for part in texts(value)
        )
    except ValueError:
        raise ValueError("is not a list of hosts, such as notifier.internal, 10.1.2.3:8000") from None


@_takes("mailbox")
def sender(value: str) -> str:
    """Parse the mailbox that email is from."""
    try:
        mailbox(value)
    except ValueError:
        raise ValueError("is not a mailbox: write name@domain or Name <name@domain>") from None
    return value


@_takes("domains and addresses, comma-separated")
def senders(value: str) -> tuple[str, ...]:
    """Senders that email may have: domains, `*.domain`, addresses, or `*`, with commas between them."""
    try:
        return tuple(sender_pattern(part) for part in texts(value))
    except ValueError as error:
        raise ValueError(f"is not a list of domains, *.domains and addresses, or *: {error}") from None


@_takes("IANA time zone")
def zone(value: str) -> ZoneInfo:
    """Parse the name of an IANA time zone."""
    try:
        return time_zones.zone(value)
    except ValueError:
        raise ValueError("is not an IANA time zone such as Europe/Berlin") from None


@_takes("Fernet keys, comma-separated")
def fernet_keys(value: str) -> tuple[str, ...]:
    """Fernet keys, with commas between them."""
    keys = texts(value)
    try:
        Vault(keys)
    except ValueError:
        raise ValueError("is not a list of Fernet keys: 32 bytes in URL-safe base64 each") from None
    return keys


@_takes("`whsec_…`, or `none`")
def shared_webhook_secret(value: str) -> str:
    """Parse a Standard Webhooks secret, or `none`."""
    return value if value == "none" else webhook_secret(value)


@_takes("`whsec_…`")
def webhook_secret(value: str) -> str:
    """Parse a Standard Webhooks secret, `whsec_…`."""
    key_of(value)
    return value
