"""MessageBird's wire."""

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

KEY = "live_0123456789"
MESSAGE_ID = "b4d63c6f59e24b5da6e5fa3cfb9d0d5a"


def error(status: int, code: int, parameter: str | None = None, *lines: str) -> bytes:
    errors = [{"code": code, "description": f"15550123 is refused with {code}", "parameter": parameter}]
    return response(status, orjson.dumps({"errors": errors}), "content-type: application/json", *lines)


def check(request: Received, message: Message) -> None:
    assert request.line == "POST /messages HTTP/1.1"
    assert request.headers["authorization"] == f"AccessKey {KEY}"
    assert orjson.loads(request.body) == {
        "originator": "Acme",
        "recipients": [message.recipient.removeprefix("+")],
        "body": message.text,
        "datacoding": "auto",
        "reference": str(message.id),
    }


_R, _U = Outcome.REJECTED, Outcome.UNSENT

VENDOR = Vendor(
    name="messagebird",
    channel=Channel.SMS,
    dsn=lambda port: f"messagebird://{KEY}@127.0.0.1:{port}?from=Acme&tls=none",
    recipient="+15550123",
    success=response(201, orjson.dumps({"id": MESSAGE_ID, "recipients": {"totalCount": 1}})),
    message_id=MESSAGE_ID,
    errors=[
        Case("recipient", error(422, 10, "recipients"), _R, Fault.RECIPIENT),
        Case("no recipient", error(422, 9, "recipient"), _R, Fault.RECIPIENT),
        Case("sender", error(422, 10, "originator"), _U, Fault.PROVIDER),
        Case("body", error(422, 9, "body"), _R),
        Case("bad request", error(400, 21), _R),
        Case("access key", error(401, 2, "access_key"), _U, Fault.PROVIDER),
        Case("balance", error(402, 25), _U, Fault.PROVIDER),
        Case("balance, bare", response(402, b""), _U, Fault.PROVIDER),
        Case("not found", error(404, 20), _U, Fault.PROVIDER),
        Case("method", response(405, b""), _U, Fault.PROVIDER),
        Case("no API", error(404, 98), _U, Fault.PROVIDER),
        Case("unknown code", error(422, 77), _R),
        Case("rate", response(429, b"{}", "retry-after: 3"), _U, Fault.THROTTLED, 3.0),
        Case("internal", error(500, 99), _U, Fault.PROVIDER),
    ],
    check=check,
)
