"""Events: something happened."""

from collections.abc import Iterable
from typing import Final, Unpack

from notifier_client.batches import post_in_parts
from notifier_client.pagination import Listing
from notifier_client.resources.resource import Resource, path_of
from notifier_client.types import AcceptedEvent, BatchAnswer, Event, EventOut, EventWithNotifications
from notifier_client.types.queries import ListEventsQuery

_PATH: Final = path_of("events")


class Events(Resource):
    """Post events, and read what became of them."""

    def send(self, event: Event, *, idempotency_key: str | None = None) -> AcceptedEvent:
        """Post an event. Once this returns, the event is committed.

        Repetitions carry one idempotency key, so they make one event. It is `idempotency_key` or the event's own, and
        otherwise a new one.
        """
        return self._post_once(AcceptedEvent, _PATH, event, idempotency_key)

    def send_many(self, events: Iterable[Event]) -> BatchAnswer:
        """Post events in as few requests as they fit into, and return one answer: an item each, in their order.

        A bad event spoils none of the others: its item has a problem's `type`, `status` and `errors`. Raises Unsent
        where a request fails; it has the events that were not accepted, each with an idempotency key, and so they may
        be given to `send_many` again.
        """
        return post_in_parts(self._transport, events)

    def get(self, event_id: str, *, reveal: bool = False) -> EventWithNotifications:
        """Read an event and its notifications."""
        return self._get(EventWithNotifications, path_of("events", event_id), reveal=reveal)

    def list(self, **query: Unpack[ListEventsQuery]) -> Listing[EventOut]:
        """List events, newest first."""
        return self._list(EventOut, _PATH, query)

    def replay(self, event_id: str) -> EventOut:
        """Fan an event out again, as new notifications."""
        return self._ask(EventOut, "POST", path_of("events", event_id, "replay"))
