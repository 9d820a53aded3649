"""Calls to the SMTP provider, as its tests make them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

from aiosmtpd.smtp import Envelope

from notifier.providers.protocol import Message, Outcome, Result
from notifier.providers.vendors.smtp import Smtp
from tests.providers import receivers

Make = Callable[..., Smtp]


@contextmanager
def making() -> Iterator[Make]:
    """Give a function that makes a provider for a port of 127.0.0.1; all are closed at the end."""
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


STAGES = ["banner", "EHLO", "MAIL", "RCPT", "DATA", "message"]
