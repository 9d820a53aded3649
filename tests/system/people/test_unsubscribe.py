"""Leaving: one category by the link in each mail (RFC 8058), or altogether, by being erased."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from notifier.people.unsubscribe import Links, links
from notifier.security import api_keys
from notifier.vocabulary.states import Channel
from tests.support.preferences import everywhere
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, wait_for

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


def put(system: Running, path: str, **fields: Any) -> requests.Response:
    answer = system.http.put(f"{system.url}/api/v1/{path}", json=fields, timeout=20)
    assert answer.ok, answer.text
    return answer


def page_of(mail: EmailMessage, url: str) -> str:
    """The path of a mail's link. Its host is the public one, which is not where tests run."""
    found = re.fullmatch(rf"<{re.escape(url)}(/u/[\w.~-]+)>", mail["List-Unsubscribe"])
    assert found, mail["List-Unsubscribe"]
    return found[1]


def sent(system: Running, smtp: SmtpReceiver, to: str, **fields: Any) -> EmailMessage:
    """The mail of one more event, addressed to `to` or to the user in `fields`."""
    before = len(smtp.mails_to(to))
    system.event(channel="email", **({} if "user_id" in fields else {"recipient": to}), **fields)
    return wait_for(lambda: smtp.mails_to(to)[before:], 20, f"a mail to {to}")[0]


def link(system: Running, smtp: SmtpReceiver, to: str, **fields: Any) -> str:
    return page_of(sent(system, smtp, to, **fields), "http://localhost:8000")


def fate(system: Running, **fields: Any) -> tuple[str, str | None]:
    """Status and reason of one more notification."""
    [made] = system.post("/api/v1/notifications", {"body": "x", **fields}).json()["items"]
    done = wait_for(lambda: (n := system.notification(made["id"]))["due_at"] is None and n)
    return done["status"], done["reason"]


def click(system: Running, path: str, **form: str) -> requests.Response:
    return system.http.post(system.url + path, data=form or ONE_CLICK, timeout=20)


# The mail.


@pytest.mark.parametrize("template", [None, "unsub-text", "unsub-both"])
@pytest.mark.parametrize("critical", [False, True])
def test_mails_that_are_not_critical_carry_the_headers(
    system: Running, smtp: SmtpReceiver, template: str | None, critical: bool
) -> None:
    to = f"headers-{template}-{critical}@example.com"
    if template:
        html = {"html": "<a href='{{ unsubscribe_url }}'>away</a>"} if template == "unsub-both" else {}
        put(system, f"templates/{template}", channel="email", subject="S", text="[{{ unsubscribe_url }}]", **html)
    mail = sent(system, smtp, to, critical=critical, category="news", template=template)
    if critical:
        assert mail["List-Unsubscribe"] is None
        assert mail["List-Unsubscribe-Post"] is None
        return
    assert mail.get_all("List-Unsubscribe-Post") == ["List-Unsubscribe=One-Click"]
    assert len(mail.get_all("List-Unsubscribe")) == 1
    url = f"http://localhost:8000{page_of(mail, 'http://localhost:8000')}"
    if template:
        plain = mail.get_body(("plain",))
        assert plain
        assert f"[{url}]" in "".join(plain.get_content().split("\n"))
    if template == "unsub-both":
        rich = mail.get_body(("html",))
        assert rich
        assert url in rich.get_content()
    # Nobody's address stands in a link, which ends up in logs and histories.
    assert to.removesuffix("@example.com") not in url


def test_other_channels_have_no_link(system: Running) -> None:
    put(system, "templates/unsub-sms", channel="sms", text="[{{ unsubscribe_url }}]")
    event_id = system.event(channel="sms", recipient="+4915123452001", template="unsub-sms")
    [row] = system.sql("SELECT text FROM outbox WHERE notification_id = :id", id=system.finished(event_id)["id"])
    assert row.text == "[]"


# The link.


def test_looking_changes_nothing(system: Running, smtp: SmtpReceiver) -> None:
    put(system, "users/looks", email="looks@example.com")
    path = link(system, smtp, "looks@example.com", user_id="looks", category="news")
    for method in ("GET", "HEAD", "OPTIONS"):
        assert system.http.request(method, system.url + path, timeout=20).status_code == 200
    assert system.http.put(system.url + path, timeout=20).status_code == 405
    assert system.get("/api/v1/users/looks/preferences").json()["categories"] == {}
    assert fate(system, user_id="looks", channel="email", category="news") == ("sent", None)


def test_a_users_click_switches_that_category_off_for_that_channel(system: Running, smtp: SmtpReceiver) -> None:
    put(system, "users/clicks", email="clicks@example.com", phone="+4915123452002")
    wishes = {"channels": {"push": False}, "categories": {"news": {"sms": True}, "offers": {"email": True}}}
    put(system, "users/clicks/preferences", **wishes)
    path = link(system, smtp, "clicks@example.com", user_id="clicks", category="news")
    for _ in range(2):  # mail programs try again
        assert click(system, path).status_code == 200
    assert system.get("/api/v1/users/clicks/preferences").json() == {
        "channels": {"push": False},
        "categories": {"news": {"sms": True, "email": False}, "offers": {"email": True}},
        "quiet_hours": [],
    }
    assert fate(system, user_id="clicks", channel="email", category="news") == ("skipped", "opted_out")
    assert fate(system, user_id="clicks", channel="email", category="offers") == ("sent", None)
    assert fate(system, user_id="clicks", channel="email") == ("sent", None)
    assert fate(system, user_id="clicks", channel="sms", category="news") == ("sent", None)
    assert fate(system, user_id="clicks", channel="email", category="news", critical=True) == ("sent", None)
    # By no means a suppression.
    assert system.get("/api/v1/suppressions", params={"address": "clicks@example.com"}).json()["items"] == []
    # The way back.
    assert click(system, path, action="subscribe").status_code == 200
    assert system.get("/api/v1/users/clicks/preferences").json()["categories"]["news"] == {"sms": True, "email": True}
    assert fate(system, user_id="clicks", channel="email", category="news") == ("sent", None)


def test_a_bare_address_switches_that_category_off(system: Running, smtp: SmtpReceiver) -> None:
    path = link(system, smtp, "Bare@example.com", category="news")
    for _ in range(2):
        assert click(system, path).status_code == 200
    for spelling in ("Bare@example.com", "bare@EXAMPLE.com", "BARE@example.com"):
        assert fate(system, recipient=spelling, channel="email", category="news") == ("skipped", "opted_out")
    assert fate(system, recipient="bare@example.com", channel="email", category="offers") == ("sent", None)
    assert fate(system, recipient="bare@example.com", channel="email") == ("sent", None)
    assert fate(system, recipient="other@example.com", channel="email", category="news") == ("sent", None)
    assert fate(system, recipient="bare@example.com", channel="email", category="news", critical=True)[0] == "sent"
    assert click(system, path, action="subscribe").status_code == 200
    assert fate(system, recipient="bare@example.com", channel="email", category="news") == ("sent", None)


def test_what_has_no_category_is_a_category_of_its_own(system: Running, smtp: SmtpReceiver) -> None:
    put(system, "users/plain", email="plain@example.com")
    click(system, link(system, smtp, "plain@example.com", user_id="plain"))
    assert system.get("/api/v1/users/plain/preferences").json()["categories"] == {"general": {"email": False}}
    assert fate(system, user_id="plain", channel="email") == ("skipped", "opted_out")
    assert fate(system, user_id="plain", channel="email", category="news") == ("sent", None)
    click(system, link(system, smtp, "plain-bare@example.com"))
    assert fate(system, recipient="plain-bare@example.com", channel="email") == ("skipped", "opted_out")
    assert fate(system, recipient="plain-bare@example.com", channel="email", category="general")[0] == "skipped"


def test_a_users_link_works_when_the_user_is_gone(system: Running, smtp: SmtpReceiver) -> None:
    put(system, "users/leaver", email="leaver@example.com")
    path = link(system, smtp, "leaver@example.com", user_id="leaver", category="news")
    assert system.http.delete(f"{system.url}/api/v1/users/leaver", timeout=20).status_code == 204
    assert click(system, path).status_code == 200
    assert fate(system, recipient="leaver@example.com", channel="email", category="news") == ("skipped", "opted_out")


@pytest.mark.parametrize(
    "post",
    [
        lambda url: requests.post(url, data=ONE_CLICK, timeout=20),
        lambda url: requests.post(url, files={"List-Unsubscribe": (None, "One-Click")}, timeout=20),
        lambda url: requests.post(url, data={"action": "unsubscribe"}, timeout=20),
        lambda url: requests.post(url, timeout=20),
    ],
    ids=["one-click", "multipart", "button", "empty"],
)
def test_each_way_to_post_unsubscribes(
    system: Running, smtp: SmtpReceiver, post: Callable[[str], requests.Response], request: pytest.FixtureRequest
) -> None:
    address = f"posts-{request.node.callspec.id}@example.com"
    answer = post(system.url + link(system, smtp, address, category="news"))
    assert (answer.status_code, answer.history) == (200, [])
    assert fate(system, recipient=address, channel="email", category="news") == ("skipped", "opted_out")


def forged(system: Running) -> dict[str, str]:
    """Tokens that are not ours, by what is wrong with them."""
    about = (Channel.EMAIL, "news", None, "forged@example.com")
    ours = links(system.engine, system.vault, "").url(*about).removeprefix("/u/")
    other = (
        links(system.engine, system.vault, "")
        .url(Channel.EMAIL, "offers", None, "forged@example.com")
        .removeprefix("/u/")
    )
    return {
        "foreign": Links(b"another installation", "").url(*about).removeprefix("/u/"),
        "changed": ours.rsplit(".", 1)[0] + "." + other.rsplit(".", 1)[1],
        "cut off": ours[:-1],
        "longer": ours + "A",
        "unsigned": ours.rsplit(".", 1)[0],
        "nonsense": "nonsense",
        "dots": "....",
        "nul": "a%00b",
        "not UTF-8": "%ff%fe",
        "long": "x" * 5000,
    }


def test_a_token_that_is_not_ours_is_a_404(system: Running) -> None:
    for why, token in forged(system).items():
        for answer in (system.get(f"/u/{token}"), click(system, f"/u/{token}")):
            assert answer.status_code == 404, why
            assert answer.headers["content-type"] == "text/html; charset=utf-8", why
            assert token not in answer.text, why
    assert fate(system, recipient="forged@example.com", channel="email", category="news") == ("sent", None)


def test_links_start_with_the_public_url_and_want_no_key(
    start_system: Callable[..., Running], smtp: SmtpReceiver
) -> None:
    guarded = start_system(
        NOTIFIER_AUTH="required",
        NOTIFIER_PUBLIC_URL="https://notify.example.com/base/",
        NOTIFIER_EMAIL=f"{smtp.dsn}?tls=none",
    )
    guarded.http.headers["Authorization"] = f"Bearer {api_keys.create(guarded.engine, 'sender', ['send', 'read'])}"
    mail = sent(guarded, smtp, "guarded@example.com", category="news")
    path = page_of(mail, "https://notify.example.com/base")
    del guarded.http.headers["Authorization"]
    assert guarded.get("/api/v1/events").status_code == 401
    assert guarded.get(path).status_code == 200
    assert click(guarded, path).status_code == 200
    assert guarded.sql("SELECT channel, category FROM opt_outs") == [("email", "news")]
    # Whatever a browser or a mail program still sends along.
    assert requests.get(guarded.url + path, headers={"Authorization": "Bearer x"}, timeout=20).status_code == 200


class Page(HTMLParser):
    """The content of a page: its tags, what they refer to, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.elsewhere: list[str | None] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.elsewhere += [value for name, value in attrs if name in {"src", "href", "action", "srcset", "background"}]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_escapes_what_it_shows(system: Running) -> None:
    category = "<script>alert('x')</script>&\"'"
    url = links(system.engine, system.vault, "https://example.com").url(
        Channel.EMAIL, category, None, "page@example.com"
    )
    path = urlsplit(url).path
    for answer in (system.get(path), click(system, path), click(system, path, action="subscribe")):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = Page(answer.text)
        assert page.elsewhere == []
        assert not page.tags & {"script", "link", "img", "iframe"}
        assert "url(" not in answer.text
        assert "@import" not in answer.text
        assert category in page.words
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
    assert "form" in Page(system.get(path).text).tags


def test_an_erased_person_is_nowhere_and_the_counts_stay(
    system: Running, smtp: SmtpReceiver, http: HttpReceiver
) -> None:
    put(
        system,
        "users/erased-zq",
        email="erased-zq@example.com",
        phone="+4915123452099",
        push_tokens=["erased-zq-token"],
        webhook_url=http.url("/erased-zq"),
        attributes={"name": "Erased-Zq Lovelace"},
    )
    put(system, "users/stays", phone="+4915123452003")
    http.answer("/erased-zq", (410, {"X-Said": "erased-zq"}))
    smtp.refuse("erased-zq@example.com", "550 5.1.1 <erased-zq@example.com> no such user")
    later = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    payload = {"said": "something about erased-zq"}
    event_id = system.event(user_id="erased-zq", payload=payload)
    key = {"dedup_key": "d", "dedup_window": "PT1H"}
    told = system.event(user_id="erased-zq", channel="sms", payload=payload, **key)
    waits = system.event(user_id="erased-zq", channel="sms", payload=payload, send_at=later)
    direct = system.post(
        "/api/v1/notifications", {"user_id": "erased-zq", "channel": "push", "body": "Dear erased-zq", "send_at": later}
    ).json()["items"][0]["id"]
    behind = system.event(user_id="stays", channel="sms", send_at=later)
    wanted = {"email": "failed", "sms": "sent", "push": "sent", "webhook": "failed"}

    def statuses() -> dict[str, str]:
        return {n["channel"]: n["status"] for n in system.notifications(event_id)}

    wait_for(lambda: statuses() == wanted, 20, "all of them to be finished")
    wait_for(lambda: [n["status"] for n in system.notifications(told)] == ["sent"])
    wait_for(lambda: system.notifications(waits))
    assert {"users", "notifications", "events", "outbox"} <= set(everywhere(system, "erased-zq"))

    assert system.http.delete(f"{system.url}/api/v1/users/erased-zq", timeout=20).status_code == 204
    for needle in ("erased-zq", "4915123452099", "Lovelace"):
        assert everywhere(system, needle) == []
    assert statuses() == wanted
    for notification in system.notifications(event_id):
        assert (notification["user_id"], notification["recipient"]) == (None, None)
        assert notification["attempts"] == 1
        [attempt] = system.get(f"/api/v1/notifications/{notification['id']}/attempts").json()["items"]
        assert attempt["response_excerpt"] is None
    event = system.get(f"/api/v1/events/{event_id}").json()
    assert (event["payload"], event["user_id"], event["recipient"]) == ({}, None, None)
    letters = [n for n in system.get("/api/v1/dead-letters").json()["items"] if n["event_id"] == event_id]
    assert {letter["channel"] for letter in letters} == {"email", "webhook"}
    # A notification that waited is cancelled, and stays so when its hour comes.
    for notification_id in (system.notifications(waits)[0]["id"], direct):
        notification = system.notification(notification_id)
        assert (notification["status"], notification["reason"]) == ("cancelled", "user_deleted")
        assert notification["due_at"] is None
    assert system.finished(behind)["status"] == "sent"
    assert everywhere(system, "4915123452099") == []
    assert system.notification(direct)["attempts"] == 0


def test_what_is_being_sent_is_not_tried_again(system: Running, http: HttpReceiver) -> None:
    put(system, "users/in-flight", webhook_url=http.url("/in-flight"))
    http.answer("/in-flight", 503)
    release = http.hold("/in-flight")
    event_id = system.event(user_id="in-flight", channel="webhook")
    wait_for(lambda: http.received("/in-flight"))
    assert system.http.delete(f"{system.url}/api/v1/users/in-flight", timeout=20).status_code == 204
    release()
    notification = system.finished(event_id)
    assert (notification["status"], notification["recipient"]) == ("skipped", None)
    assert len(http.received("/in-flight")) == 1
    assert everywhere(system, "in-flight") == []


def test_events_on_their_way_are_erased_too(system: Running) -> None:
    put(system, "users/racing-zq", phone="+4915123452098", push_tokens=["racing-zq-token"])
    event = {"event_type": "racing", "user_id": "racing-zq", "payload": {"said": "racing-zq"}}
    for _ in range(3):
        assert system.post("/api/v1/events/batch", {"events": [event] * 200}).json()["accepted"] == 200
    assert system.http.delete(f"{system.url}/api/v1/users/racing-zq", timeout=20).status_code == 204
    live = "SELECT count(*) FROM events WHERE due_at IS NOT NULL AND event_type = 'racing'"
    wait_for(lambda: system.sql(live)[0][0] == 0, 40, "all events to be fanned out")
    wait_for(lambda: system.sql("SELECT count(*) FROM notifications WHERE status = 'sending'")[0][0] == 0)
    # A notification that was being sent is wiped right after it was recorded.
    wait_for(lambda: not everywhere(system, "racing-zq") and not everywhere(system, "4915123452098"))
