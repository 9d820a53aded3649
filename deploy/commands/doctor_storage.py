"""Checks of storage: Postgres, Redis and the broker."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import redis
from sqlalchemy import Connection, Engine, create_engine, func, make_url, select, text

from config.broker import BrokerBlocked, is_amqp, redis_client
from config.settings import Settings
from deploy.commands.doctor_checks import Finding, ill, note, well
from notifier import migrations
from notifier.models import Subscription
from notifier.security import signing_keys
from notifier.security.address_seals import PURPOSE
from notifier.security.secret_box import CannotDecrypt, Vault
from notifier.storage import database_roles, partitions
from tasks import app
from tasks.broker_check import check_broker

#: The oldest that its makers still care for.
_OLDEST_POSTGRES: Final = 15
#: Seconds that clocks may be apart: due times are Postgres's, and ids and attempts carry this machine's.
_MOST_SKEW: Final = 2.0
#: Days ahead whose partitions must be there. The clock makes more, so that it may be away for a while.
_DAYS: Final = 2
#: The part of Redis's memory that may be used.
_FULL: Final = 0.9
#: Seconds for a connection: less than the whole check has, so that its own error is heard.
_CONNECT: Final = 2


def doctors_engine(settings: Settings) -> Engine:
    """Make an engine that gives up sooner than others do."""
    url = make_url(settings.database_url or "").set(drivername="postgresql+psycopg2")
    return create_engine(url, connect_args={"connect_timeout": _CONNECT, "application_name": "notifier-doctor"})


def postgres(engine: Engine) -> Iterator[Finding]:
    """Check that Postgres answers, its version, and its clock."""
    with engine.connect() as connection:
        version = str(connection.scalar(text("SHOW server_version")))
        if int(version.split(".", 1)[0]) < _OLDEST_POSTGRES:
            yield ill(
                "postgres version", f"version {version}", f"upgrade it: {_OLDEST_POSTGRES} or newer, and 18 is tested"
            )
        else:
            size = connection.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
            yield well("postgres", f"version {version}, {size}")
        yield clocks(_skew(connection))


def _skew(connection: Connection) -> float:
    """Return the seconds that Postgres's clock is ahead of this machine's, accurate to half a round trip."""
    before = datetime.now(UTC)
    theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    after = datetime.now(UTC)
    skew: float = (theirs - (before + (after - before) / 2)).total_seconds()
    return skew


def clocks(skew: float) -> Finding:
    """Return the finding for a difference between two clocks."""
    if abs(skew) < _MOST_SKEW:
        return well("clocks", f"Postgres and this machine are {abs(skew) * 1000:.0f} ms apart")
    way = "ahead of" if skew > 0 else "behind"
    return ill("clocks", f"Postgres is {abs(skew):.1f} s {way} this machine", "set both by NTP (timedatectl, chrony)")


def role(engine: Engine) -> Iterator[Finding]:
    """Check that the processes' role may only work with rows."""
    with engine.connect() as connection:
        found = database_roles.role_status(connection)
    name = "database role"
    todo = "give the processes a role of their own with 'manage.py roles': docs/production.md"
    if found.lacks:
        more = f" and {len(found.lacks) - 3} more" if len(found.lacks) > 3 else ""
        says = f"{found.name} may not use {', '.join(found.lacks[:3])}{more}"
        yield ill(name, says, "run 'manage.py roles', then 'manage.py migrate': docs/production.md")
    elif found.is_superuser:
        yield note(name, f"{found.name} is a superuser: {todo}")
    elif found.owns_tables:
        yield note(name, f"{found.name} owns the tables, and may drop them: {todo}")
    else:
        yield well(name, f"{found.name} works with rows, and owns no table")


def migrated(engine: Engine) -> Iterator[Finding]:
    """Check that the database is migrated to this version."""
    pending = migrations.pending(engine)
    if pending:
        says = f"the database is not at {pending}, the newest of this version"
        yield ill("migrations", says, "run 'manage.py migrate', or deploy the version that made it")
    else:
        yield well("migrations", "none is pending")


def partitioned(engine: Engine) -> Iterator[Finding]:
    """Check that the coming days have partitions."""
    missing = partitions.missing_days(engine, _DAYS)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        says = f"missing: {', '.join(missing[:3])}{more}; rows go to the default partition"
        yield ill("partitions", says, "'manage.py migrate' makes them; the clock should, every ten minutes")
    else:
        yield well("partitions", f"today's and those of the next {_DAYS} days are there")


def secrets_readable(engine: Engine, settings: Settings) -> Iterator[Finding]:
    """Check that NOTIFIER_SECRET_KEY is set, and decrypts the secrets of subscriptions."""
    with engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(Subscription)) or 0
        secret = connection.scalar(select(Subscription.secret).order_by(Subscription.id).limit(1))
    name = "secret key"
    if not settings.secret_key and not count:
        yield note(name, "NOTIFIER_SECRET_KEY is not set: no subscriptions can be made")
    elif secret is None:
        yield well(name, "set; there are no subscriptions yet")
    elif not settings.secret_key:
        says = f"NOTIFIER_SECRET_KEY is not set, and {count} subscriptions have secrets encrypted with one"
        yield ill(name, says, "set it as it was: without it their webhooks cannot be signed")
    else:
        try:
            Vault(settings.secret_key).decrypt(secret)
            yield well(name, f"set, and the first of {count} subscriptions can be read with it")
        except CannotDecrypt as error:
            yield ill(name, str(error), "put the key that is missing behind the new one, then run 'manage.py rekey'")


def keys_sealed(engine: Engine, settings: Settings) -> Iterator[Finding]:
    """Check that the keys that sign links and the audit log are encrypted in the database."""
    name, open_keys = "signing keys", signing_keys.plain(engine)
    if not signing_keys.is_there(engine, PURPOSE):
        says = "addresses with credentials are kept as they are, as the release before kept them"
        yield note("addresses", f"{says}; run 'manage.py rekey' once every process is of this release")
    if not open_keys:
        yield well(name, "encrypted")
    elif settings.secret_key:
        says = f"{', '.join(open_keys)}: in the database as they are"
        yield note(name, f"{says}; run 'manage.py rekey' once every process is of this release")
    else:
        yield note(name, f"{', '.join(open_keys)}: in the database as they are, for NOTIFIER_SECRET_KEY is not set")


def redis_server(settings: Settings) -> Iterator[Finding]:
    """Check that Redis answers, evicts nothing, has free memory, and persists its data."""
    try:
        with redis_client(settings, _CONNECT) as client:
            info: dict[str, Any] = client.info()
    except redis.RedisError as error:
        if is_amqp(settings.broker):
            yield note("redis", f"{error}; only limits are counted there, and each process counts for itself now")
            return
        yield ill("redis", str(error), "start it, or set REDIS_URL; until then the clock hands nothing over")
        return
    yield well("redis", f"version {info.get('valkey_version') or info.get('redis_version')}")
    yield _eviction(str(info.get("maxmemory_policy", "unknown")))
    yield _memory(int(info["used_memory"]), int(info.get("maxmemory") or 0))
    yield _persistence(info)


def _eviction(policy: str) -> Finding:
    if policy == "noeviction":
        return well("redis eviction", "noeviction")
    says = f"maxmemory-policy is {policy}: messages may be forgotten to make room"
    return ill("redis eviction", says, "set maxmemory-policy noeviction: what does not fit comes back from Postgres")


def _memory(used: int, most: int) -> Finding:
    megabytes = f"{used / 2**20:.0f} MB"
    if not most:
        return well("redis memory", f"{megabytes} used; maxmemory is not set, so the machine is the limit")
    says = f"{megabytes} of {most / 2**20:.0f} MB used"
    if used < _FULL * most:
        return well("redis memory", says)
    return ill("redis memory", says, "see what fills it (redis-cli --bigkeys): our queues hold 64 messages each")


def _persistence(info: dict[str, Any]) -> Finding:
    name = "redis persistence"
    failed = [each for each in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(each, "ok") != "ok"]
    if failed:
        return ill(name, f"{failed[0]} is {info[failed[0]]}", "see its log, and its disk")
    if info.get("aof_enabled"):
        return well(name, "append-only file")
    return note(name, "no append-only file: a restart loses messages, which the clock sends again, and limits' counts")


def broker(settings: Settings) -> Iterator[Finding]:
    """Check that Celery's messages can be sent."""
    try:
        check_broker(app)
    except BrokerBlocked as error:
        yield ill("broker", str(error), "give it memory or disk; nothing is lost, and all goes on by itself then")
        return
    yield well("broker", f"{settings.broker.split(':', 1)[0]} answers, and takes messages")
