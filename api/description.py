"""Completion of the OpenAPI description: adds to each operation the parts that all operations have in common."""

import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import marshmallow as ma
import orjson

from api.error_descriptions import add_errors, error_examples
from api.examples import add_examples
from api.schemas.fields import CLOSED, IN_ITS_FORM, SENDER, SOMETIMES
from api.schemas.member_rules import Ruled
from api.schemas.text_patterns import MOMENT, TEXT, mailbox_form, named_forms
from config.settings import Settings
from notifier.content.sender_rules import SenderRules
from notifier.vocabulary.event_types import NAME, USER_ID

Document = dict[str, Any]

#: The `servers` of every description: the server that serves it.
SERVERS: Final = [{"url": "/", "description": "Where this description comes from."}]
INFO: Final = {
    "contact": {"name": "The operators of this server"},
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
_NAME: Final = f"^{NAME.pattern}$"
#: Parameters in paths that are names: their forms.
_IN_PATHS: Final = {
    "user_id": USER_ID.pattern,
    "template_name": _NAME,
    "route_name": rf"^(?!(?:all|email|sms|push|chat|webhook)$){NAME.pattern}$",
    "target": _NAME,
    "provider": _NAME,
}
_REFERENCE: Final = re.compile(r'"#/components/schemas/(\w+)"')


class Description:
    """The OpenAPI description of an application, made when somebody first asks for it.

    To make it takes longer than to create the rest of an application, and few processes are ever asked for it.
    """

    def __init__(self, make: Callable[[], Document]) -> None:
        """`make` is called once, whichever threads ask."""
        self._make = make
        self._lock = threading.Lock()
        self._document: Document | None = None

    def document(self) -> Document:
        """Return the OpenAPI document."""
        with self._lock:
            if self._document is None:
                self._document = self._make()
            return self._document


def operation_id(view_name: str) -> str:
    """`list_dead_letters` as `listDeadLetters`."""
    first, *rest = view_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def methods(document: Document) -> Iterator[tuple[str, Document]]:
    """Every operation of a description, with its method."""
    for item in document["paths"].values():
        yield from ((method, operation) for method, operation in item.items() if method in _METHODS)


def operations(document: Document) -> Iterator[Document]:
    """Every operation of a description."""
    return (operation for _, operation in methods(document))


def completed(
    document: Document, schemas: Mapping[str, type[ma.Schema]], settings: Settings, senders: SenderRules
) -> Document:
    """Add to a description all that its operations have in common. `schemas`: its components' schemas by name."""
    components = document["components"]["schemas"]
    _add_rules(document, schemas)
    components |= named_forms()
    document["components"]["examples"] = error_examples()
    components["Batch"]["properties"]["events"]["maxItems"] = settings.max_batch_events
    for item in document["paths"].values():
        for parameter in item.get("parameters", ()):
            _describe_name(parameter)
    for operation in operations(document):
        # A docstring of one line serves as the description too.
        operation.setdefault("description", operation["summary"])
        if operation.pop(TAKES_REVEAL, False):
            operation["parameters"] = [*operation.get("parameters", ()), _REVEAL]
    _share_parameters(document)
    for method, operation in methods(document):
        add_errors(method, operation)
        add_examples(operation)
    _settle(document)
    _drop_unused(document)
    _describe_requests(document, senders)
    return document


def _share_parameters(document: Document) -> None:
    """Give each operation the parameters of its path, which may have an example for each."""
    for item in document["paths"].values():
        shared = item.pop("parameters", [])
        for method in _METHODS & set(item):
            own = item[method].get("parameters", [])
            if shared or own:
                item[method]["parameters"] = [*({**each} for each in shared), *own]


def _describe_name(parameter: Document) -> None:
    form = _IN_PATHS.get(parameter["name"])
    if form is not None:
        parameter["schema"] = {"type": "string", "pattern": form}


def _add_rules(document: Document, schemas: Mapping[str, type[ma.Schema]]) -> None:
    """Add to components what their schemas are for, and to them or to bodies what code checks about several members."""
    beside: dict[str, list[Document]] = {}
    for name, schema in schemas.items():
        component = document["components"]["schemas"][name]
        component["description"] = inspect.cleandoc(schema.__doc__ or "")
        least = getattr(schema.Meta, "min_properties", None)
        if least is not None:
            component["minProperties"] = least
        if issubclass(schema, Ruled) and (fragments := schema.fragments()):
            if schema.BESIDE:
                beside[name] = fragments
            else:
                component["allOf"] = fragments
    for operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            named = _REFERENCE.findall(orjson.dumps(content["schema"]).decode())
            if named and named[0] in beside:  # the two words for an event have the same rules
                content["schema"] = {"allOf": [content["schema"], *beside[named[0]]]}


def _describe_requests(document: Document, senders: SenderRules) -> None:
    """Say of requests what their texts may be; of answers no more than their kind."""
    components = document["components"]["schemas"]
    asked: list[Any] = [
        part
        for operation in operations(document)
        for part in (operation.get("parameters"), operation.get("requestBody"))
        if part is not None
    ]
    named: set[str] = set()
    for part in asked:
        for name in _REFERENCE.findall(orjson.dumps(part).decode()):
            if name not in named:
                named.add(name)
                asked.append(components[name])
    for part in asked:
        _describe_texts(part, senders)
    for name in components.keys() - named:
        _forget_forms(components[name])
        _require_members(components[name])


def _describe_texts(part: object, senders: SenderRules) -> None:
    if isinstance(part, list):
        for each in part:
            _describe_texts(each, senders)
    if not isinstance(part, dict):
        return
    if part.pop(next(iter(SENDER)), False):
        part |= mailbox_form(senders)
    has_form = part.pop(next(iter(IN_ITS_FORM)), False)
    said = {"pattern", "enum", "format", "anyOf", "allOf", "$ref"}
    if part.get("type") == "string" and not has_form and not said & part.keys():
        part["pattern"] = TEXT
    for key, each in part.items():
        if key not in {"example", "examples"}:
            _describe_texts(each, senders)


def _forget_forms(part: object) -> None:
    if isinstance(part, list):
        for each in part:
            _forget_forms(each)
    if not isinstance(part, dict):
        return
    if part.get("pattern") == MOMENT:
        del part["pattern"]
    for each in part.values():
        _forget_forms(each)


def _require_members(component: Document) -> None:
    """Say of an answer that its members are always there, unless its schema lists those that are."""
    members: Document = component.get("properties", {})
    own = [name for name, each in members.items() if not each.pop(next(iter(SOMETIMES)), False)]
    if own and "required" not in component:
        component["required"] = own


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
    if part.pop(next(iter(CLOSED)), False):
        part["additionalProperties"] = False
    if part.get("type") == "object":
        part.pop("maxLength", None)  # marshmallow counts members by it
    if "default" in part and not isinstance(part["default"], dict):
        # Some generators take a member with a default for one that is always there, also in what is sent.
        default = part.pop("default")
        if default not in (None, []):
            words = part.get("description", "")
            part["description"] = f"{words} By default `{orjson.dumps(default).decode().strip(chr(34))}`.".strip()
    if part.get("nullable") is True and "type" not in part and "anyOf" in part:
        del part["nullable"]
        part["anyOf"] = [each if "$ref" in each else {**each, "nullable": True} for each in part["anyOf"]]
    for key, each in part.items():
        if key not in {"example", "examples"}:
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
