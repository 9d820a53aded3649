"""Email over real sockets: what is written, what each reply comes to, and what no server can make us do."""

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.protocol import EXCERPT, Attachment, Fault, Message, Outcome, Result
from notifier.providers.vendors import smtp
from notifier.providers.vendors.smtp import Smtp
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import MailServer, in_turn

Make = Callable[..., Smtp]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a provider for a port of 127.0.0.1; all are closed at the end."""
    with ExitStack() as stack:

        def to(port: int, **options: Any) -> Smtp:
            defaults = {
                "host": "127.0.0.1",
                "tls": "none",
                "sender": "Notifier <notifier@example.com>",
                "timeout": 10.0,
            }
            provider = Smtp(port=port, **(defaults | options))
            stack.callback(provider.close)
            return provider

        yield to


def message_to(recipient: str = "ada@example.org", **fields: Any) -> Message:
    return Message(**({"id": uuid4(), "recipient": recipient, "subject": "Hello", "text": "Hello, Ada."} | fields))


def send(provider: Smtp, *messages: Message) -> list[Result]:
    return list(itertools.chain.from_iterable(provider.send(iter(messages))))


def post(provider: Smtp, message: Message | None = None) -> Result:
    [result] = send(provider, message or message_to())
    return result


def parsed(envelope: Envelope) -> EmailMessage:
    assert isinstance(envelope.content, bytes)
    mail = message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def mail_of(make: Make, message: Message, **options: Any) -> EmailMessage:
    """The message as a server receives it."""
    with receivers.mail() as (port, mailbox):
        provider = make(port, **options)
        assert post(provider, message).outcome is Outcome.ACCEPTED
        provider.close()
    [envelope] = mailbox.envelopes
    return parsed(envelope)


# What is written


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
    # What would be a part of the letter itself is a file like any other.
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


# Encryption and login


@pytest.fixture
def certificate(tmp_path: Path) -> receivers.Certificate:
    return receivers.certificate(tmp_path)


@pytest.mark.parametrize(("tls", "secured"), [("none", False), ("starttls", True), ("required", True)])
def test_starttls_is_used_where_it_is_offered(
    make: Make, certificate: receivers.Certificate, tls: str, secured: bool
) -> None:
    with receivers.mail(tls_context=certificate.server_context()) as (port, mailbox):
        provider = make(port, tls=tls, tls_context=certificate.client_context())
        assert [result.outcome for result in send(provider, message_to(), message_to())] == [Outcome.ACCEPTED] * 2
        provider.close()

    assert mailbox.secured == [secured, secured]


def test_starttls_is_done_without_where_it_is_not_offered_unless_required(make: Make) -> None:
    with receivers.mail() as (port, mailbox):
        opportunistic, strict = make(port, tls="starttls"), make(port, tls="required")
        assert post(opportunistic).outcome is Outcome.ACCEPTED
        refused = post(strict)
        opportunistic.close()

    assert refused.outcome is Outcome.UNSENT
    assert refused.error is not None
    assert "STARTTLS" in refused.error
    assert len(mailbox.envelopes) == 1


def test_implicit_tls_speaks_it_from_the_first_byte(make: Make, certificate: receivers.Certificate) -> None:
    with receivers.mail(ssl_context=certificate.server_context()) as (port, mailbox):
        provider = make(port, tls="implicit", tls_context=certificate.client_context())
        assert [result.outcome for result in send(provider, message_to(), message_to())] == [Outcome.ACCEPTED] * 2
        provider.close()

    assert len(mailbox.envelopes) == 2


@pytest.mark.parametrize("tls", ["starttls", "required"])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    make: Make, certificate: receivers.Certificate, tls: str
) -> None:
    with receivers.mail(tls_context=certificate.server_context()) as (port, mailbox):
        stranger = post(make(port, tls=tls))
        misnamed = post(make(port, tls=tls, host="localhost", tls_context=certificate.client_context()))

    assert (stranger.outcome, misnamed.outcome) == (Outcome.UNSENT, Outcome.UNSENT)
    assert stranger.error is not None
    assert stranger.error.startswith("tls: self-signed certificate")
    assert misnamed.error is not None
    assert misnamed.error.startswith("tls: Hostname mismatch")
    assert mailbox.envelopes == []


def test_implicit_tls_to_a_plain_port_is_unsent(make: Make) -> None:
    with receivers.listening(MailServer().talk) as server:
        result = post(make(server.port, tls="implicit"))

    assert result.outcome is Outcome.UNSENT
    assert result.error is not None
    assert result.error.startswith("tls: ")


def login(_server: object, _session: object, _envelope: object, mechanism: str, data: object) -> AuthResult:
    expected = LoginPassword(b"user@example.com", b"p:w/@ %")
    return AuthResult(success=mechanism in {"LOGIN", "PLAIN"} and data == expected, handled=False)


def test_it_logs_in_with_what_the_dsn_says(make: Make, certificate: receivers.Certificate) -> None:
    options = {"authenticator": login, "auth_required": True, "tls_context": certificate.server_context()}
    with receivers.mail(**options) as (port, mailbox):
        right = make(
            port,
            tls="required",
            tls_context=certificate.client_context(),
            username="user@example.com",
            password="p:w/@ %",
        )
        wrong = make(
            port,
            tls="required",
            tls_context=certificate.client_context(),
            username="user@example.com",
            password="hunter2",
        )
        without = make(port, tls="required", tls_context=certificate.client_context())
        accepted, refused, anonymous = post(right), post(wrong), post(without)
        for provider in (right, without):
            provider.close()

    assert accepted.outcome is Outcome.ACCEPTED
    # Whoever's fault it is, it is not the recipient's.
    assert (refused.outcome, refused.status_code, refused.error) == (Outcome.UNSENT, 535, "auth: smtp 535")
    assert "hunter2" not in f"{refused}{wrong.server}"
    assert (anonymous.outcome, anonymous.status_code) == (Outcome.UNSENT, 530)
    assert len(mailbox.envelopes) == 1


@pytest.mark.parametrize(("tls", "error"), [("starttls", "offers no TLS"), ("required", "STARTTLS")])
def test_no_login_is_sent_where_others_can_read_it(make: Make, tls: str, error: str) -> None:
    """Nor where the offer of TLS was struck out on the way, or a server knows no more than HELO."""
    for replies in (
        {"EHLO": b"250-here\r\n250 AUTH PLAIN LOGIN"},
        {"EHLO": b"250-here\r\n250-XXXXXXXA\r\n250 AUTH PLAIN"},
        {"EHLO": b"502 what", "HELO": b"250 here"},
    ):
        server = receivers.MailServer({**replies, "AUTH": b"235 welcome"})
        with receivers.listening(server.talk) as listening:
            result = post(make(listening.port, tls=tls, username="user", password="hunter2"))
        assert (result.outcome, result.fault) == (Outcome.UNSENT, Fault.PROVIDER)
        assert result.error is not None
        assert error in result.error
        assert {line.split()[0] for line in server.heard} <= {"EHLO", "HELO", "QUIT", "STARTTLS"}


def test_a_login_without_tls_is_sent_where_that_is_wanted(make: Make) -> None:
    server = receivers.MailServer({"EHLO": b"250-here\r\n250 AUTH PLAIN", "AUTH": b"235 welcome"})
    with receivers.listening(server.talk) as listening:
        provider = make(listening.port, tls="none", username="user", password="hunter2")
        assert post(provider).outcome is Outcome.ACCEPTED
        provider.close()


def test_a_server_that_offers_no_login_is_unsent(make: Make) -> None:
    with receivers.mail() as (port, _):
        result = post(make(port, username="user", password="hunter2"))

    assert result.outcome is Outcome.UNSENT
    assert result.error is not None
    assert "AUTH" in result.error


# Replies

STAGES = ["banner", "EHLO", "MAIL", "RCPT", "DATA", "message"]


@pytest.mark.parametrize(
    ("stage", "reply", "outcome", "fault"),
    [
        ("banner", b"554 go away", Outcome.UNSENT, Fault.PROVIDER),
        ("banner", b"421 busy", Outcome.UNSENT, Fault.PROVIDER),
        ("banner", b"200 what", Outcome.UNSENT, Fault.PROVIDER),
        ("MAIL", b"550 no", Outcome.REJECTED, None),
        ("MAIL", b"451 later", Outcome.UNSENT, None),
        ("MAIL", b"421 closing", Outcome.UNSENT, Fault.PROVIDER),
        ("MAIL", b"530 log in", Outcome.UNSENT, Fault.PROVIDER),
        ("MAIL", b"535 log in better", Outcome.UNSENT, Fault.PROVIDER),
        ("RCPT", b"550 unknown", Outcome.REJECTED, Fault.RECIPIENT),
        ("RCPT", b"550 5.1.1 unknown", Outcome.REJECTED, Fault.RECIPIENT),
        ("RCPT", b"550 5.7.1 no relaying", Outcome.REJECTED, None),
        ("RCPT", b"553 no", Outcome.REJECTED, Fault.RECIPIENT),
        ("RCPT", b"554 no", Outcome.REJECTED, None),
        ("RCPT", b"450 greylisted", Outcome.UNSENT, None),
        ("RCPT", b"421 closing", Outcome.UNSENT, Fault.PROVIDER),
        ("RCPT", b"538 encrypt", Outcome.UNSENT, Fault.PROVIDER),
        ("DATA", b"554 no", Outcome.REJECTED, None),
        ("DATA", b"451 later", Outcome.UNSENT, None),
        ("message", b"552 too large", Outcome.REJECTED, None),
        ("message", b"554 spam", Outcome.REJECTED, None),
        ("message", b"452 disk full", Outcome.UNSENT, None),
        ("message", b"421 closing", Outcome.UNSENT, Fault.PROVIDER),
    ],
)
def test_the_outcome_of_a_refusal(make: Make, stage: str, reply: bytes, outcome: Outcome, fault: Fault | None) -> None:
    with receivers.listening(MailServer({stage: reply}).talk) as server:
        result = post(make(server.port))

    code, text = reply.decode().split(" ", 1)
    assert (result.outcome, result.status_code, result.fault) == (outcome, int(code), fault)
    assert result.error is not None
    assert result.error.startswith(f"smtp {code}")
    assert result.response_excerpt == text


@pytest.mark.parametrize("reply", [b"hello", b"\xff\xfe", b"", b"999 what", b"354 go on"])
def test_a_reply_to_the_message_that_is_none_is_ambiguous(make: Make, reply: bytes) -> None:
    with receivers.listening(MailServer({"message": lambda c: c.sendall(reply + b"\r\n")}).talk) as server:
        result = post(make(server.port))

    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "answer: not SMTP, to the message"


@pytest.mark.parametrize("stage", STAGES)
def test_a_connection_that_closes_is_ambiguous_only_after_the_dot(make: Make, stage: str) -> None:
    with receivers.listening(MailServer({stage: b""}).talk) as server:
        result = post(make(server.port))

    assert result.outcome is (Outcome.AMBIGUOUS if stage == "message" else Outcome.UNSENT)
    assert result.fault is Fault.PROVIDER
    assert result.error == "reset: the server closed the connection"
    assert result.status_code is None


def test_a_connection_that_closes_in_the_middle_of_the_message_is_unsent(make: Make) -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.sendall(b"354 go on\r\n")
        connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing is a reset
        raise OSError

    with receivers.listening(MailServer({"DATA": hang_up}).talk) as server:
        result = post(make(server.port), message_to(text="x" * 20_000_000))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "reset: the server closed the connection")


def test_a_long_reply_is_cut(make: Make) -> None:
    lines = b"\r\n".join(b"550-" + b"x" * 500 for _ in range(10)) + b"\r\n550 \0end"
    with receivers.listening(MailServer({"RCPT": lines}).talk) as server:
        result = post(make(server.port))

    assert result.response_excerpt is not None
    assert len(result.response_excerpt) <= EXCERPT


# Deadlines

#: The deadline of half a second has held where less than this many milliseconds have passed. What else would end a
#: connection, a timeout of its own for each step, comes later.
LATE = 3_000


@pytest.mark.parametrize("stage", STAGES)
def test_silence_ends_at_the_deadline(make: Make, stage: str) -> None:
    with receivers.listening(MailServer({stage: None}).talk) as server:
        yields = list(make(server.port, timeout=0.5).send(iter([message_to()])))

    [result] = itertools.chain.from_iterable(yields)
    assert result.outcome is (Outcome.AMBIGUOUS if stage == "message" else Outcome.UNSENT)
    assert (result.error, result.status_code) == ("timeout: no answer within 0.5 s", None)
    assert result.fault is Fault.PROVIDER
    assert 490 <= result.duration_ms < LATE
    assert len(yields) >= 4  # the caller had its turn while nothing happened


@pytest.mark.parametrize("stage", STAGES)
def test_a_dripping_reply_cannot_extend_the_deadline(make: Make, stage: str) -> None:
    dripping = MailServer({stage: lambda connection: receivers.drip(connection, b"250-going on\r\n")})
    with receivers.listening(dripping.talk) as server:
        result = post(make(server.port, timeout=0.5))

    assert result.outcome is (Outcome.AMBIGUOUS if stage == "message" else Outcome.UNSENT)
    assert result.error == "timeout: no answer within 0.5 s"
    assert result.duration_ms < LATE


def test_a_server_that_does_not_read_the_message_is_unsent(make: Make) -> None:
    stop = threading.Event()

    def go_on_and_leave(connection: socket.socket) -> None:
        connection.sendall(b"354 go on\r\n")
        stop.wait(timeout=10)

    with receivers.listening(MailServer({"DATA": go_on_and_leave}).talk) as server:
        result = post(make(server.port, timeout=0.5), message_to(text="x" * 20_000_000))
        stop.set()

    assert (result.outcome, result.error) == (Outcome.UNSENT, "timeout: no answer within 0.5 s")


@pytest.mark.parametrize("tls", ["implicit", "required"])
def test_a_handshake_cannot_extend_the_deadline(make: Make, tls: str) -> None:
    """A TLS record of 16 KiB that is announced and never ends."""

    def drip(connection: socket.socket) -> None:
        receivers.drip(connection, b"\x16\x03\x03\x40\x00" + bytes(100))

    def starttls(connection: socket.socket) -> None:
        connection.sendall(b"220 go on\r\n")
        drip(connection)

    plain = MailServer({"EHLO": b"250-here\r\n250 STARTTLS", "STARTTLS": starttls})
    with receivers.listening(drip if tls == "implicit" else plain.talk) as server:
        result = post(make(server.port, tls=tls, timeout=0.5))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "timeout: no answer within 0.5 s")
    assert result.duration_ms < LATE


def test_a_connection_that_is_never_made_is_unsent(make: Make) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # nobody accepts; once the queue is full, further connections hang
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        result = post(make(full.getsockname()[1], timeout=0.5))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "timeout: no answer within 0.5 s")
    assert result.duration_ms < LATE


def test_a_refused_connection_is_unsent(make: Make) -> None:
    result = post(make(receivers.unused_port()))

    assert (result.outcome, result.error) == (Outcome.UNSENT, "refused: connection refused")
    assert result.fault is Fault.PROVIDER


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70 + ".invalid"])
def test_a_server_whose_name_does_not_resolve_is_unsent(make: Make, host: str) -> None:
    result = post(make(25, host=host))

    assert result.outcome is Outcome.UNSENT
    assert result.error in {"dns: the server's name does not resolve", "connect: UnicodeError"}


# Connections


def test_a_connection_is_used_again(make: Make) -> None:
    mail = MailServer()
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        send(provider, message_to(), message_to())
        post(provider)
        provider.close()

        assert server.connections == 1
    verbs = [command.split(" ")[0] for command in mail.heard]
    assert verbs == ["EHLO", *["MAIL", "RCPT", "DATA"] * 3, "QUIT"]


def test_a_kept_connection_that_has_closed_is_replaced(make: Make) -> None:
    mail = MailServer({"message": lambda c: (c.sendall(b"250 taken\r\n"), c.shutdown(socket.SHUT_RDWR))[0]})
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        results = [post(provider) for _ in range(3)]

        assert server.connections == 3
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 3


def test_a_kept_connection_that_the_server_wants_to_close_is_replaced(make: Make) -> None:
    mail = MailServer({"MAIL": in_turn(b"250 ok", b"421 that was enough", b"250 ok")})
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        assert [result.outcome for result in send(provider, message_to(), message_to())] == [Outcome.ACCEPTED] * 2
        assert server.connections == 2


def test_a_kept_connection_is_replaced_once_only(make: Make) -> None:
    mail = MailServer({"MAIL": in_turn(b"250 ok", b"421 enough", b"421 enough", b"250 too late")})
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        assert post(provider).outcome is Outcome.ACCEPTED
        again = post(provider)

        assert server.connections == 2
    assert (again.outcome, again.status_code) == (Outcome.UNSENT, 421)


@pytest.mark.parametrize(("reply", "outcome"), [(b"hello?", Outcome.AMBIGUOUS), (b"421 closing", Outcome.UNSENT)])
def test_a_message_that_went_out_over_a_kept_connection_is_not_sent_again(
    make: Make, reply: bytes, outcome: Outcome
) -> None:
    mail = MailServer({"message": in_turn(b"250 taken", reply)})
    with receivers.listening(mail.talk) as server:
        provider = make(server.port, connections=1)
        assert post(provider).outcome is Outcome.ACCEPTED
        assert post(provider).outcome is outcome
        assert server.connections == 1


def test_a_connection_left_idle_is_not_trusted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "_IDLE", 0.0)
    with receivers.listening(MailServer().talk) as server:
        provider = make(server.port, connections=1)
        assert {post(provider).outcome for _ in range(2)} == {Outcome.ACCEPTED}
        assert server.connections == 2


def test_a_refused_recipient_does_not_spoil_the_connection(make: Make) -> None:
    mail = MailServer({"RCPT": in_turn(b"550 unknown", b"250 ok")})
    with receivers.listening(mail.talk) as server:
        results = send(make(server.port, connections=1), message_to(), message_to())

        assert server.connections == 1
    assert [result.outcome for result in results] == [Outcome.REJECTED, Outcome.ACCEPTED]
    verbs = [command.split(" ")[0] for command in mail.heard]
    assert verbs[:7] == ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]


def test_a_connection_that_cannot_be_reset_is_replaced(make: Make) -> None:
    mail = MailServer({"RCPT": in_turn(b"550 unknown", b"250 ok"), "RSET": b"500 what"})
    with receivers.listening(mail.talk) as server:
        results = send(make(server.port, connections=1), message_to(), message_to())

        assert server.connections == 2
    assert [result.outcome for result in results] == [Outcome.REJECTED, Outcome.ACCEPTED]


def test_no_more_messages_are_taken_than_can_begin_and_those_go_at_once(make: Make) -> None:
    everyone_is_here = threading.Barrier(4)
    taken: list[object] = []

    def wait(connection: socket.socket) -> None:
        everyone_is_here.wait(timeout=10)
        connection.sendall(b"250 taken\r\n")

    def messages() -> Iterator[Message]:
        for _ in range(6):
            taken.append(message := message_to())
            yield message

    with receivers.listening(MailServer({"message": wait}).talk) as server:
        sending = make(server.port, connections=3).send(messages())
        results: list[Result] = []
        for round_ in (1, 2):
            while everyone_is_here.n_waiting < 3:
                results += next(sending)
            assert len(taken) == 3 * round_
            everyone_is_here.wait(timeout=10)
        results += itertools.chain.from_iterable(sending)

        assert server.connections == 3
    assert {result.id for result in results} == {message.id for message in taken}
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}


def test_many_threads_share_a_provider(make: Make) -> None:
    results: list[Result] = []
    with receivers.mail() as (port, mailbox):
        provider = make(port, connections=4)
        threads = [
            threading.Thread(target=lambda: results.extend(send(provider, *(message_to() for _ in range(20)))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        provider.close()

    assert len({result.id for result in results}) == 60
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert len({parsed(envelope)["message-id"] for envelope in mailbox.envelopes}) == 60
    assert len(mailbox.peers) <= 12


def test_what_is_in_flight_when_the_caller_leaves_is_dropped(make: Make) -> None:
    left = threading.Semaphore(0)

    def hang(connection: socket.socket) -> None:
        receivers.until_closed(connection)
        left.release()

    before = set(threading.enumerate())
    with receivers.listening(MailServer({"MAIL": hang}).talk) as server:
        sending = make(server.port, connections=3).send(message_to() for _ in range(5))
        while server.connections < 3:
            next(sending)
        sending.close()  # type: ignore[attr-defined]  # a generator, as the protocol asks
        for _ in range(3):
            assert left.acquire(timeout=10)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_an_error_of_the_callers_messages_reaches_the_caller(make: Make) -> None:
    def messages() -> Iterator[Message]:
        yield message_to()
        raise LookupError("the caller's own")

    with receivers.listening(MailServer().talk) as server:
        provider = make(server.port)
        with pytest.raises(LookupError, match="the caller's own"):
            list(provider.send(messages()))
        assert post(provider).outcome is Outcome.ACCEPTED


# The DSN


def from_dsn(dsn: str, *, sender: str, timeout: float) -> Smtp:
    engine = create_engine("postgresql+psycopg2://")
    provider = registry.make(dsn, Context(Channel.EMAIL, timeout, sender, "http://localhost", (), engine))
    assert isinstance(provider, Smtp)
    return provider


@pytest.mark.parametrize(
    ("dsn", "host", "port", "tls"),
    [
        ("smtp://mail.example.com", "mail.example.com", 587, "starttls"),
        ("smtp://mail.example.com:25?tls=none", "mail.example.com", 25, "none"),
        ("smtp://mail.example.com/?tls=required", "mail.example.com", 587, "required"),
        ("smtps://mail.example.com", "mail.example.com", 465, "implicit"),
        ("smtps://[::1]:4650", "::1", 4650, "implicit"),
    ],
)
def test_a_dsn_names_server_and_encryption(dsn: str, host: str, port: int, tls: str) -> None:
    server = from_dsn(dsn, sender="notifier@localhost", timeout=5).server

    assert (server.host, server.port, server.tls) == (host, port, tls)
    assert (server.username, server.password) == (None, None)


def test_user_and_password_of_a_dsn_are_decoded() -> None:
    provider = from_dsn("smtp://user%40example.com:p%3Aw%2F%40%20%25@host", sender="a@b.example", timeout=5)

    assert (provider.server.username, provider.server.password) == ("user@example.com", "p:w/@ %")
    assert (provider.timeout, provider.name, provider.confirms_delivery) == (5, "smtp", False)


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "smtp:",
        "smtp://",
        "smtp://user:hunter2@",
        "smtp://user:hunter2@host:port",
        "smtp://user:hunter2@host:99999",
        "smtp://user:hunter2@host:0",
        "smtp://user:hunter2@[host",
        "smtp://user:hunter2@host/path",
        "smtp://user:hunter2@host#fragment",
        "smtp://user:hunter2@host?tls=maybe",
        "smtp://user:hunter2@host?tls=implicit",
        "smtp://user:hunter2@host?tls",
        "smtp://user:hunter2@host?timeout=5",
        "smtps://user:hunter2@host?tls=none",
        "smtp://hunter2@host",
        "smtp://user:hunter2%C3%A9@host",
        "http://user:hunter2@host",
    ],
)
def test_a_dsn_that_cannot_be_understood_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|begins) [a-z]") as caught:
        from_dsn(dsn, sender="notifier@localhost", timeout=5)

    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "sender",
    ["", "notifier", "a@b\r\nBcc: c@d", "a@b, c@d", "A\nB <a@b>", "A <a@b> B", "A <a>", "<a@b", "A <a@b> <c@d>"],
)
def test_a_sender_that_is_no_mailbox_is_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="NOTIFIER_EMAIL_FROM is not a mailbox"):
        from_dsn("smtp://host", sender=sender, timeout=5)


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        ("notifier@example.com", ""),
        ("<notifier@example.com>", ""),
        (" Jörg, the Notifier <notifier@example.com>", "Jörg, the Notifier"),
        ('"Notifier, Inc." <notifier@example.com>', "Notifier, Inc."),
    ],
)
def test_a_sender_may_have_a_name(make: Make, sender: str, name: str) -> None:
    [address] = mail_of(make, message_to(), sender=sender)["from"].addresses

    assert (address.display_name, address.addr_spec) == (name, "notifier@example.com")


def test_the_trusted_certificates_are_those_of_python() -> None:
    context = from_dsn("smtps://host", sender="a@b.example", timeout=5).server.context

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
