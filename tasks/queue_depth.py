"""The number of messages in a queue. Apart from all else, since beat asks for it and loads nothing that works."""

from typing import Any

from amqp.exceptions import ChannelError


def depth(connection: Any, queue: str) -> int:  # noqa: ANN401 -- kombu ships no types
    """Return the number of messages in a queue. Raises the transport's error if the broker is unreachable."""
    try:
        return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
    except ChannelError:
        return 0  # Redis has no empty lists
