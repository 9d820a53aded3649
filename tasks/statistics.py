"""The counting of minutes that are over, in a thread of the clock's worker: ticks go on meanwhile."""

import threading
import time
from typing import Final

import structlog
from sqlalchemy import Engine

from notifier.runtime.isolation import kind_of
from notifier.statistics.rollups import roll_up
from notifier.storage.deadlines import patiently

log = structlog.get_logger()

_MINUTE: Final = 60.0
#: Seconds that a minute is left alone after its end: by then nearly all of its attempts are recorded.
_GRACE: Final = 5.0
#: One run goes on for at most this long, in seconds; the next minute's continues.
_LONGEST: Final = 50.0


class MinuteCounting:
    """Begins to count once a minute, unless it still counts."""

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._begun: int | None = None

    def begin_if_due(self, engine: Engine, stopping: threading.Event) -> None:
        """Begin to count in a thread, at the first call in each minute. `stopping`: set when the worker ends."""
        minute = int((time.time() - _GRACE) // _MINUTE)
        if minute == self._begun or not self._running.acquire(blocking=False):
            return
        self._begun = minute
        threading.Thread(
            target=patiently()(self._count), args=(engine, stopping), name="statistics", daemon=True
        ).start()

    def _count(self, engine: Engine, stopping: threading.Event) -> None:
        """Count until nothing is due or time is up. Safe to interrupt anywhere."""
        until = time.monotonic() + _LONGEST
        try:
            for _ in roll_up(engine):
                if time.monotonic() > until or stopping.is_set():
                    break
        except BaseException as error:
            log.warning("statistics_failed", error=kind_of(error))
        finally:
            self._running.release()
