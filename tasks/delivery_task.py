"""The task class of deliveries: a retry becomes a `due_at` in Postgres, a failed task a dead letter."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import structlog
from celery.exceptions import Retry

from config.wiring import wiring
from notifier.delivery.batch_failed import BatchFailed, FailedRow
from notifier.notifications.dead_letters import DeadLetterRequest, dead_letter
from notifier.notifications.retries import RetryPolicy, Wait, schedule_retry
from notifier.observability import metrics
from notifier.runtime.isolation import kind_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel
from tasks.guarded_task import GuardedTask

log = structlog.get_logger()

#: Threads that wait for the slow calls of a batch. They are joined when the process ends.
_STRAGGLERS: Final = 32
#: The longest wait that a provider may ask for, in seconds.
_LONGEST_WAIT: Final = 7 * 24 * 3600.0
_stragglers = ThreadPoolExecutor(_STRAGGLERS, thread_name_prefix="straggler")
_room_for_stragglers = threading.Semaphore(_STRAGGLERS)


class DeliverTask(GuardedTask):
    """Celery decides when and whether to retry (autoretry), Postgres remembers it.

    Stock `retry()` publishes a message with an ETA: Redis would deliver it again and again past its visibility
    timeout, a worker would hold it in memory, and while Redis is down the task would be dropped without a word.
    """

    abstract = True
    channel: Channel
    policy: RetryPolicy

    def retry(
        self,
        args: Any = None,  # noqa: ANN401 -- Celery's signature
        kwargs: Any = None,  # noqa: ANN401 -- Celery's signature
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,  # noqa: ANN401 -- Celery's signature
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,  # noqa: ANN401 -- Celery's signature
    ) -> NoReturn:
        """Let what failed for now wait in Postgres and dead-letter the rest; publishes nothing.

        Raises Retry, or `exc` where nothing is left to retry: then the task fails and `on_failure` buries it all.
        """
        del args, kwargs, throw, eta, options
        if not isinstance(exc, BatchFailed):
            raise exc or RuntimeError("only failed batches are retried")
        most = self.max_retries if max_retries is None else max_retries
        transient = [row for row in exc.rows if not row.permanent]
        if not transient or self.request.retries >= most:
            raise exc
        self._settle(exc.rows, self.request.retries, countdown)
        raise Retry(exc=exc, when=countdown or 0)

    def detach(self, finish: Callable[[], list[FailedRow]], failures: int) -> bool:
        """Let another thread wait for what is left of a batch, so that this one is free for others; false if none can.

        Rows that fail in the end are settled like those of a failed task.
        """
        if not _room_for_stragglers.acquire(blocking=False):
            return False
        _stragglers.submit(self._finish, finish, failures)
        return True

    def _finish(self, finish: Callable[[], list[FailedRow]], failures: int) -> None:
        try:
            rows = finish()
            most = self.max_retries if self.max_retries is not None else 0
            if rows and failures < most:
                self._settle(rows, failures, countdown=0 if self.policy.backoff == 0 else None, draw=True)
            elif rows:
                with wiring().engine.begin() as connection:
                    dead_letter(connection, self._dead_letter_requests(rows))
        except BaseException as error:
            # The rows have their lease, and the clock takes them back.
            log.warning("stragglers_failed", error=kind_of(error))
        finally:
            _room_for_stragglers.release()

    def _settle(self, rows: Sequence[FailedRow], failures: int, countdown: float | None, *, draw: bool = False) -> None:
        """Bury what failed for good, and let the rest wait for its retry."""
        waits = [
            Wait(row.id, row.claims, self._seconds(row, failures, countdown, draw=draw))
            for row in rows
            if not row.permanent
        ]
        with wiring().engine.begin() as connection:
            dead_letter(connection, self._dead_letter_requests([row for row in rows if row.permanent]))
            schedule_retry(connection, self.channel, waits)
        metrics.RETRIES.labels(self.channel.value).inc(len(waits))

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ANN401 -- Celery's signature
        """Celery's failed-task handler: write dead letters. Raises nothing, or Celery would call it again."""
        del task_id, args, kwargs, einfo
        if not isinstance(exc, BatchFailed):
            return  # the rows keep their lease, and the clock takes them back
        try:
            with wiring().engine.begin() as connection:
                dead_letter(connection, self._dead_letter_requests(exc.rows))
        except BaseException as error:
            log.warning("dead_letter_failed", error=kind_of(error), rows=len(exc.rows))

    def _seconds(self, row: FailedRow, failures: int, countdown: float | None, *, draw: bool) -> float:
        """Return the seconds that a row waits: by its channel's policy, and at least its Retry-After."""
        if draw or countdown is not None:
            countdown = self.policy.seconds(failures)
        # A plugin's provider may ask for more than an interval can hold.
        asked = min(row.retry_after or 0.0, _LONGEST_WAIT)
        return max(countdown or 0, asked if math.isfinite(asked) else 0.0)

    @staticmethod
    def _dead_letter_requests(rows: Sequence[FailedRow]) -> list[DeadLetterRequest]:
        return [
            DeadLetterRequest(
                row.id,
                row.claims,
                row.reason or (Reason.PERMANENT_ERROR if row.permanent else Reason.RETRIES_EXHAUSTED),
                row.error,
            )
            for row in rows
        ]
