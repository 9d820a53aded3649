"""Browsers: what pages of other sites get where no key is asked for, and what our own pages may load."""

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.app import create_app
from api.auth import scope_of
from config.settings import read_settings
from config.wiring import Wiring
from notifier.security import api_keys
from notifier.vocabulary.states import Channel
from tests.support.running import Running

NOTHING = "01a1fc47-52fc-7015-a681-4dd01035c71e"
SETTINGS = {"NOTIFIER_PUBLIC_URL": "https://notify.example.com", "NOTIFIER_ALLOWED_HOSTS": "notifier.test"}


@pytest.fixture
def wires(database_url: str) -> Iterator[Wiring]:
    found = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "off", **SETTINGS}))
    yield found
    found.engine.dispose()


@pytest.fixture
def api(wires: Wiring) -> FlaskClient:
    """An API in this process that asks for no key."""
    return create_app(wires).test_client()


def requests_of(api: FlaskClient) -> list[tuple[str, str, bool]]:
    """(method, path, is open) of everything that is served."""
    found = []
    for rule in api.application.url_map.iter_rules():
        path = re.sub(r"<uuid:\w+>", NOTHING, rule.rule)
        path = re.sub(r"<[^>]*>", "x", path)
        is_open = scope_of(api.application.view_functions[rule.endpoint]) is None
        found += [(method, path, is_open) for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})]
    return found


def test_nothing_is_served_by_a_name_that_is_not_ours(api: FlaskClient) -> None:
    for method, path, _ in [*requests_of(api), ("GET", "/nothing", True), ("TRACE", "/health", True)]:
        answer = api.open(path, method=method, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.mimetype) == (421, "application/problem+json"), (method, path)
        assert answer.get_json(force=True)["type"] == "/problems/misdirected-request"
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "notify.example.com", "notifier.test:8443"):
        assert api.get("/api/v1/events", headers={"Host": host}).status_code == 200, host
    # The name that the client says counts, and nothing else.
    for header in ("X-Forwarded-Host", "X-Host", "Forwarded"):
        headers = {"Host": "evil.example", header: "localhost"}
        assert api.get("/api/v1/events", headers=headers).status_code == 421


def test_no_page_of_another_site_changes_anything(api: FlaskClient) -> None:
    forged: list[dict[str, str]] = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    ]
    acting = [(method, path) for method, path, is_open in requests_of(api) if not is_open and method != "GET"]
    assert len(acting) > 30
    for method, path in acting:
        for headers in forged:
            answer = api.open(path, method=method, headers=headers)
            assert answer.status_code == 403, (method, path, headers)
            assert answer.get_json(force=True)["type"] == "/problems/cross-site"
    for headers in ({}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "none"}):
        assert api.post("/api/v1/events", json={"event_type": "x"}, headers=headers).status_code == 202


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_a_form_posts_no_json(api: FlaskClient, content_type: str | None) -> None:
    for path in ("/api/v1/events", "/api/v1/events/batch", "/api/v1/notifications", "/notify", "/send-notification"):
        answer = api.post(path, data='{"event_type": "x"}', content_type=content_type)
        assert answer.status_code == 415, path


def test_redirects_stay_where_they_are(api: FlaskClient) -> None:
    """Behind a proxy that speaks TLS, an address in a redirect would lead to http: there is a path alone."""
    for method, path, _ in requests_of(api):
        for each in (path, f"{path}/", f"/{path}", path.replace("/", "//"), path.removesuffix("/x")):
            with api.open(each, method=method, base_url="http://notify.example.com") as answer:
                location = answer.headers.get("Location", "/")
                assert location.startswith("/"), (method, each, location)
                assert not location.startswith("//"), (method, each, location)


def test_without_keys_only_this_machine_is_served(api: FlaskClient) -> None:
    """Also under a server that nobody told by which addresses it may be reached."""
    for peer, status in (("192.0.2.1", 421), ("::ffff:192.0.2.1", 421), ("::ffff:127.0.0.1", 200), ("127.0.0.2", 200)):
        assert api.get("/api/v1/events", environ_base={"REMOTE_ADDR": peer}).status_code == status, peer


def test_where_keys_are_asked_for_any_name_will_do(database_url: str, engine: Engine) -> None:
    wires = Wiring(read_settings({"DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    client = create_app(wires).test_client()
    headers = {
        "Authorization": f"Bearer {api_keys.create(engine, 'all', list(api_keys.Scope))}",
        "Host": "10.0.0.7:8000",
    }
    answer = client.get("/api/v1/events", headers=headers, environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert answer.status_code == 200
    wires.engine.dispose()


def token_of(wires: Wiring) -> str:
    return wires.links.url(Channel.EMAIL, "news", None, "ada@example.com").rpartition("/")[2]


def test_pages_load_nothing_of_others_and_stand_in_no_frame(api: FlaskClient, wires: Wiring) -> None:
    token = token_of(wires)
    pages = ["/docs", "/problems", "/problems/not-found", "/u/nothing", f"/u/{token}"]
    for path, method in [*((page, "GET") for page in pages), (f"/u/{token}", "POST")]:
        with api.open(path, method=method) as answer:
            assert answer.mimetype == "text/html", path
            policy = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == "'none'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert "unsafe" not in str(policy)
            assert "http" not in str(policy)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert (answer.headers.get("Cache-Control") == "no-store") == path.startswith("/u/")
            # No script and no style that the policy would stop.
            assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=|javascript:", answer.text)


def test_answers_are_not_sniffed_and_tokens_not_kept(api: FlaskClient) -> None:
    for path in ("/health", "/api/v1/events", "/nothing", "/openapi.json", "/docs/docs.js", "/docs/swagger-ui.css"):
        with api.get(path) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
    for answer in (
        api.put("/u/token"),
        api.get("/u/token/more"),
        api.get("/u/token", headers={"Host": "evil.example"}),
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_description_keeps_no_key_and_serves_no_page_of_others(api: FlaskClient) -> None:
    with api.get("/docs/docs.js") as script:
        assert "persistAuthorization: false" in script.text
    for name in ("oauth2-redirect.html", "oauth2-redirect.js", "index.css", "swagger-ui.js", "VERSION", "../app.py"):
        assert api.get(f"/docs/{name}").status_code == 404, name


def raw(system: Running, head: str) -> bytes:
    """The first line of the answer to a request that is not written by a library."""
    with socket.create_connection(("127.0.0.1", system.port), 5) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        return connection.recv(4096).split(b"\r\n")[0]


def test_the_server_tells_names_apart_as_we_do(system: Running) -> None:
    for head in (
        "GET /api/v1/events HTTP/1.1\r\nHost: evil.example",
        "GET /api/v1/events HTTP/1.1\r\nHost: evil.example\r\nHost: localhost",
        "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        "GET /api/v1/events HTTP/1.1\r\nHost:",
        "GET /api/v1/events HTTP/1.0",
        "GET /api/v1/events HTTP/1.1\r\nHost: localhost, evil.example",
    ):
        assert raw(system, head).split()[1] in {b"421", b"400"}, head
    assert raw(system, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close").split()[1] == b"200"
    body: dict[str, Any] = system.post("/api/v1/events", {"event_type": "x"}, headers={"Origin": "null"}).json()
    assert body["type"] == "/problems/cross-site"
