"""Subscriptions over HTTP: what can be said of them, their secrets, and the headers that they ask for."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook, WebhookVerificationError

from notifier.security import api_keys
from notifier.security.secret_box import Vault, new_key
from tests.support.commands import succeed
from tests.support.receivers import HttpReceiver, Received
from tests.support.running import Running, wait_for

PATH = "/api/v1/subscriptions"
UNKNOWN = f"{PATH}/00000000-0000-7000-8000-000000000000"


def subscribe(system: Running, url: str, *event_types: str, **fields: Any) -> dict[str, Any]:
    answer = system.post(PATH, {"url": url, "event_types": event_types, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def patch(system: Running, path: str, body: Any) -> requests.Response:
    return system.http.patch(system.url + path, json=body, timeout=20)


def delete(system: Running, path: str) -> requests.Response:
    return system.http.delete(system.url + path, timeout=20)


def deliver(system: Running, http: HttpReceiver, path: str, event_type: str) -> Received:
    """Post an event that one subscription hears, at `path`; returns what arrived."""
    before = len(http.received(path))
    system.event(event_type=event_type)
    wait_for(lambda: len(http.received(path)) > before, what=f"a webhook at {path}")
    return http.received(path)[-1]


def verifies(secret: str, received: Received) -> bool:
    try:
        Webhook(secret).verify(received.body, received.headers)
    except WebhookVerificationError:
        return False
    return True


# Fields


def test_from_its_creation_to_its_end(system: Running) -> None:
    made = subscribe(system, "https://u:p@shop.example.com:8443/hooks?a=b#c", "crud.*", "crud.exact")
    secret = made.pop("secret")
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    assert secret.startswith("whsec_")
    assert 24 <= len(key) <= 64
    path = f"{PATH}/{made['id']}"
    expected = {
        "id": made["id"],
        "url": "https://***@shop.example.com:8443/hooks?a=b#c",
        "event_types": ["crud.*", "crud.exact"],
        "filter": None,
        "description": None,
        "headers": {},
        "rate_limit_per_second": None,
        "permanent_statuses": [],
        "enabled": True,
        "disabled_reason": None,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    assert made == expected
    assert made["created_at"].endswith("Z")
    assert system.get(path).json() == expected
    assert system.get(PATH).json()["items"][0] == expected

    changed = patch(system, path, {"description": "Ours", "rate_limit_per_second": 0.5})
    assert changed.status_code == 200, changed.text
    later = changed.json()["updated_at"]
    assert later > made["updated_at"]
    assert changed.json() == expected | {"description": "Ours", "rate_limit_per_second": 0.5, "updated_at": later}
    assert system.get(path).json() == changed.json()

    gone = delete(system, path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert system.get(path).status_code == 404
    assert made["id"] not in system.get(PATH).text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "http://example.com"),
        ("url", "https://[2001:db8::1]:8443/x"),
        ("event_types", ["*"]),
        ("event_types", ["a*", "USER_SIGNUP", "x:y-z.*", "e" * 128, "e" * 127 + "*"]),
        ("event_types", [f"t{number}" for number in range(100)]),
        ("event_types", ["notifier.notification.failed", "notifier.*"]),
        ("filter", "payload.total > `100` && contains(payload.tags, 'vip')"),
        ("filter", None),
        ("description", "☃" * 1000),
        ("description", ""),
        ("headers", {f"X-{number}": "v" * 1024 for number in range(20)}),
        ("headers", {"Authorization": "Bearer abc", "x!#$%&'*+.^_`|~-9": "~ !", "Empty": ""}),
        ("rate_limit_per_second", 0.01),
        ("rate_limit_per_second", 10_000),
        ("rate_limit_per_second", None),
        ("permanent_statuses", []),
        ("permanent_statuses", [422, 400, 499, 410]),
        ("enabled", False),
    ],
)
def test_what_may_be_said_is_kept(system: Running, field: str, value: Any) -> None:
    fields: dict[str, Any] = {"enabled": False, field: value}
    made = subscribe(system, **{"url": "https://example.com/", "event_types": ["may.be"], **fields})
    path = f"{PATH}/{made['id']}"
    assert system.get(f"{path}?reveal=1").json()[field] == value
    patch(system, path, {"description": "another"})
    answer = patch(system, path, {field: value})
    assert answer.status_code == 200, answer.text
    assert system.get(f"{path}?reveal=1").json()[field] == value
    delete(system, path)


OURS = ["Content-Type", "content-length", "HOST", "User-Agent", "Expect", "Webhook-Id", "webhook-timestamp"]
OURS += ["WEBHOOK-SIGNATURE", "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"]
OURS += ["Proxy-Authorization", "Proxy-Authenticate", "Proxy-Connection"]
WRONG: list[tuple[str, Any]] = [
    *(("url", value) for value in (None, 5, "", "ftp://example.com", "https://", "example.com", "https://a b.c")),
    *(("url", value) for value in ("http://[::1", "http://x:99999/", "http://x/\n", "http://x/" + "a" * 2048, ["x"])),
    *(("event_types", value) for value in (None, "user.*", [], {}, [5], [None], ["ok"] * 101, [["a"]])),
    *(("event_types", [value]) for value in ("", "*.x", "a*b", "a**", "-a", "a b", ".a", "a" * 129, "é", "a\n")),
    *(("filter", value) for value in (5, "", "payload.", "((", "a b", "nofunc(payload)", "a" * 2001, ["a"])),
    ("filter", "(" * 900 + "a" + ")" * 900),
    *(("description", value) for value in (5, "x" * 1001, ["a"], "a\0b", "\ud800")),
    *(("headers", value) for value in (None, "X: y", ["X"], 5, {"": "x"}, {"a b": "x"}, {"X:": "x"}, {"X-É": "x"})),
    *(("headers", {"X-A": value}) for value in (5, None, ["x"], "a\nb", "a\r\nb", "é", "\t\x00", "\x7f", "x" * 1025)),
    *(("headers", {name: "x"}) for name in OURS),
    ("headers", {"x" * 129: "x"}),
    ("headers", {f"X-{number}": "x" for number in range(21)}),
    ("headers", {"X-Same": "1", "x-same": "2"}),
    *(("rate_limit_per_second", value) for value in (0, 0.001, -1, 10_000.1, "fast", "5", True, [], 1e300)),
    *(("permanent_statuses", value) for value in (None, 404, "404", {}, [399], [500], [200], ["404"], [True], [404.5])),
    *(("permanent_statuses", value) for value in ([408], [425], [429], [404, 429], [None], [[404]], [404] * 101)),
    *(("enabled", value) for value in (None, "yes", "true", 1, 0, [])),
    *((name, "x") for name in ("secret", "id", "disabled_reason", "created_at", "whatever")),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[f"{name}-{n}" for n, (name, _) in enumerate(WRONG)])
def test_what_is_wrong_is_a_422_that_names_the_field(system: Running, field: str, value: Any) -> None:
    good = {"url": "https://example.com/wrong", "event_types": ["wrong.field"]}
    kept = subscribe(system, "https://example.com/kept", "wrong.kept", enabled=False)
    path = f"{PATH}/{kept['id']}"
    for answer in (system.post(PATH, {**good, field: value}), patch(system, path, {field: value})):
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        named = list(answer.json()["errors"])
        assert named
        assert all(name == field or name.startswith(f"{field}.") for name in named), answer.text
    [newest] = system.get(PATH, params={"limit": 1}).json()["items"]
    assert newest == {name: each for name, each in kept.items() if name != "secret"}
    delete(system, path)


@pytest.mark.parametrize("missing", ["url", "event_types"])
def test_a_url_and_event_types_are_required(system: Running, missing: str) -> None:
    body = {"url": "https://example.com/", "event_types": ["x"]}
    del body[missing]
    answer = system.post(PATH, body)
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == [missing]


def test_a_change_of_nothing_is_a_422(system: Running) -> None:
    made = subscribe(system, "https://example.com/nothing", "nothing.changes")
    assert patch(system, f"{PATH}/{made['id']}", {}).status_code == 422
    assert patch(system, f"{PATH}/{made['id']}", []).status_code == 422
    assert system.http.patch(f"{system.url}{PATH}/{made['id']}", data="{", timeout=5).status_code == 415


@pytest.mark.parametrize("path", [UNKNOWN, f"{PATH}/not-a-uuid"])
def test_what_is_not_there_is_a_404(system: Running, path: str) -> None:
    answers = [
        system.get(path),
        patch(system, path, {"description": "x"}),
        delete(system, path),
        system.get(f"{path}/notifications"),
        *(system.post(f"{path}/{what}") for what in ("test", "enable", "rotate-secret")),
        system.post(f"{path}/recover", {"since": "2026-01-01T00:00:00Z"}),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}


def test_the_list_has_pages_and_a_filter(system: Running) -> None:
    made = [
        subscribe(system, f"https://example.com/{number}", "paged.type", enabled=number % 2 == 0)["id"]
        for number in range(5)
    ]
    seen: list[str] = []
    cursor = None
    while not set(made) <= set(seen):
        page = system.get(PATH, params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["items"]) <= 2
        seen += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert [each for each in seen if each in made] == made[::-1]
    assert len(seen) == len(set(seen))
    for enabled in (True, False):
        items = system.get(PATH, params={"enabled": str(enabled).lower(), "limit": 200}).json()["items"]
        assert {each["enabled"] for each in items} == {enabled}
        assert {each["id"] for each in items} & set(made) == set(made[not enabled :: 2])


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "enabled=maybe", "cursor=%00", "who=me"])
def test_a_wrong_query_is_a_422(system: Running, query: str) -> None:
    assert system.get(f"{PATH}?{query}").status_code == 422


# Secrets


def test_a_secret_is_shown_when_it_is_made_and_nowhere_else(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/secret"), "secret.shown")
    path = f"{PATH}/{made['id']}"
    received = [deliver(system, http, "/secret", "secret.shown")]
    rotated = system.post(f"{path}/rotate-secret")
    assert set(rotated.json()) == {"secret", "previous_secret_until"}
    received.append(deliver(system, http, "/secret", "secret.shown"))
    secrets = [made["secret"], rotated.json()["secret"]]
    assert secrets[0] != secrets[1]
    texts = [
        *(system.get(each).text for each in (PATH, path, f"{path}/notifications")),
        *(patch(system, path, {"description": "x"}).text, system.post(f"{path}/enable").text),
        system.post(f"{path}/test").text,
        *(system.get(f"/api/v1/notifications/{each.id}").text for each in received),
        *(f"{each.headers}{each.body!r}" for each in received),
        *(log.read_text() for log in system.folder.glob("*.log")),
    ]
    [row] = system.sql("SELECT *, CAST(s AS text) AS whole FROM subscriptions s WHERE id = :id", id=made["id"])
    kept = [row.whole.encode(), bytes(row.secret), bytes(row.previous_secret), base64.urlsafe_b64decode(row.secret)]
    for secret in secrets:
        bare = secret.removeprefix("whsec_")
        assert not [text for text in texts if bare in text]
        assert not [data for data in kept if bare.encode() in data or base64.b64decode(bare) in data]
    assert not [text for text in texts if "whsec_" in text]


def test_both_secrets_sign_after_a_rotation_until_the_overlap_ends(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/rotated"), "secret.rotated")
    path, old = f"{PATH}/{made['id']}", made["secret"]
    first = deliver(system, http, "/rotated", "secret.rotated")
    assert verifies(old, first)
    assert len(first.headers["webhook-signature"].split(" ")) == 1

    rotated = system.post(f"{path}/rotate-secret").json()
    new, until = rotated["secret"], datetime.fromisoformat(rotated["previous_secret_until"])
    assert abs(until - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=5)
    second = deliver(system, http, "/rotated", "secret.rotated")
    assert verifies(old, second)
    assert verifies(new, second)
    signatures = second.headers["webhook-signature"].split(" ")
    assert len(signatures) == 2
    newest = Received(second.path, {**second.headers, "webhook-signature": signatures[0]}, second.body)
    assert (verifies(new, newest), verifies(old, newest)) == (True, False)

    statement = "UPDATE subscriptions SET previous_secret_until = now() - interval '1 second' WHERE id = :id"
    system.sql(statement, id=made["id"])
    third = deliver(system, http, "/rotated", "secret.rotated")
    assert (verifies(new, third), verifies(old, third)) == (True, False)
    assert len(third.headers["webhook-signature"].split(" ")) == 1


def test_of_many_rotations_the_last_two_secrets_sign(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/often"), "secret.often")
    secrets = [made["secret"]]
    secrets += [system.post(f"{PATH}/{made['id']}/rotate-secret").json()["secret"] for _ in range(2)]
    received = deliver(system, http, "/often", "secret.often")
    assert [verifies(secret, received) for secret in secrets] == [False, True, True]


def test_each_subscription_has_a_secret_of_its_own(system: Running, http: HttpReceiver) -> None:
    one, other = (subscribe(system, http.url(f"/own-secret-{n}"), "secret.own")["secret"] for n in (1, 2))
    system.event(event_type="secret.own")
    wait_for(lambda: http.received("/own-secret-1") and http.received("/own-secret-2"))
    [first], [second] = http.received("/own-secret-1"), http.received("/own-secret-2")
    assert (verifies(one, first), verifies(other, first)) == (True, False)
    assert (verifies(one, second), verifies(other, second)) == (False, True)


def test_a_secret_whose_key_is_lost_fails_alone_and_says_why(system: Running, http: HttpReceiver) -> None:
    lost = subscribe(system, http.url("/lost"), "secret.lost")
    subscribe(system, http.url("/lost-beside"), "secret.lost")
    token = Vault([new_key()]).encrypt(lost["secret"])
    system.sql("UPDATE subscriptions SET secret = :token WHERE id = :id", token=token, id=lost["id"])
    event_id = system.event(event_type="secret.lost")
    letter = system.dead_letter(event_id)
    assert "NOTIFIER_SECRET_KEY" in letter["error"]
    wait_for(lambda: http.received("/lost-beside"))
    assert http.received("/lost") == []
    rotated = system.post(f"{PATH}/{lost['id']}/rotate-secret").json()["secret"]
    token = "UPDATE subscriptions SET previous_secret = NULL, previous_secret_until = NULL WHERE id = :id"
    system.sql(token, id=lost["id"])
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 202
    wait_for(lambda: http.received("/lost"))
    assert verifies(rotated, http.received("/lost")[0])


# Headers


def test_headers_of_its_own_arrive_beside_ours(system: Running, http: HttpReceiver) -> None:
    own = {
        "X-Tenant": "42",
        "Authorization": "Bearer abc",
        "X-Empty": "",
        "Accept": "text/plain",
        "X-Odd": " a;b, c",
        "X-Blank": " ",
    }
    made = subscribe(system, http.url("/headers"), "headers.own", headers=own)
    received = deliver(system, http, "/headers", "headers.own")
    for name, value in own.items():
        assert received.headers[name.lower()] == value.strip()
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"].startswith("Notifier/")
    assert verifies(made["secret"], received)
    patch(system, f"{PATH}/{made['id']}", {"headers": {"X-Later": "1"}})
    received = deliver(system, http, "/headers", "headers.own")
    assert received.headers["x-later"] == "1"
    assert "x-tenant" not in received.headers


def test_credentials_are_not_in_the_database_but_reach_the_receiver(system: Running, http: HttpReceiver) -> None:
    path, planted = "/sealed?token=planted-in-query", ("planted-in-user", "planted-in-query", "planted-in-header")
    url = http.url(path).replace("http://", "http://ada:planted-in-user@")
    headers = {"X-Api-Key": "planted-in-header", "Accept": "text/plain"}
    item = f"{PATH}/{subscribe(system, url, 'sealed.*', headers=headers)['id']}"

    def arrives() -> None:
        received = deliver(system, http, path, "sealed.one")
        assert base64.b64decode(received.headers["authorization"].removeprefix("Basic ")) == b"ada:planted-in-user"
        assert received.headers["x-api-key"] == "planted-in-header"

    def kept() -> str:
        tables = system.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [row for (name,) in tables for row in system.sql(f'SELECT CAST(t AS text) FROM "{name}" t')]
        return "\n".join(whole for (whole,) in rows)

    arrives()
    assert system.post(f"{item}/test", {}).status_code == 202
    assert not any(each in kept() for each in planted)
    assert '"X-Api-Key":"***"' in kept().replace("\\", "").replace('""', '"')
    shown = system.get(f"{item}?reveal=1").json()
    assert (shown["url"], shown["headers"]) == (url, headers)
    assert system.get(item).json()["headers"] == {"X-Api-Key": "***", "Accept": "text/plain"}

    # As the release before would change it: what it wrote counts, until it is encrypted as well.
    changed = json.dumps({**headers, "X-More": "planted-in-header"})
    statement = "UPDATE subscriptions SET url = :url, headers = CAST(:headers AS json) WHERE id = :id"
    system.sql(statement, url=url, headers=changed, id=item.rpartition("/")[2])
    arrives()
    assert http.received(path)[-1].headers["x-more"] == "planted-in-header"
    assert all(each in kept() for each in planted)
    succeed("rekey", environment=system.environment)
    assert not any(each in kept() for each in planted)
    arrives()
    delete(system, item)


# Keys


@pytest.fixture(scope="module")
def guarded(new_system: Callable[..., Running]) -> Iterator[Running]:
    """An API that asks for keys; nothing else runs."""
    system = new_system(NOTIFIER_AUTH="required")
    system.start(only=[system.api])
    yield system
    system.stop()


def test_reading_wants_read_and_all_else_admin(guarded: Running) -> None:
    def bearer(scope: str) -> dict[str, str]:
        key = api_keys.create(guarded.engine, f"for-{scope}", [scope])
        return {"Authorization": f"Bearer {key}"}

    scopes = {scope: bearer(scope) for scope in ("send", "read", "admin")}
    body = {"url": "https://example.com/", "event_types": ["x"]}
    made = guarded.post(PATH, body, headers=scopes["admin"])
    assert made.status_code == 201
    path = f"{PATH}/{made.json()['id']}"
    reading = [("GET", PATH, None, 200), ("GET", path, None, 200), ("GET", f"{path}/notifications", None, 200)]
    administering: list[tuple[str, str, Any, int]] = [
        ("POST", PATH, body, 201),
        ("PATCH", path, {"enabled": False}, 200),
        ("POST", f"{path}/test", None, 202),
        ("POST", f"{path}/enable", None, 200),
        ("POST", f"{path}/rotate-secret", None, 200),
        ("POST", f"{path}/recover", {"since": "2026-01-01T00:00:00Z"}, 202),
        ("DELETE", path, None, 204),
    ]
    for needed, calls in (("read", reading), ("admin", administering)):
        for method, where, content, expected in calls:
            for scope in sorted(scopes, key=lambda each: each == needed):  # the one that may comes last
                answer = guarded.http.request(method, guarded.url + where, json=content, headers=scopes[scope])
                assert answer.status_code == (expected if scope == needed else 403), (method, where, scope)
            nobody = guarded.http.request(method, guarded.url + where, json=content)
            assert nobody.status_code == 401


def test_what_may_be_a_secret_is_masked(guarded: Running) -> None:
    administers = {"Authorization": f"Bearer {api_keys.create(guarded.engine, 'sees-all', ['read', 'admin'])}"}
    reads = {"Authorization": f"Bearer {api_keys.create(guarded.engine, 'sees-less', ['read'])}"}
    url, headers = "https://user:pa55w0rd@example.com/hook", {"X-Api-Key": "s3cret"}
    body = {"url": url, "event_types": ["x"], "headers": headers}
    made = guarded.post(PATH, body, headers=administers)
    assert made.status_code == 201, made.text
    path = f"{PATH}/{made.json()['id']}"
    listed = guarded.get(PATH, headers=reads)
    [found] = [each for each in listed.json()["items"] if each["id"] == made.json()["id"]]
    for shown in (found, made.json(), *(guarded.get(path, headers=each).json() for each in (reads, administers))):
        assert (shown["url"], shown["headers"]) == ("https://***@example.com/hook", {"X-Api-Key": "***"})


def test_without_a_key_for_secrets_there_are_no_subscriptions(new_system: Callable[..., Running]) -> None:
    system = new_system()
    system.api.environment = {**system.environment, "NOTIFIER_SECRET_KEY": ""}
    system.sql("""INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
        VALUES ('00000000-0000-7000-8000-000000000001', 'http://x/', '{a}', '{}', true, 'x', now(), now())""")
    try:
        system.start(only=[system.api])
        there = f"{PATH}/00000000-0000-7000-8000-000000000001"
        good = {"url": "https://example.com/", "event_types": ["x"]}
        for refused in (system.post(PATH, good), system.post(f"{there}/rotate-secret")):
            assert refused.status_code == 409
            assert "NOTIFIER_SECRET_KEY" in refused.json()["detail"]
        assert system.post(PATH, {**good, "url": ""}).status_code == 422
        assert [each["id"] for each in system.get(PATH).json()["items"]] == [there.rpartition("/")[2]]
        assert patch(system, there, {"enabled": False}).status_code == 200
        assert delete(system, there).status_code == 204
    finally:
        system.stop()
