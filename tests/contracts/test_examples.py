"""The API's description and the API say the same: its examples work, and what it refuses is refused."""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema.validators import validator_for
from sqlalchemy import text

from api.app import create_app
from api.description import methods
from api.error_descriptions import example_of
from api.problem_types import ProblemType
from api.problems import MEDIA_TYPE
from api.schemas import text_patterns
from config.settings import read_settings
from config.wiring import Wiring
from notifier.providers.formats.mailboxes import mailbox
from notifier.vocabulary import addresses, durations, expressions, time_zones, timestamps
from notifier.vocabulary.states import Channel
from tests.conftest import QUICK
from tests.support.planted import Planted, plant

Description = dict[str, Any]

#: Operations that need what nobody but a provider, or a reader of a message, can have: a signature, a link.
NOT_OURS: Final = {"takeReceipt", "takeReceiptFromQuery", "showUnsubscribePage", "unsubscribeCategory"}
#: Operations that make what others need, and those that take it away again.
FIRST: Final = ("erasePerson", "putUser", "putTemplate", "putRoute", "putHold", "suppressAddress")
LAST: Final = (
    *("cancelNotification", "liftSuppression", "liftSuppressionById", "deleteDeadLetter", "deleteSubscription"),
    *("deleteRoute", "releaseHold", "deleteUser"),
)
SCOPES: Final = "send,read,admin,critical"


@pytest.fixture
def planted(database_url: str) -> Iterator[Planted]:
    """An API within this process that asks for keys, with one of everything; nothing else runs."""
    several = {"NOTIFIER_SMS": "outbox:, outbox:?name=other"}
    wires = Wiring(read_settings({**QUICK, **several, "DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    yield plant(create_app(wires).test_client(), wires)
    wires.template_process.close()
    wires.engine.dispose()


def _described(planted: Planted) -> Description:
    document: Description = planted.client.get("/openapi.json").get_json()
    return document


def _in_order(document: Description) -> list[tuple[str, str, Description]]:
    """Every operation: method, path, description; in an order in which each finds what it needs."""
    found = [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if operation["operationId"] not in NOT_OURS
    ]

    def place(each: tuple[str, str, Description]) -> tuple[bool, bool]:
        return each[2]["operationId"] in LAST, each[2]["operationId"] not in FIRST

    return sorted(found, key=place)


def _bodies(operation: Description) -> list[Any]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return [example["value"] for example in content.get("examples", {}).values()] or [None]


def _path(planted: Planted, path: str, operation: Description) -> str:
    """The path of an operation with the names of its examples, and the ids of what is there."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and "example" in parameter:
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    needed = {
        each["name"]: each["example"]
        for each in operation.get("parameters", ())
        if each["in"] == "query" and each["required"]
    }
    return planted.path(path) + (f"?{urlencode(needed)}" if needed else "")


def test_every_example_works_as_it_stands(planted: Planted) -> None:
    tried, erased = 0, ""
    for method, path, operation in _in_order(_described(planted)):
        name = operation["operationId"]
        bodies = _bodies(operation)
        assert ("requestBody" in operation) is (bodies != [None]), f"{name} has no example of its body"
        for body in bodies:
            where = _path(planted, path, operation)
            if name in {"moveNotification", "cancelNotification"}:
                later = {"body": "x", **_TO, "send_at": _WHEN}
                [made] = planted.ask(SCOPES, "POST", "/api/v1/notifications", later).get_json()["items"]
                where = path.replace("{notification_id}", made["id"])
            if name == "resendNotification":
                sms = {"recipient": "+4915112345678", "channel": "sms", "body": "x"}
                [made] = planted.ask(SCOPES, "POST", "/api/v1/notifications", sms).get_json()["items"]
                ended = text("UPDATE notifications SET status = 'sent', due_at = NULL WHERE id = :id")
                with planted.engine.begin() as connection:  # nobody sends it here
                    connection.execute(ended, {"id": made["id"]})
                where = path.replace("{notification_id}", made["id"])
            if name == "getErasure":
                where = path.replace("{erasure_id}", erased)
            if name == "liftSuppressionById":
                kept = planted.ask(
                    SCOPES, "POST", "/api/v1/suppressions", {"channel": "sms", "address": "+4915112345678"}
                )
                where = path.replace("{suppression_id}", kept.get_json()["id"])
            answer = planted.ask(SCOPES, method, where, body)
            wanted = {200, 201, 202, 204} | ({503} if name == "getReadiness" else set())
            assert answer.status_code in wanted, f"{name} {body}: {answer.status_code} {answer.text}"
            assert str(answer.status_code) in operation["responses"], name
            if name == "erasePerson":
                erased = answer.get_json()["id"]
            tried += 1
    assert tried > 80


def test_every_link_leads_to_what_an_answer_names(planted: Planted) -> None:
    document = _described(planted)
    named = {operation["operationId"]: operation for _, operation in methods(document)}
    links = [
        (link, operation)
        for operation in named.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert len(links) > 20
    for link, _ in links:
        wanted = {each["name"] for each in named[link["operationId"]]["parameters"] if each["in"] == "path"}
        assert set(link["parameters"]) == wanted


def test_every_error_has_the_example_of_its_own_problem(planted: Planted) -> None:
    document = _described(planted)
    examples = document["components"]["examples"]
    for _, operation in methods(document):
        name = operation["operationId"]
        for status, response in operation["responses"].items():
            for reference in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).values():
                example = examples[reference["$ref"].rpartition("/")[2]]["value"]
                assert str(example["status"]) == status, f"{name} shows {example} for {status}"
            if MEDIA_TYPE in response.get("content", {}):
                assert response["content"][MEDIA_TYPE]["examples"], f"{name}: {status}"
    for kind in ProblemType:
        example = example_of(kind)
        assert (example["type"], example["status"]) == (kind.path, kind.status)


# --- what is refused, and what the description says of it

_NULL: Final = {"recipient": None, "channel": None, "user_id": None}
_TO: Final = {"recipient": "ada@example.com", "channel": "email"}
_WHEN: Final = "2035-06-01T09:00:00Z"
_BY: Final = {"target_date": _WHEN}
_ACCEPTED: Final = (202, 200, 201, 204, 404)
#: Operation, body, and whether it is accepted.
REQUESTS: Final[list[tuple[str, Any, bool]]] = [
    ("postEvent", {"event_type": "a", **_NULL}, True),
    ("postEvent", {"type": "a"}, True),
    ("postEvent", {"event_type": "a", "payload": {"a": [1, None, {"b": "c"}]}}, True),
    ("postEvent", {}, False),
    ("postEvent", {"event_type": "notifier.x"}, False),
    ("postEvent", {"type": "notifier.x"}, False),
    ("postEvent", {"event_type": "a b"}, False),
    ("postEvent", {"event_type": "a", "unknown": 1}, False),
    ("postEvent", {"event_type": "a", "recipient": "ada@example.com"}, False),
    ("postEvent", {"event_type": "a", "channel": "email"}, False),
    ("postEvent", {"event_type": "a", "channel": "email", "user_id": "u"}, True),
    ("postEvent", {"event_type": "a", "channel": "sms", "recipient": "ada@example.com"}, False),
    ("postEvent", {"event_type": "a", "channel": "sms", "recipient": "+49 151 12345678"}, True),
    ("postEvent", {"event_type": "a", "channel": "email", "recipient": "ädä@exämple.com"}, True),
    ("postEvent", {"event_type": "a", "channel": "webhook", "recipient": "ftp://a.example.com"}, False),
    ("postEvent", {"event_type": "a", "channel": "push", "recipient": "two words"}, False),
    ("postEvent", {"event_type": "a", **_TO, "lead_time": "P7D"}, False),
    ("postEvent", {"event_type": "a", **_TO, "lead_time": ["P7D", "PT30M"], "target_date": _WHEN}, True),
    ("postEvent", {"event_type": "a", **_TO, "lead_time_days": 7, "target_date": _WHEN}, True),
    ("postEvent", {"event_type": "a", **_TO, "lead_time_days": 7, "lead_time": "P7D", **_BY}, False),
    ("postEvent", {"event_type": "a", **_TO, "lead_time": "P1M", "target_date": _WHEN}, False),
    ("postEvent", {"event_type": "a", **_TO, "target_date": _WHEN, "send_at": _WHEN}, False),
    ("postEvent", {"event_type": "a", **_TO, "send_at": "2035-06-01T09:00:00"}, False),
    ("postEvent", {"event_type": "a", **_TO, "send_at": "1969-06-01T09:00:00Z"}, False),
    ("postEvent", {"event_type": "a", **_TO, "dedup_key": "k"}, False),
    ("postEvent", {"event_type": "a", **_TO, "dedup_key": "k", "dedup_window": "P1D", "dedup_scope": "everyone"}, True),
    ("postEvent", {"event_type": "a", **_TO, "dedup_scope": "source"}, False),
    ("postEvent", {"event_type": "a", **_TO, "timezone": "Europe/Berlin"}, True),
    ("postEvent", {"event_type": "a", **_TO, "timezone": "Europe/berlin"}, False),
    ("postBatch", {"events": []}, False),
    ("postBatch", {"events": [{"event_type": "a"}, 5]}, True),
    ("postNotification", {**_TO}, False),
    ("postNotification", {"body": "x"}, False),
    ("postNotification", {"body": "x", **_TO}, True),
    ("postNotification", {"body": "x", **_TO, "template": "t-1"}, False),
    ("postNotification", {"body": "x", **_TO, "data": {}}, False),
    ("postNotification", {"template": "t-1", "subject": "x", **_TO}, False),
    ("postNotification", {"body": "x", "user_id": "u", "channels": ["email", "sms"]}, True),
    ("postNotification", {"body": "x", "user_id": "u", "channels": ["sms", "sms"]}, False),
    ("postNotification", {"body": "x", "user_id": "u", "channels": ["sms"], "channel": "sms"}, False),
    ("postNotification", {"body": "x", **_TO, "channels": ["email"]}, False),
    ("postNotification", {"body": "x", **_TO, "from": "Us <us@localhost>", "reply_to": "a@example.com"}, True),
    ("postNotification", {"body": "x", **_TO, "from": "them@example.com"}, False),
    ("postNotification", {"body": "x", "user_id": "u", "channels": ["sms"], "reply_to": "a@example.com"}, False),
    (
        "postNotification",
        {"body": "x", "user_id": "u", "channels": ["sms", "email"], "reply_to": "a@example.com"},
        True,
    ),
    ("postNotification", {"body": "x", "channel": "push", "recipient": "t", "reply_to": "a@example.com"}, False),
    ("moveNotification", {}, False),
    ("moveNotification", {"send_at": None, "target_date": _WHEN}, False),
    ("erasePerson", {"user_id": "u"}, True),
    ("erasePerson", {"user_id": "u", **{"channel": "email"}}, False),
    ("erasePerson", {"address": "ada@example.com"}, False),
    ("exportPerson", {"address": "bob@example.com", "channel": "email"}, True),
    ("suppressAddress", {"address": "ada@example.com", "channel": "sms"}, False),
    ("putTemplate", {"channel": "webhook", "text": "x"}, False),
    ("putTemplate", {"channel": "email"}, False),
    ("putTemplate", {"channel": "sms", "text": "x", "html": "x"}, False),
    ("putTemplate", {"channel": "email", "html": "x", "locale": "pt-BR"}, True),
    ("previewTemplate", {"version": "1"}, False),
    ("putRoute", {"event_type": "a.*", "to": {"user_id": "payload.u", "recipient": "payload.r"}}, False),
    ("putRoute", {"event_type": "a.*", "to": {"recipient": "payload.r"}}, False),
    ("putRoute", {"event_type": "*.a", "to": {"user_id": "payload.u"}}, False),
    ("putRoute", {"event_type": "a", "to": {"user_id": "payload.("}}, False),
    (
        "putRoute",
        {"event_type": "a", "to": {"user_id": "payload.u"}, "filter": "contains(payload.tags, 'x') && a"},
        True,
    ),
    (
        "putRoute",
        {"event_type": "a", "to": {"recipient": "payload.r", "channel": "sms"}, "channels": ["sms"]},
        False,
    ),
    ("createSubscription", {"url": "https://a.example.com/x?y=1", "event_types": ["*"]}, True),
    ("createSubscription", {"url": "a.example.com", "event_types": ["*"]}, False),
    ("createSubscription", {"url": "https://a.example.com", "event_types": []}, False),
    ("createSubscription", {"url": "https://a.example.com", "event_types": ["*"], "permanent_statuses": [429]}, False),
    ("createSubscription", {"url": "https://a.example.com", "event_types": ["*"], "headers": {"a": "ü"}}, False),
    ("changeSubscription", {}, False),
    ("putPreferences", {"channels": {"fax": True}}, False),
    ("putPreferences", {"categories": {"x": {"*": False, "sms": True}}}, True),
    ("putPreferences", {"categories": {"x": {"fax": False}}}, False),
    ("requeueDeadLetters", {}, False),
    ("requeueDeadLetters", {"all": True, "channel": "email"}, False),
    ("requeueDeadLetters", {"all": False, "channel": "email"}, True),
]


def _as_json_schema(part: Any) -> Any:
    """A schema of OpenAPI 3.0 as one of JSON Schema: the one difference that ours have is `nullable`."""
    if isinstance(part, list):
        return [_as_json_schema(each) for each in part]
    if not isinstance(part, dict):
        return part
    plain = {key: _as_json_schema(each) for key, each in part.items() if key != "nullable"}
    if part.get("nullable") is True and isinstance(part.get("type"), str):
        plain["type"] = [part["type"], "null"]
    return plain


def test_what_is_accepted_and_refused_is_what_the_description_says(planted: Planted) -> None:
    document = _described(planted)
    operations = {
        operation["operationId"]: (method, path, operation) for method, path, operation in _in_order(document)
    }
    components = _as_json_schema(document["components"])
    for name, body, is_accepted in REQUESTS:
        method, path, operation = operations[name]
        schema = _as_json_schema(operation["requestBody"]["content"]["application/json"]["schema"])
        whole = {**schema, "components": components}
        validator = validator_for(whole, default=jsonschema.Draft7Validator)(whole)
        assert validator.is_valid(body) is is_accepted, f"the description says otherwise of {name} {body}"
        answer = planted.ask(SCOPES, method, _path(planted, path, operation), body)
        assert (answer.status_code in _ACCEPTED) is is_accepted, f"{name} {body}: {answer.status_code} {answer.text}"


def test_examples_are_what_the_description_says(planted: Planted) -> None:
    document = _described(planted)
    components = _as_json_schema(document["components"])
    for _, _, operation in _in_order(document):
        for body in _bodies(operation):
            if body is not None:
                schema = _as_json_schema(operation["requestBody"]["content"]["application/json"]["schema"])
                jsonschema.validate(body, {**schema, "components": components}, cls=jsonschema.Draft7Validator)


#: Patterns of the description and the checks of their fields.
CHECKS: Final = {
    "moment": (text_patterns.MOMENT, timestamps.parse_rfc3339),
    "duration": (text_patterns.DURATION, durations.parse_iso),
    "webhook": (text_patterns.URL, lambda text: addresses.normalised(Channel.WEBHOOK, text)),
    "chat": (text_patterns.CHAT, lambda text: addresses.normalised(Channel.CHAT, text)),
    "push": (text_patterns.PUSH, lambda text: addresses.normalised(Channel.PUSH, text)),
    "phone": (text_patterns.phone_form(), lambda text: addresses.normalised(Channel.SMS, text)),
    "zone": (text_patterns.zone_form(), time_zones.zone),
    "path": (text_patterns.JMESPATH, expressions.compiled),
    "mailbox": (text_patterns.mailbox_form()["pattern"], mailbox),
}


@pytest.mark.parametrize("name", CHECKS)
def test_what_a_pattern_matches_is_accepted(name: str) -> None:
    pattern, check = CHECKS[name]

    @settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= 250))
    def accepted(text: str) -> None:
        # How many days a month has is what `format: date-time` says.
        if name != "moment" or re.search(r"^....-(0[1-9]|1[0-2])-([01].|2[0-8])", text):
            check(text)

    accepted()
