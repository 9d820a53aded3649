"""Mailgun's wire."""

from base64 import b64encode
from email import message_from_bytes, policy
from email.message import EmailMessage

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor
from tests.providers.vendors.ses import check_mail

KEY = "some-key"
DOMAIN = "mg.example.com"
MESSAGE_ID = "<20261128.1.ABC@mg.example.com>"


def error(status: int, message: str, *lines: str) -> bytes:
    return response(status, orjson.dumps({"message": message}), "content-type: application/json", *lines)


def mail_of(request: Received, message: Message) -> EmailMessage:
    """The MIME message in a request, beside what it is sent by."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    form = message_from_bytes(head + request.body)
    parts = {str(part.get_param("name", header="content-disposition")): part for part in form.walk()}
    assert parts["to"].get_payload() == message.recipient
    assert parts["v:notification_id"].get_payload() == str(message.id)
    raw = request.body.partition(b"message/rfc822\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    mail = message_from_bytes(raw, policy=policy.SMTP)
    assert isinstance(mail, EmailMessage)
    return mail


def check(request: Received, message: Message) -> None:
    assert request.line == f"POST /v3/{DOMAIN}/messages.mime HTTP/1.1"
    assert request.headers["authorization"] == f"Basic {b64encode(f'api:{KEY}'.encode()).decode()}"
    check_mail(mail_of(request, message), message)


_R, _U = Outcome.REJECTED, Outcome.UNSENT

VENDOR = Vendor(
    name="mailgun",
    channel=Channel.EMAIL,
    dsn=lambda port: f"mailgun://{KEY}@127.0.0.1:{port}/{DOMAIN}?tls=none",
    recipient="ada@example.org",
    success=response(200, orjson.dumps({"id": MESSAGE_ID, "message": "Queued. Thank you."})),
    message_id=MESSAGE_ID,
    errors=[
        Case(
            "recipient",
            error(400, "'to' parameter is not a valid address. please check documentation"),
            _R,
            Fault.RECIPIENT,
        ),
        Case("no recipient", error(400, "to parameter is missing"), _R, Fault.RECIPIENT),
        Case("sender", error(400, "'from' parameter is not a valid address."), _U, Fault.PROVIDER),
        Case("content", error(400, "Need at least one of 'text' or 'html' parameters specified"), _R),
        Case(
            "sandbox domain",
            error(
                403,
                "Domain sandbox1.mailgun.org is not allowed to send: Free accounts are for test purposes only."
                " Please upgrade or add the address to your authorized recipients in Account Settings.",
            ),
            _U,
            Fault.ROUTE,
        ),
        Case("disabled", error(403, "Account disabled"), _U, Fault.PROVIDER),
        Case("key", response(401, b"Forbidden"), _U, Fault.PROVIDER),
        Case("payment", error(402, "Payment required"), _U, Fault.PROVIDER),
        Case("domain", error(404, "Domain not found: mg.example.com"), _U, Fault.PROVIDER),
        Case("method", error(405, "Method not allowed"), _U, Fault.PROVIDER),
        Case("too large", error(413, "Request Entity Too Large"), _R),
        Case("rate", error(429, "Too many requests", "retry-after: 5"), _U, Fault.THROTTLED, 5.0),
        Case("internal", error(500, "Internal Server Error"), _U, Fault.PROVIDER),
    ],
    check=check,
)
