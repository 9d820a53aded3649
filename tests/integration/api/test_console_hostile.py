"""The console against odd input, hostile callers, heavy pages, and programs that are away."""

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, event
from werkzeug.test import TestResponse

from api.app import create_app
from api.console.asking import path
from api.console.masks import masked_text, masked_values
from config.settings import read_settings
from config.wiring import Wiring
from notifier.security import api_keys
from tests.conftest import QUICK
from tests.support.planted import EMAIL, USER, Planted, plant
from tests.support.running import wait_for

ODD: Final = ("%00", "%FF", "a%2Fb", "a%20b", "%25", "%2525", "..", "ü", "%0d%0ab", "%3Cb%3E", "x" * 3000, "x%3Fy%23")
KINDS: Final = ("people", "routes", "templates", "notifications", "events", "dead-letters", "subscriptions", "nowhere")
TIMES: Final = ("2026-01-01", "9999-12-31T23:59:59", "0000-00-00T00:00", "now", "2026-01-01T00:00:00:00", "%00")


def _planted(database_url: str, **settings: str) -> Planted:
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": database_url, "NOTIFIER_AUTH": "required", **settings}))
    return plant(create_app(wires).test_client(), wires)


@pytest.fixture
def planted(database_url: str) -> Iterator[Planted]:
    """An API within this process that asks for keys; nothing else runs."""
    found = _planted(database_url)
    yield found
    found.wires.template_process.close()
    found.engine.dispose()


def _sign_in(planted: Planted, scopes: str, client: FlaskClient | None = None, **more: str) -> TestResponse:
    key = planted.bearer(scopes)["Authorization"].removeprefix("Bearer ")
    return (client or planted.client).post("/console/sign-in", data={"key": key, **more})


def _token(client: FlaskClient) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', client.get("/console").text)
    assert found
    return found[1]


def _buttons(planted: Planted, path: str) -> set[str]:
    """Return the last words of the paths to which a page's forms lead."""
    page = planted.client.get(path)
    assert page.status_code == 200
    found = re.findall(r'method="post" action="([^"]+)"', page.text)
    return {re.sub(r"/[0-9a-f-]{36}$", "", each).rpartition("/")[2] for each in found} - {"sign-out"}


@pytest.mark.parametrize("link", ["http://[", "//[", "//\u2100.com", "/console/../docs", "/console/%2e%2E/docs"])
def test_an_odd_link_leads_to_the_overview(planted: Planted, link: str) -> None:
    page = planted.client.get("/console/sign-in", query_string={"next": link})
    assert page.status_code == 200
    assert 'name="next" value="/console"' in page.text
    answer = _sign_in(planted, "read", next=link)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console")


def test_odd_paths_and_queries_are_refused_in_words(planted: Planted) -> None:
    _sign_in(planted, "read,admin")
    places = [f"/console/{kind}/{odd}" for kind in KINDS for odd in ODD]
    queries = [f"/console/find?created_after={odd}" for odd in (*TIMES, *ODD)]
    queries += [f"/console/find?{name}={odd}" for name in ("q", "cursor", "event_id", "notice") for odd in ODD]
    queries += [f"/console/dead-letters?{name}={odd}" for name in ("by", "created_before", "error") for odd in ODD]
    queries += [f"/console/templates/t-1?{name}={odd}" for name in ("before", "after", "locale") for odd in ODD]
    queries += [f"/console?span={odd}" for odd in ODD[:3]]
    for place in (*places, *queries):
        assert planted.client.get(place).status_code < 500, place


def test_a_time_may_say_where_it_is_from(planted: Planted) -> None:
    _sign_in(planted, "read")
    for given in ("2026-01-01T00:00", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00-05:00", "2026-01-01T00:00:00+05:00"):
        page = planted.client.get("/console/find", query_string={"created_after": given})
        assert 'role="alert"' not in page.text, given


@pytest.mark.parametrize("user_id", ["a b", "50%25", "%2F", "?x=1#y", "ü;é", "..a", "-"])
def test_any_user_has_a_page_and_a_link_to_it(planted: Planted, user_id: str) -> None:
    assert planted.ask("admin", "PUT", path("users", user_id), {"email": "odd@example.com"}).status_code == 201
    _sign_in(planted, "read")
    found = planted.client.get("/console/find", query_string={"q": "odd@example.com"})
    [link] = re.findall(r'href="(/console/people/[^"]+)"', found.text)
    assert planted.client.get(link).status_code == 200


def test_every_look_at_personal_data_is_noted(planted: Planted) -> None:
    _sign_in(planted, "read,admin")
    for name in ("dead-letters", "subscriptions", "routes", f"dead-letters/acts/{planted.ids['act_id']}"):
        assert planted.client.get(f"/console/{name}?show=1").status_code == 200
    rows = planted.sql("SELECT target FROM audit WHERE action = 'console: show personal data' ORDER BY id")
    pages = ("dead_letters", "subscriptions", "routes", "dead_letter_act")
    assert [target for (target,) in rows] == [f"page={name}" for name in pages]


def test_words_about_a_suppression_that_was_found_are_hidden(planted: Planted) -> None:
    _sign_in(planted, "read")
    address = "qzplanted-2@example.com"
    for show, is_seen in ((None, False), ("1", True)):
        page = planted.client.get("/console/find", query_string={"q": address, "show": show})
        assert "Suppressed addresses" in page.text
        assert (f"for {EMAIL}" in page.text) is is_seen


def test_addresses_that_are_names_in_a_payload_are_hidden() -> None:
    assert masked_values({EMAIL: {"plain": 1}}) == {"q•••@example.com": {"plain": "•••"}}


def test_hiding_comes_to_an_end_in_a_long_word() -> None:
    # Tried from each of its letters, it would take an hour.
    assert masked_text(f"{'a' * 400_000} {EMAIL}") == f"{'a' * 400_000} q•••@example.com"


def test_versions_of_many_lines_are_not_compared(planted: Planted) -> None:
    texts = ["\n".join(str(line * step % 190) for line in range(20_000)) for step in (1, 7)]
    for text in texts:
        body = {"channel": "sms", "text": text}
        assert planted.ask("admin", "PUT", "/api/v1/templates/long", body).status_code < 300
    _sign_in(planted, "read")
    page = planted.client.get("/console/templates/long")
    assert page.status_code == 200
    assert "too many to compare" in page.text


def test_a_preview_of_slow_locales_ends(planted: Planted) -> None:
    slow = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
    for locale in ("de", "en", "fr", "it", "pl", "pt", "sv", "tr"):
        body = {"channel": "sms", "locale": locale, "text": slow}
        assert planted.ask("admin", "PUT", "/api/v1/templates/slow", body).status_code == 201
    _sign_in(planted, "read")
    data = {"token": _token(planted.client), "data": "{}", "channel": "sms", "locale": "de"}
    page = planted.client.post("/console/templates/slow/preview", data=data)
    assert page.text.count("those before took too long") > 2


@pytest.mark.parametrize(
    ("scopes", "story", "person", "template"),
    [
        ("read", set(), set(), {"preview"}),
        ("read,send", {"cancel"}, set(), {"preview"}),
        ("read,requeue", set(), set(), {"preview"}),
        ("read,users", set(), {"lift"}, {"preview"}),
        ("read,templates", set(), set(), {"preview", "save"}),
        ("read,admin", {"move"}, {"lift"}, {"preview", "save"}),
    ],
)
def test_a_key_has_the_buttons_that_it_may_press(
    planted: Planted, scopes: str, story: set[str], person: set[str], template: set[str]
) -> None:
    body = {"channel": "email", "address": EMAIL, "reason": "manual"}
    assert planted.ask("admin", "POST", "/api/v1/suppressions", body).status_code == 201
    _sign_in(planted, scopes)
    failed = f"/console/notifications/{planted.ids['failed_id']}"
    sends_again = {"resend"} if scopes in {"read,requeue", "read,admin"} else set()
    assert _buttons(planted, f"/console/notifications/{planted.ids['scheduled_id']}") - {"suppress"} == story
    assert _buttons(planted, failed) == person | sends_again
    assert _buttons(planted, f"/console/people/{USER}") == person
    page = planted.client.get("/console/templates/t-1")
    assert ("Save as a new version" in page.text) is ("save" in template)


def test_a_key_has_no_button_for_what_another_source_sent(planted: Planted) -> None:
    key = api_keys.create(planted.engine, "stranger", ["read", "send", "requeue"])
    planted.client.post("/console/sign-in", data={"key": key})
    for name in ("scheduled_id", "failed_id"):
        assert _buttons(planted, f"/console/notifications/{planted.ids[name]}") == set()
    assert _buttons(planted, f"/console/dead-letters/acts/{planted.ids['act_id']}") == set()


def test_a_long_filter_does_not_come_back_in_a_link(planted: Planted) -> None:
    _sign_in(planted, "read,admin")
    data = {"token": _token(planted.client), "act": "drop", "error": "x" * 100_000, "reason": "nope"}
    link = planted.client.post("/console/dead-letters/acts", data=data).headers["Location"]
    assert "reason=nope" in link
    assert len(link) < 2000


def test_pages_of_records_with_nothing_in_them(planted: Planted) -> None:
    with planted.engine.begin() as connection:
        for statement in (
            "UPDATE notifications SET channel = NULL, recipient = NULL, user_id = NULL, event_type = NULL"
            " WHERE status <> 'sent'",
            "UPDATE events SET channel = NULL, recipient = NULL, user_id = NULL, payload = '{}'",
            "UPDATE dead_letters SET channel = NULL, event_type = NULL, error = NULL, notification_id = NULL",
            "UPDATE attempts SET provider = NULL, duration_ms = NULL, error = NULL, response_headers = NULL",
        ):
            connection.exec_driver_sql(statement)
    _sign_in(planted, "read,admin")
    ids = planted.ids
    paths = [f"notifications/{ids['failed_id']}", f"notifications/{ids['scheduled_id']}", f"events/{ids['event_id']}"]
    for name in (*paths, "dead-letters", f"dead-letters/{ids['letter_id']}", "find?latest=1", f"people/{USER}"):
        assert planted.client.get(f"/console/{name}").status_code == 200, name
    token = _token(planted.client)
    for act in ("suppress", "resend", "cancel", "move"):
        answer = planted.client.post(f"/console/notifications/{ids['failed_id']}/{act}", data={"token": token})
        assert answer.status_code == 303, act


def test_a_rule_held_it_back_at_a_time(planted: Planted) -> None:
    judged = '{"rule":"quiet_hours","local_time":"2026-11-29T22:30:00+01:00","timezone":"Europe/Berlin"}'
    with planted.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE notifications SET judged = %s", (judged,))
    _sign_in(planted, "read")
    page = planted.client.get(f"/console/notifications/{planted.ids['scheduled_id']}")
    assert page.status_code == 200, page.text
    assert "quiet hours" in page.text


def test_a_key_with_a_rate_is_slowed_down_page_by_page(planted: Planted, valkey_url: str) -> None:
    limited = _planted_again(planted, REDIS_URL=valkey_url)
    key = api_keys.create(planted.engine, "slow", ["read"], rate=2)
    limited.post("/console/sign-in", data={"key": key})
    answers = [limited.get("/console/routes") for _ in range(12)]
    assert {each.status_code for each in answers} == {200, 429}
    assert all("2 requests a second" in each.text for each in answers if each.status_code == 429)


def test_without_redis_pages_are_served(planted: Planted) -> None:
    client = _planted_again(planted, REDIS_URL="redis://127.0.0.1:1/0")
    for key in (api_keys.create(planted.engine, "slow", ["read"], rate=100), planted._keys["admin"]):
        client.post("/console/sign-in", data={"key": key})
        for name in ("", "/find?latest=1", "/dead-letters"):
            assert client.get(f"/console{name}").status_code == 200, name


def _planted_again(planted: Planted, **settings: Any) -> FlaskClient:
    """Return a client of another API process with the same database."""
    own = planted.wires.settings.database_url
    wires = Wiring(read_settings({**QUICK, "NOTIFIER_AUTH": "required", "DATABASE_URL": own, **settings}))
    return create_app(wires).test_client()


def test_without_postgres_pages_say_so(planted: Planted) -> None:
    _sign_in(planted, "read,admin")
    token = _token(planted.client)
    away = _planted_again(planted, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    console = planted.client.application.extensions["console"]
    cookie = planted.client.get_cookie("notifier_console", path="/console")
    assert cookie
    away.set_cookie("notifier_console", cookie.value, path="/console")
    for is_known in (False, True):
        if is_known:  # as after Postgres has gone
            away.application.extensions["console"]._sessions = console.sessions
        for name in ("", "/find?q=x", "/routes", "/figures.csv", "/nowhere"):
            page = away.get(f"/console{name}")
            assert page.status_code == 503, name
            assert "Postgres does not answer" in page.text
        assert away.post("/console/holds", data={"token": token, "target": "sms"}).status_code == 503
    known = console.gate._known
    away.application.extensions["console"].gate._known._found.update(known._found)
    for name in ("", "/find?q=x", "/routes", "/figures.csv"):
        page = away.get(f"/console{name}")
        assert (page.status_code, page.mimetype) == ((200 if "find" in name else 503), "text/html"), name


def test_a_stranger_cannot_speak_as_the_proxy(database_url: str) -> None:
    settings = {"NOTIFIER_CONSOLE_USER_HEADER": "X-User", "NOTIFIER_CONSOLE_ADMINS": "ada"}
    planted = _planted(database_url, NOTIFIER_TRUSTED_PROXIES="10.0.0.0/8", **settings)
    given = {"X-User": "ada", "X-Forwarded-For": "10.1.2.3", "Notifier-Peer": "10.1.2.3", "notifier.peer": "10.1.2.3"}
    for peer in ("", "192.0.2.1", "::ffff:192.0.2.1", "10.1.2.3.4", "10.1.2.3, 10.1.2.3"):
        answer = planted.client.get("/console", headers=given, environ_overrides={"notifier.peer": peer})
        assert answer.status_code == 303, peer
    for name in ("ada,ada", "ada\x85", "a" * 300, " ,ada"):
        environ = {"notifier.peer": "10.1.2.3", "HTTP_X_USER": name}
        assert planted.client.get("/console/keys", environ_overrides=environ).status_code in {303, 403}, name
    planted.wires.template_process.close()
    planted.engine.dispose()


def test_a_proxy_may_name_people_beyond_ascii(database_url: str) -> None:
    settings = {"NOTIFIER_CONSOLE_USER_HEADER": "X-User", "NOTIFIER_CONSOLE_ADMINS": "m\xfcller"}
    planted = _planted(database_url, NOTIFIER_TRUSTED_PROXIES="10.0.0.0/8", **settings)
    for name, status in (("m\xfcller", 200), ("m\xfcller\xa0", 303)):
        environ = {"notifier.peer": "10.1.2.3", "HTTP_X_USER": name.encode().decode("latin-1")}
        assert planted.client.get("/console/keys", environ_overrides=environ).status_code == status
    planted.wires.template_process.close()
    planted.engine.dispose()


def test_a_page_leaves_out_no_part_because_postgres_is_slow(planted: Planted, owner_engine: Engine) -> None:
    _sign_in(planted, "read")
    pages = (f"/console/people/{USER}", f"/console/notifications/{planted.ids['failed_id']}")
    with owner_engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE suppressions")
        assert [planted.client.get(each).status_code for each in pages] == [503, 503]
    assert [planted.client.get(each).status_code for each in pages] == [200, 200]


def test_a_cookie_of_a_revoked_key_does_not_ask_postgres_each_time(planted: Planted) -> None:
    _sign_in(planted, "read")
    api_keys.revoke(planted.engine, "only-read")
    planted.client.application.extensions["console"].gate._known._found.clear()
    asked: list[str] = []

    @event.listens_for(planted.engine, "before_cursor_execute")
    def _count(_: Any, __: Any, sql: str, *___: Any) -> None:
        if "api_keys" in sql:
            asked.append(sql)

    assert [planted.client.get("/console").status_code for _ in range(5)] == [303] * 5
    assert len(asked) < 5


def test_looking_at_a_template_is_no_refusal(planted: Planted) -> None:
    _sign_in(planted, "read")
    assert planted.client.get("/console/templates/t-1").status_code == 200
    assert planted.ask("read", "PUT", "/api/v1/holds/sms").status_code == 403  # the last of those that are written
    refused = wait_for(lambda: planted.sql("SELECT action FROM audit WHERE outcome = '403'"))
    assert refused == [("PUT /api/v1/holds/{target}",)]
