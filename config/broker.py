"""Connections to Redis and the broker: turns REDIS_URL and BROKER_URL into options of Celery, limits and redis-py.

Redis comes plain (`redis://`, `unix://`), with TLS (`rediss://`), or behind sentinels (`sentinel://`); the broker may
be RabbitMQ instead (`amqp://`, `amqps://`). Certificates are always verified, unless the URL says otherwise: kombu's
own default for `rediss://` is not to.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from amqp.exceptions import RecoverableConnectionError
from redis.sentinel import Sentinel

from config.settings import Settings
from notifier.vocabulary.uris import scheme_of

if TYPE_CHECKING:
    from limits.storage import Storage

_AMQP: Final = frozenset({"amqp", "pyamqp", "amqps"})
_SENTINEL: Final = "sentinel"
_SENTINEL_PORT: Final = 26379

#: A publish that fails is tried once more, at once: callers wait for it, and the clock makes good what was not sent.
RETRY_POLICY: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}

_REDIS_OPTIONS: Final[dict[str, Any]] = {
    # A message is acknowledged by being taken: the lease in Postgres replaces the acknowledgement. Three
    # times the throughput, and a worker survives a Redis that dies with messages in flight.
    "ack_emulation": False,
    # kombu waits without bound by default; a Redis that hangs must not hang us.
    "socket_connect_timeout": 0.5,
    "socket_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 5,
    # One list a queue; priority is a queue of its own here.
    "priority_steps": [0],
    "queue_order_strategy": "config.queues:PriorityOrder",
    "max_connections": 64,
    **RETRY_POLICY,
}


class BrokerBlocked(RecoverableConnectionError):  # type: ignore[misc]  # py-amqp ships no types
    """RabbitMQ answers and takes no messages, since it is short of memory or disk."""


class _Refuse:
    """Fails the publish under way. Without this py-amqp would take the message, and RabbitMQ would not."""

    def __call__(self, reason: str) -> NoReturn:
        """Raise BrokerBlocked, in words that say more than py-amqp's `reason`."""
        raise BrokerBlocked("RabbitMQ takes no messages: 'rabbitmq-diagnostics alarms' says what it is short of")

    def __json__(self) -> str:
        """Return its name: workers send the options of their connection to whoever inspects them, such as Flower."""
        return "refuse"


_AMQP_OPTIONS: Final[dict[str, Any]] = {
    # Seconds, for one read or write of the socket: a RabbitMQ that hangs must not hang us.
    "read_timeout": 5,
    "write_timeout": 5,
    # A message counts as sent once RabbitMQ has it. Otherwise beat and watchdogs would believe that one which takes
    # nothing is well, and workers would end themselves because their canaries do not come back.
    "confirm_publish": True,
    "on_blocked": _Refuse(),
    **RETRY_POLICY,
}
#: Timeouts of connections to sentinels, in seconds: if one is away, the next is tried.
_SENTINEL_TIMEOUTS: Final = {"socket_timeout": 1, "socket_connect_timeout": 0.5}


def is_amqp(url: str) -> bool:
    """Return whether a URL names RabbitMQ."""
    return scheme_of(url) in _AMQP


def is_sentinel(url: str) -> bool:
    """Return whether a URL names sentinels rather than the server that they watch."""
    return scheme_of(url) == _SENTINEL


def name_of(url: str) -> str:
    """Name the kind of broker, for people: `redis` or `rabbitmq`."""
    return "rabbitmq" if is_amqp(url) else "redis"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Sentinels, and the Redis that they watch."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    database: int
    #: Credentials of the Redis server that the sentinels watch.
    username: str | None
    password: str | None
    #: The password of the sentinels themselves.
    sentinel_password: str | None

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """Return the options of connections to the sentinels themselves."""
        return {"password": self.sentinel_password} if self.sentinel_password else {}

    @property
    def credentials(self) -> dict[str, str]:
        """Return the user and password of the Redis that the sentinels watch, if it has any."""
        both = {"username": self.username, "password": self.password}
        return {name: value for name, value in both.items() if value}


def parse_sentinels(url: str, settings: Settings) -> Sentinels:
    """Parse `sentinel://[user:password@]host:port,host:port/database`, or Celery's form with `;` between whole URLs.

    User and password are those of Redis. A setting without which it cannot be used was refused with the settings.
    """
    parts = [part.removeprefix("sentinel://") for part in url.replace(";", ",").split(",") if part]
    database = next((rest for _, _, rest in (part.partition("/") for part in parts) if rest), "0")
    authorities = [part.partition("/")[0] for part in parts]
    userinfo = next((each.rpartition("@")[0] for each in authorities if "@" in each), "")
    username, _, password = userinfo.partition(":")
    split = [urlsplit(f"//{each.rpartition('@')[2]}") for each in authorities]
    return Sentinels(
        addresses=tuple((each.hostname or "127.0.0.1", each.port or _SENTINEL_PORT) for each in split),
        master=settings.redis_master or "",
        database=int(database),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=settings.sentinel_password,
    )


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings of the broker: its URL, its transport's options, and TLS where the URL asks for it."""
    url = settings.broker
    if is_amqp(url):
        plain, tls = _without_tls_options(url)
        asked = {"broker_use_ssl": _amqp_tls(plain, tls)} if plain.startswith("amqps:") else {}
        return {"broker_url": plain, "broker_transport_options": _AMQP_OPTIONS, **asked}
    if is_sentinel(url):
        sentinels = parse_sentinels(url, settings)
        options = {
            "master_name": sentinels.master,
            "sentinel_kwargs": {**sentinels.sentinel_options, **_SENTINEL_TIMEOUTS},
        }
        return {"broker_url": _kombu_url(sentinels), "broker_transport_options": {**_REDIS_OPTIONS, **options}}
    if scheme_of(url) == "rediss":
        plain, tls = _without_tls_options(url)
        use_tls = {"ssl_cert_reqs": "required", **tls}
        return {"broker_url": plain, "broker_transport_options": _REDIS_OPTIONS, "broker_use_ssl": use_tls}
    return {"broker_url": url, "broker_transport_options": _REDIS_OPTIONS}


def _amqp_tls(url: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Translate TLS options from redis-py's names, which all our URLs use, to those of py-amqp."""
    files = {name: options[f"ssl_{name}"] for name in ("ca_certs", "certfile", "keyfile") if f"ssl_{name}" in options}
    verify = ssl.CERT_NONE if options.get("ssl_cert_reqs") == "none" else ssl.CERT_REQUIRED
    # py-amqp compares the certificate's name only where it is told which one.
    named = {"server_hostname": urlsplit(url).hostname} if verify is ssl.CERT_REQUIRED else {}
    return {**files, **named, "cert_reqs": verify}


def _without_tls_options(url: str) -> tuple[str, dict[str, str]]:
    """Part a URL from those of its options that are about TLS, which redis-py calls `ssl_…`."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    tls = {key: value for key, value in options.items() if key.startswith("ssl_")}
    rest = "&".join(f"{key}={quote(value)}" for key, value in options.items() if key not in tls)
    return parts._replace(query=rest).geturl(), tls


def _kombu_url(sentinels: Sentinels) -> str:
    """Write sentinels as kombu takes them: a whole URL each, the first with credentials and database."""
    user = quote(sentinels.username or "", safe="")
    password = quote(sentinels.password or "", safe="")
    userinfo = f"{user}:{password}@" if user or password else ""
    return ";".join(f"sentinel://{userinfo}{_host(each)}/{sentinels.database}" for each in sentinels.addresses)


def _host(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def redis_client(settings: Settings, timeout: float) -> redis.Redis:
    """Make a client of REDIS_URL's server: behind sentinels, of the one that is master now. `timeout` is in seconds."""
    bounds: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    if not is_sentinel(settings.redis_url):
        return redis.Redis.from_url(settings.redis_url, **bounds)
    sentinels = parse_sentinels(settings.redis_url, settings)
    watchers = Sentinel(  # type: ignore[no-untyped-call]  # redis-py
        list(sentinels.addresses), sentinel_kwargs={**sentinels.sentinel_options, **bounds}
    )
    client: redis.Redis = watchers.master_for(  # type: ignore[no-untyped-call]  # redis-py
        sentinels.master, db=sentinels.database, **sentinels.credentials, **bounds
    )
    return client


def limits_storage(settings: Settings, timeout: float) -> Storage:
    """Make the storage in which all processes count together. `timeout` is in seconds, for one question to Redis."""
    # By our own client: the storage for sentinels would greet them with Redis's password.
    from limits.storage import RedisStorage  # noqa: PLC0415 -- beat limits nothing

    return RedisStorage("redis://", connection_pool=redis_client(settings, timeout).connection_pool)
