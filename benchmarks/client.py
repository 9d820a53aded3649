"""The client: POSTs over keep-alive connections by libcurl's multi interface, which costs the machine little."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pycurl


@dataclass
class Load:
    """The result of one load."""

    accepted: int = 0
    seconds: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    #: When each number was due to be posted, in Unix time.
    posted: dict[int, float] = field(default_factory=dict)
    #: Seconds from when each request was due until it was answered.
    took: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Events accepted a second."""
        return self.accepted / self.seconds


#: Gives the members that address the event of a number, and those that are to replace the usual ones.
Members = Callable[[int], Mapping[str, object]]


def payload_of(number: int) -> dict[str, object]:
    """Return the payload of an event, by whose `n` the receiver knows it."""
    return {"n": number, "order_id": "A123", "amount": 12.5}


def _event(number: int, run: str, members: Members) -> dict[str, object]:
    key = f"{run}-{number}"
    usual = {"event_type": "USER_SIGNUP", "payload": payload_of(number), "idempotency_key": key}
    return {**usual, **members(number)}


def _bodies(batch: int, members: Members, number: int) -> Iterator[tuple[range, bytes]]:
    run = uuid.uuid4().hex
    while True:
        numbers = range(number, number + batch)
        events = [_event(each, run, members) for each in numbers]
        body = events[0] if batch == 1 else {"events": events}
        yield numbers, json.dumps(body, separators=(",", ":")).encode()
        number += batch


def _handle(url: str) -> pycurl.Curl:
    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, url)
    handle.setopt(pycurl.POST, 1)
    handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
    handle.setopt(pycurl.NOSIGNAL, 1)
    handle.setopt(pycurl.TIMEOUT, 30)
    handle.setopt(pycurl.WRITEFUNCTION, lambda _: None)
    return handle


def _handles(urls: Sequence[str], connections: int) -> list[pycurl.Curl]:
    return [_handle(urls[place % len(urls)]) for place in range(connections)]


def post(
    url: str | Sequence[str],
    recipient: str,
    *,
    seconds: float,
    connections: int,
    batch: int = 1,
    rate: float = 0,
    most: int = 0,
    first: int = 0,
    members: Members | None = None,
) -> Load:
    """POST events for `seconds`, as fast as they are answered or at `rate` a second, at most `most` of them.

    `url`: several share the connections evenly. The events' numbers begin with `first`. They go to the webhook
    `recipient`, unless `members` say otherwise.
    """
    load = Load()
    bodies = _bodies(batch, members or (lambda _: {"recipient": recipient, "channel": "webhook"}), first)
    multi, free = pycurl.CurlMulti(), _handles([url] if isinstance(url, str) else url, connections)
    start, number, flying = time.time(), 0, 0
    due_at: dict[pycurl.Curl, float] = {}
    while True:
        now = time.time()
        going = now - start < seconds and not (most and number >= most)
        while free and going:
            due = start + number / rate if rate else now
            if due > now:
                break
            handle = free.pop()
            numbers, body = next(bodies)
            load.posted |= dict.fromkeys(numbers, due)
            due_at[handle] = due
            handle.setopt(pycurl.POSTFIELDS, body)
            multi.add_handle(handle)
            number, flying = number + batch, flying + 1
            going = not (most and number >= most)
        multi.perform()
        _, done, failed = multi.info_read()
        for handle in [*done, *(each[0] for each in failed)]:
            code = handle.getinfo(pycurl.RESPONSE_CODE)
            load.codes[code] += 1
            load.took.append(time.time() - due_at.pop(handle))
            load.accepted += batch if code == 202 else 0
            multi.remove_handle(handle)
            free.append(handle)
            flying -= 1
        if not going and not flying:
            break
        multi.select(0.001 if rate else 0.02)
    load.seconds = time.time() - start
    return load
