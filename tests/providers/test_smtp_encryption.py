"""Email over SMTP: encryption, certificates and logins."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword

from notifier.providers.protocol import Fault, Outcome
from tests.providers import receivers
from tests.providers.receivers import MailServer
from tests.providers.smtp_calls import Make, making, message_to, post, send


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


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
