"""The class of all tasks: nothing that a task's code raises gets past it but what Celery knows to deal with."""

from typing import Any

import structlog
from celery import Task

from notifier.runtime.isolation import kind_of

log = structlog.get_logger()


class TaskBroken(Exception):
    """A task ended with what is no Exception, or what Celery takes for its own; `args` name its class."""


class GuardedTask(Task):
    """A task whose message is acknowledged whatever its code raises.

    Celery acknowledges the message of a task that raises an Exception. What is none (sys.exit(), GreenletExit,
    asyncio.CancelledError) and MemoryError it raises again, in a thread of the pool, which swallows it: the message is
    never acknowledged. As a worker has no more messages in hand than it has threads, it is deaf after four of those.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- Celery's signature
        """Run the task. Raises Exceptions alone, TaskBroken for all else."""
        try:
            return self.run(*args, **kwargs)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, MemoryError):
                raise
            log.exception("task_broken", error=kind_of(error))
            raise TaskBroken(kind_of(error)) from None
