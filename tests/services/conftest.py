"""Tests that need programs of others: `make test-services`. They are no part of `make test`, which needs none."""

import shutil
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.providers.receivers import certificate
from tests.services.postgresql import find_postgres
from tests.services.rabbitmq import RabbitMQ
from tests.support.breaking import wake
from tests.support.running import Running

#: Program → the package of Debian that it is in.
PROGRAMS: Final = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "erl": "rabbitmq-server",
    "pgbouncer": "pgbouncer",
    "redis-server": "redis-server",
}


def pytest_configure() -> None:
    """Say at once what is not there. Nothing is skipped: who asks for these tests wants to know what they say."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if find_postgres() is None:
        missing.append("initdb")
    if missing:
        packages = " ".join(sorted({PROGRAMS.get(program, "postgresql") for program in missing}))
        raise pytest.UsageError(
            f"{' and '.join(missing)} not found: apt-get install --no-install-recommends {packages},"
            " or let .ci/run unpack what is missing into .services"
        )


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ to be broken, which each test leaves whole."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    server = RabbitMQ(folder, certificate(folder).file)
    server.start()
    yield server
    wake(server)
    server.stop()


@pytest.fixture(scope="session")
def _on_rabbitmq(new_system: Callable[..., Running], rabbitmq: RabbitMQ) -> Iterator[Running]:
    with new_system(BROKER_URL=rabbitmq.url, REDIS_URL="redis://127.0.0.1:9/0") as running:
        yield running


@pytest.fixture
def on_rabbitmq(_on_rabbitmq: Running) -> Running:
    """A system on it, with no Redis anywhere. Each test finds it whole."""
    _on_rabbitmq.mend()
    return _on_rabbitmq
