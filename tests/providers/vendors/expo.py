"""The wire of Expo's push service."""

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

TICKET = "019f1a6c-0000-7000-8000-000000000001"


def refused(code: str) -> bytes:
    """A ticket that says no; its message repeats the token."""
    details = {"error": code, "expoPushToken": "ExponentPushToken[abc]"}
    ticket = {"status": "error", "message": '"ExponentPushToken[abc]" is refused', "details": details}
    return response(200, orjson.dumps({"data": ticket}))


def error(status: int, code: str, message: str = "Something is wrong.", *lines: str) -> bytes:
    errors = [{"code": code, "message": message, "isTransient": False}]
    return response(status, orjson.dumps({"errors": errors}), *lines)


def check(request: Received, message: Message) -> None:
    assert request.line == "POST /--/api/v2/push/send HTTP/1.1"
    assert request.headers["authorization"] == "Bearer acc3ss"
    assert orjson.loads(request.body) == {
        "to": message.recipient,
        "title": message.subject,
        "body": message.text,
        "data": {"notification_id": str(message.id)},
    }


_R, _U = Outcome.REJECTED, Outcome.UNSENT

VENDOR = Vendor(
    name="expo",
    channel=Channel.PUSH,
    dsn=lambda port: f"expo://acc3ss@127.0.0.1:{port}?tls=none",
    recipient="ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]",
    success=response(200, orjson.dumps({"data": {"status": "ok", "id": TICKET}})),
    message_id=TICKET,
    errors=[
        Case("not registered", refused("DeviceNotRegistered"), _R, Fault.RECIPIENT),
        Case("too big", refused("MessageTooBig"), _R),
        Case("device's rate", refused("MessageRateExceeded"), _U, Fault.THROTTLED),
        Case("sender id", refused("MismatchSenderId"), _U, Fault.ROUTE),
        Case("credentials", refused("InvalidCredentials"), _U, Fault.ROUTE),
        Case("unknown", refused("SomethingNew"), _R),
        Case(
            "token",
            error(400, "VALIDATION_ERROR", "“abc” is not a valid Expo push token"),
            _R,
            Fault.RECIPIENT,
        ),
        Case("request", error(400, "VALIDATION_ERROR"), _R),
        Case("access token", error(401, "UNAUTHORIZED"), _U, Fault.PROVIDER),
        Case("forbidden", error(403, "FORBIDDEN"), _U, Fault.PROVIDER),
        Case("rate", error(429, "TOO_MANY_REQUESTS", "x", "retry-after: 1"), _U, Fault.THROTTLED, 1.0),
        Case("internal", error(500, "INTERNAL_SERVER_ERROR"), _U, Fault.PROVIDER),
    ],
    check=check,
)
