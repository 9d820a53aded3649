"""The waits of Postgres' sessions, sampled while something runs."""

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

import psycopg2

_INTERVAL: Final = 0.05
#: Seconds after which the last of the idle sessions has told what it counted.
_TOLD_AFTER: Final = 11.0

_ACTIVE: Final = """
    SELECT coalesce(wait_event_type, 'running'), coalesce(wait_event, ''), count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active'
        AND pid <> pg_backend_pid()
    GROUP BY 1, 2
"""
_SESSIONS: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class Waits:
    """Looks every 50 ms at what the sessions of a database wait for, in a context."""

    def __init__(self, url: str) -> None:
        """`url`: the database, as a role that sees all sessions."""
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._seen: Counter[tuple[str, str]] = Counter()
        self._looks = 0
        self._most_sessions = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again)
        self._deadlocks = self._rows(_DEADLOCKS)[0][0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error:
            self._connection.close()

    def _rows(self, statement: str) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def _look_again_and_again(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self._seen.update({(kind, event): count for kind, event, count in self._rows(_ACTIVE)})
            self._most_sessions = max(self._most_sessions, self._rows(_SESSIONS)[0][0])
            self._looks += 1

    def found(self) -> dict[str, Any]:
        """Return shares of all sightings of an active session, and deadlocks; once, after the context."""
        time.sleep(_TOLD_AFTER)
        deadlocks = self._rows(_DEADLOCKS)[0][0] - self._deadlocks
        self._connection.close()
        total = self._seen.total() or 1
        kinds: Counter[str] = Counter()
        for (kind, _), count in self._seen.items():
            kinds[kind] += count
        return {
            "looks": self._looks,
            "sightings": self._seen.total(),
            "sessions": self._most_sessions,
            "kinds": {kind: count / total for kind, count in kinds.most_common()},
            "events": {":".join(event).strip(":"): count / total for event, count in self._seen.most_common()},
            "lock": kinds["Lock"] / total,
            "lwlock": kinds["LWLock"] / total,
            "deadlocks": deadlocks,
        }
