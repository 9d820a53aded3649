"""Servers that whole systems can be tested on in place of the embedded ones: `pytest --on NAME FILES`."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from benchmarks.pgbouncer import PgBouncer
from deploy.embedded import EmbeddedPostgres
from tests.conftest import APP, OWNER, owner_url
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis_tls import RedisTls

#: Gives the settings of a further system, which go over the URLs that it would have otherwise.
SettingsOf = Callable[[dict[str, str]], dict[str, str]]
#: Connections of PgBouncer to Postgres: fewer than a system has to PgBouncer, so that they are shared.
_POOL: Final = 8


@contextmanager
def _rabbitmq(folder: Path, _postgres: EmbeddedPostgres) -> Iterator[SettingsOf]:
    """Each system has a virtual host of its own, and no Redis."""
    numbers = itertools.count(1)
    server = RabbitMQ(folder)
    server.start()
    try:
        yield lambda _: {"BROKER_URL": server.new_virtual_host(f"system-{next(numbers)}")}
    finally:
        server.stop()


@contextmanager
def _redis_tls(folder: Path, _postgres: EmbeddedPostgres) -> Iterator[SettingsOf]:
    numbers = itertools.count(1)
    server = RedisTls(folder)
    server.start()
    try:
        yield lambda _: {"REDIS_URL": server.url(next(numbers))}
    finally:
        server.stop()


@contextmanager
def _pgbouncer(_folder: Path, postgres: EmbeddedPostgres) -> Iterator[SettingsOf]:
    """Transaction mode, and fewer connections to Postgres than processes have to PgBouncer."""
    postgres.create_database("behind")
    # Not below pytest's own folder, which is closed to other users.
    with tempfile.TemporaryDirectory(prefix="notifier-") as folder:
        bouncer = PgBouncer(Path(folder), owner_url(postgres, "behind"), [OWNER, APP], pool=_POOL)
        bouncer.start()

        def settings(urls: dict[str, str]) -> dict[str, str]:
            port = make_url(bouncer.url).port
            return {"DATABASE_URL": make_url(urls["DATABASE_URL"]).set(port=port).render_as_string(hide_password=False)}

        try:
            yield settings
        finally:
            bouncer.stop()


BACKENDS: Final[dict[str, Callable[[Path, EmbeddedPostgres], AbstractContextManager[SettingsOf]]]] = {
    "rabbitmq": _rabbitmq,
    "redis-tls": _redis_tls,
    "pgbouncer": _pgbouncer,
}
