"""The part of a worker that takes messages from the broker: Celery's, without what it adds for delayed messages."""

from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer as CeleryConsumer

#: Seconds between two tries to reach the broker.
_RECONNECT_EVERY: Final = 2
_DELAYED: Final = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(CeleryConsumer):
    """Celery's consumer without native delayed delivery, and as eager after a long outage as after a short one.

    With quorum queues that declares 28 queues and as many exchanges on RabbitMQ, and warns of each of ours. Nothing
    here is ever published with a delay: what waits, waits in Postgres.
    """

    class Blueprint(CeleryConsumer.Blueprint):
        """The consumer's steps, from the connection to the event loop."""

        default_steps: Final = [step for step in CeleryConsumer.Blueprint.default_steps if step != _DELAYED]

    def ensure_connected(self, conn: Any) -> Any:  # noqa: ANN401 -- kombu's connection
        """Wait for the broker, and try every two seconds: Celery tries less and less often, down to every 30."""
        steadily = {"interval_start": _RECONNECT_EVERY, "interval_step": 0, "interval_max": _RECONNECT_EVERY}
        conn.ensure_connection = partial(conn.ensure_connection, **steadily)
        return super().ensure_connected(conn)
