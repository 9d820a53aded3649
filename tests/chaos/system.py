"""The system that is broken: `manage.py up` on a Postgres and a Redis behind proxies, and receivers behind others."""

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import psutil
import requests
from sqlalchemy import Engine, create_engine, make_url, text

from config.settings import STACK_FILE
from deploy.child_process import Child
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from deploy.ports import free_port
from notifier import migrations
from tests.chaos.proxy import HOST, Loop, Proxy
from tests.chaos.receivers import Arrivals, MailSink, WebhookSink
from tests.conftest import app_url, clean_environment, engine_of, hold_to_the_state_machine, owner_url, set_up_roles
from tests.support.paths import ROOT
from tests.support.running import wait_for

_DATABASE: Final = "notifier"
_STARTS_WITHIN: Final = 90.0
#: Short waits, so that a fault's end shows soon; and a budget that no fault of ours exhausts.
_SETTINGS: Final = {
    "NOTIFIER_WEBHOOK_TIMEOUT": "3",
    "NOTIFIER_EMAIL_TIMEOUT": "3",
    "NOTIFIER_WEBHOOK_RETRY_BACKOFF": "1",
    "NOTIFIER_WEBHOOK_RETRY_BACKOFF_MAX": "3",
    "NOTIFIER_WEBHOOK_MAX_RETRIES": "60",
    "NOTIFIER_EMAIL_RETRY_BACKOFF": "1",
    "NOTIFIER_EMAIL_RETRY_BACKOFF_MAX": "3",
    "NOTIFIER_EMAIL_MAX_RETRIES": "60",
    "NOTIFIER_LOG_FORMAT": "json",
}


class System:
    """All of it. Faults take hold of its parts."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        #: The data folder of `up`, and that of Postgres.
        self.data, self.cluster = folder / "data", folder / "servers"
        self.rng = rng
        self.port = free_port()
        self.arrivals = Arrivals()
        #: The number of the next event.
        self.number = 0
        self.respawns = 0
        self._known: dict[str, int] = {}
        self._more: list[Child] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        loop = self._stack.enter_context(Loop())
        self._start_servers()
        self.sink = WebhookSink(loop, self.arrivals, self.rng)
        self.mail = self._stack.enter_context(MailSink(self.arrivals, self.rng))
        self.to_postgres = Proxy(loop, self.postgres.port, self.rng)
        self.to_redis = Proxy(loop, self.valkey.port, self.rng)
        self.to_sink = Proxy(loop, self.sink.port, self.rng)
        self.to_mail = Proxy(loop, self.mail.port, self.rng)
        self.proxies = (self.to_postgres, self.to_redis, self.to_sink, self.to_mail)
        self.environment = self._environment()
        self.up = self._up()
        self._stack.callback(self._stop)
        self.up.launch()
        self.wait_until_ready()
        self.second_beat = self.beside("beat-2", "beat")
        self.second_beat.launch()
        self.subscribe()

    def _start_servers(self) -> None:
        self.cluster.mkdir(exist_ok=True)
        self.postgres = EmbeddedPostgres(self.cluster, settings={"fsync": "off", "max_wal_size": "256MB"})
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        self.postgres.create_database(_DATABASE)
        set_up_roles(self.postgres, _DATABASE)
        owner = engine_of(owner_url(self.postgres, _DATABASE))
        migrations.upgrade(owner)
        hold_to_the_state_machine(owner)
        owner.dispose()
        self.valkey = EmbeddedValkey(self.folder / "redis")
        self._stack.callback(self.valkey.stop)
        self.valkey.start()
        #: The harness' own hand, past the proxy and as a superuser.
        url = make_url(self.postgres.url(_DATABASE)).set(drivername="postgresql+psycopg2")
        self.engine: Engine = create_engine(url, pool_pre_ping=True, pool_reset_on_return=None)
        self._stack.callback(self.engine.dispose)

    def _environment(self) -> dict[str, str]:
        through = make_url(app_url(self.postgres, _DATABASE)).set(port=self.to_postgres.port)
        return {
            **clean_environment(),
            **_SETTINGS,
            "DATABASE_URL": through.render_as_string(hide_password=False),
            "NOTIFIER_MIGRATION_DATABASE_URL": owner_url(self.postgres, _DATABASE),
            "REDIS_URL": self.valkey.url.replace(f":{self.valkey.port}/", f":{self.to_redis.port}/"),
            "NOTIFIER_EMAIL": f"smtp://{HOST}:{self.to_mail.port}?tls=none",
        }

    def _up(self) -> Child:
        # One fresh worker: a fault of it leaves nobody who delivers.
        options = ("--no-flower", "--workers", "1")
        command = ("up", *options, "--port", str(self.port), "--data-dir", str(self.data))
        return Child(
            "up",
            [sys.executable, ROOT / "manage.py", *command],
            log=self.folder / "up.log",
            environment=self.environment,
            cwd=ROOT,
            stop_timeout=60,
        )

    def _stop(self) -> None:
        self.behave()
        for child in self._more:
            child.stop()
        left = [each.pid for each in self._recorded()]
        self.up.stop()
        for pid in left:  # by a supervisor that was killed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def beside(self, name: str, *arguments: str, settings: dict[str, str] | None = None) -> Child:
        """A further process of the same system, not started, as another machine would have it."""
        # The settings as `up` has completed them.
        file = self.data / STACK_FILE
        wait_for(file.exists, 60, "a stack that is up")
        stack = json.loads(file.read_text())["environment"]
        environment = {**self.environment, **stack, **(settings or {}), "NOTIFIER_DATA_DIR": os.devnull}
        command = [sys.executable, ROOT / "manage.py", *arguments]
        child = Child(name, command, log=self.folder / f"{name}.log", environment=environment, cwd=ROOT)
        self._more.append(child)
        return child

    def subscribe(self) -> None:
        """Have the receiver listen to events of its own kind."""
        url = f"http://{HOST}:{self.to_sink.port}/subscribed"
        answer = self.post("/api/v1/subscriptions", {"url": url, "event_types": ["chaos.subscribed"]})
        assert answer.status_code == 201, answer.text

    def wait_until_ready(self, timeout: float = _STARTS_WITHIN) -> None:
        """Wait until `/ready` says that all is well."""
        wait_for(lambda: self.readiness() == "ok" or not self.up.alive(), timeout, "a system that is ready")
        assert self.up.alive(), self.up.output()

    def readiness(self) -> str:
        """The status that `/ready` says, `ok` or `degraded`; empty where it does not answer."""
        try:
            return str(requests.get(self.url("/ready"), timeout=5).json().get("status", ""))
        except (requests.RequestException, ValueError):
            return ""

    def url(self, path: str) -> str:
        """The address of a path of the API."""
        return f"http://{HOST}:{self.port}{path}"

    def post(self, path: str, body: Any) -> requests.Response:
        """POST a JSON body to a path."""
        return requests.post(self.url(path), json=body, timeout=30)

    def behave(self) -> None:
        """Let proxies and receivers do as they should."""
        for proxy in self.proxies:
            proxy.behave()
            proxy.forget_silent()
        self.sink.behave()
        self.mail.behave()

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Rows of a statement, run by itself as a superuser, past the proxy."""
        with self.engine.connect() as connection:
            result = connection.execute(text(statement), values)
            rows = list(result) if result.returns_rows else []
            connection.commit()
            return rows

    def _recorded(self) -> list[psutil.Process]:
        return list(self.processes().values())

    def processes(self) -> dict[str, psutil.Process]:
        """The supervisor's children that run, by their names, and the second beat."""
        try:
            records = json.loads((self.data / "children.json").read_text())
        except (OSError, ValueError):
            records = []
        found: dict[str, psutil.Process] = {}
        for name, pid in [(r["name"], r["pid"]) for r in records] + [(c.name, c.pid) for c in self._more if c.alive()]:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[name] = process
        return found

    def pid(self, name: str) -> int:
        """The number of one of the supervisor's children, which must run."""
        return wait_for(lambda: self.processes().get(name), 60, name).pid

    def count_respawns(self) -> None:
        """See whether processes have others' numbers than before, and count those."""
        now = {name: process.pid for name, process in self.processes().items()}
        self.respawns += sum(1 for name, pid in now.items() if self._known.get(name, pid) != pid)
        self._known |= now

    def logs(self) -> Iterator[Path]:
        """All logs."""
        yield from sorted([*self.folder.glob("*.log"), *(self.data / "logs").glob("*.log")])

    def is_drained(self) -> bool:
        """Whether nothing waits any more."""
        live = "SELECT (SELECT count(*) FROM events WHERE due_at IS NOT NULL) + count(*) FROM notifications"
        return bool(self.sql(f"{live} WHERE due_at IS NOT NULL")[0][0] == 0)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that Postgres can reach under root too."""
    with tempfile.TemporaryDirectory(prefix="notifier-chaos-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all that it has started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, which may also fail to be asked; False where it has not come true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):
            if true():
                return True
        time.sleep(0.1)
    return False
