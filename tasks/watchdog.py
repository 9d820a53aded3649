"""The watchdog of a worker: a canary that it sends itself through the broker must come back.

It goes the way of every message, through a queue of this worker alone, so that it does not come back where the worker
has lost its places for messages, or where all its threads hang. Then nothing else would tell: the process lives, and
signs. Such a worker says that it is stuck, no longer touches its sign file, and ends, to be started again.

Only time is counted in which Postgres and the broker answered: while one of them is away, work may well stand still.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

import structlog
from celery import Celery, shared_task
from kombu.entity import Exchange, Queue
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config.queues import own_queue
from notifier.observability import heartbeats
from notifier.providers.unused_connections import close_unused
from notifier.runtime import memory, progress
from notifier.runtime.isolation import kind_of
from notifier.runtime.threads import end_process, start_lasting
from tasks.queue_depth import depth

log = structlog.get_logger()

#: This process's, where it is a worker.
own: "Watchdog | None" = None

#: Seconds between two looks at the most. Each touches the sign file.
_INTERVAL: Final = 5.0
#: How often freed memory is returned to the kernel, in seconds.
_GIVES_BACK: Final = 30.0
#: After a sign of life, Postgres is taken to answer for so many seconds.
_ANSWERS_FOR: Final = 2 * heartbeats.INTERVAL
#: Seconds that a stuck worker has for what its other threads are at, from SIGTERM to its end, at the most.
_GRACE: Final = 10.0
#: Milliseconds after which RabbitMQ forgets the queue of a worker that is gone.
_FORGOTTEN_AFTER: Final = 600_000
_TASK: Final = "tasks.canary.come_back"

_came_back = threading.Event()


@shared_task(name=_TASK)
def come_back() -> None:
    """Note that this process's canary has come back."""
    _came_back.set()


class Watchdog:
    """Watches the worker of this process; tasks.clock tells it of signs of life."""

    def __init__(self, app: Celery, engine: Engine, node: str, *, stuck_after: float, sign_file: Path | None) -> None:
        """`node`: the worker's node name. `stuck_after`: seconds that a canary may be away."""
        self._app, self._engine, self._node = app, engine, node
        self._stuck_after, self._sign_file = stuck_after, sign_file
        self._interval = min(_INTERVAL, stuck_after / 4)
        self._signed_at: float | None = None
        self._looked_at = time.monotonic()
        self._missing_for = 0.0
        self._gave_back_at = time.monotonic()
        self._steps = progress.count()
        self._is_stopping = False
        self.is_stuck = False
        self.queue = own_queue(node)

    def declare(self) -> str:
        """Make this worker's own queue known to Celery, and return its name.

        It is under the nameless exchange: under another one each would leave a binding in Redis.
        """
        arguments = {"x-expires": _FORGOTTEN_AFTER}
        exchange = Exchange("")  # type: ignore[no-untyped-call]  # kombu
        queue = Queue(self.queue, exchange, self.queue, queue_arguments=arguments)  # type: ignore[no-untyped-call]  # kombu's
        self._app.amqp.queues[self.queue] = queue
        return self.queue

    def start(self) -> None:
        """Watch, from a thread of its own."""
        start_lasting("watchdog", self._watch)

    def signed(self) -> None:
        """Note that Postgres has taken a sign of life of this worker."""
        self._signed_at = time.monotonic()

    def stop(self) -> None:
        """Judge no more: a worker that is being stopped takes no messages."""
        self._is_stopping = True

    def _watch(self) -> None:
        while not self._is_stopping:
            self.look()
            if self.is_stuck:
                self._end()
            close_unused()
            if time.monotonic() - self._gave_back_at >= _GIVES_BACK:
                memory.give_back()
                self._gave_back_at = time.monotonic()
            time.sleep(self._interval)

    def look(self) -> None:
        """Judge by the canary that was sent before, and send another one where none is in the queue."""
        now = time.monotonic()
        # Where the whole process was stopped, nobody knows what would have come back meanwhile.
        passed = min(now - self._looked_at, 2 * self._interval)
        self._looked_at = now
        # A handler may be slow, with hundreds of events in hand: as long as one after the other is done, nothing hangs.
        steps, self._steps = self._steps, progress.count()
        is_well = _came_back.is_set() or self._steps != steps
        answers = self._send() and self._signed_at is not None and now - self._signed_at < _ANSWERS_FOR
        if is_well:
            self._missing_for = 0.0
        elif answers:
            self._missing_for += passed
        self.is_stuck = self._missing_for >= self._stuck_after
        if not self.is_stuck:
            self._touch()

    def _send(self) -> bool:
        """Send a canary, unless one waits; returns whether the broker answered."""
        try:
            with self._app.producer_or_acquire() as producer:
                # One that was lost with Redis is followed by another.
                if depth(producer.connection, self.queue) == 0:
                    _came_back.clear()
                    self._app.send_task(_TASK, queue=self.queue, producer=producer, ignore_result=True)
        except Exception as error:
            log.debug("canary_not_sent", error=type(error).__name__)
            return False
        return True

    def _touch(self) -> None:
        if self._sign_file is not None:
            try:
                self._sign_file.touch(mode=0o600)
            except OSError as error:
                log.warning("not_touched", file=str(self._sign_file), error=error.strerror)

    def _end(self) -> None:
        """End this process, in order where that is possible."""
        log.error("worker_stuck", worker=self._node, seconds=round(self._missing_for))
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + min(_GRACE, self._stuck_after / 2)
        while time.monotonic() < until:
            try:
                heartbeats.sign_stuck(self._engine, self._node)
            except SQLAlchemyError as error:
                log.warning("heartbeat_failed", error=kind_of(error))
            time.sleep(1)
        end_process()
