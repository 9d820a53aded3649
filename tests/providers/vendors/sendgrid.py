"""SendGrid, Mail Send v3."""

from typing import Any

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

MESSAGE_ID = "14c5d75ce93.dfd.64b469"


def complaint(status: int, message: str, field: str | None = None, *lines: str) -> bytes:
    """A no, as all of them look."""
    error = {"message": message, "field": field, "help": None}
    return response(status, orjson.dumps({"errors": [error]}), "content-type: application/json", *lines)


def check(received: Received, message: Message) -> Any:
    assert received.line == "POST /v3/mail/send HTTP/1.1"
    assert received.headers["authorization"] == "Bearer SG.some-key"
    assert received.headers["content-type"] == "application/json"
    mail = orjson.loads(received.body)
    assert mail["personalizations"] == [{"to": [{"email": message.recipient}]}]
    assert mail["custom_args"] == {"notification_id": str(message.id)}
    assert mail.get("subject") == message.subject
    parts = {part["type"]: part["value"] for part in mail["content"]}
    assert parts["text/plain"] == message.text
    assert parts.get("text/html") == message.html


VENDOR = Vendor(
    name="sendgrid",
    channel=Channel.EMAIL,
    dsn=lambda port: f"sendgrid://SG.some-key@127.0.0.1:{port}?tls=none",
    recipient="ada@example.org",
    success=response(202, b"", f"X-Message-Id: {MESSAGE_ID}"),
    message_id=MESSAGE_ID,
    errors=(
        Case(
            "no such address",
            complaint(400, "Does not contain a valid address.", "personalizations.0.to.0.email"),
            Outcome.REJECTED,
            Fault.RECIPIENT,
        ),
        Case("no subject", complaint(400, "The subject is required.", "subject"), Outcome.REJECTED),
        Case(
            "sender",
            complaint(400, "The from email does not contain a valid address.", "from.email"),
            Outcome.UNSENT,
            Fault.PROVIDER,
        ),
        Case("no such endpoint", complaint(404, "not found"), Outcome.UNSENT, Fault.PROVIDER),
        Case("method", complaint(405, "method not allowed"), Outcome.UNSENT, Fault.PROVIDER),
        Case("bad request", complaint(400, "Bad Request"), Outcome.REJECTED),
        Case("too large", complaint(413, "payload too large"), Outcome.REJECTED),
        Case(
            "wrong key",
            complaint(401, "The provided authorization grant is invalid, expired, or revoked"),
            Outcome.UNSENT,
            Fault.PROVIDER,
        ),
        Case("out of credits", complaint(401, "Maximum credits exceeded"), Outcome.UNSENT, Fault.PROVIDER),
        Case(
            "sender not verified",
            complaint(403, "The from address does not match a verified Sender Identity.", "from"),
            Outcome.UNSENT,
            Fault.PROVIDER,
        ),
        Case("scope", complaint(403, "access forbidden"), Outcome.UNSENT, Fault.PROVIDER),
        Case("rate limit", complaint(429, "too many requests"), Outcome.UNSENT, Fault.THROTTLED),
        Case(
            "rate limit, retry-after",
            complaint(429, "too many requests", None, "retry-after: 7", "X-RateLimit-Reset: 1"),
            Outcome.UNSENT,
            Fault.THROTTLED,
            retry_after=7.0,
        ),
        Case(
            "rate limit over already",
            complaint(429, "too many requests", None, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1392815263"),
            Outcome.UNSENT,
            Fault.THROTTLED,
            retry_after=0.0,
        ),
        Case("internal", complaint(500, "internal server error"), Outcome.UNSENT, Fault.PROVIDER),
        Case("unavailable", response(503, b"<html>"), Outcome.UNSENT, Fault.PROVIDER),
    ),
    check=check,
    needs_body=False,
)
