"""The console's door, in a real browser: signing in and out, and forms that somebody else made."""

import http.server
import secrets
import threading
from collections.abc import Iterator
from html import escape
from typing import Any, Final

import pytest
import requests

from notifier.security.api_keys import PREFIX
from tests.services.browser import Browser, act
from tests.services.console import Console
from tests.support.callers import Callers
from tests.support.running import made

SIGN_IN: Final = "/console/sign-in"


def test_a_page_leads_to_the_sign_in_and_from_there_back(browser: Browser, console: Console) -> None:
    page = f"{console.notification('delivered')}?show=1"
    browser.visit(page)
    assert browser.path.startswith(f"{SIGN_IN}?next=")
    assert not browser.has("header"), "a stranger sees the names of the pages"
    visit = browser.give(console.operator.key)
    assert browser.path == page
    assert not visit.faults()


def test_the_cookie_is_for_the_console_alone(at_work: Browser) -> None:
    [cookie] = at_work.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    assert not cookie["session"], "it has no end"
    assert at_work.run("return document.cookie") == ""


def test_who_signs_out_is_a_stranger_again(at_work: Browser) -> None:
    at_work.act("sign-out")
    assert at_work.path.startswith(SIGN_IN)
    assert at_work.cookies() == []
    at_work.visit("/console")
    assert at_work.path.startswith(SIGN_IN)


@pytest.mark.parametrize("key", ["wrong", PREFIX + "w" * 43, "<script>top.pwned=1</script>"])
def test_a_wrong_key_is_refused(browser: Browser, key: str) -> None:
    browser.visit(SIGN_IN)
    visit = browser.give(key)
    assert not visit.faults(401)
    assert browser.text("[role=alert]")
    assert key not in browser.driver.page_source
    assert browser.cookies() == []


def test_a_key_that_may_not_read_is_refused(browser: Browser, console: Console) -> None:
    [sender] = [Callers(console.system).new(("send",), name="sender")]
    browser.fresh(sender.url)
    browser.visit(SIGN_IN)
    assert not browser.give(sender.key).faults(403)
    assert "read" in browser.text("[role=alert]")
    assert browser.cookies() == []


def test_who_tries_keys_has_to_wait(browser: Browser, console: Console) -> None:
    callers = Callers(console.system)  # with a process of its own: nobody else has to wait
    operator = callers.new(("read",), name="known")
    browser.fresh(operator.url)
    assert browser.sign_in(operator.key).status == 200
    for _ in range(20):
        key = PREFIX + secrets.token_urlsafe(32)
        answer = requests.post(f"{operator.url}{SIGN_IN}", data={"key": key}, timeout=10)
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    browser.fresh(operator.url)
    browser.visit(SIGN_IN)
    browser.driver.execute_script("document.forms[0].noValidate = true")
    while (visit := browser.give(PREFIX + secrets.token_urlsafe(32))).status == 401:
        pass  # one more is let through each second
    assert not visit.faults(429)
    assert browser.text("[role=alert]")
    assert browser.sign_in(operator.key).status == 200, "others have to wait as well"


@pytest.mark.parametrize("next_", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"])
def test_the_sign_in_leads_to_no_other_place(browser: Browser, console: Console, next_: str) -> None:
    browser.visit(f"{SIGN_IN}?next={next_}")
    browser.give(console.operator.key)
    assert browser.driver.current_url == f"{console.url}/console"


@pytest.mark.parametrize("path", ["", "/sign-in", "/find?q=x", "/nowhere", "/notifications/not-an-id"])
def test_pages_are_kept_nowhere_and_framed_nowhere(console: Console, path: str) -> None:
    for session in (requests, console.session()):
        headers = session.get(f"{console.url}/console{path}", allow_redirects=False, timeout=10).headers
        assert headers["Cache-Control"] == "no-store"
        policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        # Of no-referrer browsers make an Origin of null, also for forms of our own.
        assert headers["Referrer-Policy"] == "same-origin"


# --- Forms that somebody else made


class Forger:
    """A page of somebody else that sends a form to the console as soon as it is loaded."""

    def __init__(self) -> None:
        self.page = b""
        forger = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(forger.page)))
                self.end_headers()
                self.wfile.write(forger.page)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def forge(self, action: str, **fields: str) -> None:
        """Have the page send these fields there."""
        inputs = "".join(f'<input name="{name}" value="{escape(value)}">' for name, value in fields.items())
        script = "<script>document.forms[0].submit()</script>"
        self.page = f'<form method="post" action="{escape(action)}">{inputs}</form>{script}'.encode()


@pytest.fixture
def forger() -> Iterator[Forger]:
    found = Forger()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def waiting(console: Console) -> str:
    """The id of a notification that waits and may be cancelled."""
    return made(console.system, channel="sms", recipient="+4915112345678", send_at="2999-01-01T00:00:00Z")


def token_of(browser: Browser, form: str) -> str:
    """The token that a form of the page carries."""
    return str(browser.find(f"{form} input[name=token]").get_attribute("value"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_form_of_another_page_changes_nothing(
    at_work: Browser, console: Console, forger: Forger, waiting: str, host: str
) -> None:
    """Even with the token. A page on another port is of the same site, so it brings the cookie."""
    page = f"{console.url}/console/notifications/{waiting}"
    at_work.visit(page)
    forger.forge(f"{page}/cancel", token=token_of(at_work, act("cancel")))
    with at_work.loading() as visits:
        at_work.driver.get(f"http://{host}:{forger.server.server_address[1]}/")
        at_work.wait_for_url(console.url)
    assert console.system.notification(waiting)["status"] == "scheduled"
    assert visits[0].status == 403 or at_work.path.startswith(SIGN_IN)
    at_work.visit(page)
    at_work.act("cancel")
    assert console.system.notification(waiting)["status"] == "cancelled", "the true form does not work either"


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_a_form_without_the_token_changes_nothing(console: Console, waiting: str, token: str | None) -> None:
    fields = {} if token is None else {"token": token}
    answer = console.session().post(f"{console.url}/console/notifications/{waiting}/cancel", data=fields, timeout=10)
    assert answer.status_code == 403
    assert console.system.notification(waiting)["status"] == "scheduled"


def test_the_token_of_another_session_is_refused(at_work: Browser, console: Console, waiting: str) -> None:
    page = f"{console.url}/console/notifications/{waiting}"
    at_work.visit(page)
    token = token_of(at_work, act("cancel"))
    assert console.session().post(f"{page}/cancel", data={"token": token}, timeout=10).status_code == 403
    assert console.system.notification(waiting)["status"] == "scheduled"


def test_no_act_is_a_get(console: Console, waiting: str) -> None:
    page = f"{console.url}/console/notifications/{waiting}"
    for name in ("cancel", "resend", "move", "suppress"):
        assert console.session().get(f"{page}/{name}", timeout=10).status_code in {404, 405}
    assert console.system.notification(waiting)["status"] == "scheduled"
