"""Email over SMTP: the DSN, and the sender."""

import ssl
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.vendors.smtp import Smtp
from notifier.vocabulary.states import Channel
from tests.providers.smtp_calls import Make, mail_of, making, message_to


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


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
