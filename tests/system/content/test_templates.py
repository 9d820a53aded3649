"""Templates: what notifications say, in which version and language, and what becomes of those that fail."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.support.receivers import SmtpReceiver
from tests.support.running import Running, reaches, wait_for

#: Longer than any template may run.
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
#: Some tenths of a second.
SLOW = "{% for i in range(99999) %}{% for j in range(26) %}{% endfor %}{% endfor %}"
GIGABYTE = "{% for i in range(99999) %}{{ 'x' * 20000 }}{% endfor %}"
#: The field that is complained of, and what it is complained for.
WRONG: dict[str, list[dict[str, Any]]] = {
    "text": [{}, *({"text": text} for text in ("", 5, "x" * 200_001, "x\x00y"))],
    "subject": [{"text": "x", "subject": subject} for subject in ("", "x" * 2001, 5)],
    "html": [{"text": "x", "html": ""}, {"html": "x", "channel": "sms"}],
    "from": [
        {"text": "x", "channel": "push", "from": "a@example.com"},
        *({"text": "x", "from": who} for who in ("nobody", "Eve <eve@example.com>\r\nBcc: x@example.com", "a@b, c@d")),
    ],
    "reply_to": [{"text": "x", "reply_to": "a@b@c"}, {"text": "x", "channel": "chat", "reply_to": "a@example.com"}],
    "locale": [{"text": "x", "locale": locale} for locale in ("not a tag", "", 5)],
    "channel": [{"text": "x", "channel": channel} for channel in ("fax", None, "webhook")],
    "colour": [{"text": "x", "colour": "red"}],
    "version": [{"text": "x", "version": 7}],
}


def put(system: Running, template: str, **fields: Any) -> requests.Response:
    return requests.put(f"{system.url}/api/v1/templates/{template}", json=fields, timeout=20)


def save(system: Running, template: str, **fields: Any) -> dict[str, Any]:
    """Save a version of an email template (or of what is said) that must be accepted."""
    answer = put(system, template, **{"channel": "email", **fields})
    assert answer.ok, answer.text
    saved: dict[str, Any] = answer.json()
    return saved


def errors_of(answer: requests.Response) -> dict[str, list[str]]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    errors: dict[str, list[str]] = answer.json()["errors"]
    return errors


def finished(system: Running, event_id: str) -> dict[str, Any]:
    """The one notification of an event once it is finished. One to a user is not there before the fan-out."""
    wait_for(lambda: system.notifications(event_id))
    return system.finished(event_id, 40)


def letter_of(system: Running, event_id: str) -> dict[str, Any]:
    """The dead letter of an event whose notification must be dead of its template."""
    notification = finished(system, event_id)
    assert (notification["status"], notification["reason"]) == ("failed", "permanent_error"), notification
    assert notification["attempts"] == 0
    return system.dead_letter(event_id)


def mail_of(system: Running, smtp: SmtpReceiver, address: str, **fields: Any) -> Any:
    """The one mail that an event makes for an address of its own."""
    notification = system.finished(system.event(recipient=address, channel="email", **fields))
    assert notification["status"] == "sent", notification
    [mail] = smtp.mails_to(address)
    return mail


def test_versions_count_by_name_channel_and_locale(system: Running) -> None:
    made = [
        ({"channel": "email", "text": "one"}, 201, 1),
        ({"channel": "email", "text": "two"}, 200, 2),
        ({"channel": "sms", "text": "short"}, 201, 1),
        ({"channel": "email", "locale": "pt-br", "text": "um"}, 201, 1),
        ({"channel": "email", "locale": "pt_BR", "text": "dois"}, 200, 2),
        ({"channel": "email", "locale": None, "text": "three"}, 200, 3),
    ]
    for fields, status, version in made:
        answer = put(system, "counted", **fields)
        assert (answer.status_code, answer.json()["version"]) == (status, version), answer.text
    said = {"name": "counted", "channel": "email", "locale": "default", "version": 3, "text": "three"}
    unsaid = dict.fromkeys(("subject", "html", "from", "reply_to"))
    assert answer.json() == {**said, **unsaid, "created_at": answer.json()["created_at"]}
    path = "/api/v1/templates/counted"
    current = system.get(path).json()
    assert (current["text"], current["version"]) == ("three", 3)
    variants = [(each["channel"], each["locale"], each["version"]) for each in current["variants"]]
    assert variants == [("email", "default", 3), ("email", "pt-BR", 2), ("sms", "default", 1)]
    assert system.get(path, params={"channel": "sms"}).json()["text"] == "short"
    assert system.get(path, params={"locale": "pt-BR"}).json()["text"] == "dois"
    assert system.get(path, params={"channel": "email", "locale": "default", "version": 1}).json()["text"] == "one"
    assert system.get(path, params={"locale": "fr"}).status_code == 404

    versions = system.get(f"{path}/versions").json()["items"]
    assert [each["text"] for each in versions] == ["three", "dois", "um", "short", "two", "one"]
    listed = system.get("/api/v1/templates", params={"limit": 200}).json()["items"]
    assert [each["text"] for each in listed if each["name"] == "counted"] == ["three", "dois", "short"]
    portuguese = system.get(f"{path}/versions", params={"locale": "pt-BR", "limit": 1}).json()
    assert [each["text"] for each in portuguese["items"]] == ["dois"]
    rest = system.get(f"{path}/versions", params={"locale": "pt-BR", "cursor": portuguese["next_cursor"]}).json()
    assert ([each["text"] for each in rest["items"]], rest["next_cursor"]) == (["um"], None)


@pytest.mark.parametrize("path", ["", "/versions", "/preview"])
def test_an_unknown_template_is_not_found(system: Running, path: str) -> None:
    address = f"/api/v1/templates/nobodys{path}"
    assert (system.post(address, {}) if path == "/preview" else system.get(address)).status_code == 404


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"name": "<Ada>"}, "<Ada> <Ada> <Ada>"),
        ({"payload": {"name": "Bob"}, "user": {"user_id": "u"}, "event": {"event_type": "t"}}, "Bob Bob Bob"),
    ],
)
def test_a_preview_renders_and_sends_nothing(system: Running, data: dict[str, Any], text: str) -> None:
    html = "<p>{{ name }}</p>{{ unsubscribe_url }}"
    save(system, "previewed", subject="Hi\n{{ name }}", text="{{ name }} {{ payload.name }} {{ data.name }}", html=html)
    before = system.sql("SELECT count(*) FROM notifications WHERE template = 'previewed'")
    answer = system.post("/api/v1/templates/previewed/preview", {"data": data})
    assert answer.status_code == 200, answer.text
    seen = answer.json()
    name = text.split(maxsplit=1)[0]
    assert (seen["subject"], seen["text"], seen["sms"]) == (f"Hi {name}", text, None)
    assert seen["html"] == f"<p>{name.replace('<', '&lt;').replace('>', '&gt;')}</p>"
    assert system.sql("SELECT count(*) FROM notifications WHERE template = 'previewed'") == before


def test_a_preview_is_of_the_version_that_is_asked_for(system: Running) -> None:
    for text in ("one", "two"):
        save(system, "chosen", text=text)
    save(system, "chosen", locale="de", text="eins")
    path = "/api/v1/templates/chosen/preview"
    assert system.post(path, {"locale": "default"}).json()["text"] == "two"
    assert system.post(path, {"locale": "default", "version": 1, "channel": "email"}).json()["text"] == "one"
    assert system.post(path, {"locale": "de"}).json()["text"] == "eins"
    assert system.post(path, {"channel": "sms"}).status_code == 404


def test_a_preview_is_of_the_variant_that_would_be_sent(system: Running) -> None:
    for locale, text in ((None, "one"), ("pt", "um"), ("de", "eins")):
        save(system, "variants", locale=locale, text=text)
    save(system, "variants", channel="sms", subject=None, text="by SMS")
    save(system, "variants", channel="sms", locale="de", subject=None, text="per SMS")
    path = "/api/v1/templates/variants/preview"
    for locale, text in (("pt-BR", "um"), ("PT_br", "um"), ("fr", "one"), (None, "one"), ("de-AT-1996", "eins")):
        seen = system.post(path, {"channel": "email", "locale": locale}).json()
        assert seen["text"] == text, (locale, seen)
        user = {"email": "ada@example.com", "locale": locale}
        assert system.http.put(f"{system.url}/api/v1/users/u_variants", json=user, timeout=20).status_code in {200, 201}
        asked = {"user_id": "u_variants", "channel": "email", "template": "variants"}
        [notification] = system.post("/api/v1/notifications", asked).json()["items"]
        sent = reaches(system, notification["id"], "sent")
        assert sent["template"]["version"] == seen["version"]
    # The channel of the version that was saved last, where none is named.
    assert system.post(path, {}).json()["text"] == "by SMS"
    save(system, "only-german", locale="de", text="eins")
    answer = system.post("/api/v1/templates/only-german/preview", {"channel": "email", "locale": "fr"})
    assert (answer.status_code, "none without a locale" in answer.json()["detail"]) == (404, True)


def test_a_preview_of_an_sms_counts_its_segments(system: Running) -> None:
    save(system, "counted", channel="sms", text="{{ name }}", subject=None)
    for name, sms in (
        ("x" * 160, {"encoding": "gsm-7", "units": 160, "segments": 1}),
        ("x" * 153 + "€ and more", {"encoding": "gsm-7", "units": 164, "segments": 2}),
        ("☃" * 71, {"encoding": "ucs-2", "units": 71, "segments": 2}),
    ):
        answer = system.post("/api/v1/templates/counted/preview", {"data": {"name": name}})
        assert answer.json()["sms"] == sms, answer.text


def test_a_preview_that_fails_says_where(system: Running) -> None:
    version = save(system, "preview-fails", text="{{ name }}\n{{ nam }}")["version"]
    errors = errors_of(system.post("/api/v1/templates/preview-fails/preview", {"data": {"name": "Ada"}}))
    assert errors == {"data": [f"preview-fails v{version}, text, line 2: 'nam' is undefined"]}
    assert "data" in errors_of(system.post("/api/v1/templates/preview-fails/preview", {"data": [1]}))


@pytest.mark.parametrize("direct", [False, True])
def test_the_version_is_pinned_when_it_is_accepted(system: Running, smtp: SmtpReceiver, direct: bool) -> None:
    name, address = f"pinned-{direct}", f"pinned-{direct}@example.com".lower()
    save(system, name, subject="first", text="one {{ n }}")
    later = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    asked = {"recipient": address, "channel": "email", "template": name, "send_at": later}
    if direct:
        [made] = system.post("/api/v1/notifications", {**asked, "data": {"n": 1}}).json()["items"]
    else:
        [made] = system.notifications(system.event(**asked, payload={"n": 1}))
    assert made["template"] == {"name": name, "version": 1}
    assert save(system, name, subject="second", text="two {{ n }}")["version"] == 2
    wait_for(lambda: system.notification(made["id"])["status"] == "sent")
    [mail] = smtp.mails_to(address)
    assert (mail["Subject"], mail.get_content().strip()) == ("first", "one 1")
    assert system.notification(made["id"])["template"] == {"name": name, "version": 1}


def test_a_locale_falls_back_to_its_language_and_then_to_the_default(system: Running, smtp: SmtpReceiver) -> None:
    for locale in (None, "pt", "pt-BR"):
        save(system, "tongues", locale=locale, subject=locale or "default", text="x")
    wanted = {"pt-br": "pt-BR", "pt-PT": "pt", "pt": "pt", "fr": "default", None: "default"}
    events = {}
    for number, locale in enumerate(wanted):
        user = f"u_tongue_{number}"
        body = {"email": f"tongue-{number}@example.com", "locale": locale}
        assert system.http.put(f"{system.url}/api/v1/users/{user}", json=body, timeout=20).ok
        events[number] = system.event(user_id=user, template="tongues")
    for number, subject in enumerate(wanted.values()):
        finished(system, events[number])
        assert [mail["Subject"] for mail in smtp.mails_to(f"tongue-{number}@example.com")] == [subject]


def test_where_no_locale_fits_it_is_skipped(system: Running) -> None:
    save(system, "german-only", locale="de", text="x")
    notification = system.finished(
        system.event(recipient="english@example.com", channel="email", template="german-only")
    )
    assert (notification["status"], notification["reason"]) == ("skipped", "no_template")
    assert "locale" in notification["explanation"]


def test_a_mail_has_both_parts_its_sender_and_its_links(system: Running, smtp: SmtpReceiver) -> None:
    save(
        system,
        "multipart",
        subject="{{ user.attributes.title }} {{ name }}: {{ event.event_type }}",
        text="{{ name }} & {{ unsubscribe_url }}",
        html="<p>{{ name }}</p>{% if x is defined %}{{ x }}{% endif %}",
        reply_to="help@example.com",
        **{"from": "The Shop <shop@example.com>"},
    )
    body = {"email": "both-parts@example.com", "attributes": {"title": "Dr."}}
    assert system.http.put(f"{system.url}/api/v1/users/u_both_parts", json=body, timeout=20).ok
    event_id = system.event(user_id="u_both_parts", template="multipart", payload={"name": "<b>Ada</b> & Co"})
    notification = finished(system, event_id)
    [mail] = smtp.mails_to("both-parts@example.com")
    assert mail["Subject"] == "Dr. <b>Ada</b> & Co: test.event"
    assert mail["From"] == "The Shop <shop@example.com>"
    assert mail["Reply-To"] == "help@example.com"
    assert mail.get_content_type() == "multipart/alternative"
    assert mail["Message-ID"] == f"<{notification['id']}@example.com>"
    plain, html = mail.iter_parts()
    link = mail["List-Unsubscribe"].strip("<>")
    assert plain.get_content().strip() == f"<b>Ada</b> & Co & {link}"
    assert html.get_content_type() == "text/html"
    assert html.get_content().strip() == "<p>&lt;b&gt;Ada&lt;/b&gt; &amp; Co</p>"


def test_html_alone_gets_a_text_that_says_the_same(system: Running, smtp: SmtpReceiver) -> None:
    html = "<style>p {}</style><h1>Hello {{ name }}</h1><p>It is<br>ready &amp; packed.</p>"
    save(system, "html-only", subject="s", html=html)
    mail = mail_of(system, smtp, "html-only@example.com", template="html-only", payload={"name": "Ada"})
    assert mail.get_body(("plain",)).get_content().split() == ["Hello", "Ada", "It", "is", "ready", "&", "packed."]
    assert "<h1>Hello Ada</h1>" in mail.get_body(("html",)).get_content()


def test_a_newline_in_the_data_makes_no_header(system: Running, smtp: SmtpReceiver) -> None:
    save(system, "injected", subject="Hi {{ name }}", text="{{ name }}")
    payload = {"name": "Ada\r\nBcc: victim@example.com\n\nbody\x1f \x85\u2028X-Evil: 1"}
    mail = mail_of(system, smtp, "injected@example.com", template="injected", payload=payload)
    assert mail["Bcc"] is None
    assert mail["X-Evil"] is None
    assert mail["Subject"].split() == ["Hi", "Ada", "Bcc:", "victim@example.com", "body", "X-Evil:", "1"]
    assert smtp.mails_to("victim@example.com") == []


def test_members_of_the_payload_hide_nothing(system: Running, smtp: SmtpReceiver) -> None:
    text = "{{ event.event_type }} {{ payload.event }} {{ payload.user }} {{ data.payload }} {{ unsubscribe_url[:4] }}"
    save(system, "shadowed", subject="s", text=f"{text} {{{{ user.email is defined }}}}")
    payload = {"event": "E", "user": "U", "payload": "P", "data": "D", "unsubscribe_url": "evil"}
    mail = mail_of(system, smtp, "shadowed@example.com", template="shadowed", payload=payload)
    assert mail.get_content().strip() == "test.event E U P http False"


def test_a_template_and_data_without_an_event(system: Running, smtp: SmtpReceiver) -> None:
    save(system, "direct-data", subject="{{ n }}", text="{{ data.n + payload.n }} {{ event.event_type is defined }}")
    body = {"recipient": "direct-data@example.com", "channel": "email", "template": "direct-data", "data": {"n": 21}}
    [made] = system.post("/api/v1/notifications", body).json()["items"]
    wait_for(lambda: system.notification(made["id"])["status"] == "sent")
    [mail] = smtp.mails_to("direct-data@example.com")
    assert (mail["Subject"], mail.get_content().strip()) == ("21", "42 False")


@pytest.mark.parametrize(
    ("kind", "recipient"), [("sms", "+4915112345001"), ("push", "templated-token"), ("chat", "slack://T/B/template")]
)
def test_every_channel_has_templates(system: Running, kind: str, recipient: str) -> None:
    save(system, f"on-{kind}", channel=kind, text="<{{ n }}>")
    notification = system.finished(
        system.event(recipient=recipient, channel=kind, template=f"on-{kind}", payload={"n": "&"})
    )
    assert notification["status"] == "sent"
    [row] = system.sql("SELECT text FROM outbox WHERE notification_id = :id", id=notification["id"])
    assert row.text == "<&>"


def test_what_cannot_be_rendered_dies_alone_and_says_where(system: Running, smtp: SmtpReceiver) -> None:
    save(system, "strict", subject="s", text="Hello {{ name }}\n\nof {{ town.name }}")
    version = save(system, "strict", subject="s", text="Hello\n{{ name }}, of {{ town.name }}")["version"]
    address = "strict@example.com"
    asked = {"event_type": "test.event", "recipient": address, "channel": "email", "template": "strict"}
    payloads: list[dict[str, Any]] = [
        {"name": f"A{number}", "town": {"name": "Ulm"}} if number % 2 else {"name": "secret-value", "town": {}}
        for number in range(6)
    ]
    answer = system.post("/api/v1/events/batch", {"events": [{**asked, "payload": payload} for payload in payloads]})
    ids = [item["id"] for item in answer.json()["items"]]
    for event_id in ids[::2]:
        letter = letter_of(system, event_id)
        assert letter["error"] == f"template: strict v{version}, text, line 2: 'dict object' has no attribute 'name'"
        [notification] = system.notifications(event_id)
        assert "strict v2, text, line 2" in system.notification(notification["id"])["explanation"]
    assert all(system.finished(event_id)["status"] == "sent" for event_id in ids[1::2])
    assert len(smtp.mails_to(address)) == 3


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("gigabyte", GIGABYTE, "text, line 1: "),
        ("wide", "{% set x = 'x' * 1000000 %}{{ x ~ x ~ x }}", "text, line 1: made over 1 MiB"),
        (
            "memory",
            "{% set ns = namespace(a=[0]) %}\n{% for i in range(40) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
            "",
        ),
        ("minute", ENDLESS, "text, line 1: took over 2 s"),
        ("classes", "{{ ''.__class__.__mro__ }}", "text, line 1: "),
        ("globals", "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "text, line 1: "),
        ("attr-filter", "{{ payload|attr('__class__') }}", "text, line 1: "),
        ("formatted", "{{ '{0.__class__}'.format(payload) }}", "text, line 1: "),
        ("change", "{{ payload.update({'a': 1}) }}", "text, line 1: "),
    ],
)
def test_a_hostile_template_costs_its_own_row_alone(
    system: Running, smtp: SmtpReceiver, name: str, text: str, error: str
) -> None:
    save(system, f"hostile-{name}", subject="s", text=text)
    save(system, f"beside-{name}", subject="s", text="fine")
    asked = {"event_type": "test.event", "recipient": f"hostile-{name}@example.com", "channel": "email"}
    templates = [f"beside-{name}", f"hostile-{name}", f"beside-{name}"]
    answer = system.post("/api/v1/events/batch", {"events": [{**asked, "template": each} for each in templates]})
    before, hostile, behind = (item["id"] for item in answer.json()["items"])
    assert letter_of(system, hostile)["error"].startswith(f"template: hostile-{name} v1, {error}")
    for event_id in (before, behind):
        assert system.finished(event_id)["status"] == "sent"
    assert [mail.get_content().strip() for mail in smtp.mails_to(f"hostile-{name}@example.com")] == ["fine", "fine"]


def test_slow_templates_arrive_all_the_same(system: Running, smtp: SmtpReceiver) -> None:
    # Together they take longer than a batch may begin sends; each alone is far below its limit.
    save(system, "slow", subject="s", text=f"{SLOW}ok")
    asked = {"event_type": "test.event", "channel": "email", "template": "slow"}
    addresses = [f"slow-{number}@example.com" for number in range(12)]
    system.post("/api/v1/events/batch", {"events": [{**asked, "recipient": address} for address in addresses]})
    wait_for(lambda: all(smtp.mails_to(address) for address in addresses), 40)


def test_a_hostile_preview_is_a_422(system: Running) -> None:
    save(system, "hostile-preview", text=ENDLESS)
    errors = errors_of(system.post("/api/v1/templates/hostile-preview/preview", {}))
    # The child names the line, unless the machine is so busy that the parent ends it first.
    assert errors.keys() == {"data"}
    [error] = errors["data"]
    assert re.fullmatch(r"hostile-preview v1(, text, line 1)?: took over 2 s", error)


@pytest.mark.parametrize(
    ("error", "fields"),
    [(error, fields) for error, each in WRONG.items() for fields in each],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_said_by_field_and_saves_nothing(system: Running, error: str, fields: dict[str, Any]) -> None:
    assert list(errors_of(put(system, "wrong", **{"channel": "email", **fields}))) == [error]
    assert system.get("/api/v1/templates/wrong").status_code == 404


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello\n{{ name ", "line 2: unexpected end of template, expected 'end of print statement'."),
        ("a\nb\n{% endif %}", "line 3: "),
        ("{{ x|nofilter }}", "line 1: no filter named 'nofilter'"),
        ("{% include 'other' %}", "line 1: include, import and extends are not available"),
    ],
)
@pytest.mark.parametrize("part", ["subject", "text", "html"])
def test_what_is_no_template_is_refused_with_its_line(system: Running, part: str, text: str, message: str) -> None:
    [(named, [said])] = errors_of(put(system, "wrong", **{"channel": "email", "text": "x", part: text})).items()
    assert (named, said[: len(message)]) == (part, message)


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 129, "%C3%A9"])
def test_a_name_must_be_one(system: Running, name: str) -> None:
    assert "name" in errors_of(put(system, name, channel="email", text="x"))


def test_queries_are_checked(system: Running) -> None:
    save(system, "queried", text="x")
    for query in ("version=0", "version=x", "channel=fax", "locale=!", "colour=red", "limit=0"):
        answer = system.get(f"/api/v1/templates/queried/versions?{query}")
        assert list(errors_of(answer)) == [query.split("=", maxsplit=1)[0]]


@pytest.mark.parametrize(
    ("path", "wrap"),
    [
        ("/api/v1/events", lambda body: {"event_type": "x", **body}),
        ("/api/v1/notifications", lambda body: body),
    ],
)
def test_an_unknown_template_is_refused(system: Running, path: str, wrap: Any) -> None:
    save(system, "email-only", text="x")
    email = {"recipient": "a@example.com", "channel": "email"}
    sms = {"recipient": "+4915112345678", "channel": "sms"}
    for body in ({**email, "template": "nowhere"}, {**sms, "template": "email-only"}, {**email, "template": "a b"}):
        assert list(errors_of(system.post(path, wrap(body)))) == ["template"]
    assert system.post(path, wrap({**email, "template": "email-only"})).status_code == 202
    events = [{"event_type": "x", **email, "template": name} for name in ("email-only", "nowhere", "email-only")]
    answer = system.post("/api/v1/events/batch", {"events": events}).json()
    assert (answer["accepted"], answer["rejected"], list(answer["items"][1]["errors"])) == (2, 1, ["template"])


def test_versions_that_are_saved_at_once_are_counted_one_by_one(system: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda number: save(system, "raced", text=str(number)), range(16)))
    assert sorted(each["version"] for each in saved) == list(range(1, 17))
