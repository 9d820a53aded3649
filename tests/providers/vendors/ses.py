"""Amazon SES, SendEmail of API v2."""

from base64 import b64decode
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import orjson

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received, response
from tests.providers.vendors import Case, Vendor

MESSAGE_ID = "0107018c2f6d1e5a-5a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9-000000"


def refusal(status: int, name: str, *lines: str) -> bytes:
    """A no, its name in the header."""
    body = orjson.dumps({"message": "Some words about ada@example.org."})
    return response(status, body, f"x-amzn-ErrorType: {name}", "content-type: application/json", *lines)


def unverified(addresses: str) -> bytes:
    """Return the answer of SES for addresses that are not verified."""
    said = "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: "
    return response(400, orjson.dumps({"message": said + addresses}), "x-amzn-ErrorType: MessageRejected")


def mail_of(received: Received) -> EmailMessage:
    """The MIME message in a request."""
    raw = orjson.loads(received.body)["Content"]["Raw"]["Data"]
    mail = message_from_bytes(b64decode(raw, validate=True), policy=policy.SMTP)
    assert isinstance(mail, EmailMessage)
    return mail


def part_of(mail: EmailMessage, kind: str) -> str | None:
    """The text of its plain or html part, line ends as \\n."""
    part = mail.get_body((kind,))
    return None if part is None else "\n".join(str(part.get_content()).splitlines())


def check(received: Received, message: Message) -> Any:
    assert received.line == "POST /v2/email/outbound-emails HTTP/1.1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    asked = orjson.loads(received.body)
    assert asked["Destination"] == {"ToAddresses": [message.recipient]}
    assert asked["EmailTags"] == [{"Name": "notification_id", "Value": str(message.id)}]
    check_mail(mail_of(received), message)


def check_mail(mail: EmailMessage, message: Message) -> None:
    """Assert that a MIME message says what a message says."""
    assert mail["To"] == message.recipient
    assert mail["Subject"] == message.subject
    assert str(message.id) in mail["Message-ID"]
    # Lines end as MIME has them, whatever ended them before.
    assert part_of(mail, "plain") == "\n".join(message.text.splitlines())
    assert part_of(mail, "html") == (message.html and "\n".join(message.html.splitlines()))


_CREDENTIALS = (
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException",
    "IncompleteSignatureException",
)

VENDOR = Vendor(
    name="ses",
    channel=Channel.EMAIL,
    dsn=lambda port: f"ses://AKIDEXAMPLE:some%2Fsecret@127.0.0.1:{port}?region=eu-central-1&tls=none",
    recipient="ada@example.org",
    success=response(200, orjson.dumps({"MessageId": MESSAGE_ID}), "content-type: application/json"),
    message_id=MESSAGE_ID,
    errors=(
        *(Case(name, refusal(403, name), Outcome.UNSENT, Fault.PROVIDER) for name in _CREDENTIALS),
        Case("rate", refusal(429, "TooManyRequestsException"), Outcome.UNSENT, Fault.THROTTLED),
        Case(
            "rate, retry-after",
            refusal(429, "TooManyRequestsException", "retry-after: 3"),
            Outcome.UNSENT,
            Fault.THROTTLED,
            retry_after=3.0,
        ),
        Case("quota", refusal(400, "LimitExceededException"), Outcome.UNSENT, Fault.THROTTLED),
        Case("throttling of any service", refusal(400, "ThrottlingException"), Outcome.UNSENT, Fault.THROTTLED),
        Case("suspended", refusal(400, "AccountSuspendedException"), Outcome.UNSENT, Fault.PROVIDER),
        Case("paused", refusal(400, "SendingPausedException"), Outcome.UNSENT, Fault.PROVIDER),
        Case("MAIL FROM", refusal(400, "MailFromDomainNotVerifiedException"), Outcome.UNSENT, Fault.PROVIDER),
        Case("no configuration set", refusal(404, "NotFoundException"), Outcome.UNSENT, Fault.PROVIDER),
        Case("refused", refusal(400, "MessageRejected"), Outcome.REJECTED),
        Case("recipient not verified", unverified("ADA@example.org"), Outcome.UNSENT, Fault.ROUTE),
        Case("sender not verified", unverified("notifier@example.com"), Outcome.UNSENT, Fault.PROVIDER),
        Case("neither", unverified("ada@example.org, notifier@example.com"), Outcome.UNSENT, Fault.PROVIDER),
        Case("name and URL", refusal(400, "MessageRejected:http://internal.amazon.com/x/"), Outcome.REJECTED),
        Case("bad request", refusal(400, "BadRequestException"), Outcome.REJECTED),
        Case(
            "name in the body",
            response(400, b'{"__type": "com.amazonaws.sesv2#AccountSuspendedException", "message": "no"}'),
            Outcome.UNSENT,
            Fault.PROVIDER,
        ),
        Case("unknown name", refusal(400, "SomethingNewException"), Outcome.REJECTED),
        Case("no name", response(403, b"{}"), Outcome.UNSENT, Fault.PROVIDER),
        Case("internal", refusal(500, "InternalServiceErrorException"), Outcome.UNSENT, Fault.PROVIDER),
        Case("unavailable", response(503, b"<html>"), Outcome.UNSENT, Fault.PROVIDER),
    ),
    check=check,
)
