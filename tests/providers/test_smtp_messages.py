"""Email over SMTP: the message that a server receives."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from notifier.providers.protocol import Attachment, Outcome
from tests.providers import receivers
from tests.providers.receivers import MailServer
from tests.providers.smtp_calls import Make, mail_of, making, message_to, parsed, post, send


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


# The message


def test_an_email_says_who_what_and_when(make: Make) -> None:
    message = message_to(html="<p>Hello, Ada.</p>")
    with receivers.mail() as (port, mailbox):
        provider = make(port)
        before = datetime.now(UTC)
        result = post(provider, message)
        provider.close()

    [envelope] = mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("notifier@example.com", ["ada@example.org"])
    mail = parsed(envelope)
    assert mail["from"] == "Notifier <notifier@example.com>"
    assert mail["to"] == "ada@example.org"
    assert mail["subject"] == "Hello"
    assert mail["message-id"] == f"<{message.id}@example.com>"
    assert mail["auto-submitted"] == "auto-generated"
    assert abs(mail["date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    text, html = mail.get_body(["plain"]), mail.get_body(["html"])
    assert text is not None
    assert html is not None
    assert text.get_content() == "Hello, Ada.\n"
    assert html.get_content() == "<p>Hello, Ada.</p>\n"
    assert (result.id, result.outcome, result.provider) == (message.id, Outcome.ACCEPTED, "smtp")
    assert (result.status_code, result.error, result.response_excerpt) == (250, None, "taken")
    assert before <= result.started_at <= datetime.now(UTC)
    assert 0 < result.duration_ms < 10_000


def test_without_html_it_is_plain_text_and_without_subject_it_has_none(make: Make) -> None:
    mail = mail_of(make, message_to(subject=None))

    assert mail.get_content_type() == "text/plain"
    assert mail["subject"] is None


def test_text_of_any_kind_arrives_as_it_is(make: Make) -> None:
    text = "Jörg 💌\n.\n..dots\nQUIT\n" + "long " * 1000 + "\nunbroken" + "x" * 5000 + "\nend\n"
    mail = mail_of(make, message_to(text=text))

    assert mail.get_content() == text


FILES = (
    Attachment("Größe 你好 💌.pdf", "application/pdf", bytes(range(256)) * 9 + b"\r\n.\r\n"),
    Attachment("n" * 255, "text/plain", b".\n..\nno line end, \xfc"),
    # A file that looks like a part of the letter itself is a file like any other.
    Attachment("letter.eml", "message/rfc822", b"Subject: x\n\nHello"),
    Attachment("parts", "Multipart/mixed", b"--x--"),
    Attachment("empty", "application/octet-stream", b""),
)


@pytest.mark.parametrize("recipient", ["ada@example.org", "jörg@example.org"])
@pytest.mark.parametrize("html", [None, "<p>Hello</p>"], ids=["text", "html"])
def test_files_go_along(make: Make, recipient: str, html: str | None) -> None:
    mail = mail_of(make, message_to(recipient, html=html, attachments=FILES))

    assert mail.get_content_type() == "multipart/mixed"
    [body, *parts] = mail.iter_parts()
    assert body.get_content_type() == ("multipart/alternative" if html else "text/plain")
    text = mail.get_body(["plain"])
    assert text is not None
    assert text.get_content() == "Hello, Ada.\n"
    found = [(part.get_filename(), part.get_payload(decode=True)) for part in parts]
    assert found == [(file.name, file.content) for file in FILES]
    plain = "application/octet-stream"
    assert [part.get_content_type() for part in parts] == ["application/pdf", "text/plain", plain, plain, plain]
    assert all(part.get_content_disposition() == "attachment" for part in parts)
    assert mail.defects == [] == [defect for part in mail.walk() for defect in part.defects]


@pytest.mark.parametrize(
    "subject",
    [
        "Grüße an Jörg 💌 " * 20,
        "plain words " * 40,
        "x" * 3000,
        "a=b =?utf-8?q?not_encoded?= c",
        "ü",
        "two  spaces",
        "   ",
    ],
)
def test_a_subject_of_any_kind_arrives_as_it_is(make: Make, subject: str) -> None:
    assert mail_of(make, message_to(subject=subject))["subject"] == " ".join(subject.split())


@pytest.mark.parametrize("text", ["a\rb\r.\rc\n.\n" + "x" * 5000, "Jörg 💌", "\r", ""])
def test_no_line_is_too_long_none_ends_barely_and_all_is_ascii(make: Make, text: str) -> None:
    """RFC 5321, section 4.5.3.1.6: a thousand characters; section 2.3.8: CR and LF only together."""
    with receivers.mail() as (port, mailbox):
        provider = make(port)
        post(provider, message_to(text=text, html=text, subject="y" * 900))
        provider.close()

    content = mailbox.envelopes[0].content
    assert isinstance(content, bytes)
    lines = content.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert content.isascii()


@pytest.mark.parametrize("breaks", ["\r\n", "\n", "\r", "\n\n", "\x0b", "\x0c", "\x85", "\u2028", "\0"])
def test_a_subject_cannot_begin_another_header(make: Make, breaks: str) -> None:
    mail = mail_of(make, message_to(subject=f"Hello{breaks}Bcc: eve@example.net{breaks}{breaks}Body"))

    assert mail["bcc"] is None
    assert mail["subject"] == "Hello Bcc: eve@example.net Body"
    assert mail.get_content() == "Hello, Ada.\n"


def test_every_attempt_carries_the_same_message_id(make: Make) -> None:
    message = message_to()
    with receivers.mail() as (port, mailbox):
        provider = make(port)
        send(provider, message)
        send(provider, message)
        provider.close()

    first, second = map(parsed, mailbox.envelopes)
    assert first["message-id"] == second["message-id"]


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@example.org, eve@example.net",
        "ada@example.org\r\nRCPT TO:<eve@example.net>",
        "Ada <ada@example.org>",
        "<ada@example.org>",
        "ada @example.org",
        "ada@example.org>",
        "ada@example.org\0",
        "ada@eve@example.org",
        "=?utf-8?q?ada?=@example.org",
        "ada@xn--a.example.org",
    ],
)
def test_what_is_no_mailbox_is_rejected_before_any_server_hears_of_it(make: Make, recipient: str) -> None:
    with receivers.listening(MailServer().talk) as server:
        result = post(make(server.port), message_to(recipient))

        assert server.connections == 0
    assert (result.outcome, result.error) == (Outcome.REJECTED, "address: not a mailbox")


def test_text_that_cannot_be_encoded_is_rejected(make: Make) -> None:
    result = post(make(receivers.unused_port()), message_to(text="\ud800"))

    assert (result.outcome, result.error) == (Outcome.REJECTED, "message: UnicodeEncodeError")


@pytest.mark.parametrize("field", ["recipient", "sender", "reply_to"])
def test_a_local_part_beyond_ascii_needs_a_server_that_takes_it(make: Make, field: str) -> None:
    fields = {field: "jörg@bücher.example"}
    with receivers.mail(enable_SMTPUTF8=False) as (port, mailbox):
        provider = make(port)
        refused = post(provider, message_to(**fields))
        other = post(provider)
        provider.close()

    assert refused.outcome is Outcome.REJECTED
    assert refused.error == "address: international, and the server does not offer SMTPUTF8"
    assert other.outcome is Outcome.ACCEPTED
    with receivers.mail(enable_SMTPUTF8=True) as (port, mailbox):
        provider = make(port)
        international, plain = message_to(**fields), message_to("plain@example.org")
        taken = send(provider, international, plain)
        provider.close()

    assert {result.outcome for result in taken} == {Outcome.ACCEPTED}
    [envelope] = [envelope for envelope in mailbox.envelopes if envelope.rcpt_tos != ["plain@example.org"]]
    assert envelope.smtp_utf8
    address = "jörg@xn--bcher-kva.example"
    assert (envelope.mail_from, envelope.rcpt_tos) == (
        address if field == "sender" else "notifier@example.com",
        [address if field == "recipient" else "ada@example.org"],
    )
    assert isinstance(envelope.content, bytes)
    name = {"recipient": "To", "sender": "From", "reply_to": "Reply-To"}[field]
    assert f"{name}: {address}\r\n".encode() in envelope.content


@pytest.mark.parametrize("domain", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"])
def test_an_international_domain_goes_through_every_server_in_ascii(make: Make, domain: str) -> None:
    message = message_to(f"ada@{domain}", sender=f"Büro <buero@{domain}>", reply_to=f"help@{domain}")
    with receivers.mail(enable_SMTPUTF8=False) as (port, mailbox):
        provider = make(port)
        own = make(port, sender=f"Notifier <notifier@{domain}>")
        assert [post(provider, message).outcome, post(own).outcome] == [Outcome.ACCEPTED] * 2
        provider.close()
        own.close()

    first, second = mailbox.envelopes
    assert (first.mail_from, first.rcpt_tos) == ("buero@xn--bcher-kva.example", ["ada@xn--bcher-kva.example"])
    assert second.mail_from == "notifier@xn--bcher-kva.example"
    mail = parsed(first)
    assert str(mail["from"]) == "Büro <buero@xn--bcher-kva.example>"
    assert (mail["to"], mail["reply-to"]) == ("ada@xn--bcher-kva.example", "help@xn--bcher-kva.example")
    assert mail["message-id"] == f"<{message.id}@xn--bcher-kva.example>"
    for envelope in mailbox.envelopes:
        assert isinstance(envelope.content, bytes)
        assert envelope.content.isascii()
