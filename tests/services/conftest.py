"""Tests that need programs of others: `make test-services`. They are no part of `make test`, which needs none."""

import shutil
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.providers.receivers import certificate
from tests.services.browser import Browser
from tests.services.chromium import chromium, find_chromium
from tests.services.console import Console, fill
from tests.services.postgresql import find_postgres
from tests.services.rabbitmq import RabbitMQ
from tests.support.breaking import wake
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running

#: Program → the package of Debian that it is in.
PROGRAMS: Final = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "erl": "rabbitmq-server",
    "pgbouncer": "pgbouncer",
    "redis-server": "redis-server",
    "chromedriver": "chromium-driver",
}


def pytest_configure() -> None:
    """Say at once what is not there. Nothing is skipped: who asks for these tests wants to know what they say."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    missing += ["initdb"] if find_postgres() is None else []
    missing += ["chromium"] if find_chromium() is None else []
    if missing:
        named = {**PROGRAMS, "initdb": "postgresql", "chromium": "chromium"}
        packages = " ".join(sorted({named[program] for program in missing}))
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


@pytest.fixture(scope="session")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The one window of the one browser, as the last test left it."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield Browser(driver)


@pytest.fixture(scope="session")
def console(new_system: Callable[..., Running], smtp: SmtpReceiver) -> Iterator[Console]:
    """A console that has something of everything, with markup in every text. Each test acts on what is its own."""
    settings = {"NOTIFIER_EMAIL": f"{smtp.dsn}?tls=none", "NOTIFIER_EMAIL_TIMEOUT": "30"}
    with HttpReceiver() as receiver, new_system(**settings) as system:
        yield fill(system, receiver, smtp)


@pytest.fixture
def browser(window: Browser, console: Console) -> Browser:
    """A stranger's browser, whose paths are those of the console's server."""
    window.fresh(console.url)
    return window


@pytest.fixture
def at_work(browser: Browser, console: Console) -> Browser:
    """The browser of an operator who has signed in."""
    browser.sign_in(console.operator.key)
    return browser
