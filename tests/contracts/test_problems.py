"""Errors: each has a stable type, which is documented, described and served."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.exceptions import BadRequest, InternalServerError
from werkzeug.test import TestResponse

from api.app import create_app
from api.problem_types import ABOUT, ProblemType, of_status
from config.settings import read_settings
from config.wiring import Wiring
from notifier.security import api_keys
from notifier.security.permits import Permit
from tests.support.paths import ROOT

#: An id in the form of one, of nothing.
NOTHING = "01a1fc47-52fc-7015-a681-4dd01035c71e"
JSON = "application/json"


@pytest.fixture
def api(database_url: str, engine: Engine) -> Iterator[FlaskClient]:
    """An API that asks for keys, in this process, with a caller who may do everything."""
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    client = create_app(wires).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {api_keys.create(engine, 'all', list(api_keys.Scope))}"
    orders = Permit(event_types=("order.*",))
    client.environ_base["HTTP_X_ORDERS"] = api_keys.create(engine, "orders", ["send"], permit=orders)
    client.environ_base["HTTP_X_LIMITED"] = api_keys.create(engine, "limited", ["read"], rate=1)
    yield client
    wires.engine.dispose()


def _reused(api: FlaskClient) -> TestResponse:
    key = str(uuid4())
    body = {"event_type": "x", "payload": {"n": 1}, "idempotency_key": key}
    assert api.post("/api/v1/events", json=body).status_code == 202
    return api.post("/api/v1/events", json={**body, "payload": {}})


def _too_often(api: FlaskClient) -> TestResponse:
    limited = {"Authorization": f"Bearer {api.environ_base['HTTP_X_LIMITED']}"}
    answers = (api.get("/api/v1/events", headers=limited) for _ in range(100))
    return next(answer for answer in answers if answer.status_code != 200)


def _raised(api: FlaskClient, error: Exception) -> TestResponse:
    """Return the answer to a request whose view raises an error."""

    def break_down(*_: object, **__: object) -> None:
        raise error

    break_down.scope = None  # type: ignore[attr-defined]  # views carry their marks
    api.application.view_functions["operating.get_health"] = break_down
    return api.get("/health")


def _without_postgres(api: FlaskClient) -> TestResponse:
    url = "postgresql://nobody@127.0.0.1:9/x"
    lost = Wiring(read_settings({"DATABASE_URL": url, "NOTIFIER_AUTH": "off"}))
    return create_app(lost).test_client().get("/api/v1/events")


def _without_keys(api: FlaskClient, **headers: str) -> TestResponse:
    url = str(api.application.extensions["notifier"].wiring.settings.database_url)
    off = Wiring(read_settings({"DATABASE_URL": url, "NOTIFIER_AUTH": "off"}))
    return create_app(off).test_client().post(f"/api/v1/events/{NOTHING}/replay", headers=headers)


#: Requests that provoke each type.
PROVOKED: dict[ProblemType, list[Callable[[FlaskClient], TestResponse]]] = {
    ProblemType.BAD_REQUEST: [lambda api: _raised(api, BadRequest())],
    ProblemType.KEY_RESTRICTED: [
        lambda api: api.post(
            "/api/v1/events",
            json={"event_type": "x"},
            headers={"Authorization": f"Bearer {api.environ_base['HTTP_X_ORDERS']}"},
        )
    ],
    ProblemType.INVALID_JSON: [
        lambda api: api.post("/api/v1/events", data="{", content_type=JSON),
        lambda api: api.post("/api/v1/events/batch", data="{", content_type=JSON),
        lambda api: api.put("/api/v1/users/u", data="{", content_type=JSON),
        lambda api: api.post("/notify", data="{", content_type=JSON),
    ],
    ProblemType.INVALID_API_KEY: [lambda api: api.get("/api/v1/events", headers={"Authorization": "Bearer x"})],
    ProblemType.MISSING_SCOPE: [
        lambda api: api.post(
            "/api/v1/events", json={}, headers={"Authorization": f"Bearer {api.environ_base['HTTP_X_LIMITED']}"}
        )
    ],
    ProblemType.CROSS_SITE: [lambda api: _without_keys(api, Origin="https://evil.example")],
    ProblemType.MISDIRECTED_REQUEST: [lambda api: _without_keys(api, Host="evil.example")],
    ProblemType.NOT_FOUND: [
        lambda api: api.get("/nothing"),
        lambda api: api.get("/api/v1/nothing"),
        lambda api: api.get(f"/api/v1/events/{NOTHING}"),
        lambda api: api.get("/api/v1/users/nobody"),
        lambda api: api.get("/api/v1/users/a%2Fb"),
        lambda api: api.get("/problems/nothing"),
        lambda api: api.get("/docs/nothing.js"),
        lambda api: api.get("/" + "x/" * 2000),
        lambda api: api.post("/api/v1/receipts/nobody"),
    ],
    ProblemType.INVALID_ID: [
        lambda api: api.get("/api/v1/events/7"),
        lambda api: api.post("/api/v1/events/7/replay"),
        lambda api: api.get("/api/v1/notifications/7/attempts"),
        lambda api: api.delete("/api/v1/dead-letters/7"),
        lambda api: api.patch("/api/v1/subscriptions/7", json={}),
        lambda api: api.get("/api/v1/subscriptions/7/recoveries/8"),
        lambda api: api.get(f"/api/v1/subscriptions/{NOTHING}/recoveries/8"),
    ],
    ProblemType.METHOD_NOT_ALLOWED: [
        lambda api: api.put("/api/v1/events"),
        lambda api: api.post("/health"),
        lambda api: api.get("/notify"),
    ],
    ProblemType.CONFLICT: [
        # Without NOTIFIER_SECRET_KEY.
        lambda api: api.post("/api/v1/subscriptions", json={"url": "https://example.com/", "event_types": ["*"]})
    ],
    ProblemType.BODY_TOO_LARGE: [
        lambda api: api.post("/api/v1/events", data=b" " * 300_000, content_type=JSON),
        lambda api: api.put("/api/v1/users/u", data=b" " * 2_000_000, content_type=JSON),
    ],
    ProblemType.UNSUPPORTED_MEDIA_TYPE: [
        lambda api: api.post("/api/v1/events", data="{}"),
        lambda api: api.put("/api/v1/users/u", data="{}"),
    ],
    ProblemType.VALIDATION_FAILED: [
        lambda api: api.post("/api/v1/events", json={}),
        lambda api: api.post("/notify", json={}),
        lambda api: api.get("/api/v1/events?limit=0"),
        lambda api: api.get("/api/v1/users/u?limit=1&limit=1"),
        lambda api: api.put("/api/v1/users/u", json={"surprise": 1}),
        lambda api: api.delete("/api/v1/suppressions?channel=fax"),
    ],
    ProblemType.IDEMPOTENCY_KEY_REUSED: [_reused],
    ProblemType.RATE_LIMITED: [_too_often],
    ProblemType.INTERNAL_ERROR: [
        lambda api: _raised(api, RuntimeError("on purpose")),
        lambda api: _raised(api, InternalServerError()),
    ],
    ProblemType.UNAVAILABLE: [_without_postgres],
}
#: A provider must be set up, or a server: tests/integration/notifications/test_delivery_receipts.py and
#: tests/system/api/test_slow_callers.py have them.
ELSEWHERE = {ProblemType.INVALID_SIGNATURE, ProblemType.TIMED_OUT}


@pytest.mark.parametrize("kind", list(PROVOKED))
def test_each_type_is_what_its_errors_carry(api: FlaskClient, kind: ProblemType) -> None:
    for provoke in PROVOKED[kind]:
        answer = provoke(api)
        assert answer.content_type == "application/problem+json"
        problem: dict[str, Any] = answer.get_json(force=True)
        assert (problem["type"], problem["title"]) == (kind.path, kind.summary), problem
        assert answer.status_code == problem["status"] == kind.status
        assert problem["detail"]
        assert "werkzeug" not in problem["detail"]
        assert "manually" not in problem["detail"]
        assert bool(problem.get("errors")) == (kind.status == 422)
        assert ("Allow" in answer.headers) == (kind is ProblemType.METHOD_NOT_ALLOWED)
        assert ("Retry-After" in answer.headers) == (kind.status in {429, 503})


def test_every_type_is_provoked_documented_described_and_served(api: FlaskClient) -> None:
    assert set(PROVOKED) | ELSEWHERE == set(ProblemType) == set(ABOUT)
    documented = re.findall(
        r"^\| `(\S+)` \| (\d+) \| (.+) \| (.+) \|$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE
    )
    about = [(kind.path, str(each.status), each.meaning, each.remedy) for kind, each in ABOUT.items()]
    assert documented == about
    described = api.get("/openapi.json").get_json()["components"]["schemas"]["Problem"]["properties"]["type"]
    assert described["enum"] == [kind.path for kind in ProblemType]
    everyone = {"Authorization": ""}
    for kind in ProblemType:
        page = api.get(kind.path, headers=everyone)
        assert (page.status_code, page.mimetype) == (200, "text/html")
        assert kind.path in page.text
        assert kind.path in api.get("/problems", headers=everyone).text


def test_a_status_without_a_type_of_its_own_has_that_of_its_class() -> None:
    assert (of_status(418), of_status(507)) == (ProblemType.BAD_REQUEST, ProblemType.INTERNAL_ERROR)


def test_rejected_items_of_a_batch_carry_the_problem_they_would_have_been(api: FlaskClient) -> None:
    api.post("/api/v1/events", json={"event_type": "x", "idempotency_key": "taken"})
    lines = ['{"event_type": "x"}', '{"event_type": "x y"}', '{"event_type": "y", "idempotency_key": "taken"}', "{"]
    lines.append('{"event_type": "x", "payload": {"a": "' + "a" * 300_000 + '"}}')
    answer = api.post("/api/v1/events/batch", data="\n".join(lines), content_type="application/x-ndjson")
    items = answer.get_json()["items"]
    kinds = (ProblemType.VALIDATION_FAILED, ProblemType.IDEMPOTENCY_KEY_REUSED, ProblemType.INVALID_JSON)
    wanted = [(kind.status, kind.path) for kind in (*kinds, ProblemType.BODY_TOO_LARGE)]
    assert [(item["status"], item["type"]) for item in items[1:]] == wanted
    assert "type" not in items[0]


def test_the_root_leads_to_the_description(api: FlaskClient) -> None:
    answer = api.get("/", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")
    with api.get("/docs") as description:
        assert description.status_code == 200
