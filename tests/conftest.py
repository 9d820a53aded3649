"""The ground of all tests: a real Postgres and Valkey for the whole run, a database of its own for each test."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from notifier import migrations
from notifier.runtime import memory
from notifier.security.secret_box import new_key
from notifier.security.webhook_signatures import new_secret
from notifier.storage import database_roles
from notifier.storage.database_roles import Login
from tests.support.callers import Callers
from tests.support.databases import Databases
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running
from tests.support.scratch import scratch_folder

# Hypothesis loads what other packages register with it: trio, which selenium brings, and not before pytest ends.
os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"

_numbers = itertools.count(1)
_TEMPLATE = "notifier_template"
#: Nothing of it outlives the tests; the vacuum of a hundred databases, once a minute, takes a tenth of the machine; and
#: of the usual 4,096 iterations a client takes longer to prove that it knows a password than to connect.
_LIGHT: Final = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "scram_iterations": "1"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres that may be lost, with a migrated template database."""
    with new_postgres(_TEMPLATE) as server:
        yield server


@contextlib.contextmanager
def new_postgres(database: str, **settings: str) -> Iterator[EmbeddedPostgres]:
    """A Postgres with a migrated database, and with some settings."""
    with scratch_folder() as folder:
        server = EmbeddedPostgres(folder, settings={**_LIGHT, **settings})
        server.stop_signal = signal.SIGQUIT  # at once: to write hundreds of databases to disk first takes half a minute
        server.start()
        try:
            server.create_database(database)
            set_up_roles(server, database)
            engine = engine_of(owner_url(server, database))
            migrations.upgrade(engine)
            hold_to_the_state_machine(engine)
            engine.dispose()
            yield server
        finally:
            server.stop()


OWNER = Login(database_roles.OWNER, "the owner's")
APP = Login(database_roles.APP, "the processes'")


def set_up_roles(server: EmbeddedPostgres, database: str) -> None:
    """Make the roles that own a database and work with it. The owner is a test's own hand, and so sees everybody."""
    engine = engine_of(server.url(database))
    database_roles.set_up(engine, OWNER, APP)
    with engine.begin() as connection:
        connection.execute(text(f"GRANT pg_monitor, pg_signal_backend TO {OWNER.name} WITH INHERIT TRUE"))
        # Kept anew, with as many iterations as the server is set to.
        connection.execute(text(f"ALTER ROLE {engine.url.username} PASSWORD '{engine.url.password}'"))
    engine.dispose()


def app_url(server: EmbeddedPostgres, database: str) -> str:
    """The URL that all processes have."""
    return as_login(server.url(database), APP)


def owner_url(server: EmbeddedPostgres, database: str) -> str:
    """The URL that migrations have."""
    return as_login(server.url(database), OWNER)


def as_login(url: str, login: Login) -> str:
    """A URL of the same database for another role."""
    return make_url(url).set(username=login.name, password=login.password).render_as_string(hide_password=False)


#: The only transitions there are (docs/architecture.md).
TRANSITIONS = {
    ("scheduled", "queued"),
    ("retrying", "queued"),
    ("queued", "sending"),
    ("sending", "sent"),
    ("sending", "delivered"),
    ("sending", "retrying"),
    ("sending", "failed"),
    ("sending", "expired"),
    ("sending", "queued"),
    ("queued", "sent"),
    ("queued", "delivered"),
    # A receipt: also of an attempt of which nobody knew whether it arrived.
    ("sent", "delivered"),
    ("sent", "failed"),
    ("sent", "retrying"),
    ("retrying", "delivered"),
    ("retrying", "failed"),
    # The gate: put off, or not sent at all.
    ("sending", "scheduled"),
    ("sending", "skipped"),
    ("sending", "cancelled"),
    # Somebody cancels.
    ("scheduled", "cancelled"),
    ("queued", "cancelled"),
    ("retrying", "cancelled"),
    # Somebody moves it past its deadline.
    ("scheduled", "expired"),
    # Somebody requeues or resends it.
    *((finished, "queued") for finished in ("sent", "delivered", "failed", "expired", "skipped")),
}


def hold_to_the_state_machine(engine: Engine) -> None:
    """Make Postgres refuse any other transition: so every test of the suite watches them."""
    allowed = ", ".join(f"('{old}', '{new}')" for old, new in sorted(TRANSITIONS))
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION check_transition() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" IF OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN ({allowed}) THEN"
                " RAISE EXCEPTION 'no transition from % to %', OLD.status, NEW.status; END IF; RETURN NULL; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER check_transition AFTER UPDATE OF status ON notifications FOR EACH ROW"
                " EXECUTE FUNCTION check_transition()"
            )
        )


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Valkey that may be lost; each test gets one of its databases."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"), settings={"databases": "512", "appendonly": "no"})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def engine_of(url: str) -> Engine:
    """An engine for a test's own looks into the database."""
    return create_engine(make_url(url).set(drivername="postgresql+psycopg2"), pool_pre_ping=True)


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Iterator[Databases]:
    """The databases of tests, as the migrations leave them."""
    with contextlib.closing(Databases(postgres, _TEMPLATE, owner=OWNER.name)) as databases:
        yield databases


@pytest.fixture(scope="session")
def new_database(postgres: EmbeddedPostgres, databases: Databases) -> Callable[[], str]:
    """Makes databases that are kept to the end; gives the URLs that processes have."""
    return lambda: app_url(postgres, databases.take())


@pytest.fixture(scope="session")
def new_redis(valkey: EmbeddedValkey) -> Callable[[], str]:
    """Gives URLs of empty Redis databases."""
    return lambda: valkey.url.rsplit("/", 1)[0] + f"/{next(_numbers)}"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, databases: Databases) -> Iterator[str]:
    """A fresh database, for one test."""
    name = databases.take()
    yield app_url(postgres, name)
    databases.give_back(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine over a fresh database, as the processes have."""
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def owner_engine(database_url: str) -> Iterator[Engine]:
    """An engine over the same database, as the role that owns the tables has."""
    engine = engine_of(as_login(database_url, OWNER))
    yield engine
    engine.dispose()


@pytest.fixture
def super_engine(postgres: EmbeddedPostgres, database_url: str) -> Iterator[Engine]:
    """An engine over the same database, as a superuser has."""
    engine = engine_of(postgres.url(str(make_url(database_url).database)))
    yield engine
    engine.dispose()


#: Settings that make failures quick to watch. Every test may lay its own over them.
QUICK: dict[str, str] = {
    "NOTIFIER_AUTH": "off",
    "NOTIFIER_WEBHOOK_SECRET": new_secret(),
    "NOTIFIER_SECRET_KEY": new_key(),
    "NOTIFIER_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "NOTIFIER_SMS": "outbox:",
    "NOTIFIER_PUSH": "outbox:",
    "NOTIFIER_CHAT": "outbox:",
    "NOTIFIER_EMAIL": "outbox:",
    "NOTIFIER_WEBHOOK_TIMEOUT": "2",
    "NOTIFIER_EMAIL_TIMEOUT": "3",
    "NOTIFIER_SENDING_WINDOW": "2",
    "NOTIFIER_WEBHOOK_RETRY_BACKOFF": "1",
    "NOTIFIER_WEBHOOK_MAX_RETRIES": "2",
    "NOTIFIER_EMAIL_RETRY_BACKOFF": "1",
    "NOTIFIER_EMAIL_MAX_RETRIES": "2",
    "NOTIFIER_RETRY_JITTER": "0",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--on rabbitmq`: any test of whole systems can be run on another server than the embedded ones."""
    parser.addoption("--on", help="Run systems on a server of tests/services/backends.py, which must be installed.")


@pytest.fixture(scope="session")
def backend(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, str]], dict[str, str]]]:
    """Gives the settings of a further system on the server that --on names; none without it."""
    name = request.config.getoption("--on")
    if name is None:
        yield lambda _: {}
        return
    from tests.services.backends import BACKENDS  # noqa: PLC0415 -- it imports this file

    with BACKENDS[name](tmp_path_factory.mktemp(name), postgres) as settings:
        yield settings


@pytest.fixture(scope="session")
def new_system(
    new_database: Callable[[], str],
    new_redis: Callable[[], str],
    backend: Callable[[dict[str, str]], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Running]:
    """Makes systems of real processes, not yet started. The test stops them."""

    def make(**settings: str) -> Running:
        folder = tmp_path_factory.mktemp("system")
        own = {name: value for name, value in settings.items() if value}
        urls = {
            "DATABASE_URL": own.get("DATABASE_URL") or new_database(),
            "REDIS_URL": own.get("REDIS_URL") or new_redis(),
        }
        environment = {**clean_environment(), **QUICK, **urls, **backend(urls), **own}
        return Running(folder, environment, hand=as_login(urls["DATABASE_URL"], OWNER))

    return make


def clean_environment() -> dict[str, str]:
    """The environment without any setting of ours."""
    ours = ("NOTIFIER_", "DATABASE_URL", "REDIS_URL", "BROKER_URL", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def start_system(new_system: Callable[..., Running]) -> Iterator[Callable[..., Running]]:
    """Starts whole systems, with a test's own settings; stops them after it."""
    started: list[Running] = []

    def start(**settings: str) -> Running:
        system = new_system(**settings)
        started.append(system)
        system.start()
        return system

    yield start
    for system in started:
        system.stop()


@pytest.fixture(scope="session")
def smtp() -> Iterator[SmtpReceiver]:
    """A mail server."""
    with SmtpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def http() -> Iterator[HttpReceiver]:
    """A webhook receiver of a file's own: what other files told theirs to answer means nothing here."""
    with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def system(new_system: Callable[..., Running], smtp: SmtpReceiver) -> Iterator[Running]:
    """The whole system, shared by all tests that harm nothing. Email goes to the mail server."""
    # Megabytes of attachments take their time on a busy machine.
    senders = "localhost, example.org, example.net, example.com, *.example.com, b.example"
    settings = {"NOTIFIER_EMAIL": f"{smtp.dsn}?tls=none", "NOTIFIER_EMAIL_TIMEOUT": "30"}
    with new_system(**settings, NOTIFIER_EMAIL_SENDERS=senders) as running:
        yield running


@pytest.fixture(scope="session")
def callers(system: Running) -> Callers:
    """Callers with keys and sources of their own, on the shared system."""
    return Callers(system)


@pytest.fixture(scope="module")
def _breakable(new_system: Callable[..., Running]) -> Iterator[Running]:
    # Few files need one, and one that does nothing takes more by the end than another start.
    with new_system() as running:
        yield running


@pytest.fixture
def breakable(_breakable: Running) -> Running:
    """A system whose processes a test may kill, and to which it may add some. The next one finds it whole again."""
    _breakable.mend()
    return _breakable


UNIT: Final = ROOT / "tests/unit"
SYSTEM: Final = ROOT / "tests/system"
#: The turns of the last file of each kind: of the longest, of others that wait, and of those that compute. The shortest
#: come last, so that all processes of pytest end at nearly the same time.
_LAST: Final = (0.7, 0.92, 1.0)
#: The files that take longest. Begun early, none of them is what all other processes of pytest wait for in the end.
LONGEST = (
    *("test_worker_failures", "test_rollout", "test_endpoint_health", "test_up", "test_runbook", "test_large_tables"),
    *("test_terminals", "test_stuck_workers", "test_commands", "test_relay_crashes", "test_cancellation"),
    *("test_console_hostile", "test_slow_callers", "test_status_events", "test_fan_out_to_subscriptions"),
    *("test_conformance", "test_provider_breakers", "test_before_migrate", "test_why", "test_endpoint_rate_limits"),
    *("test_poison_rows", "test_reminders", "test_compaction", "test_redis_failures", "test_hanging_endpoints"),
    *("test_api_keys", "test_templates", "test_next_channel", "test_postgres_failures", "test_silent_connections"),
    *("test_sentinel", "test_handlers", "test_addresses_at_rest", "test_holds", "test_metrics", "test_retention"),
    *("test_recovery", "test_retries", "test_search", "test_preferences", "test_embedded"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Have each process of pytest begin to collect with other files, where all are collected.

    To rewrite the asserts of all files takes one process seven seconds in a fresh clone. Each keeps what it has
    rewritten for the others, and so none does the work of another.
    """
    found = {Path(each).resolve() for each in config.args}
    if not hasattr(config, "workerinput") or found != {ROOT / "tests"}:
        return
    patterns, left_out = config.getini("python_files"), config.getini("norecursedirs")
    files = [
        str(file)
        for file in sorted((ROOT / "tests").rglob("*.py"))
        if any(fnmatch(file.name, pattern) for pattern in patterns)
        and not any(fnmatch(folder, name) for folder in file.relative_to(ROOT).parts[:-1] for name in left_out)
    ]
    number = int(config.workerinput["workerid"].removeprefix("gw"))
    first = len(files) * number // config.workerinput["workercount"]
    config.args = files[first:] + files[:first]


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what is loaded by now: it searched hundreds of megabytes again and again."""
    memory.settle()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Unit tests go first: a fault there explains the rest. Tests that concern root are for root."""
    if os.geteuid() != 0:
        items[:] = [item for item in items if not item.get_closest_marker("root")]

    turns = turns_of({item.path for item in items})
    items.sort(key=lambda item: (UNIT not in item.path.parents, turns[item.path], str(item.path)))


def turns_of(files: set[Path]) -> dict[Path, float]:
    """Return the turn of each file, from 0 to 1: the longest begin early, those that wait beside those that compute.

    A test of a system waits more than it computes, most of all in the longest files. With five of those at a time the
    processors had nothing to do, and later, with none, too much.
    """
    longest = sorted((file for file in files if file.stem in LONGEST), key=lambda file: LONGEST.index(file.stem))
    waiting = sorted(file for file in files.difference(longest) if SYSTEM in file.parents)
    computing = sorted(files.difference(longest, waiting))
    return {
        file: turn * end / len(those)
        for those, end in zip((longest, waiting, computing), _LAST, strict=True)
        for turn, file in enumerate(those)
    }
