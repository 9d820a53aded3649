"""Errors as `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import marshmallow as ma
import orjson
import structlog
from flask import Flask, Response
from flask_smorest import Api
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from notifier.errors import Conflict, Invalid, Unavailable

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"


class ProblemSchema(ma.Schema):
    """What every error looks like."""

    type = ma.fields.String(metadata={"description": "Always about:blank: the status says it all."})
    title = ma.fields.String(metadata={"example": "Unprocessable Entity"})
    status = ma.fields.Integer(metadata={"example": 422})
    detail = ma.fields.String(metadata={"example": "The request is not valid; see errors."})
    errors = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.List(ma.fields.String()),
        metadata={"description": "Field → its messages, for validation.", "example": {"recipient": ["…"]}},
    )


def problem(
    status: int,
    detail: str,
    *,
    errors: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> Response:
    """An error response. `more` are members beside the standard ones."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    if errors:
        body["errors"] = errors
    return Response(orjson.dumps(body), status, headers, content_type=MEDIA_TYPE)


def flattened(messages: object, prefix: str = "") -> dict[str, list[str]]:
    """marshmallow's nested messages as field → list of messages, with dots between nested names."""
    if isinstance(messages, Mapping):
        flat: dict[str, list[str]] = {}
        for name, inner in messages.items():
            # What concerns an object as a whole stands under its own name.
            path = prefix if prefix and name == "_schema" else f"{prefix}.{name}" if prefix else str(name)
            flat |= flattened(inner, path)
        return flat
    if isinstance(messages, list):
        return {prefix or "_schema": [str(message) for message in messages]}
    return {prefix or "_schema": [str(messages)]}


def validation_problem(messages: object) -> Response:
    """422 with the messages of each field."""
    return problem(422, "The request is not valid; see errors.", errors=flattened(messages))


def _http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    data = getattr(error, "data", None)
    if status == 422 and data and "messages" in data:
        messages = data["messages"]
        # webargs names the place the fields came from; its name adds nothing for the caller.
        return validation_problem(next(iter(messages.values())) if len(messages) == 1 else messages)
    headers = {name: value for name, value in error.get_headers() if name in {"Allow", "WWW-Authenticate"}}
    if status in {429, 503}:
        headers["Retry-After"] = "2"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # The rest of the body is not read, so the connection is of no more use; without a word a caller would use it.
        headers["Connection"] = "close"
    return problem(status, error.description or HTTPStatus(status).phrase, headers=headers)


def _unavailable(retry_after: int, detail: str) -> Response:
    return problem(503, detail, headers={"Retry-After": str(retry_after)})


def _unexpected(error: Exception) -> Response:
    log.exception("request_failed", error=type(error).__name__)
    return problem(500, "Something went wrong here. It has been logged.")


class ProblemApi(Api):
    """flask-smorest's API with our shape of errors, in answers and in the OpenAPI description."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None  # described once, per status, below

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Any HTTP error."""
        return _http_problem(error)


def register_problems(app: Flask) -> None:
    """Answer the product's errors, and those of the database, in the same shape."""

    def invalid(error: Invalid) -> Response:
        return validation_problem(error.errors)

    def unavailable(error: Unavailable) -> Response:
        return _unavailable(error.retry_after, str(error))

    def conflict(error: Conflict) -> Response:
        reason = getattr(error, "reason", None)  # of a rule that forbids it
        return problem(409, str(error), **({"reason": reason} if reason else {}))

    def database_away(_: Exception) -> Response:
        return _unavailable(2, "Postgres cannot be reached.")

    app.register_error_handler(Invalid, invalid)
    app.register_error_handler(Unavailable, unavailable)
    app.register_error_handler(Conflict, conflict)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(kind, database_away)
    app.register_error_handler(Exception, _unexpected)
