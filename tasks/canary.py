"""Canaries: tiny tasks, sent through every queue to measure whether and how soon it is served."""

import time
from collections.abc import Sequence
from typing import Final

from celery import Celery, shared_task

from config.queues import ALL, MAX_MESSAGES
from config.wiring import wiring
from notifier.observability import heartbeats, metrics
from tasks.queue_depth import depth

#: Seconds between the canaries of a queue.
INTERVAL: Final = 60.0
_TASK: Final = "tasks.canary"
#: Seconds after which a canary expires: a newer one follows it.
_OLD: Final = 600


# It sends no events to Flower: there is one for each queue and worker, every minute.
@shared_task(name=_TASK, send_events=False)
def arrive(queue: str, sent_at: float) -> None:
    """Say that a queue's canary has arrived. `sent_at` is in seconds since the epoch."""
    if queue in ALL:
        metrics.CANARY_WAIT.labels(queue).observe(max(0.0, time.time() - sent_at))
        heartbeats.sign(wiring().engine, heartbeats.canary(queue), heartbeats.CANARY)


def send(app: Celery, queues: Sequence[str] = ALL) -> int:
    """Send a canary through each queue that is not full of messages; returns how many were sent.

    Raises what the transport raises where the broker is away.
    """
    sent = 0
    with app.producer_or_acquire() as producer:
        for queue in queues:
            # Where nobody takes messages, canaries must not be what fills the queue.
            if depth(producer.connection, queue) < MAX_MESSAGES // 2:
                values = (queue, time.time())
                app.send_task(_TASK, args=values, queue=queue, producer=producer, ignore_result=True, expires=_OLD)
                sent += 1
    return sent
