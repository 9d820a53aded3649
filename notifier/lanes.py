"""The queues that a row can wait for, by name: a row carries the name, whatever carries the messages.

Each channel has a high lane, a normal and a low one, and a retry queue beside them: a failing provider
holds up other retries, never fresh work.
"""

from typing import Final

from notifier.channels import Channel, Priority

#: Events that wait to become notifications.
FAN_OUT: Final = "fan_out"

#: At most this many ids are handed over in one message, and claimed in one statement.
BATCH: Final = 500


def lane(channel: Channel, priority: Priority) -> str:
    """The queue of fresh notifications of a channel and priority."""
    return channel.value if priority is Priority.NORMAL else f"{channel}.{priority}"


def retry_queue(channel: Channel) -> str:
    """The queue in which a channel's retries wait."""
    return f"{channel}.retry"


def channel_of(queue: str) -> Channel:
    """The channel that a delivery queue belongs to. Raises ValueError for any other queue."""
    return Channel(queue.partition(".")[0])


HIGH: Final = tuple(lane(channel, Priority.HIGH) for channel in Channel)
NORMAL: Final = tuple(lane(channel, Priority.NORMAL) for channel in Channel)
LOW: Final = tuple(lane(channel, Priority.LOW) for channel in Channel)
RETRY: Final = tuple(retry_queue(channel) for channel in Channel)
DELIVERY: Final = HIGH + NORMAL + LOW + RETRY
