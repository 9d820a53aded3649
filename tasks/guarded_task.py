"""The class of all tasks: turns whatever a task raises into an error that Celery can handle."""

from typing import Any

import structlog
from celery import Task

log = structlog.get_logger()


class TaskBroken(Exception):
    """A task raised a non-Exception, or an error that Celery treats specially; `args` name its class."""


class GuardedTask(Task):
    """A task whose message is acknowledged whatever its code raises.

    Celery acknowledges the message of a task that raises an Exception. It raises others (sys.exit(), GreenletExit,
    asyncio.CancelledError) and MemoryError again in a thread of the pool, which swallows them: the message is never
    acknowledged. A worker holds no more messages than it has threads, so after four of those it takes no more.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- Celery's signature
        """Run the task. Raises only Exceptions: TaskBroken for all else."""
        try:
            return self.run(*args, **kwargs)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, MemoryError):
                raise
            # Here, since beat has tasks of this class, runs none, and needs no database.
            from notifier.runtime.isolation import kind_of  # noqa: PLC0415 -- see above

            log.exception("task_broken", error=kind_of(error))
            raise TaskBroken(kind_of(error)) from None
