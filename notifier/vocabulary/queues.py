"""Names of the queues that rows wait for. A row stores its queue's name, independent of the message broker.

Each channel has a high, a normal and a low priority queue, and a retry queue beside them: a failing provider delays
other retries, never new notifications.
"""

from typing import Final

from notifier.vocabulary.states import Channel, Priority

#: Events that wait to become notifications.
FAN_OUT: Final = "fan_out"

#: At most this many ids are handed over in one message, and claimed in one statement.
BATCH: Final = 500


def queue_for(channel: Channel, priority: Priority) -> str:
    """Return the queue for new notifications of a channel and priority."""
    return channel.value if priority is Priority.NORMAL else f"{channel}.{priority}"


#: `queue_for` in SQL, over a notification's columns.
QUEUE_IN_SQL: Final = f"""CASE WHEN priority IN ('{Priority.HIGH}', '{Priority.LOW}') THEN channel || '.' || priority
    ELSE channel END"""


def retry_queue(channel: Channel) -> str:
    """Return the retry queue of a channel."""
    return f"{channel}.retry"


#: The queue of webhooks for endpoints that keep callers waiting.
SLOW: Final = f"{Channel.WEBHOOK}.slow"


def handover_queue(queue: str) -> str:
    """Return the queue to which the clock publishes messages for the rows of `queue`.

    Deferred notifications come due in crowds (the end of a night, a hundred thousand reminders). A normal priority
    queue has a second queue for them, and workers alternate between the two, so that a crowd does not delay new
    notifications.
    """
    return f"{queue}.due" if queue in NORMAL else queue


def channel_of(queue: str) -> Channel:
    """Return the channel of a delivery queue. Raises ValueError for any other queue."""
    return Channel(queue.partition(".")[0])


HIGH: Final = tuple(queue_for(channel, Priority.HIGH) for channel in Channel)
NORMAL: Final = tuple(queue_for(channel, Priority.NORMAL) for channel in Channel)
LOW: Final = tuple(queue_for(channel, Priority.LOW) for channel in Channel)
RETRY: Final = tuple(retry_queue(channel) for channel in Channel)
#: The queues whose workers have time for slow endpoints.
SLOW_QUEUES: Final = frozenset({*RETRY, SLOW})
DUE: Final = tuple(handover_queue(queue) for queue in NORMAL)
#: The queues that rows wait for; messages may be in those of DUE as well.
DELIVERY: Final = (*HIGH, *NORMAL, *LOW, *RETRY, SLOW)
