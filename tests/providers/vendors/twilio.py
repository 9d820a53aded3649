"""Twilio's wire."""

from base64 import b64encode
from urllib.parse import parse_qsl

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

ACCOUNT = "AC" + "0f" * 16
TOKEN = "t0ken/with:signs"
SENDER = "+15550100"
SID = "SM" + "1a" * 16


def error(code: int, status: int = 400, *lines: str) -> bytes:
    """A refusal; its message repeats the number, as Twilio's do."""
    body = {
        "code": code,
        "message": f"The 'To' number +15550123 is refused with {code}",
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return response(status, orjson.dumps(body), "content-type: application/json", *lines)


def success() -> bytes:
    body = {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "body": "Your order has shipped.",
        "date_created": "Thu, 24 Aug 2023 05:01:45 +0000",
        "date_sent": None,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": SENDER,
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "1",
        "price": None,
        "price_unit": None,
        "sid": SID,
        "status": "queued",
        "to": "+15550123",
        "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{SID}.json",
    }
    return response(201, orjson.dumps(body), "content-type: application/json", "twilio-concurrent-requests: 1")


def check(request: Received, message: Message) -> None:
    assert request.line == f"POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["authorization"] == f"Basic {b64encode(f'{ACCOUNT}:{TOKEN}'.encode()).decode()}"
    assert parse_qsl(request.body.decode("ascii"), strict_parsing=True) == [
        ("To", message.recipient),
        ("From", SENDER),
        ("Body", message.text),
        (
            "StatusCallback",
            f"https://notifier.example.com/api/v1/receipts/twilio?notification={message.id}#rc=5&rp=all",
        ),
    ]


def refusals(codes: str, outcome: Outcome, fault: Fault | None) -> list[Case]:
    return [Case(f"code {code}", error(int(code)), outcome, fault) for code in codes.split()]


VENDOR = Vendor(
    name="twilio",
    channel=Channel.SMS,
    dsn=lambda port: f"twilio://{ACCOUNT}:t0ken%2Fwith%3Asigns@127.0.0.1:{port}?from=+15550100&tls=none",
    recipient="+15550123",
    success=success(),
    message_id=SID,
    errors=[
        *refusals("21211 21265 21266 21268 21604 21610 21614 21635", Outcome.REJECTED, Fault.RECIPIENT),
        *refusals("21408 21608 21612 21657 21659 21703", Outcome.UNSENT, Fault.ROUTE),
        *refusals("14107 20429 21611 63038", Outcome.UNSENT, Fault.THROTTLED),
        *refusals(
            "10001 20003 20005 20006 20008 20010 20403 20404 21212 21267 21601 21603 21606 21607 21609 21616 21660"
            " 21661 21662 21663 21668 21701 21702 21704 21705 21709 21730 21910",
            Outcome.UNSENT,
            Fault.PROVIDER,
        ),
        *refusals("21602 21605 21617 21618 21619 21620 21624 21626 21627 29999", Outcome.REJECTED, None),
        Case("credentials", error(20003, 401), Outcome.UNSENT, Fault.PROVIDER),
        Case("forbidden region", error(21408, 403), Outcome.UNSENT, Fault.ROUTE),
        Case("forbidden otherwise", error(29999, 403), Outcome.UNSENT, Fault.PROVIDER),
        Case("no such account", error(20404, 404), Outcome.UNSENT, Fault.PROVIDER),
        Case("too fast", error(20429, 429, "retry-after: 3"), Outcome.UNSENT, Fault.THROTTLED, 3.0),
        Case("too fast, otherwise", error(63038, 429), Outcome.UNSENT, Fault.THROTTLED),
        Case("internal", error(20500, 500), Outcome.UNSENT, Fault.PROVIDER),
        Case("internal, a known code", error(21211, 503), Outcome.UNSENT, Fault.PROVIDER),
        Case("no JSON", response(400, b"<html>Bad request</html>"), Outcome.REJECTED),
        Case("a code that is a text", response(400, b'{"code": "+15550123 is bad"}'), Outcome.REJECTED),
    ],
    check=check,
)
