"""A whole system as processes: API, workers, beat. And the client that tests speak to it with."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from deploy.child_process import Child
from deploy.ports import free_port
from notifier.security.address_seals import AddressSeals, seals_of, with_seals
from notifier.security.secret_box import Vault
from notifier_client import Client
from notifier_client.types import DeadLetter, Notification, NotificationWithAttempts
from tests.support.fork_server import ForkedChild
from tests.support.paths import ROOT

Found = TypeVar("Found")

#: Postgres' code of a deadlock, and how often a statement of a test's hand is tried.
_DEADLOCK = "40P01"
_TRIES = 5

FINISHED = {"sent", "delivered", "failed", "cancelled", "expired", "skipped"}


def wait_for(look: Callable[[], Found | None], timeout: float = 20.0, what: str = "it") -> Found:
    """Return what `look` finds once it finds something. Fails where it finds nothing in `timeout` seconds."""
    began = time.monotonic()
    while True:
        found = look()
        if found:
            return found
        waited = time.monotonic() - began
        if waited > timeout:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {found!r}")
        # Most looks are requests with statements: the longer it takes, the less the system is kept busy by them.
        time.sleep(min(max(waited / 2, 0.03), 0.4))


def ahead(**span: float) -> str:
    """A moment so far ahead, as it is written: ahead(hours=1)."""
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


def made(system: "Running", **fields: Any) -> str:
    """Post a notification without an event, which must be accepted; returns the id of the one that it made."""
    body: Any = {"body": "x", **fields}
    [notification] = system.client.notifications.send(body)["items"]
    return notification["id"]


def made_of(system: "Running", event_type: str, payload: dict[str, Any], **fields: Any) -> list[Notification]:
    """Return what an event's fan-out made."""
    event_id = system.event(event_type=event_type, payload=payload, **fields)
    wait_for(lambda: system.client.events.get(event_id)["status"] == "processed")
    return system.notifications(event_id)


def reaches(system: "Running", notification_id: str, *statuses: str) -> NotificationWithAttempts:
    """A notification once it has one of these states."""

    def look() -> NotificationWithAttempts | None:
        if system.status(notification_id) not in statuses:
            return None
        found = system.notification(notification_id)
        return found if found["status"] in statuses else None

    return wait_for(look, 30, f"notification {notification_id} to be {' or '.join(statuses)}")


class Running:
    """A system on a database and a Redis of its own. Its parts are `Child`ren, to be killed and started at will."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, hand: str | None = None, root: Path = ROOT
    ) -> None:
        """`hand`: the URL for the test's own looks, if not the processes'; `root`: where the code is, if elsewhere."""
        self.folder = folder
        self.root = root
        self.environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self.http = requests.Session()
        #: Where the workers serve their metrics, by their names.
        self.metrics_ports: dict[str, int] = {}
        self.children: list[Child] = []
        self.port = free_port()
        self.api = self.add_api(self.port)
        #: The client that callers have, over the same session. It repeats nothing: a test sees each answer.
        self.client = Client(self.url, timeout=30, retries=0, new_session=lambda: self.http)
        self.fresh = self.add_worker("fresh")
        self.retry = self.add_worker("retry")
        self.clock = self.add_worker("clock")
        self.beat = self.add("beat", "beat")
        self._own = tuple(self.children)
        url = make_url(hand or self.environment["DATABASE_URL"]).set(drivername="postgresql+psycopg2")
        self.engine: Engine = with_seals(create_engine(url, pool_pre_ping=True), self.vault)

    def add(
        self, name: str, *arguments: str, ready: Callable[[], bool] | None = None, settings: Mapping[str, str] = {}
    ) -> Child:
        """A further process, not started; `settings` are its own."""
        child = ForkedChild(
            name,
            [sys.executable, self.root / "manage.py", *arguments],
            log=self.folder / f"{name}.log",
            # Without settings of its own it has what a test may still change.
            environment={**self.environment, **settings} if settings else self.environment,
            cwd=self.root,
            ready=ready,
        )
        self.children.append(child)
        return child

    def add_api(self, port: int, *options: str, **settings: str) -> Child:
        """A further API process, not started; `options` of its command and `settings` are its own."""
        url = f"http://127.0.0.1:{port}/health"

        def answers() -> bool:
            try:
                return requests.get(url, timeout=2).ok
            except requests.RequestException:
                return False

        return self.add(f"api-{port}", "api", "--port", str(port), *options, ready=answers, settings=settings)

    def add_worker(self, role: str, name: str | None = None) -> Child:
        """A further worker, not started."""
        name = name or role
        port = self.metrics_ports[name] = free_port()
        return self.add(f"worker-{name}", "worker", role, "--name", name, "--metrics-port", str(port))

    @property
    def vault(self) -> Vault:
        """The vault of its processes, with their keys."""
        return Vault([key for key in self.environment.get("NOTIFIER_SECRET_KEY", "").split(",") if key])

    @property
    def seals(self) -> AddressSeals:
        """How it keeps addresses."""
        return seals_of(self.engine)

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, only: list[Child] | None = None) -> None:
        """Start the processes and wait until the system is ready."""
        children = only if only is not None else self.children
        for child in children:
            child.launch()
        for child in children:
            wait_for(lambda child=child: child.is_ready() or not child.alive(), 40, child.name)
            assert child.alive(), child.output()
        if only is None:
            wait_for(lambda: self.get("/ready").json()["status"] == "ok", 40, "a system that is ready")

    def mend(self) -> None:
        """Have the processes run that there were at first, whatever was done to them, and no others."""
        for child in self.children:
            if child.pid and child.alive():
                os.killpg(child.pid, signal.SIGCONT)
        for child in set(self.children) - set(self._own):
            child.stop()
        self.children = list(self._own)
        self.start(only=[child for child in self.children if not child.alive()])
        wait_for(lambda: self.get("/ready").json()["status"] == "ok", 40, "a system that is ready")

    def stop(self) -> None:
        """Stop what runs."""
        for child in self.children:
            child.terminate()
        for child in self.children:
            child.stop()
        self.http.close()
        self.engine.dispose()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET a path."""
        return self.http.get(self.url + path, timeout=20, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        """POST a JSON body to a path."""
        return self.http.post(self.url + path, json=body, timeout=30, **options)

    def event(self, **fields: Any) -> str:
        """Post an event that must be accepted; returns its id."""
        event: Any = {"event_type": "test.event", **fields}
        return self.client.events.send(event)["id"]

    def notifications(self, event_id: str) -> list[Notification]:
        """An event's notifications."""
        return self.client.events.get(event_id)["notifications"]

    def notification(self, notification_id: str) -> NotificationWithAttempts:
        """A notification with its attempts."""
        return self.client.notifications.get(notification_id)

    def status(self, notification_id: str) -> str | None:
        """A notification's status in the database: tests wait for many, and a request takes four times as long."""
        rows = self.sql("SELECT status FROM notifications WHERE id = CAST(:id AS uuid)", id=notification_id)
        return rows[0].status if rows else None

    def finished(self, event_id: str, timeout: float = 20.0) -> NotificationWithAttempts:
        """The one notification of an event once it is finished, with its attempts."""

        def look() -> NotificationWithAttempts | None:
            statement = "SELECT id, status FROM notifications WHERE event_id = CAST(:event AS uuid)"
            [(notification_id, status)] = self.sql(statement, event=event_id)
            return self.notification(str(notification_id)) if status in FINISHED else None

        return wait_for(look, timeout, f"the notification of event {event_id} to be finished")

    def dead_letter(self, event_id: str) -> DeadLetter:
        """The newest dead letter of an event, once there is one."""

        def look() -> DeadLetter | None:
            return next((letter for letter in self.client.dead_letters.list() if letter["event_id"] == event_id), None)

        return wait_for(look, 20, f"a dead letter of event {event_id}")

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Rows of a statement, run in a transaction of its own; again where it was chosen as a deadlock's victim.

        A test's hand takes locks in any order, and the processes under test have theirs.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                with self.engine.begin() as connection:
                    result = connection.execute(text(statement), values)
                    return list(result) if result.returns_rows else []
            except OperationalError as error:
                if not tries_left or getattr(error.orig, "pgcode", None) != _DEADLOCK:
                    raise
        raise AssertionError("no try is left")
