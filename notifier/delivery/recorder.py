"""Recorder: writes the results of a batch to Postgres beside its sends, and holds them until they are committed.

A Postgres that hangs, or a lock that somebody else holds, must neither keep answers from being read nor cost rows their
leases: what was sent, and could not be recorded, would be sent once more. So a batch's results are written from another
thread while it reads on, one write at a time, repeated until it is committed; and a keeper renews the leases of
what a batch still holds when they are about to end.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from notifier.notifications.attempts import Record
from notifier.notifications.claims import Claimed, renew
from notifier.runtime.isolation import is_away, kind_of
from notifier.runtime.threads import start_lasting

log = structlog.get_logger()

#: Results are recorded when this many have come, or after this many seconds.
_ROWS: Final = 100
_SECONDS: Final = 0.1
#: A write that takes longer than this, in seconds, keeps new sends from being begun.
_SLOW: Final = 0.5
#: Between tries to record while Postgres is away, in seconds.
_PAUSE: Final = 0.25
#: Writes under way at once in this process: those of its threads' batches and of its stragglers'.
_WRITERS: Final = 48
#: The keeper looks this often, and renews leases that end within so many seconds, for so many seconds.
_LOOKS: Final = 1.0
_SOON: Final = 3.0
_RENEWED: Final = 10.0

_writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="record")


@dataclass(frozen=True, slots=True)
class Results:
    """One write: the results of a batch, the reports that follow once they are committed, and rows to give back."""

    records: Sequence[Record]
    reports: Sequence[Callable[[], object]]
    returned: Sequence[Claimed]


class Writer(Protocol):
    """Writes the outcomes of a batch."""

    def take_reports(self) -> Sequence[Callable[[], object]]:
        """Return the reports on what was seen since this was called last."""
        ...

    def write(self, results: Results) -> None:
        """Commit one write. It is safe to repeat, and may be called in another thread."""
        ...

    def committed(self, records: Sequence[Record]) -> None:
        """Take note of attempts that are committed."""
        ...


class Recorder:
    """Writes the results of one batch. Used by the batch's thread alone."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        #: Writes that were committed.
        self.commits = 0
        self._unrecorded: list[Record] = []
        self._returned: list[Claimed] = []
        self._job: Results | None = None
        self._future: Future[None] | None = None
        self._tried_at = 0.0
        self._recorded_at = time.monotonic()
        self._failed = False

    def add(self, record: Record) -> None:
        """Take in a result."""
        self._unrecorded.append(record)

    def give_back(self, rows: Sequence[Claimed]) -> None:
        """Take in rows that were not begun."""
        self._returned.extend(rows)

    @property
    def has_any(self) -> bool:
        """Whether anything is not committed yet."""
        return self._job is not None or bool(self._unrecorded) or bool(self._returned)

    @property
    def is_behind(self) -> bool:
        """Whether Postgres does not take the results there are, so that nothing more is to be sent."""
        return self._failed or (self._future is not None and time.monotonic() - self._tried_at > _SLOW)

    def held(self) -> list[tuple[UUID, int]]:
        """Return the claims (id, claims) of results that are not committed yet. Called by any thread."""
        unrecorded = self._unrecorded  # first: what is taken from there meanwhile is found in the write
        job = self._job
        records = [*unrecorded, *(job.records if job is not None else ())]
        return [(each.result.id, each.claims) for each in records]

    def go_on(self) -> None:
        """Begin or end a write without waiting for it. Raises the error of a write, unless Postgres is away."""
        if self._future is not None:
            if not self._future.done():
                return
            future, self._future = self._future, None
            self._end(future.exception())
        if self._job is None and self._is_due():
            self._take()
        if self._job is not None and not (self._failed and time.monotonic() - self._tried_at < _PAUSE):
            self._tried_at = time.monotonic()
            try:
                self._future = _writers.submit(self._writer.write, self._job)
            except RuntimeError:
                # This process is ending: it waits for stragglers, but lets nobody begin anything in another thread.
                self._write_here(self._job)

    def finish(self) -> None:
        """Write everything, however long that takes. Raises the error of a write, unless Postgres is away.

        In this thread: there are no answers to be read meanwhile.
        """
        while self.has_any or self._future is not None:
            if self._future is not None:
                wait([self._future])
                future, self._future = self._future, None
                self._end(future.exception())
                continue
            if self._job is None:
                self._take()
            if self._job is not None and not self._write_here(self._job):
                time.sleep(_PAUSE)

    def _write_here(self, job: Results) -> bool:
        """Write in this thread; return whether the write is committed."""
        self._tried_at = time.monotonic()
        try:
            self._writer.write(job)
        except Exception as error:
            self._end(error)
            return False
        self._end(None)
        return True

    def _is_due(self) -> bool:
        if self._returned or len(self._unrecorded) >= _ROWS:
            return True
        return bool(self._unrecorded) and time.monotonic() - self._recorded_at >= _SECONDS

    def _take(self) -> None:
        # In this order: see `held`.
        self._job = Results(self._unrecorded, self._writer.take_reports(), self._returned)
        self._unrecorded, self._returned = [], []

    def _end(self, error: BaseException | None) -> None:
        job = self._job
        if error is None:
            self._job, self._failed, self._recorded_at = None, False, time.monotonic()
            self.commits += 1
            if job is not None:
                self._writer.committed(job.records)
        elif isinstance(error, Exception) and is_away(error):
            log.warning("record_failed", error=kind_of(error), results=len(job.records) if job is not None else 0)
            self._failed = True
        else:
            self._job, self._failed = None, False
            raise error


class Holder(Protocol):
    """A batch that holds rows."""

    def to_renew(self, now: float, soon: float) -> Sequence[tuple[UUID, int]]:
        """Return the claims whose leases end within `soon` seconds of `now`, on the monotonic clock. Called by any
        thread.
        """
        ...


class LeaseKeeper:
    """Renews the leases of rows that this process still holds. Used by several threads at once.

    A send ends before its lease does. But its result may have to wait for Postgres: until it is recorded, the clock
    must not take the row for a lost worker's.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._holders: set[Holder] = set()
        self._thread: threading.Thread | None = None

    def keeping(self, holder: Holder, steps: Iterator[None]) -> Iterator[None]:
        """Yield a batch's steps, and keep its leases until they have ended."""
        with self._changed:
            self._holders.add(holder)
            if self._thread is None:
                self._thread = start_lasting("leases", self._keep)
            self._changed.notify()
        try:
            yield from steps
        finally:
            with self._changed:
                self._holders.discard(holder)

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._holders)
                holders = list(self._holders)
            now = time.monotonic()
            claims = [claim for holder in holders for claim in holder.to_renew(now, _SOON)]
            try:
                if claims:
                    with self._engine.begin() as connection:
                        renew(connection, claims, _RENEWED)
            except SQLAlchemyError as error:
                log.warning("leases_not_renewed", error=kind_of(error), rows=len(claims))
            time.sleep(_LOOKS)
