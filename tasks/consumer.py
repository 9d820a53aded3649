"""The part of a worker that takes messages from the broker: Celery's, without what it adds for delayed messages."""

from typing import Final

from celery.worker.consumer import Consumer as CeleryConsumer

_DELAYED: Final = "celery.worker.consumer.delayed_delivery:DelayedDelivery"


class Consumer(CeleryConsumer):
    """Celery's consumer without native delayed delivery.

    With quorum queues that declares 28 queues and as many exchanges on RabbitMQ, and warns of each of ours. Nothing
    here is ever published with a delay: what waits, waits in Postgres.
    """

    class Blueprint(CeleryConsumer.Blueprint):
        """The consumer's steps, from the connection to the event loop."""

        default_steps: Final = [step for step in CeleryConsumer.Blueprint.default_steps if step != _DELAYED]
