"""Plivo's wire."""

from base64 import b64encode

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

AUTH_ID = "MAOTDMYTAYMTK0ZGIYNT"
TOKEN = "t0ken/with:signs"
MESSAGE_ID = "db3ce55a-7f1d-11e1-8ea7-1231380bc196"


def error(status: int, text: str, *lines: str) -> bytes:
    body = {"api_id": "97ceeb52-58b6-11e1-86da-77300b68f8bb", "error": text}
    return response(status, orjson.dumps(body), "content-type: application/json", *lines)


def check(request: Received, message: Message) -> None:
    assert request.line == f"POST /v1/Account/{AUTH_ID}/Message/ HTTP/1.1"
    assert request.headers["authorization"] == f"Basic {b64encode(f'{AUTH_ID}:{TOKEN}'.encode()).decode()}"
    sent = {"src": "+15550100", "dst": message.recipient.removeprefix("+"), "text": message.text}
    assert orjson.loads(request.body) == sent


_R, _U = Outcome.REJECTED, Outcome.UNSENT

VENDOR = Vendor(
    name="plivo",
    channel=Channel.SMS,
    dsn=lambda port: f"plivo://{AUTH_ID}:t0ken%2Fwith%3Asigns@127.0.0.1:{port}?from=+15550100&tls=none",
    recipient="+15550123",
    success=response(
        202, orjson.dumps({"api_id": "db342550", "message": "message(s) queued", "message_uuid": [MESSAGE_ID]})
    ),
    message_id=MESSAGE_ID,
    errors=[
        Case("recipient", error(400, "dst parameter is invalid"), _R, Fault.RECIPIENT),
        Case("sender", error(400, "src parameter is invalid"), _U, Fault.PROVIDER),
        Case("text", error(400, "text parameter not present"), _R),
        Case("credentials", response(401, b"Could not verify your access level for that URL."), _U, Fault.PROVIDER),
        Case("credit", error(402, "insufficient credit"), _U, Fault.PROVIDER),
        Case("account", error(404, "not found"), _U, Fault.PROVIDER),
        Case("method", error(405, "method not allowed"), _U, Fault.PROVIDER),
        Case("rate", error(429, "too many requests", "retry-after: 2"), _U, Fault.THROTTLED, 2.0),
        Case("internal", error(500, "server error"), _U, Fault.PROVIDER),
    ],
    check=check,
)
