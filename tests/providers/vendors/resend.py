"""Resend's wire."""

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

KEY = "re_some-key"
EMAIL_ID = "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"


def error(status: int, name: str, message: str = "Something is wrong.", *lines: str) -> bytes:
    body = {"statusCode": status, "name": name, "message": message}
    return response(status, orjson.dumps(body), "content-type: application/json", *lines)


def check(request: Received, message: Message) -> None:
    assert request.line == "POST /emails HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["idempotency-key"] == str(message.id)
    mail = orjson.loads(request.body)
    sender = message.sender or "Notifier <notifier@example.com>"
    assert mail["headers"]["Message-ID"] == f"<{message.id}@{sender.rpartition('@')[2].rstrip('>')}>"
    assert mail["headers"].get("List-Unsubscribe") == (message.unsubscribe and f"<{message.unsubscribe}>")
    assert mail["tags"] == [{"name": "notification_id", "value": str(message.id)}]
    assert (mail["from"], mail["to"]) == (sender, [message.recipient])
    assert mail.get("reply_to") == message.reply_to
    assert (mail["subject"], mail["text"], mail.get("html")) == (message.subject, message.text, message.html)


_R, _U = Outcome.REJECTED, Outcome.UNSENT

VENDOR = Vendor(
    name="resend",
    channel=Channel.EMAIL,
    dsn=lambda port: f"resend://{KEY}@127.0.0.1:{port}?tls=none",
    recipient="ada@example.org",
    success=response(200, b'{"id":"%b"}' % EMAIL_ID.encode()),
    message_id=EMAIL_ID,
    errors=[
        Case(
            "recipient",
            error(422, "validation_error", "Invalid `to` field. The email address needs to follow the format."),
            _R,
            Fault.RECIPIENT,
        ),
        Case("field", error(422, "missing_required_field", "Missing `subject` field."), _R),
        Case("attachment", error(422, "invalid_attachment"), _R),
        Case("from", error(422, "invalid_from_address", "Invalid `from` field."), _U, Fault.PROVIDER),
        Case("from, as it was", error(403, "invalid_from_address"), _U, Fault.PROVIDER),
        Case(
            "testing",
            error(403, "validation_error", "You can only send testing emails to your own email address (a@b.c)."),
            _U,
            Fault.ROUTE,
        ),
        Case("key", error(400, "validation_error", "API key is invalid"), _U, Fault.PROVIDER),
        Case("key of a sending endpoint", error(401, "validation_error", "API key is invalid"), _U, Fault.PROVIDER),
        Case("no key", error(401, "missing_api_key"), _U, Fault.PROVIDER),
        Case("restricted key", error(401, "restricted_api_key"), _U, Fault.PROVIDER),
        Case("refused key", error(403, "invalid_api_key"), _U, Fault.PROVIDER),
        Case("suspended key", error(403, "suspended_api_key"), _U, Fault.PROVIDER),
        Case("not found", error(404, "not_found"), _U, Fault.PROVIDER),
        Case("method", error(405, "method_not_allowed"), _U, Fault.PROVIDER),
        Case("security", error(451, "security_error"), _U, Fault.PROVIDER),
        Case("other words", error(409, "invalid_idempotent_request"), Outcome.AMBIGUOUS),
        Case("under way", error(409, "concurrent_idempotent_requests"), _U),
        Case("rate", error(429, "rate_limit_exceeded", "x", "retry-after: 1"), _U, Fault.THROTTLED, 1.0),
        Case("day's quota", error(429, "daily_quota_exceeded"), _U, Fault.PROVIDER),
        Case("month's quota", error(429, "monthly_quota_exceeded"), _U, Fault.PROVIDER),
        Case("internal", error(500, "internal_server_error"), _U, Fault.PROVIDER),
        Case("no JSON", response(400, b"<html>"), _R),
    ],
    check=check,
)
