"""The threads of a worker on RabbitMQ: they take the most urgent of the messages that wait in this process."""

from collections.abc import Callable
from functools import partial
from itertools import count
from queue import PriorityQueue
from typing import Any, Final

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool

from config.queues import level_of

#: Where a message's own data are among the arguments of Celery's tracing function: its name, its id, its data.
_REQUEST: Final = 2


class PriorityPool(TaskPool):
    """Celery's pool of threads with high before normal before low, in turns as they came within each.

    Quorum queues know no limit for a whole connection. Each queue has its own, so that messages of all queues come at
    once and wait here for a thread; with Redis they wait in their queues, and `PriorityOrder` chooses.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- Celery's signature
        super().__init__(*args, **kwargs)
        self._waiting: PriorityQueue[tuple[int, int, Callable[[], Any]]] = PriorityQueue()
        self._turns = count()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        **_: Any,  # noqa: ANN401 -- Celery's signature
    ) -> ApplyResult:
        """Queue a task for the next thread that is free."""
        call = partial(apply_target, target, args, kwargs, callback, accept_callback)
        self._waiting.put((level_of(_queue_of(args or ())), next(self._turns), call))
        # There are as many of these as tasks that wait: each does the most urgent, and none is left over.
        return ApplyResult(self.executor.submit(self._do_the_most_urgent))

    def _do_the_most_urgent(self) -> None:
        _, _, call = self._waiting.get_nowait()
        call()


def _queue_of(args: tuple[Any, ...]) -> str:
    """Return the name of the queue that a task's message came from; empty where it came from none."""
    request = args[_REQUEST] if len(args) > _REQUEST else {}
    return str((request.get("delivery_info") or {}).get("routing_key") or "")
