"""Callers with keys of their own: an API that asks for keys, beside that of a system that runs."""

import itertools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import requests

from notifier.security import api_keys
from tests.support.running import Running, free_port

_numbers: Final = itertools.count()


class Caller(NamedTuple):
    """A key, and where the API is that asks for it."""

    url: str
    key: str

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Post JSON with its key."""
        return self.ask("POST", path, json=body, **options)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Make a request with its key."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=20, **options)

    def made(self, **fields: Any) -> str:
        """Make one notification, and return its id."""
        answer = self.post("/api/v1/notifications", {"body": "x", **fields})
        assert answer.status_code == 202, answer.text
        [notification] = answer.json()["items"]
        return str(notification["id"])

    def event(self, **fields: Any) -> str:
        """Post an event, and return its id."""
        answer = self.post("/api/v1/events", {"event_type": "test.event", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


class Callers:
    """An API that asks for keys."""

    def __init__(self, system: Running) -> None:
        port = free_port()
        self._engine = system.engine
        self._url = f"http://127.0.0.1:{port}"
        system.start(only=[system.add_api(port, NOTIFIER_AUTH="required")])

    def new(self, scopes: Sequence[str] = ("send",), **options: Any) -> Caller:
        """Make a caller, by default with a source of its own; `options` as those of keys.create."""
        name = options.pop("name", f"caller-{next(_numbers)}")
        return Caller(self._url, api_keys.create(self._engine, name, list(scopes), **options))
