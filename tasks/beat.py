"""Beat sends the clock's ticks and nothing else. Any number may run: a tick is idempotent."""

from pathlib import Path
from typing import Any

import structlog
from celery.beat import ScheduleEntry, Scheduler

from config.queues import CLOCK, MAX_MESSAGES
from tasks.queue_depth import depth

log = structlog.get_logger()


class TickScheduler(Scheduler):
    """Celery's in-memory scheduler, which sends no tick while the clock's queue is full of them.

    In memory, since nothing needs to be remembered between runs: two beats in one folder do not fight for a
    schedule file. Ticks that were missed are not made up for: one tick does all that is due.
    """

    #: Celery would keep one producer for the life of the process, and with it the channel of a connection that is
    #: lost when RabbitMQ restarts. Each message takes one of the pool instead, which makes its connections anew.
    producer = None
    #: Touched each time that the broker has answered, where one is named.
    sign_file: Path | None = None

    def adjust(self, n: float | None, drift: float = 0.0) -> float | None:
        """Return when to look again, in seconds: at the moment when an entry is due.

        Celery looks 10 ms before it, and then as often as the processor allows until it is: two thirds of beat's work.
        """
        return super().adjust(n, drift)  # type: ignore[no-any-return]  # celery has no types

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Any = None,  # noqa: ANN401 -- Celery's signature
        advance: bool = True,
        **kwargs: Any,  # noqa: ANN401 -- Celery's signature
    ) -> Any:  # noqa: ANN401 -- Celery's signature
        """Send an entry's message, unless its queue is half full. Raises nothing: the next tick comes in a second."""
        try:
            with self.app.producer_or_acquire(producer) as pooled:
                waiting = depth(pooled.connection, CLOCK)
                if self.sign_file is not None:
                    self.sign_file.touch(mode=0o600)
                if waiting < MAX_MESSAGES // 2:
                    return super().apply_async(entry, producer=pooled, advance=advance, **kwargs)
        except Exception as error:
            log.warning("not_sent", entry=entry.name, error=type(error.__cause__ or error).__name__)
        if advance:
            self.reserve(entry)
        return None
