"""The console: who gets in, that forms are ours, what its pages show, and that its buttons do what the API does."""

import itertools
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.console.sessions import COOKIE, Sessions, new_session
from config.settings import read_settings
from config.wiring import Wiring
from notifier.security import api_keys
from notifier.security.signing_keys import signing_key
from tests.conftest import QUICK
from tests.support.planted import EMAIL, PHONE, PUSH, SECRET, USER, Planted, plant

#: Pages that anybody may see.
OPEN: Final = {"console.sign_in_page", "console.sign_in", "console.static_file", "console.unknown_page"}
#: Pages of what operators wrote themselves, which may name an address.
DESIGN: Final = {"/console/routes/r-1"}


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


def sign_in(planted: Planted, scopes: str, **more: Any) -> TestResponse:
    """Sign in with a key that has these scopes."""
    key = planted.bearer(scopes)["Authorization"].removeprefix("Bearer ")
    return planted.client.post("/console/sign-in", data={"key": key, **more})


def pages(planted: Planted) -> list[str]:
    """Return the path of every page."""
    app = planted.client.application
    rules = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and rule.endpoint not in OPEN and "GET" in (rule.methods or ())
    ]
    paths = [planted.path(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)) for rule in rules]
    assert len(paths) > 12
    return paths


def token_in(page: TestResponse) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', page.text)
    assert found
    return found[1]


def lines(planted: Planted, action: str) -> list[Any]:
    """Return the lines of the audit log with an action."""
    return planted.sql(f"SELECT actor, target, outcome FROM audit WHERE action = '{action}' ORDER BY id")


def test_every_page_asks_who_is_there_and_leads_back(planted: Planted) -> None:
    for path in pages(planted):
        answer = planted.client.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/console/sign-in?next={path}"), path
    answer = sign_in(planted, "read", next="/console/find?latest=1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/find?latest=1")
    assert planted.client.get("/console/find?latest=1").status_code == 200
    assert lines(planted, "console: sign in") == [("only-read", None, "303")]


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example", "/docs", "console"])
def test_signing_in_leads_to_pages_of_the_console_alone(planted: Planted, elsewhere: str) -> None:
    assert sign_in(planted, "read", next=elsewhere).headers["Location"] == "/console"


def test_a_wrong_key_and_one_that_may_not_read_are_refused_and_noted(planted: Planted) -> None:
    wrong = planted.client.post("/console/sign-in", data={"key": f"{api_keys.PREFIX}{'x' * 43}"})
    assert wrong.status_code == 401
    assert "no such key" in wrong.text
    assert sign_in(planted, "send").status_code == 403
    for answer in (wrong, planted.client.get("/console")):
        assert COOKIE not in answer.headers.get("Set-Cookie", "")
    planted.client.application.extensions["console"].sessions  # noqa: B018 -- it was made without a session
    assert planted.client.get("/console").status_code == 303


def test_guessing_keys_is_slowed_down(planted: Planted) -> None:
    began, guesses = time.monotonic(), itertools.count()

    def guess() -> TestResponse:
        return planted.client.post("/console/sign-in", data={"key": f"{api_keys.PREFIX}{next(guesses):043}"})

    while (answer := guess()).status_code == 401:
        pass
    assert answer.status_code == 429
    allowed = next(guesses) - 1  # one more in each second
    assert 10 <= allowed <= 11 + time.monotonic() - began
    assert int(answer.headers["Retry-After"]) > 0
    assert sign_in(planted, "read").status_code == 429  # from this address, for a moment, a key must be known already


def test_the_cookie_is_for_this_browser_and_these_pages_alone(planted: Planted) -> None:
    cookie = sign_in(planted, "read").headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=28800"):
        assert part in cookie
    assert "Secure" not in cookie  # NOTIFIER_PUBLIC_URL is of plain HTTP here
    key = planted.bearer("read")["Authorization"].removeprefix("Bearer ")
    assert key not in cookie


def test_the_cookie_is_secure_behind_https(database_url: str) -> None:
    planted = _planted(database_url, NOTIFIER_PUBLIC_URL="https://notifier.example.com", NOTIFIER_CONSOLE_SESSION="600")
    answer = sign_in(planted, "read")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "Max-Age=600" in answer.headers["Set-Cookie"]
    planted.engine.dispose()


def test_a_session_ends_with_its_key_and_when_somebody_signs_out(planted: Planted) -> None:
    sign_in(planted, "read")
    token = token_in(planted.client.get("/console"))
    assert planted.client.post("/console/sign-out", data={"token": token}).status_code == 303
    assert planted.client.get("/console").status_code == 303
    sign_in(planted, "read")
    assert planted.client.get("/console").status_code == 200
    api_keys.revoke(planted.engine, "only-read")
    gate = planted.client.application.extensions["console"].gate
    gate._known._found.clear()  # a key that is known is looked up again after some seconds
    assert planted.client.get("/console").status_code == 303


def test_a_forged_and_an_old_cookie_open_nothing(planted: Planted) -> None:
    session = new_session(api_keys.hash_of(planted.bearer("read")["Authorization"].removeprefix("Bearer ")))
    secret = signing_key(planted.engine, planted.wires.vault, "console")
    ended = Sessions(secret, timedelta(seconds=-1))
    good = Sessions(secret, timedelta(hours=1))
    forged = Sessions(b"guess", timedelta(hours=1))
    for cookie, status in ((good.written(session), 200), (forged.written(session), 303), ("rubbish", 303)):
        planted.client.set_cookie(COOKIE, cookie, path="/console")
        assert planted.client.get("/console").status_code == status
    assert ended.read(ended.written(session)) is None
    assert good.read(good.written(session)) == session


def test_a_form_needs_the_token_of_its_own_session(planted: Planted) -> None:
    path = f"/console/notifications/{planted.ids['scheduled_id']}/cancel"
    sign_in(planted, "read,send,admin")
    other = token_in(planted.client.get("/console"))
    sign_in(planted, "read,send,admin")
    token = token_in(planted.client.get("/console"))
    cross = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for data, headers in (({}, {}), ({"token": ""}, {}), ({"token": other}, {}), ({"token": token}, cross)):
        assert planted.client.post(path, data=data, headers=headers).status_code == 403
    assert planted.sql("SELECT count(*) FROM notifications WHERE status = 'cancelled'") == [(0,)]
    assert planted.client.post(path, data={"token": token}).status_code == 303
    assert planted.sql("SELECT count(*) FROM notifications WHERE status = 'cancelled'") == [(1,)]


def test_personal_data_are_hidden_until_somebody_asks_which_is_noted(planted: Planted) -> None:
    sign_in(planted, "read,admin")
    shown = ""
    for path in pages(planted):
        page = planted.client.get(path)
        assert page.status_code == (404 if path.endswith("/message") else 200), f"{path}: {page.text}"
        if path not in DESIGN:
            for mark in (EMAIL, PHONE, PUSH):
                assert mark not in page.text, f"{path}: {page.text}"
        asked = planted.client.get(f"{path}?show=1")
        shown += asked.text
        assert SECRET not in page.text + asked.text, path  # credentials never come
    for mark in (EMAIL, PHONE, PUSH):
        assert mark in shown
    noted = {target for _, target, _ in lines(planted, "console: show personal data")}
    assert {f"notification_id={planted.ids['notification_id']}", f"event_id={planted.ids['event_id']}"} <= noted
    assert f"user_id={planted.wires.audit.fingerprint(USER)}" in noted


def test_every_page_keeps_to_itself(planted: Planted) -> None:
    sign_in(planted, "read,admin")
    for path in [*pages(planted), "/console/sign-in", "/console/nowhere"]:
        page = planted.client.get(path)
        policy = page.headers.get("Content-Security-Policy", "")
        if page.mimetype == "text/html" and page.status_code != 303:
            assert "default-src 'none'" in policy, path
            assert "unsafe" not in policy, path
            assert "<script>" not in page.text, path
            assert " style=" not in page.text, path
        assert page.headers["Cache-Control"] == "no-store", path
    framed = planted.client.get(f"/console/notifications/{planted.ids['failed_id']}/message?show=1")
    assert framed.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert framed.headers["Cache-Control"] == "no-store"


def test_who_only_reads_has_no_buttons_and_cannot_act(planted: Planted) -> None:
    sign_in(planted, "read")
    story = f"/console/notifications/{planted.ids['scheduled_id']}"
    page = planted.client.get(story)
    assert re.findall(r'action="([^"]+)"', page.text) == ["/console/find", "/console/sign-out"]
    answer = planted.client.post(f"{story}/cancel", data={"token": token_in(page)}, follow_redirects=True)
    assert "lacks the scope" in answer.text
    assert planted.client.get("/console/keys").status_code == 403
    assert planted.client.get("/console/audit").status_code == 403
    assert planted.sql("SELECT count(*) FROM notifications WHERE status = 'cancelled'") == [(0,)]


def test_buttons_act_in_the_name_of_who_is_signed_in(planted: Planted) -> None:
    sign_in(planted, "read,admin")
    ids = planted.ids
    data = {"token": token_in(planted.client.get("/console"))}

    def press(path: str, **more: str) -> str:
        return planted.client.post(f"/console{path}", data={**data, **more}, follow_redirects=True).text

    assert "It goes at 2099-02-03T04:05:00Z." in press(
        f"/notifications/{ids['scheduled_id']}/move", send_at="2099-02-03T04:05"
    )
    assert "is suppressed" in press(f"/notifications/{ids['failed_id']}/suppress")
    [(suppressed,)] = planted.sql(f"SELECT id FROM suppressions WHERE address = '{EMAIL}'")
    assert "suppressed no more" in press(f"/notifications/{ids['failed_id']}/lift/{suppressed}")
    assert "It is requeued." in press(f"/dead-letters/{ids['letter_id']}/requeue")
    assert "requeued before" in press(f"/dead-letters/{ids['letter_id']}/requeue")
    assert "as new notifications" in press(f"/events/{ids['event_id']}/replay")
    assert "sms is held" in press("/holds", target="sms")
    assert "sms is released" in press("/holds/release", target="sms")
    assert "This is the test event." in press(f"/subscriptions/{ids['subscription_id']}/test")
    assert "Version 2 is saved." in press("/templates/t-1/save", channel="email", locale="default", text="New")
    assert "Give a text" not in press("/templates/t-1/preview", channel="email", locale="default", data="{}")
    assert "not JSON" in press("/routes/r-1/save", definition="{")
    assert "from now on" in press("/routes/r-1/save", definition='{"event_type":"x.q","to":{"user_id":"payload.u"}}')
    actors = planted.sql("SELECT DISTINCT actor FROM audit WHERE action LIKE 'P% /api/v1/%' AND actor LIKE '%read%'")
    assert actors == [("only-read-admin",)]
    assert planted.sql("SELECT asked_by FROM resends WHERE how = 'requeue'") == [("only-read-admin",)]


def test_a_notice_is_ours_and_shown_once(planted: Planted) -> None:
    sign_in(planted, "read,admin")
    planted.client.set_cookie("notifier_console_notice", "All is lost", path="/console")
    assert "All is lost" not in planted.client.get("/console?notice=All+is+lost&done=All+is+lost").text
    data = {"token": token_in(planted.client.get("/console")), "target": "sms"}
    answer = planted.client.post("/console/holds", data=data)
    assert answer.headers["Location"] == "/console"
    assert "sms is held" in planted.client.get("/console").text
    assert "sms is held" not in planted.client.get("/console").text


def test_hostile_texts_stay_texts(planted: Planted) -> None:
    hostile = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)>"
    with planted.engine.begin() as connection:
        for table, column in (("attempts", "error"), ("dead_letters", "error"), ("notifications", "explanation")):
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = %s", (hostile,))
    planted.ask("admin", "PUT", f"/api/v1/users/{USER}", {"email": EMAIL, "attributes": {hostile: hostile}})
    body = {"channel": "email", "subject": hostile, "text": hostile, "html": hostile}
    planted.ask("admin", "PUT", "/api/v1/templates/t-1", body)
    sign_in(planted, "read,admin")
    seen = 0
    for path in pages(planted):
        if not path.endswith("/message"):
            page = planted.client.get(path, query_string={"show": "1", "q": hostile})
            assert "<script>alert" not in page.text, path
            assert "<img src=x" not in page.text, path
            seen += page.text.count("&lt;script&gt;")
    assert seen > 8


def test_a_proxy_may_name_who_is_there(database_url: str) -> None:
    settings = {
        "NOTIFIER_CONSOLE_USER_HEADER": "X-Auth-Request-Email",
        "NOTIFIER_CONSOLE_ADMINS": "ada@example.com",
        "NOTIFIER_TRUSTED_PROXIES": "10.0.0.0/8",
    }
    planted = _planted(database_url, **settings)

    def look(path: str, name: str, peer: str) -> TestResponse:
        fresh: FlaskClient = planted.client.application.test_client()
        return fresh.get(path, headers={"X-Auth-Request-Email": name}, environ_overrides={"notifier.peer": peer})

    assert look("/console", "ada@example.com", "10.1.2.3").status_code == 200
    assert look("/console/keys", "ada@example.com", "10.1.2.3").status_code == 200
    assert look("/console/keys", "bob@example.com", "10.1.2.3").status_code == 403
    assert look("/console", "", "10.1.2.3").status_code == 303
    assert look("/console", "ada@example.com", "192.0.2.1").status_code == 303
    assert look("/console", "ada@example.com", "").status_code == 303
    assert lines(planted, "console: list keys") == [("console:ada@example.com", None, "200")]
    planted.engine.dispose()


def test_a_setting_removes_it(database_url: str) -> None:
    planted = _planted(database_url, NOTIFIER_CONSOLE="0")
    for path in ("/console", "/console/sign-in", "/console/static/console.css"):
        assert planted.client.get(path).status_code == 404
    planted.engine.dispose()


def test_without_keys_it_opens_and_its_forms_still_need_their_token(database_url: str) -> None:
    planted = _planted(database_url)
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": database_url, "NOTIFIER_AUTH": "off"}))
    client = create_app(wires).test_client()
    page = client.get("/console")
    assert page.status_code == 200
    assert "Sign out" not in page.text
    assert client.post("/console/holds", data={"target": "sms"}).status_code == 403
    assert client.post("/console/holds", data={"target": "sms", "token": token_in(page)}).status_code == 303
    assert planted.sql("SELECT target, held_by FROM holds") == [("sms", "anonymous")]
    for each in (planted.wires, wires):
        each.engine.dispose()
