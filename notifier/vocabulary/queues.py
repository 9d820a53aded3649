"""The queues that a row can wait for, by name: a row carries the name, whatever carries the messages.

Each channel has a high lane, a normal and a low one, and a retry queue beside them: a failing provider
holds up other retries, never fresh work.
"""

from typing import Final

from notifier.vocabulary.states import Channel, Priority

#: Events that wait to become notifications.
FAN_OUT: Final = "fan_out"

#: At most this many ids are handed over in one message, and claimed in one statement.
BATCH: Final = 500


def queue_for(channel: Channel, priority: Priority) -> str:
    """The queue of fresh notifications of a channel and priority."""
    return channel.value if priority is Priority.NORMAL else f"{channel}.{priority}"


#: `queue_for` in SQL, over a notification's columns.
QUEUE_IN_SQL: Final = f"""CASE WHEN priority IN ('{Priority.HIGH}', '{Priority.LOW}') THEN channel || '.' || priority
    ELSE channel END"""


def retry_queue(channel: Channel) -> str:
    """The queue in which a channel's retries wait."""
    return f"{channel}.retry"


#: The queue of webhooks for endpoints that keep callers waiting.
SLOW: Final = f"{Channel.WEBHOOK}.slow"


def handover_queue(queue: str) -> str:
    """The queue into which the clock puts messages for rows that wait for `queue`.

    What was put off comes due in crowds (the end of a night, a hundred thousand reminders). A normal lane has a queue
    beside it for those, and workers take turns between the two: so a crowd does not hold up what arrives meanwhile.
    """
    return f"{queue}.due" if queue in NORMAL else queue


def channel_of(queue: str) -> Channel:
    """The channel that a delivery queue belongs to. Raises ValueError for any other queue."""
    return Channel(queue.partition(".")[0])


HIGH: Final = tuple(queue_for(channel, Priority.HIGH) for channel in Channel)
NORMAL: Final = tuple(queue_for(channel, Priority.NORMAL) for channel in Channel)
LOW: Final = tuple(queue_for(channel, Priority.LOW) for channel in Channel)
RETRY: Final = tuple(retry_queue(channel) for channel in Channel)
#: The queues whose workers have time for slow endpoints.
PATIENT: Final = frozenset({*RETRY, SLOW})
DUE: Final = tuple(handover_queue(queue) for queue in NORMAL)
#: The queues that rows wait for; messages may be in those of DUE as well.
DELIVERY: Final = (*HIGH, *NORMAL, *LOW, *RETRY, SLOW)
