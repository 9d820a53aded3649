"""Batches: many events in one request, in parts where they are too large for one."""

import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from notifier_client.errors import InvalidRequest, NotifierError, TooLarge, Unsent
from notifier_client.transport import Call, Transport, encoded, new_key
from notifier_client.types import BatchAnswer, BatchItem, Event

_PATH: Final = "/api/v1/events/batch"
#: The most of one request. The API takes 1,000 events and 8 MiB, unless its operators chose less: then it is split.
MAX_EVENTS: Final = 500
MAX_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event as it will be sent, with its idempotency key. What its caller changes later changes nothing here."""

    body: bytes

    @property
    def event(self) -> Event:
        """The event."""
        return cast(Event, json.loads(self.body))


def prepare(event: Event) -> Prepared:
    """Encode an event, with a new idempotency key if it has none. Raises ValueError or TypeError where JSON cannot."""
    keyed = event if event.get("idempotency_key") is not None else {**event, "idempotency_key": new_key()}
    return Prepared(encoded(keyed))


def post_in_parts(transport: Transport, events: Iterable[Event]) -> BatchAnswer:
    """Post events in as few requests as they fit into. Raises Unsent where one of them fails."""
    waiting = deque(_parts([prepare(event) for event in events]))  # all are encoded before the first one is sent
    items: list[BatchItem] = []
    unsent: list[Prepared] = []
    while waiting:
        part = waiting.popleft()
        try:
            found = post(transport, part)
        except NotifierError as error:
            if is_too_large(error, len(part)):
                middle = len(part) // 2
                waiting.extendleft([part[middle:], part[:middle]])
                continue
            rest = [*unsent, *part, *itertools.chain.from_iterable(waiting)]
            raise Unsent(error, events=[each.event for each in rest], answers=items) from error
        unsent += [each for each, item in zip(part, found, strict=True) if may_pass(item)]
        offset = len(items)
        items += [{**item, "index": offset + index} for index, item in enumerate(found)]
    if unsent:
        raise Unsent(None, events=[each.event for each in unsent], answers=items)
    return _summed(items)


def _parts(events: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    """Yield the events in parts, none of them larger than a request should be, unless one event is."""
    part: list[Prepared] = []
    size = 0
    for each in events:
        if part and (len(part) == MAX_EVENTS or size + len(each.body) > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each.body)
    if part:
        yield part


def _summed(items: list[BatchItem]) -> BatchAnswer:
    counts = Counter("rejected" if is_refused(item) else item["status"] for item in items)
    return {
        "accepted": counts["accepted"],
        "duplicates": counts["duplicate"],
        "rejected": counts["rejected"],
        "items": items,
    }


def post(transport: Transport, part: Sequence[Prepared]) -> list[BatchItem]:
    """Post events in one request, and return an item for each, in their order.

    Items that the API could not write now are posted again, as the policy says; one that remains so `may_pass` still.
    """
    began = time.monotonic()
    items = _post_once(transport, part)
    for retry in itertools.count():
        again = [index for index, item in enumerate(items) if may_pass(item)]
        wait = transport.policy.wait_before(retry, None, time.monotonic() - began) if again else None
        if wait is None:
            break
        transport.policy.sleep(wait)
        try:
            fresh = _post_once(transport, [part[index] for index in again])
        except NotifierError:
            break
        for index, item in zip(again, fresh, strict=True):
            items[index] = item
    return items


def _post_once(transport: Transport, part: Sequence[Prepared]) -> list[BatchItem]:
    body = b'{"events":[' + b",".join(each.body for each in part) + b"]}"
    headers = {"Content-Type": "application/json"}
    # Each event has its idempotency key.
    call = Call(method="POST", path=_PATH, body=body, headers=headers, repeatable=True)
    try:
        items = transport.document(call).get("items")
    except TooLarge as error:
        if len(part) > 1:
            raise
        return [_refusal(error)]
    if not isinstance(items, list) or len(items) != len(part):
        raise NotifierError(f"{call}: the answer has no item for each of {len(part)} events")
    return cast(list[BatchItem], items)


def _refusal(error: TooLarge) -> BatchItem:
    """Return the item of an event that no request can hold."""
    problem: BatchItem = {"index": 0, "status": error.status, "errors": {"_schema": [error.detail or "too large"]}}
    return problem


def is_too_large(error: NotifierError, events: int) -> bool:
    """Return whether a batch of so many events may pass in parts: it has too many of them, or too many bytes."""
    too_many = isinstance(error, InvalidRequest) and set(error.errors) == {"events"}
    return events > 1 and (isinstance(error, TooLarge) or too_many)


def is_refused(item: BatchItem) -> bool:
    """Return whether the API did not accept an event."""
    return item["status"] not in {"accepted", "duplicate"}


def may_pass(item: BatchItem) -> bool:
    """Return whether an event was not accepted for now: the API could not write it."""
    status = item["status"]
    return isinstance(status, int) and status >= 500
