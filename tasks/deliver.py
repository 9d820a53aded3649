"""One delivery task for each channel, made by a factory, since Celery's automatic retry closes over its options."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from celery import Task, shared_task
from celery.signals import worker_init

from config.wiring import wiring
from notifier.delivery.batch_failed import BatchFailed
from notifier.vocabulary.queues import SLOW_QUEUES
from notifier.vocabulary.states import Channel
from tasks.delivery_task import DeliverTask
from tasks.message_headers import DUE, TRACEPARENT

log = structlog.get_logger()


@worker_init.connect
def _log_sandbox_mode(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    if wiring().settings.sandbox:
        log.warning("sandbox", sends="nothing")


def _make(channel: Channel) -> Task:
    policy = wiring().settings.of(channel).retry_policy

    @shared_task(
        name=f"tasks.deliver.{channel}",
        base=DeliverTask,
        bind=True,
        channel=channel,
        policy=policy,
        autoretry_for=(BatchFailed,),
        throws=(BatchFailed,),  # foreseen: no traceback in the log
        retry_backoff=policy.backoff,
        retry_backoff_max=policy.backoff_max,
        retry_jitter=policy.jitter,
        max_retries=policy.max_retries,
    )
    def deliver(self: DeliverTask, ids: Sequence[str]) -> None:
        delivery = wiring().deliveries.get(channel)
        if delivery is None:
            raise LookupError(f"{channel} has no provider in this worker's settings")
        queue = (self.request.delivery_info or {}).get("routing_key")
        row_ids = [UUID(row_id) for row_id in ids]
        due = self.request.get(DUE)  # Celery has a message's headers there
        due_at = None if due is None else datetime.fromtimestamp(due, UTC)
        delivery.deliver(
            row_ids,
            self.request.retries,
            self.detach,
            from_slow_queue=queue in SLOW_QUEUES,
            due=due_at,
            traceparent=self.request.get(TRACEPARENT),
        )

    return deliver


#: The task of each channel.
DELIVER = {channel: _make(channel) for channel in Channel}
