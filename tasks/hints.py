"""Messages to the workers, and the thread that sends them.

A message says "look at these rows now". It may be lost, doubled or late without harm: the row's lease brings
the clock, and the claim takes a row once.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any, Final
from uuid import UUID

import structlog
from celery import Celery

from config.queues import MAX_MESSAGES
from notifier.observability import metrics
from notifier.observability.request_context import UNKNOWN, RequestContext
from notifier.runtime.isolation import kind_of
from notifier.runtime.threads import start_lasting
from notifier.scheduling.due import Handover
from notifier.vocabulary.queues import BATCH, DELIVERY, FAN_OUT, channel_of
from tasks.message_headers import DUE, REQUEST_ID, TRACEPARENT
from tasks.queue_depth import depth

log = structlog.get_logger()

#: Seconds that a row is left to its message; one more for each message already in its queue.
LEASE: Final = 5.0
#: At this queue depth, stop publishing. It is below the maximum, since several publishers may look at once.
_FULL: Final = MAX_MESSAGES - 8
#: At this queue depth, publish only full batches.
_CROWDED: Final = 8
#: Messages to a nearly empty queue between two looks at its depth: a look costs as much as a message.
_UNSEEN: Final = 8
#: Ids that are kept while their queues are full. Any more are left to the clock.
_MAX_KEPT: Final = 20_000
#: Seconds between looks into full queues, and of silence after a failure.
_PAUSE_FULL: Final = 0.05
_PAUSE_FAILED: Final = 1.0


def task_of(queue: str) -> str:
    """Return the name of the task that a queue's messages are for."""
    return "tasks.fan_out" if queue == FAN_OUT else f"tasks.deliver.{channel_of(queue)}"


def room(connection: Any, queue: str) -> int:  # noqa: ANN401 -- kombu ships no types
    """Return how many messages may be added to a queue."""
    return max(0, _FULL - depth(connection, queue))


def _in_words(handover: Handover) -> str:
    """Say for Flower and logs what a message is for; nobody reads hundreds of ids."""
    kind = "event" if handover.queue == FAN_OUT else "notification"
    first, rows = handover.ids[0], len(handover.ids)
    which = f"{kind} {first}" if rows == 1 else f"{rows} {kind}s, the first {first}"
    return f"({handover.queue}: {which})"


def _begun_in_words(handover: Handover) -> str:
    """Say how often the rows of a message were tried before."""
    return f"{{failures: {handover.failures}}}" if handover.failures else "{}"


def _headers(handover: Handover) -> dict[str, Any]:
    headers = {
        DUE: handover.due.timestamp() if handover.due else None,
        REQUEST_ID: handover.cause.request_id,
        TRACEPARENT: handover.cause.traceparent,
    }
    return {name: value for name, value in headers.items() if value is not None}


def publish(app: Celery, handovers: Iterable[Handover], producer: Any) -> None:  # noqa: ANN401 -- kombu ships no types
    """Send a message for each hand-over. Raises what the transport raises."""
    for handover in handovers:
        app.send_task(
            task_of(handover.queue),
            args=([str(row_id) for row_id in handover.ids],),
            headers=_headers(handover),
            argsrepr=_in_words(handover),
            kwargsrepr=_begun_in_words(handover),
            queue=handover.queue,
            retries=handover.failures,
            producer=producer,
            ignore_result=True,
        )


def publish_hints(app: Celery, hints: Sequence[tuple[str, UUID]]) -> None:
    """Send (queue, id) of rows that are due now, at once and from this thread: for commands, which end soon.

    Raises nothing: rows without a message are left to the clock.
    """
    queues = sorted({queue for queue, _ in hints})
    try:
        with app.producer_or_acquire() as producer:
            for queue in queues:
                ids = [row_id for each, row_id in hints if each == queue]
                if room(producer.connection, queue):
                    publish(app, [Handover(queue, ids, 0)], producer)
    except Exception as error:
        log.debug("hints_dropped", error=type(error).__name__, ids=len(hints))


class HintPublisher:
    """Sends one message for all ids that wait for a queue, from a thread of its own.

    So a request never waits for Redis: while it is down or hangs, hints are dropped; while a queue is full, they
    are kept, and its messages grow. The thread starts with the first hint, in the process that gives it.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._kept: dict[str, deque[tuple[UUID, RequestContext]]] = {queue: deque() for queue in (*DELIVERY, FAN_OUT)}
        #: The last seen depth of each queue, and the messages sent to it since then.
        self._depths = dict.fromkeys(self._kept, 0)
        self._unseen = dict.fromkeys(self._kept, _UNSEEN)
        self._changed = threading.Condition()
        self._count = 0
        self._silent_until = 0.0
        self._thread: threading.Thread | None = None

    def hint(self, hints: Sequence[tuple[str, UUID]], causes: Sequence[RequestContext] = ()) -> None:
        """Send (queue, id) of rows that are due now, or drop them. Returns at once and raises nothing.

        `causes`: the request that brought each, where that is known.
        """
        with self._changed:
            if time.monotonic() < self._silent_until:
                metrics.HINTS_DROPPED.inc(len(hints))
                return
            kept = hints[: _MAX_KEPT - self._count]
            metrics.HINTS_DROPPED.inc(len(hints) - len(kept))
            for (queue, row_id), cause in zip(kept, chain(causes, repeat(UNKNOWN)), strict=False):
                self._kept[queue].append((row_id, cause))
                self._count += 1
            if self._thread is None:
                self._thread = start_lasting("hints", self._publish_for_ever)
            self._changed.notify()

    def lease(self, queue: str) -> float:
        """Return the seconds that a row of `queue` is left to its message, by the queue's last seen depth."""
        return LEASE + self._depths.get(queue, 0)

    def _publish_for_ever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._count)
                waiting = [queue for queue, ids in self._kept.items() if ids]
            try:
                published = self._publish(waiting)
            except BaseException as error:
                # Any error: the rows have their leases, and hints must not pile up behind a broken broker.
                self._drop(kind_of(error))
            else:
                if not published:
                    time.sleep(_PAUSE_FULL)

    def _publish(self, queues: Sequence[str]) -> int:
        """Send a message for each queue that has room; returns how many were sent."""
        published = 0
        with self._app.producer_or_acquire() as producer:
            for queue in queues:
                if not self._has_room(producer.connection, queue):
                    continue
                with self._changed:
                    kept = self._kept[queue]
                    taken = [kept.popleft() for _ in range(min(BATCH, len(kept)))]
                    self._count -= len(taken)
                causes = {cause for _, cause in taken}
                cause = causes.pop() if len(causes) == 1 else UNKNOWN
                publish(self._app, [Handover(queue, [row_id for row_id, _ in taken], 0, cause=cause)], producer)
                published += 1
        return published

    def _has_room(self, connection: Any, queue: str) -> bool:  # noqa: ANN401 -- kombu ships no types
        """Return whether a message may be added; looks only every few messages while the queue is nearly empty."""
        if self._unseen[queue] >= _UNSEEN or self._depths[queue] >= _UNSEEN:
            self._depths[queue], self._unseen[queue] = depth(connection, queue), 0
        self._unseen[queue] += 1
        # Workers take turns between queues by the message, so small messages would lose to the large ones of another
        # queue. While messages wait, small ones are held back, and grow.
        most = _FULL if len(self._kept[queue]) >= BATCH else _CROWDED
        return self._depths[queue] < most

    def _drop(self, error: str) -> None:
        with self._changed:
            log.warning("hints_dropped", error=error, ids=self._count)
            metrics.HINTS_DROPPED.inc(self._count)
            for kept in self._kept.values():
                kept.clear()
            self._count = 0
            self._silent_until = time.monotonic() + _PAUSE_FAILED
