"""Beat: keeps time, and nothing else. Any number may run, for a tick is idempotent."""

from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from config.queues import CLOCK, MAX_MESSAGES
from tasks.hints import depth


class TickScheduler(Scheduler):
    """Celery's in-memory scheduler, which sends no tick while the clock's queue is full of them.

    In memory, since nothing needs to be remembered between runs: two beats in one folder do not fight for a
    schedule file. Ticks that were missed are not made up for: one tick does all that is due.
    """

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Any = None,  # noqa: ANN401
        advance: bool = True,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Send an entry's message, unless nobody takes them."""
        if depth(self.connection, CLOCK) >= MAX_MESSAGES // 2:
            if advance:
                self.reserve(entry)
            return None
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
