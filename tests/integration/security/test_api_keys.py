"""API keys and scopes: every route declares what it wants, and gets it."""

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import requests
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, text

from api import health
from api.app import create_app
from api.auth import scope_of
from api.key_cache import KeyCache
from config.providers import make_key_limits
from config.settings import read_settings
from config.wiring import Wiring
from notifier.security import api_keys
from notifier.security.api_keys import Scope
from notifier.vocabulary.errors import Conflict, Invalid
from tests.support.commands import manage, succeed
from tests.support.running import Running, wait_for

OPEN = {"/", "/problems", "/problems/<kind>"}
OPEN |= {"/health", "/ready", "/docs", "/docs/<path:name>", "/openapi.json", "/u/<token>"}
OPEN |= {"/api/v1/receipts/<name:provider>"}  # its provider's signature is the key
SEND = {
    ("POST", "/api/v1/events"),
    ("POST", "/api/v1/events/batch"),
    ("POST", "/events"),
    ("POST", "/send-notification"),
    ("POST", "/notify"),
    ("POST", "/api/v1/notifications"),
    ("POST", "/api/v1/notifications/cancel"),
    ("POST", "/api/v1/notifications/<uuid:notification_id>/cancel"),
}
READ = {
    ("POST", "/api/v1/preferences/check"),
    ("POST", "/api/v1/templates/<name:template_name>/preview"),
}
OF_LETTERS = ("<uuid:letter_id>/requeue", "requeue", "acts", "acts/<uuid:act_id>/stop", "acts/<uuid:act_id>/resume")
PARTS = {
    ("PUT", "/api/v1/users/<name:user_id>"): Scope.USERS,
    ("DELETE", "/api/v1/users/<name:user_id>"): Scope.USERS,
    ("PUT", "/api/v1/users/<name:user_id>/preferences"): Scope.USERS,
    ("POST", "/api/v1/erasures"): Scope.USERS,
    ("POST", "/api/v1/suppressions"): Scope.USERS,
    ("DELETE", "/api/v1/suppressions"): Scope.USERS,
    ("DELETE", "/api/v1/suppressions/<uuid:suppression_id>"): Scope.USERS,
    ("PUT", "/api/v1/templates/<name:template_name>"): Scope.TEMPLATES,
    **{("POST", f"/api/v1/dead-letters/{each}"): Scope.REQUEUE for each in OF_LETTERS},
    ("POST", "/api/v1/notifications/<uuid:notification_id>/resend"): Scope.REQUEUE,
    ("POST", "/api/v1/subscriptions/<uuid:subscription_id>/recover"): Scope.REQUEUE,
}
ADMIN = {("GET", "/api/v1/audit"), ("GET", "/api/v1/users/<name:user_id>/export")}  # all of a person's data at once


def test_every_route_declares_its_scope(database_url: str, engine: Engine) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url}))
    app = create_app(wires)
    seen = set()
    for rule in app.url_map.iter_rules():
        scope = scope_of(app.view_functions[rule.endpoint])
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            wanted = Scope.READ if method == "GET" or (method, rule.rule) in READ else Scope.ADMIN
            wanted = PARTS.get((method, rule.rule), wanted)
            if (method, rule.rule) in ADMIN:
                wanted = Scope.ADMIN
            if (method, rule.rule) in SEND:
                wanted = Scope.SEND
                seen.add((method, rule.rule))
            expected = None if rule.rule in OPEN or rule.rule.startswith("/console") else wanted  # by its sessions
            assert scope == expected, f"{method} {rule.rule} wants {scope}, not {expected}"
    assert seen == SEND
    wires.engine.dispose()
    del engine


def test_each_scope_opens_its_own_routes_and_no_others(database_url: str, engine: Engine) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    app = create_app(wires)
    tokens = {scope: api_keys.create(engine, f"only-{scope}", [scope]) for scope in Scope}
    client = app.test_client()
    tried = 0
    for rule in app.url_map.iter_rules():
        if (wanted := scope_of(app.view_functions[rule.endpoint])) is None:
            continue
        path = re.sub(r"<uuid:[^>]+>", str(UUID(int=7 << 76 | 1 << 63)), rule.rule)
        path = re.sub(r"<[^>]+>", "x", path)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            for scope, token in tokens.items():
                answer = client.open(path, method=method, headers={"Authorization": f"Bearer {token}"})
                granted = wanted is scope or (scope is Scope.ADMIN and wanted in PARTS.values())
                assert (answer.status_code != 403) == granted, f"{scope} at {method} {path}: {answer.status_code}"
                tried += 1
    assert tried > 300
    wires.engine.dispose()


def test_a_scope_of_a_newer_release_means_nothing(engine: Engine) -> None:
    token = api_keys.create(engine, "newer", ["read"])
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET scopes = '{read,teleport}' WHERE name = 'newer'"))
    found = api_keys.find(engine, token)
    assert found
    assert found.scopes == {Scope.READ}


def test_a_route_without_a_scope_stops_the_start(database_url: str) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url}))
    scope = health.get_health.scope
    del health.get_health.scope
    try:
        with pytest.raises(LookupError, match=r"operating\.get_health"):
            create_app(wires)
    finally:
        health.get_health.scope = scope
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
    sender = api_keys.create(guarded.engine, "sender", ["send"])
    reader = api_keys.create(guarded.engine, "reader", ["read"])
    event = {"event_type": "x"}
    assert guarded.post("/api/v1/events", event, headers=bearer(sender)).status_code == 202
    assert guarded.post("/api/v1/events", event, headers=bearer(reader)).status_code == 403
    assert guarded.get("/api/v1/events", headers=bearer(reader)).status_code == 200
    forbidden = guarded.get("/api/v1/events", headers=bearer(sender))
    assert forbidden.status_code == 403
    assert forbidden.headers["content-type"] == "application/problem+json"
    assert guarded.post("/api/v1/dead-letters/requeue", {}, headers=bearer(reader)).status_code == 403


def test_the_keys_name_is_the_source_and_scopes_idempotency_keys(guarded: Running) -> None:
    one = api_keys.create(guarded.engine, "billing", ["send", "read"])
    two = api_keys.create(guarded.engine, "shipping", ["send"])
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
    key = api_keys.create(guarded.engine, "shortlived", ["read"])
    assert guarded.get("/api/v1/events", headers=bearer(key)).status_code == 200
    assert api_keys.revoke(guarded.engine, "shortlived")
    wait_for(lambda: guarded.get("/api/v1/events", headers=bearer(key)).status_code == 401, 10)
    assert not api_keys.revoke(guarded.engine, "shortlived")


def test_only_the_hash_is_kept(engine: Engine) -> None:
    key = api_keys.create(engine, "hashed", ["send"])
    [row] = api_keys.listed(engine)
    assert key not in repr(vars(row))
    assert row.key_hash == api_keys.hash_of(key)
    found = api_keys.find(engine, key)
    assert found
    assert (found.name, found.scopes) == ("hashed", {Scope.SEND})


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["send"]), ("a b", ["send"]), ("anonymous", ["send"]), ("x", []), ("x", ["root"])]
)
def test_a_wrong_key_is_not_made(engine: Engine, name: str, scopes: list[str]) -> None:
    with pytest.raises(Invalid):
        api_keys.create(engine, name, scopes)


def test_names_are_not_used_twice(engine: Engine) -> None:
    api_keys.create(engine, "once", ["send"])
    with pytest.raises(Conflict):
        api_keys.create(engine, "once", ["read"])


# --- unknown keys


@pytest.fixture
def counted(database_url: str) -> Iterator[tuple[FlaskClient, Engine, list[str]]]:
    """The API within this process, its Postgres, and the statements by which it looks up keys there."""
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    client = create_app(wires).test_client()
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        if "FROM api_keys WHERE key_hash" in arguments[2]:  # the audit log writes by the same engine
            statements.append(arguments[2])

    event.listen(wires.engine, "before_cursor_execute", note)
    yield client, wires.engine, statements
    wires.engine.dispose()


def _made_up() -> str:
    return api_keys.PREFIX + secrets.token_urlsafe(32)


def _status(client: FlaskClient, key: str, address: str = "203.0.113.1") -> int:
    answer = client.get("/api/v1/users", headers=bearer(key), environ_base={"REMOTE_ADDR": address})
    if answer.status_code == 429:
        assert 1 <= int(answer.headers["Retry-After"]) <= 2
        assert answer.get_json()["type"] == "/problems/rate-limited"
    return answer.status_code


def test_a_flood_of_unknown_keys_costs_few_look_ups(counted: tuple[FlaskClient, Engine, list[str]]) -> None:
    client, engine, statements = counted
    known = api_keys.create(engine, "known", ["read"])
    assert _status(client, known) == 200
    began, before = time.monotonic(), len(statements)
    answers = Counter(_status(client, _made_up()) for _ in range(200))
    looked_up, most = len(statements) - before, 10 + time.monotonic() - began
    assert 0 < looked_up <= most + 1
    assert answers == {401: looked_up, 429: 200 - looked_up}
    # Nobody else hears of it: a key that is known, one that is new from another address, and soon one from this.
    assert _status(client, known) == 200
    assert _status(client, api_keys.create(engine, "new", ["read"]), "203.0.113.2") == 200
    newer = api_keys.create(engine, "newer", ["read"])
    wait_for(lambda: _status(client, newer) == 200, 5)


def test_many_addresses_have_no_more_than_all_may(counted: tuple[FlaskClient, Engine, list[str]]) -> None:
    client, engine, statements = counted
    began = time.monotonic()
    answers = Counter(_status(client, _made_up(), f"198.51.100.{number}") for number in range(200))
    assert len(statements) <= 50 + 10 * (time.monotonic() - began) + 1
    assert answers == {401: len(statements), 429: 200 - len(statements)}
    wait_for(lambda: _status(client, api_keys.create(engine, f"k{time.monotonic()}", ["read"])) == 200, 5)
    began = time.monotonic()  # addresses of one network of IPv6 are one
    answers = Counter(_status(client, _made_up(), f"2001:db8::{number:x}") for number in range(40))
    assert answers[401] <= 11 + time.monotonic() - began


def test_one_unknown_key_is_looked_up_once_in_a_while(counted: tuple[FlaskClient, Engine, list[str]]) -> None:
    client, _, statements = counted
    key = _made_up()
    began = time.monotonic()
    assert {_status(client, key) for _ in range(100)} == {401}
    assert len(statements) <= 1 + (time.monotonic() - began) / 2


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Bearer ntf_", f"Bearer ntf_{'é' * 43}", "Basic x"]
)
def test_what_cannot_be_a_key_is_not_looked_up(counted: tuple[FlaskClient, Engine, list[str]], header: str) -> None:
    client, _, statements = counted
    for _ in range(20):
        assert client.get("/api/v1/users", headers={"Authorization": header}).status_code == 401
    assert statements == []


def test_a_key_that_is_made_after_it_was_tried_works_within_seconds(
    counted: tuple[FlaskClient, Engine, list[str]],
) -> None:
    client, engine, _ = counted
    key = _made_up()
    assert _status(client, key) == 401
    api_keys.create(engine, "late", ["read"])
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_keys SET key_hash = :hash"), {"hash": api_keys.hash_of(key)})
    wait_for(lambda: _status(client, key) == 200, 4)


def test_a_key_s_look_ups_count_for_nothing(counted: tuple[FlaskClient, Engine, list[str]]) -> None:
    client, engine, _ = counted
    assert {_status(client, api_keys.create(engine, f"service-{number}", ["read"])) for number in range(60)} == {200}


# --- rotation, expiry, limits


def _set(engine: Engine, name: str, what: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE api_keys SET {what} WHERE name = :name"), {"name": name})


def test_a_rotated_keys_old_secret_works_until_the_overlap_ends(engine: Engine) -> None:
    old = api_keys.create(engine, "turning", ["send"], rate=7)
    new = api_keys.rotate(engine, "turning", timedelta(hours=1))
    assert new
    assert new != old
    for key, good_for in ((old, pytest.approx(3600, abs=60)), (new, float("inf"))):
        caller = api_keys.find(engine, key)
        assert caller
        assert (caller.name, caller.scopes, caller.rate, caller.good_for) == ("turning", {"send"}, 7, good_for)
    _set(engine, "turning", "previous_until = now()")
    assert api_keys.find(engine, old) is None
    assert api_keys.find(engine, new)


def test_a_second_rotation_ends_the_oldest_secret(engine: Engine) -> None:
    first = api_keys.create(engine, "twice", ["send"])
    second = api_keys.rotate(engine, "twice")
    third = api_keys.rotate(engine, "twice")
    assert [api_keys.find(engine, str(key)) is not None for key in (first, second, third)] == [False, True, True]


def test_without_overlap_the_old_secret_ends_at_once(engine: Engine) -> None:
    old = api_keys.create(engine, "atonce", ["send"])
    new = api_keys.rotate(engine, "atonce", timedelta())
    assert api_keys.find(engine, old) is None
    assert api_keys.find(engine, str(new))


def test_revoking_ends_both_secrets_and_there_is_nothing_left_to_rotate(engine: Engine) -> None:
    old = api_keys.create(engine, "both", ["send"])
    new = api_keys.rotate(engine, "both")
    assert api_keys.revoke(engine, "both")
    assert api_keys.find(engine, old) is None
    assert api_keys.find(engine, str(new)) is None
    assert api_keys.rotate(engine, "both") is None
    assert api_keys.rotate(engine, "nobody") is None


def test_an_expired_key_is_as_one_that_never_was(guarded: Running) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    key = api_keys.create(guarded.engine, "ending", ["read"], expires_at=soon)
    assert guarded.get("/api/v1/events", headers=bearer(key)).status_code == 200
    wait_for(lambda: guarded.sql("SELECT FROM api_keys WHERE name = 'ending' AND expires_at <= now()"))
    # It is not remembered for longer than it is good.
    assert guarded.get("/api/v1/events", headers=bearer(key)).status_code == 401
    expired, unknown = (guarded.get("/api/v1/events", headers=bearer(each)) for each in (key, "ntf_unknown"))
    assert (expired.content, {*expired.headers}) == (unknown.content, {*unknown.headers})


def test_an_answer_that_takes_long_makes_no_key_good_for_longer(engine: Engine) -> None:
    now = 0.0

    def slow() -> Engine:
        nonlocal now
        now += 2
        return engine

    key = api_keys.create(engine, "ending", ["read"], expires_at=datetime.now(UTC) + timedelta(seconds=4))
    cache = KeyCache(slow, lambda: now)
    assert cache.find(key, "203.0.113.1") == cache.remembered(api_keys.hash_of(key)) is not None
    now = 4
    assert cache.remembered(api_keys.hash_of(key)) is None


def test_an_expired_key_gets_another_end_with_another_secret_alone(engine: Engine) -> None:
    old = api_keys.create(engine, "revived", ["read"], expires_at=datetime.now(UTC) + timedelta(days=1))
    _set(engine, "revived", "expires_at = now()")
    with pytest.raises(Conflict, match="has expired"):
        api_keys.rotate(engine, "revived")
    new = api_keys.rotate(engine, "revived", expires_at=datetime.now(UTC) + timedelta(days=1))
    assert api_keys.find(engine, old) is None
    assert api_keys.find(engine, str(new))


@pytest.mark.parametrize("wrong", [{"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, {"rate": 0}])
def test_a_key_that_could_never_be_used_is_not_made(engine: Engine, wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        api_keys.create(engine, "useless", ["read"], **wrong)  # type: ignore[arg-type]  # wrong arguments are what it tries
    assert api_keys.listed(engine) == []


def test_its_use_is_noted_once_an_hour(engine: Engine) -> None:
    key = api_keys.create(engine, "used", ["read"])
    assert api_keys.listed(engine)[0].last_used_at is None
    api_keys.find(engine, key)
    [first] = api_keys.listed(engine)
    assert first.last_used_at
    api_keys.find(engine, key)
    assert api_keys.listed(engine)[0].last_used_at == first.last_used_at
    _set(engine, "used", "last_used_at = now() - interval '61 minutes'")
    api_keys.find(engine, key)
    last = api_keys.listed(engine)[0].last_used_at
    assert last
    assert last >= first.last_used_at


def test_a_callers_use_counts_even_where_it_cannot_be_noted(engine: Engine, owner_engine: Engine) -> None:
    key = api_keys.create(engine, "unnoted", ["read"])
    with owner_engine.begin() as connection:
        connection.execute(
            text("CREATE RULE no_notes AS ON UPDATE TO api_keys DO INSTEAD SELECT 1 / (count(*) - 1) FROM listeners")
        )
    assert api_keys.find(engine, key)


def test_more_than_a_keys_rate_is_a_429(guarded: Running) -> None:
    limited = api_keys.create(guarded.engine, "limited", ["read"], rate=5)
    free = api_keys.create(guarded.engine, "unlimited", ["read"])

    def ask(key: str) -> requests.Response:
        return requests.get(f"{guarded.url}/api/v1/events", headers=bearer(key), timeout=10)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, [limited] * 60))
    seconds = time.monotonic() - began
    let_through = sum(answer.status_code == 200 for answer in answers)
    assert 5 <= let_through <= 5 * (seconds + 2), f"{let_through} in {seconds:.1f} s"
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert {answer.status_code for answer in refused} == {429}
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].headers["Content-Type"] == "application/problem+json"
    assert refused[0].json()["detail"] == "This key may make 5 requests a second, and this is one more."
    with ThreadPoolExecutor(8) as threads:
        assert {answer.status_code for answer in threads.map(ask, [free] * 30)} == {200}
    wait_for(lambda: ask(limited).status_code == 200, 10)


def test_all_processes_count_together_and_each_alone_while_redis_is_away(new_redis: Callable[[], str]) -> None:
    def allowed(redis_url: str) -> tuple[int, float]:
        settings = read_settings({"DATABASE_URL": "postgresql://x/x", "REDIS_URL": redis_url})
        processes = [make_key_limits(settings) for _ in range(3)]
        began = time.monotonic()
        count = sum(process.allow("one", 100) for process in processes for _ in range(100))
        return count, time.monotonic() - began

    count, seconds = allowed(new_redis())
    assert 100 <= count <= 100 * (seconds + 1)
    assert allowed("redis://127.0.0.1:9/0")[0] == 300


def test_every_route_that_wants_a_key_says_that_it_may_be_called_too_often(guarded: Running) -> None:
    described = guarded.get("/openapi.json").json()
    for path, operations in described["paths"].items():
        for method in {"get", "put", "post", "patch", "delete"} & set(operations):
            operation = operations[method]
            assert ("429" in operation["responses"]) == (operation.get("security") != []), f"{method} {path}"
    problem = described["paths"]["/api/v1/events"]["get"]["responses"]["429"]
    assert "application/problem+json" in problem["content"]
    assert "Retry-After" in problem["headers"]


def test_keys_are_rotated_from_the_shell(guarded: Running) -> None:
    env = guarded.environment
    create = ("api-keys", "create", "--name", "shell-turn", "--scope", "read", "--source", "shell")
    old = succeed(*create, "--expires", "P90D", "--rate", "100", environment=env).strip()
    new = succeed("api-keys", "rotate", "shell-turn", "--overlap", "PT1H", environment=env).strip()
    for key in (old, new):
        assert guarded.get("/api/v1/events", headers=bearer(key)).status_code == 200
    [row] = [each for each in succeed("api-keys", "list", environment=env).splitlines() if "shell-turn" in each]
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    _, source, scopes, may_use, limit, _, expires, last_used, state = map(str.strip, row.strip("│ ").split("│"))
    assert (source, scopes, may_use, limit, last_used) == ("shell", "read", "all", "100/s", day)
    assert expires.startswith(f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-}")
    assert state.startswith(f"in use; the secret before until {day[:4]}")
    last = succeed("api-keys", "rotate", "shell-turn", "--overlap", "0", environment=env).strip()
    assert guarded.get("/api/v1/events", headers=bearer(last)).status_code == 200
    wait_for(lambda: guarded.get("/api/v1/events", headers=bearer(new)).status_code == 401, 10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rotate", "nobody-here"), "No key in use is named 'nobody-here'"),
        (("rotate", "x", "--overlap", "soon"), "is not a duration"),
        (("create", "--name", "x", "--scope", "read", "--expires", "2020-01-01"), "Not in the future"),
        (("create", "--name", "x", "--scope", "read", "--expires", "soon"), "neither a duration (P90D)"),
        (("create", "--name", "x", "--scope", "read", "--rate", "0"), "not in the range"),
    ],
)
def test_wrong_ends_and_overlaps_are_told(guarded: Running, arguments: tuple[str, ...], words: str) -> None:
    done = manage("api-keys", *arguments, environment=guarded.environment)
    assert done.returncode in {1, 2}
    assert words in done.stderr
    assert done.stdout == ""
