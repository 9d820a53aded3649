"""Provider DSNs: `scheme://user:password@host:port/path?option=value`, as settings name providers.

`default` as host, or none, is the vendor's own host. Another host replaces it, over https unless `tls=none` is given.
Every DSN may have three more options, which do not configure the provider but its use among others: `name`, `weight`
and `rate`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import Engine

from notifier.security.secret_box import Vault
from notifier.vocabulary.domains import ascii_domain
from notifier.vocabulary.states import Channel

_DEFAULT_HOST: Final = "default"
#: Text that can be in a header as it is.
VISIBLE: Final = re.compile(r"[!-~]+")
#: Options that may be given several times, since their values are rotated: in the query as one, with
#: commas. (See Dsn.several.)
_SEVERAL: Final = frozenset({"receipt_token", "webhook_key", "signature_secret", "topic"})


@dataclass(frozen=True, slots=True)
class Use:
    """How a provider is used among those of its channel."""

    #: The name in attempts, if it is not the provider's own name.
    name: str | None = None
    #: Its share of the traffic, beside those that have one too.
    weight: int | None = None
    #: Messages a second that it takes at the most.
    rate: float | None = None


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
    use: Use = Use()

    def options(self, *known: str) -> dict[str, str]:
        """Return the options. Raises ValueError if there are others than `known` and `tls=none`."""
        unknown = sorted(set(self.query) - {*known, "tls"})
        if unknown:
            raise ValueError(f"has an option {unknown[0]!r}; known are {', '.join(sorted({*known, 'tls'}))}")
        if self.query.get("tls", "none") != "none":
            raise ValueError("has a tls that is not none")
        return dict(self.query)

    def key(self, form: str) -> str:
        """Return the key, if it is the only credential; else raise ValueError. `form` is the expected form."""
        if not self.username or self.password or not VISIBLE.fullmatch(self.username):
            raise ValueError(f"has no key of visible ASCII characters: {form}")
        return self.username

    def several(self, option: str) -> list[str]:
        """Return the values of an option that may be repeated, or contain several values separated by commas."""
        return [value for value in self.query.get(option, "").split(",") if value]

    def refuse_more_than_a_host(self, form: str) -> None:
        """Raise ValueError where it says more of where to send than a host and its port; `form` is how it should be."""
        if self.path not in {"", "/"}:
            raise ValueError(f"has a path: {form}")
        if self.host is None and self.port is not None:
            raise ValueError(f"has a port without a host: {form}")

    def base_url(self, default: str) -> str:
        """Return the base URL of the vendor's API, or of the host that replaces it, without a trailing slash."""
        if self.host is None:
            return default
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{'http' if self.query.get('tls') == 'none' else 'https'}://{host}{port}"


_NO_VAULT: Final = Vault(())


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that a provider's factory needs besides its DSN."""

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
    #: Encrypts data that a provider stores in the database.
    vault: Vault = _NO_VAULT


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
    if port == 0:
        raise ValueError("has port 0, on which nothing listens")
    if parts.fragment:
        raise ValueError("has a #, which is %23 in a user, a password or an option")
    try:
        host = parts.hostname if parts.hostname is None or parts.hostname.isascii() else ascii_domain(parts.hostname)
    except ValueError:
        raise ValueError("has a host that is no domain name (IDNA 2008)") from None
    options: dict[str, str] = {}
    for name, value in query:
        if name in options and name not in _SEVERAL:
            raise ValueError("has an option twice")
        options[name] = f"{options[name]},{value}" if name in options else value
    return Dsn(
        text=text,
        scheme=parts.scheme,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        host=None if host in {None, "", _DEFAULT_HOST} else host,
        port=port,
        path=unquote(parts.path),
        use=_use(options),
        query=options,
    )


def _use(options: dict[str, str]) -> Use:
    """Take the options that every DSN may have out of the others. Raises ValueError."""
    name, weight, rate = (options.pop(option, None) for option in ("name", "weight", "rate"))
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
        raise ValueError("has a name that is not 1 to 32 small letters, digits, dashes and underscores")
    if weight is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", weight):
        raise ValueError("has a weight that is not a whole number from 1 to 999999")
    if rate is not None and (not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", rate) or float(rate) == 0):
        raise ValueError("has a rate that is not a number of messages a second, such as 14 or 0.5")
    return Use(name, None if weight is None else int(weight), None if rate is None else float(rate))
