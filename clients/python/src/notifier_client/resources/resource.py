"""Resource: a group of operations. Paths are quoted here, and POSTs get their idempotency keys."""

from collections.abc import Mapping
from typing import Any, TypeVar, Unpack, cast
from urllib.parse import quote

from notifier_client.pagination import Listing, Page
from notifier_client.transport import CallOptions, Transport, call_of, new_key

Shape = TypeVar("Shape")


class Resource:
    """A group of operations of one API."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _ask(self, shape: type[Shape], method: str, path: str, **options: Unpack[CallOptions]) -> Shape:
        """Make a request and return the document that answers it, of that shape; `options` as those of `call_of`."""
        return cast(Shape, self._transport.document(call_of(method, path, **options)))

    def _do(self, method: str, path: str, **options: Unpack[CallOptions]) -> None:
        """Make a request whose answer has no document."""
        self._transport.request(call_of(method, path, **options))

    def _get(self, shape: type[Shape], path: str, *, reveal: bool = False) -> Shape:
        return self._ask(shape, "GET", path, query={"reveal": True} if reveal else None)

    def _list(self, shape: type[Shape], path: str, query: Mapping[str, Any]) -> Listing[Shape]:
        """Return a list whose records have that shape."""
        del shape  # which is for the type alone

        def fetch(cursor: str | None) -> Page[Shape]:
            return self._ask(Page[Shape], "GET", path, query={**query, "cursor": cursor})

        return Listing(fetch, query.get("cursor"))

    def _post_once(self, shape: type[Shape], path: str, body: Mapping[str, Any], key: str | None) -> Shape:
        """POST with an idempotency key: the caller's, else the body's own, else a new one."""
        if key is None and body.get("idempotency_key") is not None:
            return self._ask(shape, "POST", path, body=body, repeatable=True)
        return self._ask(shape, "POST", path, body=body, idempotency_key=key or new_key())


def path_of(*parts: str) -> str:
    """Return the path of these segments. Raises ValueError for one that a path cannot hold."""
    if any(part in {"", ".", ".."} for part in parts):
        raise ValueError("an id or a name in a path must not be empty, '.' or '..'")
    return "/api/v1/" + "/".join(quote(part, safe="") for part in parts)
