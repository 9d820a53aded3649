"""Audit log lines for refused requests: an expired or revoked key, a missing scope.

A thread counts and writes them: the first of a kind within seconds, equal ones once a minute. So a flood of wrong keys
does not fill the log, cost a transaction each, or delay other requests.
"""

import atexit
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from notifier.runtime.threads import start_lasting
from notifier.security.audit_log import AuditLog
from notifier.vocabulary.errors import NotifierError

log = structlog.get_logger()

#: The actor and the action of a request whose key has never existed.
UNKNOWN: Final = "(unknown)"
SIGN_IN: Final = "sign-in"
#: Seconds from the first refusal to its line, and the window in which equal ones are counted.
_SOON: Final = 1.0
_WINDOW: Final = 60.0
#: Kinds with a count of their own within a window; all others share one.
_MOST_KINDS: Final = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kind of refusal."""

    action: str
    outcome: str
    actor: str = UNKNOWN
    peer: str | None = None


_OTHERS: Final = Refusal("several", "refused")


@dataclass(slots=True)
class _Count:
    """The number of equal refusals since the last line, and the first of their requests."""

    at: datetime
    request_id: str | None
    times: int = 1


class RefusalLog:
    """Counts refusals and writes them down. Used by several threads at once."""

    def __init__(self, audit: Callable[[], AuditLog], *, soon: float = _SOON, window: float = _WINDOW) -> None:
        self._audit, self._soon, self._window = audit, soon, window
        self._waiting: dict[Refusal, _Count] = {}
        #: The refusals that have their line in this window.
        self._written: set[Refusal] = set()
        self._lock = threading.Lock()
        self._noted = threading.Event()
        self._writer: threading.Thread | None = None

    def note(self, refusal: Refusal, request_id: str | None) -> None:
        """Count a refusal, to be written soon."""
        with self._lock:
            kinds = self._waiting.keys() | self._written
            if refusal not in kinds and len(kinds) >= _MOST_KINDS:
                refusal = _OTHERS
            count = self._waiting.get(refusal)
            if count is None:
                self._waiting[refusal] = _Count(datetime.now(UTC), request_id)
            else:
                count.times += 1
            if self._writer is None:
                self._writer = start_lasting("refusals", self._keep_writing)
                atexit.register(self.flush)
            if refusal not in self._written:
                self._noted.set()

    def flush(self) -> None:
        """Write all counted refusals."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        self._write(waiting)

    def _keep_writing(self) -> None:
        """Write new kinds of refusals soon, and all counts once a window."""
        pause = threading.Event()
        while True:
            self._noted.wait()
            passed = 0.0
            while passed < self._window:
                if self._noted.is_set():
                    pause.wait(self._soon)
                    self._noted.clear()
                    self._write_new()
                pause.wait(self._soon)
                passed += self._soon
            with self._lock:
                self._written.clear()
            self.flush()

    def _write_new(self) -> None:
        with self._lock:
            new = {refusal: count for refusal, count in self._waiting.items() if refusal not in self._written}
            for refusal in new:
                del self._waiting[refusal]
            self._written |= new.keys()
        self._write(new)

    def _write(self, counts: dict[Refusal, _Count]) -> None:
        for refusal, count in counts.items():
            line: dict[str, Any] = {
                "actor": refusal.actor,
                "action": refusal.action,
                "outcome": refusal.outcome,
                "peer": refusal.peer,
                "times": count.times,
                "request_id": count.request_id,
            }
            try:
                self._audit().record(target=None, at=count.at, **line)
            except (SQLAlchemyError, NotifierError) as error:
                log.error("audit_not_written", error=type(error).__name__, **line)  # noqa: TRY400 -- the line says it all
