"""Errors as `application/problem+json` (RFC 9457)."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from itertools import combinations_with_replacement
from typing import Any, Final
from uuid import UUID

import marshmallow as ma
import orjson
import structlog
from flask import Flask, Response, current_app, request
from flask_smorest import Api
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from api.problem_types import ProblemType, of_status
from notifier.runtime.isolation import is_away, why_away
from notifier.vocabulary.errors import Conflict, Forbidden, Invalid, KeyReused, NotifierError, Unavailable

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"
_ANY_ID: Final = UUID(int=0)
#: The longest path that a route has, and a bit: nobody can make us try out more.
_MOST_SEGMENTS: Final = 10


class Unreadable(Invalid):
    """An item of a batch that is no event at all, and why."""

    def __init__(self, kind: ProblemType, message: str) -> None:
        super().__init__({"_schema": [message]})
        self.kind = kind


class ProblemSchema(ma.Schema):
    """The form of every error."""

    type = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf([kind.path for kind in ProblemType]),
        metadata={
            "description": "The kind of problem, for programs: a path at this server, whose page says what to do.",
            "x-enum-varnames": [kind.name for kind in ProblemType],  # as generated clients are to call them
        },
    )
    title = ma.fields.String(required=True, metadata={"description": "The same for each of its type."})
    status = ma.fields.Integer(required=True, metadata={"description": "That of the answer."})
    detail = ma.fields.String(required=True, metadata={"description": "Says in words why this request failed."})
    errors = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.List(ma.fields.String()),
        metadata={"description": "Field → its messages, for validation."},
    )
    reason = ma.fields.String(metadata={"description": "The rule by which something is not sent, such as `opted_out`."})
    notification = ma.fields.Raw(
        metadata={
            "allOf": [{"$ref": "#/components/schemas/NotificationWithAttempts"}],
            "description": "The record of a notification that could not be cancelled.",
        }
    )


def problem_document(
    status: int,
    detail: str,
    *,
    kind: ProblemType | None = None,
    errors: Mapping[str, Any] | None = None,
    **more: object,
) -> dict[str, object]:
    """Return the document of an error. `more`: additional members."""
    kind = kind or of_status(status)
    document = {"type": kind.path, "title": kind.summary, "status": status, "detail": detail, **more}
    return {**document, "errors": errors} if errors else document


def problem(
    status: int,
    detail: str,
    *,
    kind: ProblemType | None = None,
    errors: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> Response:
    """Return an error response; without a type, of its status's plain type. `more`: additional members."""
    body = problem_document(status, detail, kind=kind, errors=errors, **more)
    return Response(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status, headers, content_type=MEDIA_TYPE)


def flattened(messages: object, prefix: str = "") -> dict[str, list[str]]:
    """marshmallow's nested messages as field → list of messages, with dots between nested names."""
    if isinstance(messages, Mapping):
        flat: dict[str, list[str]] = {}
        for name, inner in messages.items():
            # An error of an object as a whole has the object's own name.
            path = prefix if prefix and name == "_schema" else f"{prefix}.{name}" if prefix else str(name)
            flat |= flattened(inner, path)
        return flat
    if isinstance(messages, list):
        return {prefix or "_schema": [str(message) for message in messages]}
    return {prefix or "_schema": [str(messages)]}


def validation_problem(messages: object, kind: ProblemType = ProblemType.VALIDATION_FAILED) -> Response:
    """422 with the messages of each field."""
    return problem(422, "The request is not valid; see errors.", kind=kind, errors=flattened(messages))


def kind_of(error: NotifierError) -> ProblemType:
    """Return the type of problem of one of the product's errors."""
    match error:
        case Unreadable():
            return error.kind
        case KeyReused():
            return ProblemType.IDEMPOTENCY_KEY_REUSED
        case Invalid():
            return ProblemType.VALIDATION_FAILED
        case Conflict():
            return ProblemType.CONFLICT
        case Forbidden():
            return ProblemType.MISSING_SCOPE if error.scope else ProblemType.KEY_RESTRICTED
        case Unavailable():
            return ProblemType.UNAVAILABLE
    return ProblemType.INTERNAL_ERROR


def _missing() -> Response:
    """Return 404 for a path that matches no route; the problem names the id if a UUID in its place would match."""
    segments = request.path.split("/")
    if len(segments) <= _MOST_SEGMENTS and _matches_with_ids(segments):
        words = "The id in the path is no UUID, so there is no such record."
        return problem(404, words, kind=ProblemType.INVALID_ID)
    return problem(404, "There is nothing at this path.")


def _matches_with_ids(segments: list[str]) -> bool:
    """Return whether a path would match a route if UUIDs stood in one or two segments, the ids of that route."""
    adapter = current_app.create_url_adapter(request)
    for first, second in combinations_with_replacement(range(1, len(segments)), 2):
        path = "/".join(str(_ANY_ID) if place in {first, second} else each for place, each in enumerate(segments))
        if adapter is not None and adapter.test(path, request.method):
            _, found = adapter.match(path, request.method)
            # Names are matched by any text.
            if list(found.values()).count(_ANY_ID) == len({first, second}):
                return True
    return False


def _http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    data = getattr(error, "data", None)
    if status == 422 and data and "messages" in data:
        messages = data["messages"]
        # webargs names the place the fields came from; its name adds nothing for the caller.
        return validation_problem(next(iter(messages.values())) if len(messages) == 1 else messages)
    if isinstance(error, NotFound) and error.description == NotFound.description:
        return _missing()
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return problem(405, f"This path does not take {request.method}.", headers={"Allow": allowed})
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

    def __init__(self, app: Flask) -> None:
        self._undescribed: list[Callable[[], None]] = []
        super().__init__(app)

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Any HTTP error."""
        return _http_problem(error)

    def _register_responses(self) -> None:
        """Leave the descriptions of all statuses to the moment when somebody asks for one."""
        self.describe_later(super()._register_responses)

    def describe_later(self, describe: Callable[[], None]) -> None:
        """Have a part of the description made with the rest of it."""
        self._undescribed.append(describe)

    def describe(self) -> tuple[dict[str, Any], dict[str, type[ma.Schema]]]:
        """Return the OpenAPI document, and its components' schemas by name. For one caller, once."""
        for describe in self._undescribed:
            describe()
        return self.spec.to_dict(), {name: key[0] for key, name in self.ma_plugin.converter.refs.items()}


def register_problems(app: Flask) -> None:
    """Answer the product's errors, and those of the database, in the same shape."""

    def invalid(error: Invalid) -> Response:
        return validation_problem(error.errors, kind_of(error))

    def unavailable(error: Unavailable) -> Response:
        return _unavailable(error.retry_after, str(error))

    def conflict(error: Conflict) -> Response:
        more: dict[str, Any] = {"reason": error.reason} if error.reason else {}
        return problem(409, str(error), **more)

    def forbidden(error: Forbidden) -> Response:
        return problem(403, str(error), kind=kind_of(error))

    def database_failed(error: SQLAlchemyError) -> Response:
        return _unavailable(2, why_away(error)) if is_away(error) else _unexpected(error)

    app.register_error_handler(Invalid, invalid)
    app.register_error_handler(Unavailable, unavailable)
    app.register_error_handler(Conflict, conflict)
    app.register_error_handler(Forbidden, forbidden)

    app.register_error_handler(SQLAlchemyError, database_failed)
    app.register_error_handler(Exception, _unexpected)
