"""A service with a relay table in a database of its own."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO
from uuid import UUID, uuid4

import psycopg2
from psycopg2.extensions import connection as PgConnection  # noqa: N812 -- a class, whatever its letters

from deploy import CLIENT_SOURCE
from notifier_client import Client
from notifier_client.relay import Moved, relay_once
from notifier_client.relay_table import DEFAULT_NAME, RelayTable
from tests.conftest import clean_environment
from tests.support.callers import Caller
from tests.support.commands import Ended, in_turn, manage
from tests.support.paths import ROOT
from tests.support.running import Running, wait_for

INSERT: Final = "INSERT INTO notifier_relay (key, event) VALUES (%s, %s)"


class Shop:
    """A service that sends by its relay table, with an API key of its own."""

    def __init__(self, system: Running, url: str, caller: Caller, source: str) -> None:
        self.system = system
        #: Its database.
        self.url = url
        #: Its API key, and the API.
        self.caller = caller
        self.source = source
        self.table = RelayTable()
        self.sql(self.table.ddl)

    def connect(self) -> PgConnection:
        """Connect to its database."""
        return psycopg2.connect(self.url)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement in a transaction of its own; returns its rows."""
        with contextlib.closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def write(self, *events: Any) -> list[UUID]:
        """Commit events in one transaction; returns their keys. A text is written as it is."""
        keys = [uuid4() for _ in events]
        with contextlib.closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            for key, event in zip(keys, events, strict=True):
                cursor.execute(INSERT, [str(key), event if isinstance(event, str) else json.dumps(event)])
        return keys

    def write_many(self, count: int) -> None:
        """Commit many events."""
        self.sql(
            "INSERT INTO notifier_relay (event) SELECT json_build_object('event_type', 'shop.many',"
            " 'payload', json_build_object('n', n)) FROM generate_series(1, %s) AS n",
            count,
        )

    def row(self, key: UUID) -> dict[str, Any]:
        """Return a row."""
        [[row]] = self.sql("SELECT row_to_json(row) FROM notifier_relay AS row WHERE key = %s", str(key))
        found: dict[str, Any] = row
        return found

    def waiting(self) -> int:
        """Return how many rows wait."""
        [[count]] = self.sql("SELECT count(*) FROM notifier_relay WHERE sent_at IS NULL AND refused_at IS NULL")
        return int(count)

    def events(self) -> list[tuple[str, str]]:
        """Return key and id of each of its events that Notifier has."""
        rows = self.system.sql("SELECT idempotency_key, id FROM events WHERE source = :source", source=self.source)
        return [(str(key), str(id_)) for key, id_ in rows]

    def marks(self) -> list[tuple[str, str]]:
        """Return key and event's id of each row that is marked as sent."""
        return [
            (key, id_)
            for key, id_ in self.sql("SELECT key::text, event_id::text FROM notifier_relay WHERE sent_at IS NOT NULL")
        ]

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a relay of its own; `settings` are laid over it, an empty one unsets."""
        own = {
            "NOTIFIER_RELAY_DSN": self.url,
            "NOTIFIER_API_URL": self.caller.url,
            "NOTIFIER_API_KEY": self.caller.key,
            "NOTIFIER_LOG_FORMAT": "json",
            **settings,
        }
        return {**clean_environment(), "PYTHONUNBUFFERED": "1", **{name: text for name, text in own.items() if text}}

    def move(self, table: str = DEFAULT_NAME) -> Moved:
        """Move what waits, by the library."""
        with contextlib.closing(self.connect()) as connection, Client(self.caller.url, key=self.caller.key) as client:
            return relay_once(connection, client, table=table)

    def relay(self, *options: str, **settings: str) -> Ended:
        """Run `manage.py relay` to its end."""
        done = manage("relay", *options, environment=self.environment(**settings))
        return Ended(done.stdout + done.stderr, done.returncode)

    def relay_in_turn(self, *commands: Sequence[str]) -> list[Ended]:
        """Run `manage.py relay` with the options of each command, one after the other."""
        return in_turn([["relay", *options] for options in commands], self.environment())

    @contextlib.contextmanager
    def relaying(self, *options: str, **settings: str) -> Iterator["Process"]:
        """Have `manage.py relay` run; at the end it must stop in good order, unless it was killed."""
        with running([ROOT / "manage.py", "relay", *options], self.environment(**settings)) as process:
            yield process

    @contextlib.contextmanager
    def working(self, code: str, *arguments: str) -> Iterator["Process"]:
        """Have a program of the service's run that uses the client."""
        environment = {**clean_environment(), "PYTHONPATH": str(CLIENT_SOURCE)}
        with running(["-c", code, *arguments], environment) as process:
            yield process

    def wait_until_moved(self) -> None:
        """Wait until no row waits."""
        wait_for(lambda: self.waiting() == 0, 60, "a relay table without waiting rows")

    def check_exactly_once(self) -> None:
        """Check that each row that was sent is one event, under the id in the row, and that there is no other."""
        events = self.events()
        assert len(dict(events)) == len(events), "one event a key"
        assert sorted(events) == sorted(self.marks())


class Process:
    """A relay that runs."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], log: TextIO) -> None:
        self._log = log
        self.popen = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=subprocess.STDOUT)

    def output(self) -> str:
        """Return what it has written."""
        self._log.seek(0)
        return self._log.read()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of a kind."""
        lines = [json.loads(line) for line in self.output().splitlines() if line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def kill(self) -> None:
        """Kill it outright."""
        self.popen.kill()
        self.popen.wait(60)

    def stop(self) -> int:
        """Stop it in good order; returns its exit code."""
        self.popen.terminate()
        return self.popen.wait(60)


@contextlib.contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str]) -> Iterator[Process]:
    """Have Python run with these arguments; it must end with 0 once it is stopped, unless it was killed."""
    with tempfile.TemporaryFile("w+") as log:
        process = Process([sys.executable, *command], environment, log)
        try:
            yield process
        finally:
            code = process.stop()
        assert code in {0, -signal.SIGKILL}, process.output()
