"""Ask the API from within: a request that its own process serves, with the rights of the person who is signed in."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
from flask import current_app, request
from werkzeug.test import EnvironBuilder, run_wsgi_app

from api.auth import SIGNED_IN, caller
from api.request_log import REQUEST_ID, cause
from api.serving.workers import ARRIVED

API: Final = "/api/v1"
#: Of the page's own request: from when on its deadline counts.
_HANDED_ON: Final = (ARRIVED, "REMOTE_ADDR")


class Refused(Exception):
    """The API refused what a page needs. `status` and `detail` are those of its problem document."""

    def __init__(self, status: int, detail: str, errors: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, dict(errors or {})

    @property
    def words(self) -> str:
        """The refusal in a sentence or more, with the messages of each field."""
        fields = "; ".join(f"{name}: {' '.join(map(str, words))}" for name, words in self.errors.items())
        return f"{self.detail} ({fields})" if fields else self.detail


@dataclass(frozen=True, slots=True)
class Answer:
    """The API's answer."""

    status: int
    content: bytes

    @property
    def document(self) -> Any:  # noqa: ANN401 -- JSON
        """The JSON that it answers with; None where it answers with nothing."""
        return orjson.loads(self.content) if self.content else None


def path(*parts: object) -> str:
    """Return a path of the API of parts that may contain any character: path("users", "a b") is /api/v1/users/a%20b."""
    return "/".join((API, *(quote(str(part), safe="") for part in parts)))


def ask(method: str, target: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:  # noqa: ANN401 -- JSON
    """Ask the API for something, and return the answer's document. Raises Refused.

    `target`: a path as `path` makes it. `query`: parameters; those that are None or empty are left out. `body`: JSON.
    """
    found = answer_of(method, target, query=query, body=body)
    document = found.document
    if found.status >= HTTPStatus.BAD_REQUEST:
        problem = document if isinstance(document, dict) else {}
        raise Refused(found.status, str(problem.get("detail", "It was refused.")), problem.get("errors"))
    return document


def ask_if_allowed(method: str, target: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:  # noqa: ANN401 -- JSON
    """Ask the API for a part of a page: None where it refuses that. Raises Refused where it cannot answer now."""
    try:
        return ask(method, target, query=query, body=body)
    except Refused as refused:
        if refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return None


def answer_of(method: str, target: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Answer:  # noqa: ANN401 -- JSON
    """Ask the API for something, and return its answer, whatever it is."""
    given = {name: str(value) for name, value in (query or {}).items() if value is not None and value != ""}
    known: dict[str, Any] = {name: request.environ[name] for name in _HANDED_ON if name in request.environ}
    known[SIGNED_IN] = caller()
    builder = EnvironBuilder(
        path=target,
        base_url=request.host_url,
        method=method,
        query_string=given,
        headers=[(REQUEST_ID, cause().request_id or "")],
        environ_overrides=known,
        data=None if body is None else orjson.dumps(body),
        content_type=None if body is None else "application/json",
    )
    # With a context of its own: within the page's, Flask would keep both requests' notes in one `g`.
    with closing(builder), current_app.app_context():
        chunks, status, _ = run_wsgi_app(current_app.wsgi_app, builder.get_environ(), buffered=True)
        return Answer(int(status.partition(" ")[0]), b"".join(chunks))
