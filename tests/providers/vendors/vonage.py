"""Vonage's wire."""

from urllib.parse import parse_qsl

import orjson

from notifier.providers.formats.sms_segments import count
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

KEY = "abcd1234"
SECRET = "s3cret/with:signs"
MESSAGE_ID = "0C000000217B7F02"


def parts(*statuses: str) -> bytes:
    """An answer for a message of so many parts; a refusal repeats the number, as Vonage's do."""
    messages = [
        {
            "to": "15550123",
            "message-id": f"{MESSAGE_ID[:-1]}{2 + at}",
            "status": status,
            "remaining-balance": "15.53590000",
            "message-price": "0.03330000",
            "network": "23410",
        }
        if status == "0"
        else {"to": "15550123", "status": status, "error-text": f"15550123 refused with {status}"}
        for at, status in enumerate(statuses)
    ]
    body = {"message-count": str(len(statuses)), "messages": messages}
    return response(200, orjson.dumps(body), "content-type: application/json")


def check(request: Received, message: Message) -> None:
    assert request.line == "POST /sms/json HTTP/1.1"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in request.headers
    assert parse_qsl(request.body.decode("ascii"), strict_parsing=True) == [
        ("api_key", KEY),
        ("api_secret", SECRET),
        ("from", "Acme"),
        ("to", message.recipient.removeprefix("+")),
        ("text", message.text),
        ("type", {"gsm-7": "text", "ucs-2": "unicode"}[count(message.text).encoding]),
        ("client-ref", str(message.id)),
    ]


def refusals(statuses: str, outcome: Outcome, fault: Fault | None) -> list[Case]:
    return [Case(f"status {status}", parts(status), outcome, fault) for status in statuses.split()]


def strange(label: str, body: object) -> Case:
    answer = response(200, orjson.dumps(body), "content-type: application/json")
    return Case(label, answer, Outcome.AMBIGUOUS, Fault.PROVIDER)


VENDOR = Vendor(
    name="vonage",
    channel=Channel.SMS,
    dsn=lambda port: f"vonage://{KEY}:s3cret%2Fwith%3Asigns@127.0.0.1:{port}?from=Acme&tls=none",
    recipient="+15550123",
    success=parts("0"),
    message_id=MESSAGE_ID,
    errors=[
        *refusals("1 10", Outcome.UNSENT, Fault.THROTTLED),
        *refusals("4 5 8 9 11 13 14 19 32", Outcome.UNSENT, Fault.PROVIDER),
        *refusals("15 29", Outcome.UNSENT, Fault.ROUTE),
        *refusals("6 7 33 34 101", Outcome.REJECTED, Fault.RECIPIENT),
        *refusals("2 3 12 16 20 22 23 99", Outcome.REJECTED, None),
        Case("every part refused: the first counts", parts("7", "1", "1"), Outcome.REJECTED, Fault.RECIPIENT),
        Case("a later part refused", parts("0", "0", "1"), Outcome.AMBIGUOUS, Fault.PROVIDER),
        Case("only the first part refused", parts("7", "0"), Outcome.AMBIGUOUS, Fault.PROVIDER),
        Case("internal", response(500, b""), Outcome.UNSENT, Fault.PROVIDER),
        Case("credentials, by HTTP", response(401, b'{"title": "Unauthorized"}'), Outcome.UNSENT, Fault.PROVIDER),
        Case("too fast, by HTTP", response(429, b"", "retry-after: 1"), Outcome.UNSENT, Fault.THROTTLED, 1.0),
        Case("unprocessable", response(422, b"{}"), Outcome.REJECTED),
        strange("no parts", {"message-count": "0", "messages": []}),
        strange("parts that are a text", {"message-count": "1", "messages": "0"}),
        strange("a part that is none", {"message-count": "1", "messages": [None]}),
        strange("a part without a status", {"message-count": "1", "messages": [{"to": "15550123"}]}),
        strange("a status that is a text", {"message-count": "1", "messages": [{"status": "15550123 is bad"}]}),
        strange("a yes without an id", {"message-count": "1", "messages": [{"status": "0"}]}),
    ],
    check=check,
)
