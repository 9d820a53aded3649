"""Events: something happened."""

from notifier_client.resources.resource import Resource
from notifier_client.types import AcceptedEvent, Event

_PATH = "/api/v1/events"


class Events(Resource):
    """Post events, and read what became of them."""

    def send(self, event: Event, *, idempotency_key: str | None = None) -> AcceptedEvent:
        """Post an event. Once this returns, the event is committed.

        Repetitions carry one idempotency key, so they make one event; without `idempotency_key` it is a new one.
        """
        accepted: AcceptedEvent = self._post_once(_PATH, event, idempotency_key)
        return accepted
