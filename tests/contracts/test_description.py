"""The OpenAPI description: what programs make of it stays the same, and each of them understands it."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from api.app import create_app
from api.description import Description, operations
from config.settings import read_settings
from config.wiring import Wiring
from tests.support.node_packages import NODE

#: Clients are made of these names: one that changes breaks whoever calls it.
OPERATIONS = [
    "postEvent",
    "postBatch",
    "listEvents",
    "getEvent",
    "replayEvent",
    "postTypedEvent",
    "sendNotification",
    "notifyUser",
    "postNotification",
    "listNotifications",
    "getNotification",
    "listNotificationAttempts",
    "getNotificationContent",
    "cancelNotification",
    "cancelNotifications",
    "moveNotification",
    "resendNotification",
    "listUsers",
    "putUser",
    "getUser",
    "deleteUser",
    "exportUser",
    "getPreferences",
    "putPreferences",
    "checkPreferences",
    "listTemplates",
    "putTemplate",
    "getTemplate",
    "listTemplateVersions",
    "previewTemplate",
    "listRoutes",
    "putRoute",
    "getRoute",
    "deleteRoute",
    "listSubscriptions",
    "createSubscription",
    "getSubscription",
    "changeSubscription",
    "deleteSubscription",
    "rotateSecret",
    "enableSubscription",
    "listSubscriptionNotifications",
    "testSubscription",
    "recoverSubscription",
    "listRecoveries",
    "getRecovery",
    "listSuppressions",
    "suppressAddress",
    "liftSuppression",
    "liftSuppressionById",
    "listHolds",
    "listAudit",
    "putHold",
    "releaseHold",
    "erasePerson",
    "listErasures",
    "getErasure",
    "exportPerson",
    "listDeadLetters",
    "groupDeadLetters",
    "getDeadLetter",
    "requeueDeadLetter",
    "requeueDeadLetters",
    "deleteDeadLetter",
    "searchEverything",
    "beginDeadLetterAct",
    "listDeadLetterActs",
    "getDeadLetterAct",
    "stopDeadLetterAct",
    "resumeDeadLetterAct",
    "takeReceipt",
    "takeReceiptFromQuery",
    "showUnsubscribePage",
    "unsubscribeCategory",
    "getStatistics",
    "getState",
    "getHealth",
    "getReadiness",
    "readMetrics",
]


@pytest.fixture(scope="module")
def app() -> Flask:
    # Nothing is asked of Postgres.
    return create_app(Wiring(read_settings({"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"})))


@pytest.fixture(scope="module")
def description(app: Flask) -> dict[str, Any]:
    described: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return described


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """Every object within a document."""
    if isinstance(part, dict):
        yield part
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _parts(each)


def test_operations_have_ids_that_stay(description: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(description)]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == sorted(OPERATIONS), "a new operation is added here; one that is there keeps its name"


def test_every_operation_says_what_it_does_and_belongs_to_a_described_tag(description: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in description["tags"] if tag["description"]}
    for operation in operations(description):
        assert operation["summary"]
        assert operation["description"]
        assert set(operation["tags"]) <= tags
    assert description["servers"]
    assert {"contact", "license", "title", "version", "description"} <= set(description["info"])


def test_every_error_is_described_as_a_problem(description: dict[str, Any]) -> None:
    problem = {"$ref": "#/components/schemas/Problem"}
    for operation in operations(description):
        name, responses = operation["operationId"], operation["responses"]
        errors = {status: each for status, each in responses.items() if int(status) >= 400}
        for status, error in errors.items():
            assert error["description"], name
            [(media_type, content)] = error["content"].items()
            # People see the pages behind unsubscribe links; /ready says the same at 503 as at 200.
            is_problem = media_type == "application/problem+json" and content["schema"] == problem
            assert is_problem or (name, status) == ("getReadiness", "503") or media_type == "text/html", name
        wanted = {"500"}
        if "x-required-scope" in operation:
            wanted |= {"401", "403", "429", "503"}
            wanted |= {"400", "413", "415", "422"} if "requestBody" in operation else set()
        if any(parameter["in"] == "query" for parameter in operation.get("parameters", ())):
            wanted |= {"422"}
        assert wanted <= set(errors), name
    required = description["components"]["schemas"]["Problem"]["required"]
    assert sorted(required) == ["detail", "status", "title", "type"]


def test_no_member_has_a_default_which_generators_take_for_always_there(description: dict[str, Any]) -> None:
    assert not [part for part in _parts(description) if "type" in part and "default" in part]
    priority = description["components"]["schemas"]["Event"]["properties"]["priority"]
    assert priority["description"] == "By default `normal`."


def test_patterns_are_those_of_ecma_262(description: dict[str, Any]) -> None:
    patterns = {part["pattern"] for part in _parts(description) if isinstance(part.get("pattern"), str)}
    assert patterns
    script = "for (const each of JSON.parse(process.argv[1])) new RegExp(each, 'u')"
    subprocess.run([NODE, "-e", script, json.dumps(sorted(patterns))], check=True, timeout=60)
    # Understood, and with another meaning.
    for pattern in patterns:
        assert not any(word in pattern for word in (r"\Z", r"\A", "(?P", "*+", "++", "?+", "(?i")), pattern
        assert pattern.startswith("^")
        assert pattern.endswith("$")


def test_a_head_is_held_to_the_body_that_is_described(app: Flask, description: dict[str, Any]) -> None:
    """So a body is refused before it is read; the description is made later, if at all."""
    rules = app.extensions["heads"].rules
    compared = 0
    for route in app.url_map.iter_rules():
        item = description["paths"].get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.rule), {})
        for method in (route.methods or set()) - {"OPTIONS", "HEAD"} if item else ():
            operation, rule = item[method.lower()], rules[route.endpoint, method]
            body = operation.get("requestBody", {"content": ()})
            # Providers and people's browsers choose what they send.
            is_ours = "x-required-scope" in operation
            assert rule.types == (set(body["content"]) if is_ours else set()), operation["operationId"]
            assert rule.limit > 1024 or "requestBody" not in operation, operation["operationId"]
            compared += 1
    assert compared == len(OPERATIONS)


def test_it_is_made_once_whoever_asks() -> None:
    made: list[dict[str, Any]] = []

    def make() -> dict[str, Any]:
        time.sleep(0.05)  # in which the others ask too
        made.append({})
        return made[-1]

    described = Description(make)
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: described.document(), range(8)))
    assert len(made) == 1
    assert all(each is made[0] for each in given)
