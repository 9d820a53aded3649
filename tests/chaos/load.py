"""Callers: they post events at a steady rate, or many at once, and each of them until it is accepted.

A caller does what guides tell callers to do: it gives an idempotency key, and after a 503 or a broken connection it
posts the same again. So each event ends as accepted or, where the API refuses it for good, as refused.
"""

import http.client
import json
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.proxy import HOST
from tests.chaos.receivers import body_of

_CALLERS: Final = 16
#: Seconds that a caller waits for an answer; every answer should be there within 10.
PATIENCE: Final = 20.0
#: Seconds after which a caller stops to post the same again.
_GIVES_UP: Final = 120.0
#: Kinds of events, and how many in ten they are.
_MIX: Final = ("direct",) * 6 + ("subscribed",) * 2 + ("mail",) * 2


@dataclass
class Posted:
    """One event, from its caller's side."""

    number: int
    kind: str
    key: str
    #: Unix time of its first request.
    began: float
    event_id: str | None = None
    #: Unix time of its 202.
    accepted: float | None = None
    #: Unix time and status of each answer; 0 for a connection that broke.
    answers: list[tuple[float, int]] = field(default_factory=list)
    #: Seconds of its longest answer.
    longest: float = 0.0
    refused: str | None = None


class Load:
    """All callers of one scenario."""

    def __init__(self, port: int, webhook: str, rng: random.Random, first: int) -> None:
        """`webhook`: the receiver's address; `first`: the number of the first event."""
        self._port = port
        self._webhook = webhook
        self._rng = rng
        self._next = first
        self._due: queue.Queue[list[Posted] | None] = queue.Queue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.posted: list[Posted] = []
        self._threads: list[threading.Thread] = []

    def _new(self) -> Posted:
        with self._lock:
            number, self._next = self._next, self._next + 1
            posted = Posted(number, self._rng.choice(_MIX), uuid.UUID(int=self._rng.getrandbits(128)).hex, time.time())
            self.posted.append(posted)
        return posted

    def begin(self, rate: float) -> None:
        """Post so many events a second from now on, until `finish`."""
        works: list[Callable[[], None]] = [lambda: self._keep_time(rate), *[self._call] * _CALLERS]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def burst(self, count: int, size: int = 100) -> None:
        """Post so many events besides, in batches, as soon as callers are free."""
        for _ in range(0, count, size):
            self._due.put([self._new() for _ in range(size)])

    def finish(self) -> None:
        """Post nothing new, and wait until everything that was begun is accepted or refused."""
        self._stop.set()
        for _ in range(_CALLERS):
            self._due.put(None)
        for thread in self._threads:
            thread.join(_GIVES_UP + PATIENCE)

    def _keep_time(self, rate: float) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - 1) + 1 / rate  # who was held up does not make good for it in one go
            if self._due.qsize() < 2 * _CALLERS:
                self._due.put([self._new()])

    def _call(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=PATIENCE)
        while (posted := self._due.get()) is not None:
            self._post(connection, posted)
        connection.close()

    def _post(self, connection: http.client.HTTPConnection, posted: list[Posted]) -> None:
        """Post some events until they are accepted or refused, or patience ends."""
        one = len(posted) == 1
        path = "/api/v1/events" if one else "/api/v1/events/batch"
        events = [self._event(each) for each in posted]
        body = json.dumps(events[0] if one else {"events": events})
        until = time.monotonic() + _GIVES_UP
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                status, text = answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                status, text = 0, b""
            took = time.monotonic() - began
            for each in posted:
                each.answers.append((time.time(), status))
                each.longest = max(each.longest, took)
            if status == 202:
                _accept(posted, json.loads(text))
                return
            if status and status not in {429, 503}:
                for each in posted:
                    each.refused = f"{status} {text.decode(errors='replace')[:500]}"
                return
            time.sleep(0.3)
        for each in posted:
            each.refused = f"nothing but {each.answers[-1][1]} for {_GIVES_UP:g} s"

    def _event(self, posted: Posted) -> dict[str, Any]:
        event: dict[str, Any] = {
            "event_type": f"chaos.{posted.kind}",
            "payload": body_of(posted.number),
            "idempotency_key": posted.key,
        }
        if posted.kind == "direct":
            event |= {"channel": "webhook", "recipient": f"{self._webhook}/direct"}
        elif posted.kind == "mail":
            event |= {"channel": "email", "recipient": f"n{posted.number}@example.org"}
        return event


def _accept(posted: list[Posted], answer: dict[str, Any]) -> None:
    now = time.time()
    items = answer.get("items", [answer])
    for each, item in zip(posted, items, strict=True):
        if "id" in item:
            each.event_id, each.accepted = item["id"], now
        else:
            each.refused = json.dumps(item)[:500]
