"""Email over SMTP to a server that takes commands in groups (RFC 2920)."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from notifier.providers.formats.mime import Letter
from notifier.providers.protocol import Outcome
from notifier.providers.vendors.smtp_connection import _stages
from tests.providers import receivers
from tests.providers.receivers import Mailbox, MailServer
from tests.providers.smtp_calls import Make, making, message_to, post, send


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as make:
        yield make


def test_what_comes_before_the_message_is_one_group(make: Make) -> None:
    groups: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for said in (
            *(b"220 ready\r\n", b"250-here\r\n250 PIPELINING\r\n", b"250 ok\r\n250 ok\r\n354 go on\r\n"),
            b"250 taken\r\n",
        ):
            connection.sendall(said)
            groups.append(connection.recv(65536))

    with receivers.listening(talk) as server:
        assert post(make(server.port)).outcome is Outcome.ACCEPTED
    ehlo, commands, message, *_ = groups
    assert ehlo.startswith(b"ehlo ")
    assert commands == b"MAIL FROM:<notifier@example.com>\r\nRCPT TO:<ada@example.org>\r\nDATA\r\n"
    assert message.endswith(b"\r\n.\r\n")


@pytest.mark.parametrize("refused", ["MAIL", "RCPT", "DATA"])
def test_after_a_refusal_the_connection_is_used_again(make: Make, refused: str) -> None:
    mail = MailServer({refused: b"550 5.7.1 no"}, pipelines=True)
    with receivers.listening(mail.talk) as server:
        results = send(make(server.port, connections=1), message_to(), message_to())
        assert server.connections == 1
    assert [(each.outcome, each.error) for each in results] == [(Outcome.REJECTED, f"smtp 550 to {refused}")] * 2
    verbs = [command.split(" ")[0] for command in mail.heard]
    assert verbs[:9] == ["EHLO", *["MAIL", "RCPT", "DATA", "RSET"] * 2]


def test_a_server_that_waits_for_a_message_to_nobody_gets_none(make: Make) -> None:
    mail = MailServer({"RCPT": b"550 5.1.1 unknown", "DATA": b"354 go on"}, pipelines=True)
    with receivers.listening(mail.talk) as server:
        results = send(make(server.port, connections=1), message_to(), message_to())
        assert server.connections == 2
    assert [each.error for each in results] == ["smtp 550 to RCPT"] * 2
    assert {command.split(" ")[0] for command in mail.heard} == {"EHLO", "MAIL", "RCPT", "DATA"}


def test_a_refusal_counts_though_the_connection_is_lost_behind_it(make: Make) -> None:
    mail = MailServer({"MAIL": b"550 5.7.1 no", "RCPT": b""}, pipelines=True)
    with receivers.listening(mail.talk) as server:
        result = post(make(server.port))
    assert (result.outcome, result.status_code) == (Outcome.REJECTED, 550)


@pytest.mark.parametrize("field", ["sender", "recipient"])
def test_no_address_ends_its_command(field: str) -> None:
    letter = Letter(sender="a@example.org", recipient="b@example.org", data=b"", international=False)
    with pytest.raises(ValueError, match="more than one line"):
        _stages(replace(letter, **{field: "c@example.org>\r\nRCPT TO:<d@example.org"}))


class _InGroups(Mailbox):
    """A mailbox that offers PIPELINING, as aiosmtpd can do it but does not say."""

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [responses[0], "250-PIPELINING", *responses[1:]]

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 nobody there"
        envelope.rcpt_tos.append(address)
        return "250 OK"


def test_a_server_of_others_takes_groups(make: Make) -> None:
    recipients = ["ada@example.org", "nobody@example.org", "jörg@example.org", "grace@example.org"]
    with receivers.mail(_InGroups(), enable_SMTPUTF8=True) as (port, mailbox):
        results = send(make(port, connections=1), *map(message_to, recipients))
    assert [each.outcome is Outcome.ACCEPTED for each in results] == [True, False, True, True]
    assert [each.rcpt_tos for each in mailbox.envelopes] == [[each] for each in recipients if each[0] != "n"]
    assert len(mailbox.peers) == 1
