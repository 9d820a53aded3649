"""Emails with a sender, a place for answers and files of their own: in over HTTP, out by SMTP."""

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any
from uuid import UUID, uuid4

import pytest
import requests
from sqlalchemy import Engine

from notifier.content import attachments
from notifier.providers.protocol import Attachment
from tests.providers import strict_email
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, ahead, made, reaches, wait_for

NOTIFICATIONS = "/api/v1/notifications"
MOST = 5 * 1024 * 1024


def somebody() -> str:
    return f"ada-{uuid4().hex}@example.com"


def file(content: bytes = b"%PDF", name: str = "invoice.pdf", **fields: Any) -> dict[str, Any]:
    return {"name": name, "content": b64encode(content).decode(), **fields}


def post(system: Running, **fields: Any) -> requests.Response:
    return system.post(NOTIFICATIONS, {"channel": "email", "recipient": somebody(), "body": "Hello."} | fields)


def arrived(smtp: SmtpReceiver, recipient: str) -> EmailMessage:
    [mail] = wait_for(lambda: smtp.mails_to(recipient), what="an email")
    return mail


def files_of(mail: EmailMessage) -> list[tuple[str | None, str, Any]]:
    found = ((part, part.get_payload(decode=True)) for part in mail.iter_attachments())
    return [(part.get_filename(), part.get_content_type(), content) for part, content in found]


def errors_of(answer: requests.Response) -> dict[str, list[str]]:
    assert answer.status_code == 422, answer.text
    errors: dict[str, list[str]] = answer.json()["errors"]
    return errors


def kept(system: Running, *names: str) -> set[str]:
    """Which files of these names are kept."""
    return {row.name for row in system.sql("SELECT name FROM attachments WHERE name = ANY(:names)", names=list(names))}


@pytest.fixture(scope="module", autouse=True)
def forgotten(system: Running) -> Iterator[None]:
    """Leaves no attachments in the shared system: each later erasure would read all their megabytes."""
    yield
    system.sql("DELETE FROM attachments")


@pytest.fixture
def template(system: Running) -> str:
    """A template that says whom it is from."""
    name = f"from-{uuid4().hex}"
    fields = {"channel": "email", "subject": "Hi", "text": "{{ data | tojson }}", "html": "<b>Hi</b>"}
    senders = {"from": "Template <template@example.net>", "reply_to": "template-answers@example.net"}
    answer = system.http.put(f"{system.url}/api/v1/templates/{name}", json=fields | senders, timeout=20)
    assert answer.ok, answer.text
    return name


# Sender and answers


def test_an_email_says_whom_it_is_from(system: Running, smtp: SmtpReceiver) -> None:
    to = somebody()
    sender, answers = "Grüße von Bill <billing@example.org>", "help@example.org"
    made(system, recipient=to, channel="email", **{"from": sender, "reply_to": answers})
    mail = arrived(smtp, to)
    assert (mail["from"], mail["reply-to"]) == (sender, answers)


def test_nothing_that_a_caller_gives_is_decoded(system: Running, smtp: SmtpReceiver) -> None:
    """A text that looks like an encoded word is a text like any other: it names nobody, and begins no header."""
    word = "=?utf-8?q?a=0D=0ABcc=3Ax=40evil.example?="
    invitation = file(name="=?utf-8?q?x?=.txt", content_type="text/calendar;method=REQUEST; charset=utf-8")
    to = somebody()
    made(
        system,
        recipient=to,
        channel="email",
        **{"from": f"{word} <a@b.example>", "subject": word, "attachments": [invitation]},
    )
    arrived(smtp, to)
    [letter] = smtp.letters_to(to)
    fields, body = strict_email.head_of(letter)
    found = dict(fields)

    assert "bcc" not in found
    assert strict_email.mailbox(found["from"]) == (word, "a@b.example")
    assert strict_email.words(found["subject"]) == word
    _, part = strict_email.parts_of(found["content-type"], body)
    of_part = dict(strict_email.head_of(part)[0])
    given = {"method": "REQUEST", "charset": "utf-8"}
    assert strict_email.parameters(of_part["content-type"]) == ("text/calendar", given)
    assert strict_email.parameters(of_part["content-disposition"])[1] == {"filename": "=?utf-8?q?x?=.txt"}


@pytest.mark.parametrize("domain", ["BÜCHER.example.com", "xn--bcher-kva.example.com"])
def test_an_international_domain_is_kept_in_its_script_and_written_in_ascii(
    system: Running, smtp: SmtpReceiver, domain: str
) -> None:
    name = f"ada-{uuid4().hex}"
    row = made(system, recipient=f"{name}@{domain}", channel="email", **{"from": f"Büro <buero@{domain}>"})
    mail = arrived(smtp, f"{name}@xn--bcher-kva.example.com")

    assert mail["to"] == f"{name}@xn--bcher-kva.example.com"
    assert str(mail["from"]) == "Büro <buero@xn--bcher-kva.example.com>"
    assert reaches(system, row, "sent")["recipient"] == f"{name}@bücher.example.com"


@pytest.mark.parametrize("own", [(), ("from",), ("reply_to",), ("from", "reply_to")])
def test_its_own_go_before_the_templates(
    system: Running, smtp: SmtpReceiver, template: str, own: tuple[str, ...]
) -> None:
    to = somebody()
    given = {"from": "own@example.org", "reply_to": "own-answers@example.org"}
    fields = {name: given[name] for name in own}
    answer = post(system, recipient=to, body=None, template=template, data={"n": 1}, **fields)
    assert answer.status_code == 202, answer.text
    mail = arrived(smtp, to)
    assert mail["from"] == (given["from"] if "from" in own else "Template <template@example.net>")
    assert mail["reply-to"] == (given["reply_to"] if "reply_to" in own else "template-answers@example.net")
    text = mail.get_body(["plain"])
    assert text is not None
    assert json.loads(text.get_content()) == {"n": 1}


@pytest.mark.parametrize("field", ["from", "reply_to"])
@pytest.mark.parametrize(
    "value",
    [
        *("nobody", "a@b, c@d", "Ada <ada@example.org>\r\nBcc: x@y.test", "<>", "", "Ada\x85 <ada@example.org>"),
        *("Ada\u2028 <ada@example.org>", "Ada <=?utf-8?q?ada?=@example.org>", "=?utf-8?q?a=40b.example?="),
        *("Ada <ada@xn--a.example>", "Ada <ada@☃.example>"),
    ],
)
def test_what_is_no_mailbox_is_refused(system: Running, field: str, value: str) -> None:
    [message] = errors_of(post(system, **{field: value}))[field]
    assert "mailbox" in message
    assert message.endswith(".")


STRANGER = "CEO <ceo@your-bank.example>"


@pytest.mark.parametrize("sender", [STRANGER, "a@mail.example.org", "ceo@your-bank.example <a@example.org>"])
def test_only_senders_that_the_settings_allow_are_taken(system: Running, sender: str) -> None:
    [message] = errors_of(post(system, **{"from": sender}))["from"]
    assert "NOTIFIER_EMAIL_SENDERS" in message
    fields = {"channel": "email", "text": "x", "from": sender}
    answer = system.http.put(f"{system.url}/api/v1/templates/stranger-{uuid4().hex}", json=fields, timeout=20)
    assert errors_of(answer)["from"] == [message]
    # Answers may go anywhere.
    assert post(system, recipient=somebody(), reply_to=STRANGER).status_code == 202


def test_a_sender_that_is_allowed_no_more_sends_nothing(system: Running, smtp: SmtpReceiver, template: str) -> None:
    to = somebody()
    given = made(system, recipient=to, channel="email", send_at=ahead(seconds=60), **{"from": "a@example.org"})
    content = json.dumps({"body": "x", "from": STRANGER})
    change = "UPDATE notifications SET content = CAST(:content AS json), due_at = now() WHERE id = :id"
    system.sql(change, content=content, id=given)
    system.sql("UPDATE templates SET sender = :sender WHERE name = :name", sender=STRANGER, name=template)
    preview = system.post(f"/api/v1/templates/{template}/preview", {"data": {}})
    assert "NOTIFIER_EMAIL_SENDERS" in errors_of(preview)["from"][0]
    answer = post(system, recipient=to, body=None, template=template, data={})
    for row in (given, answer.json()["items"][0]["id"]):
        found = reaches(system, row, "failed")
        assert (found["reason"], found["attempts"]) == ("permanent_error", 0)
        assert "NOTIFIER_EMAIL_SENDERS" in found["explanation"]
    assert not smtp.mails_to(to)


@pytest.mark.parametrize(
    "given", [{"from": "a@example.org"}, {"reply_to": "a@example.org"}, {"attachments": [file()]}], ids=list
)
@pytest.mark.parametrize(
    "to",
    [
        {"channel": "sms", "recipient": "+4915112345678"},
        {"recipient": None, "channel": None, "channels": ["sms", "push"], "user_id": "u_1"},
    ],
    ids=["one", "several"],
)
def test_only_an_email_has_them(system: Running, given: dict[str, Any], to: dict[str, Any]) -> None:
    assert errors_of(post(system, **to, **given)) == {next(iter(given)): ["Only an email has it."]}


def test_other_channels_leave_them_out(system: Running, smtp: SmtpReceiver, http: HttpReceiver) -> None:
    to = somebody()
    user = {"email": to, "phone": "+4915112345678", "webhook_url": http.url("/bare")}
    user_id = f"u_{uuid4().hex}"
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}", json=user, timeout=20).ok
    fields: dict[str, Any] = {"from": "own@example.org", "reply_to": "own@example.org", "attachments": [file()]}
    answer = post(system, recipient=None, channel=None, user_id=user_id, subject="Hi", **fields)
    items = {item["channel"]: item["id"] for item in answer.json()["items"]}
    assert set(items) == {"email", "sms", "webhook"}
    for notification_id in items.values():
        reaches(system, notification_id, "sent", "delivered")
    assert len(files_of(arrived(smtp, to))) == 1
    [received] = http.received("/bare")
    assert received.json["data"] == {"subject": "Hi", "body": "Hello."}
    [(text,)] = system.sql("SELECT text FROM outbox WHERE notification_id = :id", id=items["sms"])
    assert text == "Hello."


def test_the_next_channel_has_them_still(system: Running, smtp: SmtpReceiver) -> None:
    to, user_id = somebody(), f"u_{uuid4().hex}"
    user = {"email": to, "phone": "+4915112345678"}
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}", json=user, timeout=20).ok
    off = {"channels": {"sms": False}}
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}/preferences", json=off, timeout=20).ok
    fields = {"from": "own@example.org", "attachments": [file(b"content", "next.txt")]}
    answer = post(
        system, recipient=None, channel=None, user_id=user_id, channels=["sms", "email"], strategy="first", **fields
    )
    assert answer.status_code == 202, answer.text
    mail = arrived(smtp, to)
    assert mail["from"] == "own@example.org"
    assert files_of(mail) == [("next.txt", "text/plain", b"content")]


# Files


def test_files_arrive_as_they_are(system: Running, smtp: SmtpReceiver, template: str) -> None:
    to = somebody()
    content = bytes(range(256)) * 40 + b"\r\n.\r\n"
    files = [
        file(content),
        file(b"a;b\n\n.\r\nlast", "Größe 你好 💌 'x' 100%.csv"),
        file(b"\0", "n" * 251 + ".bin", content_type="Application/vnd.own+json"),
        file(b"From: x@y.test\n\nHello\n", "mail.eml"),
        file(b"\x1f\x8b", "logs.tar.gz"),
        file(b"x", 'a"b;c=d'),
    ]
    answer = post(system, recipient=to, body=None, template=template, attachments=files)
    assert answer.status_code == 202, answer.text
    mail = arrived(smtp, to)
    assert files_of(mail) == [
        ("invoice.pdf", "application/pdf", content),
        ("Größe 你好 💌 'x' 100%.csv", "text/csv", b"a;b\n\n.\r\nlast"),
        ("n" * 251 + ".bin", "application/vnd.own+json", b"\0"),
        ("mail.eml", "application/octet-stream", b"From: x@y.test\n\nHello\n"),
        ("logs.tar.gz", "application/octet-stream", b"\x1f\x8b"),
        ('a"b;c=d', "application/octet-stream", b"x"),
    ]
    assert mail.get_content_type() == "multipart/mixed"
    html = mail.get_body(["html"])
    assert html is not None
    assert html.get_content().strip() == "<b>Hi</b>"


def test_as_much_as_there_may_be_arrives(system: Running, smtp: SmtpReceiver) -> None:
    to = somebody()
    content = os.urandom(MOST - 19)
    files = [file(content, "large"), *(file(b"x", f"small-{n}") for n in range(19))]
    # The text has its own limit, whatever goes along.
    answer = post(system, recipient=to, body="x" * 200_000, attachments=files)
    assert answer.status_code == 202, answer.text
    [item] = answer.json()["items"]
    assert "attachments" not in system.get(f"{NOTIFICATIONS}/{item['id']}").json()
    reaches(system, item["id"], "sent")
    assert [found[2] for found in files_of(arrived(smtp, to))] == [content, *[b"x"] * 19]


def test_one_byte_more_is_refused(system: Running) -> None:
    errors = errors_of(post(system, attachments=[file(b"x" * MOST), file(b"x")]))
    assert errors == {"attachments": ["More than 5242880 bytes in all, decoded."]}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attachments": [file(b"x" * (MOST + 400_000))]}, "The body is larger than"),
        ({"attachments": [file()], "data": {"x": "x" * 262_144}}, "262144 bytes, without its attachments."),
        ({"data": {"x": "x" * 262_144}}, "262144 bytes, without its attachments."),
    ],
    ids=["attachments", "the rest", "without any"],
)
def test_what_is_much_too_large_is_not_even_parsed(system: Running, fields: dict[str, Any], says: str) -> None:
    body = {"channel": "email", "recipient": somebody(), "body": "Hello.", **fields}
    answer = requests.post(system.url + NOTIFICATIONS, json=body, timeout=20)  # a connection that is of no more use
    assert answer.status_code == 413
    assert says in answer.json()["detail"]
    assert answer.headers["connection"] == "close"


BROKEN = "Not base64: A-Z, a-z, 0-9, + and /, padded with =, without line breaks."
EMPTY = "Nothing is in it: write the file's bytes in base64."
NO_TYPE = "Not the type of a file: write type/subtype, such as application/pdf."
NO_PARAMETER = "A parameter of the type is not name=value, short and in ASCII."
TWICE = "The type has a parameter twice, or more than 8."
NOT_OWN = "The type has a parameter that is not a file's own, such as name."


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"content": "===="}, "content", BROKEN),
        ({"content": "QUI"}, "content", BROKEN),
        ({"content": "QUJD\nQUJD"}, "content", BROKEN),
        ({"content": "QUJ_"}, "content", BROKEN),
        ({"content": "QUI=QUI="}, "content", BROKEN),
        ({"content": "größe"}, "content", BROKEN),
        ({"content": ""}, "content", EMPTY),
        ({"content": 5}, "content", EMPTY),
        ({"name": ""}, "name", "Length must be between 1 and 255."),
        ({"name": "x" * 256}, "name", "Length must be between 1 and 255."),
        ({"name": "../etc/passwd"}, "name", "A name may not contain path separators."),
        ({"name": "C:\\x"}, "name", "A name may not contain path separators."),
        ({"name": "a\r\nb"}, "name", "A name may not contain control characters."),
        ({"name": "a\u2028b"}, "name", "A name may not contain control characters."),
        ({"content_type": "pdf"}, "content_type", NO_TYPE),
        ({"content_type": "multipart/mixed; boundary=x"}, "content_type", NO_TYPE),
        ({"content_type": "text/plain;"}, "content_type", NO_PARAMETER),
        ({"content_type": "text/plain" + " " * 200_000 + "x"}, "content_type", NO_TYPE),
        ({"content_type": "text/plain; charset"}, "content_type", NO_PARAMETER),
        ({"content_type": 'text/plain; a="b'}, "content_type", NO_PARAMETER),
        ({"content_type": "text/plain; a=b\r\nBcc: x@y.test"}, "content_type", NO_PARAMETER),
        ({"content_type": "text/plain; a=\u2028"}, "content_type", NO_PARAMETER),
        ({"content_type": "text/plain; a==?utf-8?q?b?="}, "content_type", NO_PARAMETER),
        ({"content_type": "text/plain; name*=utf-8''b"}, "content_type", NO_PARAMETER),
        ({"content_type": "text/plain; a=1; A=2"}, "content_type", TWICE),
        ({"content_type": "text/plain; Name=virus.exe"}, "content_type", NOT_OWN),
        ({"content_type": "a/b\r\nX: y"}, "content_type", NO_TYPE),
        ({"content_type": "Multipart/mixed"}, "content_type", NO_TYPE),
        ({"size": 5}, "size", "Unknown field."),
    ],
)
def test_what_is_wrong_with_a_file_is_said_of_it(system: Running, wrong: dict[str, Any], field: str, says: str) -> None:
    assert errors_of(post(system, attachments=[file(), file() | wrong])) == {f"attachments.1.{field}": [says]}


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["NUL", "half a pair"])
def test_what_is_no_text_is_no_name(system: Running, name: str) -> None:
    assert set(errors_of(post(system, attachments=[file(name=name)]))) == {"attachments"}


def test_there_are_not_too_many(system: Running) -> None:
    assert errors_of(post(system, attachments=[file()] * 21)) == {"attachments": ["Longer than maximum length 20."]}


def test_a_key_stands_for_the_files_too(system: Running, smtp: SmtpReceiver) -> None:
    to = somebody()
    one, other = f"one-{uuid4().hex}", f"other-{uuid4().hex}"
    fields: dict[str, Any] = {"recipient": to, "idempotency_key": uuid4().hex}
    first = post(system, **fields, attachments=[file(b"one", one)])
    again = post(system, **fields, attachments=[file(b"one", one)])
    assert [answer.json()["items"][0]["id"] for answer in (first, again)] == [first.json()["items"][0]["id"]] * 2
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "idempotency_key" in errors_of(post(system, **fields, attachments=[file(b"two", one)]))
    assert "idempotency_key" in errors_of(post(system, **fields, attachments=[file(b"one", other)]))
    # A file that was written for nothing is gone again, and nothing else is.
    assert len(system.sql("SELECT FROM attachments WHERE name = :name", name=one)) == 1
    assert kept(system, other) == set()
    assert files_of(arrived(smtp, to)) == [(one, "application/octet-stream", b"one")]


def test_a_file_that_is_gone_is_a_dead_letter(system: Running, smtp: SmtpReceiver) -> None:
    to, name = somebody(), uuid4().hex
    answer = post(system, recipient=to, attachments=[file(name=name)], send_at="2035-01-01T00:00:00Z")
    [item] = answer.json()["items"]
    system.sql("DELETE FROM attachments WHERE name = :name", name=name)
    moved = system.http.patch(f"{system.url}{NOTIFICATIONS}/{item['id']}", json={"send_at": None}, timeout=20)
    assert moved.ok, moved.text
    found = reaches(system, item["id"], "failed")
    assert smtp.mails_to(to) == []
    letters = system.get("/api/v1/dead-letters").json()["items"]
    [letter] = [letter for letter in letters if letter["notification_id"] == found["id"]]
    assert letter["error"] == "attachment: it is gone"


def test_an_erased_users_files_are_erased(system: Running) -> None:
    user_id, own, others = f"u_{uuid4().hex}", uuid4().hex, uuid4().hex
    assert system.http.put(f"{system.url}/api/v1/users/{user_id}", json={"email": somebody()}, timeout=20).ok
    sent = post(system, recipient=None, user_id=user_id, attachments=[file(name=own)]).json()["items"][0]["id"]
    reaches(system, sent, "sent")
    post(system, attachments=[file(name=others)])
    post(system, recipient=None, user_id=user_id)
    assert kept(system, own, others) == {own, others}
    assert system.http.delete(f"{system.url}/api/v1/users/{user_id}", timeout=20).status_code == 204
    assert kept(system, own, others) == {others}


def test_many_at_once_all_arrive(system: Running, smtp: SmtpReceiver) -> None:
    """More than may be under way at once in a batch."""
    tos = [somebody() for _ in range(12)]
    content = os.urandom(1024 * 1024)
    for to in tos:
        assert post(system, recipient=to, attachments=[file(content)]).status_code == 202
    for to in tos:
        assert files_of(arrived(smtp, to)) == [("invoice.pdf", "application/pdf", content)]


# Where they are kept


def test_files_are_kept_by_their_ids(engine: Engine) -> None:
    files = [Attachment("one", "a/b", b"\0one"), Attachment("two", "c/d", b"two")]
    first, second = attachments.store(engine, files)
    assert first < second
    with engine.connect() as connection:
        assert attachments.sizes(connection, {first, second, UUID(int=0)}) == {first: 4, second: 3}
        assert attachments.load(connection, {second, UUID(int=0)}) == {second: files[1]}
        assert attachments.load(connection, ()) == attachments.sizes(connection, ()) == {}
    attachments.drop(engine, [first])
    with engine.connect() as connection:
        assert set(attachments.sizes(connection, {first, second})) == {second}
    assert attachments.store(engine, ()) == []
    assert "one" not in repr(files[0]).partition("name=")[2].partition(",")[2]
