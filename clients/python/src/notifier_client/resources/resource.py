"""Resource: a group of operations. Paths are quoted here, and POSTs get their idempotency keys."""

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from notifier_client.transport import Transport, call_of


class Resource:
    """A group of operations of one API."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 -- a JSON document
        return self._ask("GET", path, query=query)

    def _ask(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 -- a JSON document
        """Make a request; return the answer's document, or None for an answer without one."""
        answer = self._transport.request(call_of(method, path, **options))
        return answer.json() if answer.content else None

    def _post_once(self, path: str, body: Mapping[str, Any], key: str | None) -> Any:  # noqa: ANN401 -- a JSON document
        """POST with an idempotency key: the caller's, else the body's own, else a new one."""
        if key is None and body.get("idempotency_key") is not None:
            return self._ask("POST", path, body=body, repeatable=True)
        return self._ask("POST", path, body=body, idempotency_key=key or new_key())


def new_key() -> str:
    """Return an idempotency key that nobody else has."""
    return str(uuid.uuid4())


def quoted(name: str) -> str:
    """Return a name as one segment of a path. Raises ValueError for one that a path cannot hold."""
    if name in {"", ".", ".."}:
        raise ValueError("an id or a name in a path must not be empty, '.' or '..'")
    return quote(name, safe="")
