"""Whether the broker answers and takes messages, for health checks and the doctor."""

from typing import Any, Final

from celery import Celery

from config.broker import is_amqp
from config.queues import CLOCK
from tasks.queue_depth import depth

#: The name of no queue: RabbitMQ confirms a message for it, and drops it.
_NOWHERE: Final = "notifier.nowhere"


def check_broker(app: Celery) -> None:
    """Raise the transport's error unless the broker answers and takes messages. Leaves nothing in it."""
    connection = app.connection_for_write()
    try:
        depth(connection, CLOCK)
        if is_amqp(app.conf.broker_url):
            _publish_to_nowhere(connection)
    except BaseException:
        # At once: to say goodbye it would wait for an answer.
        connection.collect()
        raise
    finally:
        connection.release()


def _publish_to_nowhere(connection: Any) -> None:  # noqa: ANN401 -- kombu ships no types
    """Send a message that vanishes: with its alarm on, RabbitMQ answers every question and takes no message."""
    producer = connection.Producer(auto_declare=False)
    producer.publish({}, exchange="", routing_key=_NOWHERE, delivery_mode="transient", retry=False)
