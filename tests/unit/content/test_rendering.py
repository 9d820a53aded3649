"""Rendering: the text that recipients read."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from notifier.content.rendering import (
    Content,
    Envelope,
    as_members,
    context_of,
    envelope_of,
    message_of,
    preview_context,
    render,
    text_of,
)
from notifier.content.template_process import Rendered
from notifier.people.users import Person
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339

ID, EVENT = UUID(int=1), UUID(int=2)
AT = datetime(2026, 11, 21, 9, 0, 0, 123000, tzinfo=UTC)


def test_a_webhook_carries_the_payload_as_it_was_sent() -> None:
    data = '{"z": 1.10, "a": [1e2, 12345678901234567890], "é": "\\u00e9"}'
    body = render(ID, Channel.WEBHOOK, "https://x.test", Content(EVENT, "order.paid", data, AT)).text
    assert f'"data":{data}}}' in body
    parsed = json.loads(body)
    assert list(parsed) == ["type", "timestamp", "id", "data"]
    assert parsed["type"] == "order.paid"
    assert parsed["id"] == str(EVENT)
    assert parsed["timestamp"] == "2026-11-21T09:00:00.123000Z"


def test_a_webhook_without_an_event_carries_the_notifications_id() -> None:
    body = render(ID, Channel.WEBHOOK, "https://x.test", Content(None, None, '{"subject":null,"body":"hi"}', AT)).text
    assert json.loads(body) == {
        "type": "notification",
        "timestamp": "2026-11-21T09:00:00.123000Z",
        "id": str(ID),
        "data": {"subject": None, "body": "hi"},
    }


GIVEN = {"from": "x@y.test", "reply_to": "z@y.test", "attachments": [str(ID)]}


def test_what_is_for_an_emails_envelope_is_no_data() -> None:
    content = Content(None, None, json.dumps({"body": "hi", **GIVEN}), AT, given=True)
    body = render(ID, Channel.WEBHOOK, "https://x.test", content).text
    assert json.loads(body)["data"] == {"body": "hi"}
    content = Content(None, None, json.dumps({"data": {"n": 1}, **GIVEN}), AT, given=True)
    assert context_of(content, None, None, None)["payload"] == {"n": 1}
    assert "n: 1" in render(ID, Channel.EMAIL, "a@b.test", content).text
    assert "x@y.test" not in repr(render(ID, Channel.EMAIL, "a@b.test", content))
    # An event's payload may have members of these names.
    event = Content(EVENT, "order.paid", json.dumps(GIVEN), AT)
    assert json.loads(render(ID, Channel.WEBHOOK, "https://x.test", event).text)["data"] == GIVEN


@pytest.mark.parametrize(
    ("data", "given", "envelope"),
    [
        ({"body": "hi", **GIVEN}, True, Envelope("x@y.test", "z@y.test", (ID,))),
        ({"data": {}, "reply_to": "z@y.test"}, True, Envelope(None, "z@y.test")),
        ({"body": "hi"}, True, None),
        ({"data": GIVEN}, True, None),
        (GIVEN, False, None),
        ([1], True, None),
    ],
)
def test_the_envelope_stands_beside_the_data(data: Any, given: bool, envelope: Envelope | None) -> None:
    assert envelope_of(Content(None, None, json.dumps(data), AT, given=given)) == envelope


def test_an_envelope_has_only_what_was_given() -> None:
    assert as_members(Envelope()) == {}
    assert as_members(Envelope("x@y.test", None, (ID,))) == {"from": "x@y.test", "attachments": (ID,)}


def test_the_built_in_template_shows_type_and_payload() -> None:
    message = render(ID, Channel.EMAIL, "a@b.test", Content(EVENT, "user.signup", '{"name": "Ada", "n": [1, 2]}', AT))
    assert message.subject == "user.signup"
    assert message.text == "user.signup\n\nname: Ada\nn: [1,2]"
    assert render(ID, Channel.SMS, "+4915112345678", Content(EVENT, "ping", "{}", AT)).text == "ping"


def test_a_direct_message_is_its_subject_and_body() -> None:
    message = render(
        ID, Channel.EMAIL, "a@b.test", Content(None, None, '{"subject":"Hi","body":"there"}', AT, given=True)
    )
    assert (message.id, message.subject, message.text) == (ID, "Hi", "there")


def test_times_come_out_in_utc() -> None:
    assert rfc3339(datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T23:00:00Z"


ADA = Person("u1", "ada@example.com", None, ("t1", "t2"), None, None, "Europe/Berlin", "de", '{"name": "Ada"}')


def test_a_template_sees_event_payload_and_user() -> None:
    content = Content(EVENT, "order.paid", '{"total": 12.50, "name": "order"}', AT)
    event = {"event_type": "order.paid", "payload": {"total": 12.5}}
    seen = context_of(content, event, ADA, "https://x.test/u/1")
    assert (seen["total"], seen["name"]) == (12.5, "order")
    assert seen["payload"] == seen["data"] == {"total": 12.5, "name": "order"}
    assert seen["event"] == event
    assert (seen["user"]["email"], seen["user"]["attributes"]) == ("ada@example.com", {"name": "Ada"})
    assert seen["unsubscribe_url"] == "https://x.test/u/1"


def test_a_payload_hides_nothing_that_templates_see() -> None:
    data = {"event": 1, "payload": 2, "data": 3, "user": 4, "unsubscribe_url": 5, "own": 6}
    seen = context_of(Content(EVENT, "x", json.dumps(data), AT), {"event_type": "x"}, None, None)
    assert seen["payload"] == seen["data"] == data
    assert (seen["event"], seen["user"], seen["unsubscribe_url"], seen["own"]) == ({"event_type": "x"}, {}, "", 6)


def test_data_that_were_given_are_the_payload() -> None:
    seen = context_of(Content(None, None, '{"data": {"n": 1}}', AT, given=True), None, None, None)
    assert seen == {"n": 1, "payload": {"n": 1}, "data": {"n": 1}, "event": {}, "user": {}, "unsubscribe_url": ""}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, {"payload": {}, "event": {"payload": {}}, "user": {}}),
        ({"n": 1}, {"n": 1, "payload": {"n": 1}, "data": {"n": 1}, "event": {"payload": {"n": 1}}}),
        ({"payload": {"n": 1}}, {"n": 1, "payload": {"n": 1}, "data": {"n": 1}}),
        ({"payload": {"n": 1, "user": 2}, "user": {"email": "x"}}, {"n": 1, "user": {"email": "x"}}),
        ({"event": {"event_type": "t"}, "n": 1}, {"n": 1, "event": {"event_type": "t"}}),
        # A value that is no mapping cannot be meant as one of them.
        ({"payload": 5, "user": "u"}, {"payload": {"payload": 5, "user": "u"}, "user": {}}),
        ({"unsubscribe_url": "x"}, {"unsubscribe_url": ""}),
    ],
)
def test_a_preview_sees_data_as_the_payload_or_by_their_names(data: dict[str, Any], expected: dict[str, Any]) -> None:
    seen = preview_context(data)
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("Hello", "Hello"),
        ("<p>one</p><p>two</p>", "one\ntwo"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<p>  much \n\t white   space </p>", "much white space"),
        ("<p>one</p>two", "one\ntwo"),
        ("one<hr>two", "one\ntwo"),
        ("<h5>one</h5><section>two</section>three", "one\ntwo\nthree"),
        ("<ul><li>one<li>two</ul>", "one\ntwo"),
        ("<b>bo</b>ld", "bold"),
        ("<table><tr><td>one</td><td>two</td></tr><tr><td>three</td></tr></table>", "one two\nthree"),
        ("&lt;b&gt; &amp;amp; &eacute;&nbsp;&#9731;", "<b> &amp; é ☃"),
        ("<head><title>t</title><style>p {}</style></head><body>seen</body>", "seen"),
        ("<script>alert('<p>x</p>')</script>seen<!-- not seen -->", "seen"),
        ("<STYLE>p {}</STYLE>seen", "seen"),
        ("<p>a</p><p></p><p> </p><p></p><p>b</p>", "a\nb"),
        ("</p></div>unbalanced<b>", "unbalanced"),
        ("a < b", "a < b"),
    ],
)
def test_the_text_of_html(html: str, text: str) -> None:
    made = text_of(html)
    # Blank lines between blocks are a matter of taste, but no more than one.
    assert "\n\n\n" not in made
    assert [" ".join(line.split()) for line in made.splitlines() if line] == text.splitlines()


def test_the_text_of_html_keeps_where_links_lead() -> None:
    text = text_of('<p>Please <a class="b" href="https://x.test/reset?t=1&amp;u=2">reset it</a> today.</p>')
    assert "reset it" in text
    assert "https://x.test/reset?t=1&u=2" in text
    assert text_of('<a href="https://x.test/">https://x.test/</a>').count("https://x.test/") == 1


@pytest.mark.parametrize(
    ("rendered", "text", "html"),
    [
        (Rendered("s", "plain", "<p>rich</p>"), "plain", "<p>rich</p>"),
        (Rendered("s", None, "<p>rich</p>"), "rich", "<p>rich</p>"),
        (Rendered("s", "plain", None), "plain", None),
        (Rendered("s", "", "<p>rich</p>"), "", "<p>rich</p>"),
    ],
)
def test_a_message_has_a_text_always(rendered: Rendered, text: str, html: str | None) -> None:
    message = message_of(ID, "a@b.test", rendered, sender="x@y.test", reply_to=None, unsubscribe="https://u.test")
    assert (message.subject, message.text, message.html) == ("s", text, html)
    assert (message.sender, message.reply_to, message.unsubscribe) == ("x@y.test", None, "https://u.test")
