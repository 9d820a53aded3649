"""Provider DSNs: `scheme://user:password@host:port/path?option=value`, as settings name providers.

`default` as host, or none, is the vendor's own; another one stands in for it, over https unless `tls=none` is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import Engine

from notifier.channels import Channel

_DEFAULT_HOST: Final = "default"


@dataclass(frozen=True, slots=True)
class Dsn:
    """A DSN's parts, percent-decoded. Shows nothing of its secrets."""

    #: All of it.
    text: str = field(repr=False)
    scheme: str
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    #: None for the vendor's own.
    host: str | None
    port: int | None
    #: With its leading slash, or empty.
    path: str = field(repr=False)
    query: Mapping[str, str] = field(repr=False)

    def options(self, *known: str) -> dict[str, str]:
        """The options; raises ValueError where there are others than `known` and `tls=none`."""
        unknown = sorted(set(self.query) - {*known, "tls"})
        if unknown:
            raise ValueError(f"has an option {unknown[0]!r}; known are {', '.join(sorted({*known, 'tls'}))}")
        if self.query.get("tls", "none") != "none":
            raise ValueError("has a tls that is not none")
        return dict(self.query)

    def base_url(self, default: str) -> str:
        """Where the vendor's API is: `default`, or the host that stands in for it. Without a slash at the end."""
        if self.host is None:
            return default
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{'http' if self.query.get('tls') == 'none' else 'https'}://{host}{port}"


@dataclass(frozen=True, slots=True)
class Context:
    """What a provider is made with besides its DSN."""

    channel: Channel
    #: Seconds that one message may take in all.
    timeout: float
    #: The sender of email, `name@domain` or `Name <name@domain>`.
    sender: str
    #: Where the API is for vendors' callbacks, without a slash at the end.
    public_url: str
    #: Private networks that addresses which strangers give may lead to.
    allowed_networks: tuple[IPv4Network | IPv6Network, ...]
    engine: Engine


def parse(text: str) -> Dsn:
    """Parse a DSN. Raises ValueError, whose message reads on after a setting's name and shows nothing of the DSN."""
    try:
        parts = urlsplit(text)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        port = parts.port
    except ValueError:
        raise ValueError("is not a DSN: scheme://user:password@host?option=value") from None
    if not parts.scheme:
        raise ValueError("begins with no scheme")
    if len({name for name, _ in query}) < len(query):
        raise ValueError("has an option twice")
    return Dsn(
        text=text,
        scheme=parts.scheme,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        host=None if parts.hostname in {None, "", _DEFAULT_HOST} else parts.hostname,
        port=port,
        path=unquote(parts.path),
        query=dict(query),
    )
