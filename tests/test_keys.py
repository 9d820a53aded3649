"""API keys and scopes: every route declares what it wants, and gets it."""

from collections.abc import Callable, Iterator

import pytest
import requests
from sqlalchemy import Engine

from api import operating
from api.app import create_app
from api.auth import scope_of
from config.settings import read_settings
from config.wiring import Wiring
from notifier import keys
from notifier.errors import Conflict, Invalid
from notifier.keys import Scope
from tests.running import Running, wait_for

OPEN = {"/health", "/ready", "/docs", "/docs/<path:name>", "/openapi.json", "/u/<token>"}
OPEN |= {"/api/v1/receipts/<name:provider>"}  # its provider's signature is the key
SEND = {
    ("POST", "/api/v1/events"),
    ("POST", "/api/v1/events/batch"),
    ("POST", "/api/v1/notifications"),
    ("POST", "/api/v1/notifications/cancel"),
    ("POST", "/api/v1/notifications/<uuid:notification_id>/cancel"),
}
READ = {("POST", "/api/v1/preferences/check")}
ADMIN = {("GET", "/api/v1/users/<name:user_id>/export")}  # all of a person's data at once


def test_every_route_declares_its_scope(database_url: str, engine: Engine) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url}))
    app = create_app(wires)
    seen = set()
    for rule in app.url_map.iter_rules():
        scope = scope_of(app.view_functions[rule.endpoint])
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            wanted = Scope.READ if method == "GET" or (method, rule.rule) in READ else Scope.ADMIN
            if (method, rule.rule) in ADMIN:
                wanted = Scope.ADMIN
            if (method, rule.rule) in SEND:
                wanted = Scope.SEND
                seen.add((method, rule.rule))
            expected = None if rule.rule in OPEN else wanted
            assert scope == expected, f"{method} {rule.rule} wants {scope}, not {expected}"
    assert seen == SEND
    wires.engine.dispose()
    del engine


def test_a_route_without_a_scope_stops_the_start(database_url: str) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url}))
    scope = operating.health.scope
    del operating.health.scope
    try:
        with pytest.raises(LookupError, match=r"operating\.health"):
            create_app(wires)
    finally:
        operating.health.scope = scope
        wires.engine.dispose()


@pytest.fixture(scope="module")
def guarded(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API that asks for keys; nothing else runs."""
    system = new_system(NOTIFIER_AUTH="required")
    system.start(only=[system.api])
    yield system
    system.stop()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_scopes_are_held_to(guarded: Running) -> None:
    sender = keys.create(guarded.engine, "sender", ["send"])
    reader = keys.create(guarded.engine, "reader", ["read"])
    event = {"event_type": "x"}
    assert guarded.post("/api/v1/events", event, headers=bearer(sender)).status_code == 202
    assert guarded.post("/api/v1/events", event, headers=bearer(reader)).status_code == 403
    assert guarded.get("/api/v1/events", headers=bearer(reader)).status_code == 200
    forbidden = guarded.get("/api/v1/events", headers=bearer(sender))
    assert forbidden.status_code == 403
    assert forbidden.headers["content-type"] == "application/problem+json"
    assert guarded.post("/api/v1/dead-letters/requeue", {}, headers=bearer(reader)).status_code == 403


def test_the_keys_name_is_the_source_and_scopes_idempotency_keys(guarded: Running) -> None:
    one = keys.create(guarded.engine, "billing", ["send", "read"])
    two = keys.create(guarded.engine, "shipping", ["send"])
    body = {"event_type": "x", "idempotency_key": "the-same"}
    first = guarded.post("/api/v1/events", body, headers=bearer(one)).json()
    second = guarded.post("/api/v1/events", body, headers=bearer(two)).json()
    assert first["id"] != second["id"]
    assert second["duplicate"] is False
    assert guarded.get(f"/api/v1/events/{first['id']}", headers=bearer(one)).json()["source"] == "billing"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic dXNlcjpwdw==", "Bearer ntf_é"]
)
def test_without_a_valid_key_it_is_a_401(guarded: Running, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    answer = requests.get(f"{guarded.url}/api/v1/events", headers=headers, timeout=5)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["status"] == 401


def test_open_routes_want_no_key(guarded: Running) -> None:
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code in {200, 503}


def test_a_revoked_key_stops_working(guarded: Running) -> None:
    key = keys.create(guarded.engine, "shortlived", ["read"])
    assert guarded.get("/api/v1/events", headers=bearer(key)).status_code == 200
    assert keys.revoke(guarded.engine, "shortlived")
    wait_for(lambda: guarded.get("/api/v1/events", headers=bearer(key)).status_code == 401, 10)
    assert not keys.revoke(guarded.engine, "shortlived")


def test_only_the_hash_is_kept(engine: Engine) -> None:
    key = keys.create(engine, "hashed", ["send"])
    [row] = keys.listed(engine)
    assert key not in repr(vars(row))
    assert row.key_hash == keys.hash_of(key)
    found = keys.find(engine, key)
    assert found
    assert (found.name, found.scopes) == ("hashed", {Scope.SEND})


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["send"]), ("a b", ["send"]), ("anonymous", ["send"]), ("x", []), ("x", ["root"])]
)
def test_a_wrong_key_is_not_made(engine: Engine, name: str, scopes: list[str]) -> None:
    with pytest.raises(Invalid):
        keys.create(engine, name, scopes)


def test_names_are_not_used_twice(engine: Engine) -> None:
    keys.create(engine, "once", ["send"])
    with pytest.raises(Conflict):
        keys.create(engine, "once", ["read"])
