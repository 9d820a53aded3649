"""Errors in the API's description: which problems an operation can be answered with, each with an example document."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final

from api.problem_types import ABOUT, ProblemType
from api.problems import MEDIA_TYPE, problem_document

Document = dict[str, Any]
#: A status, the types of problems that it comes with, and what it says of an operation.
Described = tuple[int, tuple[ProblemType, ...], str]

_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
_TOO_LONG_HEAD: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

#: Errors of every operation.
_ALWAYS: Final[tuple[Described, ...]] = (
    (400, (ProblemType.BAD_REQUEST,), "The request is none of HTTP/1.1, or its body ended before its length."),
    (408, (ProblemType.TIMED_OUT,), "The head or the body did not come in time."),
    (413, (ProblemType.BODY_TOO_LARGE,), "The body is larger than this takes, or there is one where none is taken."),
    (421, (ProblemType.MISDIRECTED_REQUEST,), "No key is asked for, and the server does not go by the name in `Host`."),
    (_TOO_LONG_HEAD, (ProblemType.BAD_REQUEST,), "The head is too long, or has too many headers."),
    (500, (ProblemType.INTERNAL_ERROR,), "Something went wrong here; it has been logged."),
    (503, (ProblemType.UNAVAILABLE,), "Postgres cannot do its work now, or too much is being read; see Retry-After."),
)
_WITH_KEY: Final[tuple[Described, ...]] = (
    (401, (ProblemType.INVALID_API_KEY,), "No API key, or none that is in use."),
    (
        403,
        (ProblemType.MISSING_SCOPE,),
        "The key lacks the scope that is needed (`x-required-scope`), or is limited to other channels or event types;"
        " or a page of another site sent it.",
    ),
    (422, (ProblemType.VALIDATION_FAILED,), "Not valid; see `errors`. That also means a query parameter given twice."),
    (
        429,
        (ProblemType.RATE_LIMITED,),
        "More requests a second than this key may make, or too many unknown keys or connections from this address;"
        " see Retry-After.",
    ),
)
_WITH_BODY: Final[tuple[Described, ...]] = (
    (
        400,
        (ProblemType.INVALID_JSON, ProblemType.BAD_REQUEST),
        "The body is not JSON, or ended before its length; or the request is none of HTTP/1.1.",
    ),
    (413, (ProblemType.BODY_TOO_LARGE,), "The body is too large."),
    (415, (ProblemType.UNSUPPORTED_MEDIA_TYPE,), "The body is not declared to be JSON."),
    (422, (ProblemType.VALIDATION_FAILED,), "Not valid; see `errors`."),
)
_ACTS: Final = ((403, (ProblemType.MISSING_SCOPE, ProblemType.KEY_RESTRICTED, ProblemType.CROSS_SITE), ""),)
_REUSED: Final = (
    422,
    (ProblemType.VALIDATION_FAILED, ProblemType.IDEMPOTENCY_KEY_REUSED),
    "Not valid, or an idempotency key reused with another body.",
)
_NO_SUCH_NAME: Final = (404, (ProblemType.NOT_FOUND,), "There is nothing of this name.")
_NO_SUCH_ID: Final = (404, (ProblemType.NOT_FOUND, ProblemType.INVALID_ID), "There is nothing with this id.")
#: Statuses that an operation describes itself; 401 without a key is a provider's signature.
_DECLARED: Final = {
    401: ProblemType.INVALID_SIGNATURE,
    404: ProblemType.NOT_FOUND,
    405: ProblemType.METHOD_NOT_ALLOWED,
    409: ProblemType.CONFLICT,
}

_SECONDS: Final = {"description": "In seconds.", "schema": {"type": "integer", "minimum": 1}}
#: By status: headers that an error always has.
_HEADERS: Final[dict[int, Document]] = {
    401: {"WWW-Authenticate": {"description": "How to prove who calls.", "schema": {"type": "string"}}},
    405: {"Allow": {"description": "The methods that are taken.", "schema": {"type": "string"}}},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}
_ERRORS: Final = {
    ProblemType.VALIDATION_FAILED: {"channel": ["A recipient needs a channel."]},
    ProblemType.IDEMPOTENCY_KEY_REUSED: {"idempotency_key": ["This key was already used with a different body."]},
}


def example_of(kind: ProblemType, status: int | None = None) -> Document:
    """Return a problem document of a type, as an answer has it."""
    return problem_document(status or kind.status, ABOUT[kind].detail, kind=kind, errors=_ERRORS.get(kind))


def error_examples() -> dict[str, Document]:
    """Return the examples that the errors of operations refer to."""
    examples = {kind.value: {"summary": kind.summary, "value": example_of(kind)} for kind in ProblemType}
    plain = ProblemType.BAD_REQUEST
    too_long = {"summary": plain.summary, "value": example_of(plain, _TOO_LONG_HEAD)}
    return {**examples, f"{plain.value}-{_TOO_LONG_HEAD}": too_long}


def _expected(method: str, operation: Document) -> Iterator[Described]:
    """Yield the errors of an operation. If a status comes several times, its last description counts."""
    yield from _ALWAYS
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    if "path" in places:
        formats = {each["schema"].get("format") for each in operation["parameters"] if each["in"] == "path"}
        yield _NO_SUCH_ID if "uuid" in formats else _NO_SUCH_NAME
    if "x-required-scope" not in operation:
        return
    yield from _WITH_KEY
    if "requestBody" in operation:
        yield from _WITH_BODY
    if "header" in places:
        yield _REUSED
    if method != "get":
        yield from _ACTS


def add_errors(method: str, operation: Document) -> None:
    """Describe all errors of an operation; those that it declares itself keep their description."""
    kinds: dict[int, tuple[ProblemType, ...]] = {}
    words: dict[int, str] = {}
    for status, types, text in _expected(method, operation):
        kinds[status] = types
        words[status] = text or words[status]
    responses: Document = operation["responses"]
    for status in {int(each) for each in responses if int(each) >= HTTPStatus.BAD_REQUEST} | set(kinds):
        found = responses.get(str(status), {})
        # flask-smorest refers to a description of its own for what a parser refuses.
        declared = {} if "$ref" in found else found
        types = kinds.get(status) or (_DECLARED.get(status) or ProblemType.BAD_REQUEST,)
        # HTML pages are not problem documents, and /ready has the same document at 503 as at 200.
        content = declared.get("content") or _content(status, types)
        headers = {**_HEADERS.get(status, {}), **declared.get("headers", {})}
        response = {"description": declared.get("description") or words[status], "content": content}
        responses[str(status)] = {**response, "headers": headers} if headers else response
    operation["responses"] = dict(sorted(responses.items()))


def _content(status: int, types: Iterable[ProblemType]) -> Document:
    named = {kind.value if kind.status == status else f"{kind.value}-{status}": kind for kind in types}
    examples = {name: {"$ref": f"#/components/examples/{name}"} for name in named}
    return {MEDIA_TYPE: {"schema": _SCHEMA, "examples": examples}}
