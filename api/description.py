"""Completion of the OpenAPI description for machines: adds to each operation the parts that all have in common."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import orjson

from api.problems import MEDIA_TYPE

Document = dict[str, Any]

#: The `servers` of every description: the server that serves it.
SERVERS: Final = [{"url": "/", "description": "Where this description comes from."}]
INFO: Final = {
    "contact": {"name": "Those who run this server"},
    "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
}

#: The mark on operations that take `reveal`.
TAKES_REVEAL: Final = "x-takes-reveal"
_REVEAL: Final = {
    "in": "query",
    "name": "reveal",
    "required": False,
    "schema": {"type": "boolean"},
    "description": "`1` shows the credentials in URLs, chat URLs and headers, which are `***` otherwise. It needs the"
    " scope `admin`, and the audit log tells of it.",
}
_METHODS: Final = frozenset({"get", "put", "post", "patch", "delete"})
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_WITH_KEY: Final = {
    401: "No API key, or none that is in use.",
    403: "The key lacks the scope that is needed (`x-required-scope`), or is limited to other channels or event types;"
    " or a page of another site sent it.",
    503: "Postgres cannot do its work now; see Retry-After.",
}
_WITH_BODY: Final = {
    400: "The body is not JSON.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not declared to be JSON.",
    422: "Not valid; see `errors`.",
}
_WITH_QUERY: Final = {422: "A query parameter is not valid; see `errors`."}
_ALWAYS: Final = {
    421: "No key is asked for, and the server does not go by the name in `Host`.",
    500: "Something went wrong here; it has been logged.",
}


def operation_id(view_name: str) -> str:
    """`list_dead_letters` as `listDeadLetters`."""
    first, *rest = view_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def operations(document: Document) -> Iterator[Document]:
    """Every operation of a description."""
    for item in document["paths"].values():
        yield from (operation for method, operation in item.items() if method in _METHODS)


def completed(document: Document) -> Document:
    """A description with all that its operations have in common."""
    for operation in operations(document):
        # A docstring of one line serves as the description too.
        operation.setdefault("description", operation["summary"])
        if operation.pop(TAKES_REVEAL, False):
            operation["parameters"] = [*operation.get("parameters", ()), _REVEAL]
        _add_errors(operation)
    _settle(document)
    _drop_unused(document)
    return document


def _add_errors(operation: Document) -> None:
    """Say which errors there can be, and that each is a problem."""
    expected = dict(_ALWAYS)
    if "x-required-scope" in operation:
        expected |= _WITH_KEY
    if any(parameter.get("in") == "query" for parameter in operation.get("parameters", ())):
        expected |= _WITH_QUERY
    if "requestBody" in operation and "x-required-scope" in operation:
        expected |= _WITH_BODY
    responses = operation["responses"]
    for status, description in expected.items():
        responses.setdefault(str(status), {"description": description})
    for status, response in responses.items():
        if int(status) < HTTPStatus.BAD_REQUEST:
            continue
        if "$ref" in response:  # flask-smorest's own word for what a parser refuses
            responses[status] = {"description": (_WITH_BODY | _WITH_QUERY)[int(status)], "content": _PROBLEM}
        else:
            response.setdefault("content", _PROBLEM)
    operation["responses"] = dict(sorted(responses.items()))


def _settle(part: object) -> None:
    """Say what fields are in the ways that generators of clients understand.

    OpenAPI 3.0 knows `nullable` beside a type: what can be chosen has one, not the choice.
    """
    if isinstance(part, list):
        for each in part:
            _settle(each)
    if not isinstance(part, dict):
        return
    if "enum" in part and "type" not in part:
        part["type"] = "string"
    if "default" in part and not isinstance(part["default"], dict):
        # Some generators take a member with a default for one that is always there, also in what is sent.
        default = part.pop("default")
        if default not in (None, []):
            words = part.get("description", "")
            part["description"] = f"{words} By default `{orjson.dumps(default).decode().strip(chr(34))}`.".strip()
    if part.get("nullable") is True and "type" not in part and "anyOf" in part:
        del part["nullable"]
        part["anyOf"] = [{**each, "nullable": True} for each in part["anyOf"]]
    for each in part.values():
        _settle(each)


def _drop_unused(document: Document) -> None:
    """Leave out components that nothing refers to."""
    kinds = document["components"]
    for kind in [kind for kind in kinds if kind != "securitySchemes"]:
        text = orjson.dumps(document).decode()
        used = {name: each for name, each in kinds[kind].items() if f'"#/components/{kind}/{name}"' in text}
        kinds[kind] = used
        if not used:
            del kinds[kind]
