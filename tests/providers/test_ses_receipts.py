"""Receipts of Amazon SES through SNS, which nobody else can forge."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from notifier.providers.receipts import (
    AddressStatus,
    Kind,
    Malformed,
    NotNow,
    NotSigned,
    ReceiptSource,
    Report,
    SuppressionReason,
    source,
)
from notifier.providers.vendors import ses_receipts
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import Received, response
from tests.providers.signed import CERTIFICATE_PATH, SNS, TOPIC, certificate, sns_callback, sns_message

ID = UUID("01890000-0000-7000-8000-00000000beef")
MAIL = {"messageId": "0100-1", "tags": {"notification_id": [str(ID)], "ses:caller-identity": ["x"]}}
CONFIRM = f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=token"


@contextmanager
def amazon(answer: bytes | None = None) -> Iterator[tuple[ReceiptSource, list[Received]]]:
    """A source, and what it asks Amazon for."""
    with receivers.http(response(200, certificate()) if answer is None else answer) as (server, received):
        reader = source(f"ses://KEY:SECRET@127.0.0.1:{server.port}?tls=none&region=eu-central-1&topic={TOPIC}")
        assert reader
        yield reader, received


def paths(asked: list[Received]) -> list[str]:
    assert all(request.line.startswith("GET ") for request in asked)
    return [request.line.split()[1] for request in asked]


@pytest.fixture(scope="module")
def ses() -> Iterator[ReceiptSource]:
    with amazon() as (reader, _):
        yield reader


def says(reader: ReceiptSource, event: Any, **more: str) -> Report:
    return reader.read(
        sns_callback(sns_message(event if isinstance(event, str) else orjson.dumps(event).decode(), **more))
    )


def bounce(kind: str, sub: str, **more: Any) -> dict[str, Any]:
    recipients = [{"emailAddress": "Ada@example.org", "status": "5.1.1"}]
    detail = {"bounceType": kind, "bounceSubType": sub, "bouncedRecipients": recipients, **more}
    return {"eventType": "Bounce", "mail": MAIL, "bounce": detail}


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("more", [{}, {"Subject": "Amazon SES Email Event Notification"}])
def test_both_signatures(ses: ReceiptSource, version: str, more: dict[str, str]) -> None:
    report = says(ses, {"eventType": "Delivery", "mail": MAIL}, version=version, **more)
    [receipt] = report.receipts
    assert (receipt.notification_id, receipt.kind, receipt.message_id) == (ID, Kind.DELIVERED, "0100-1")


BOUNCES: dict[tuple[str, str], tuple[Kind, SuppressionReason | None]] = {
    **{
        ("Permanent", sub): (Kind.BOUNCED, SuppressionReason.HARD_BOUNCE)
        for sub in ("General", "NoEmail", "Suppressed", "OnAccountSuppressionList")
    },
    ("Transient", "General"): (Kind.BOUNCED_FOR_NOW, None),
    ("Transient", "MailboxFull"): (Kind.BOUNCED_FOR_NOW, None),
    **{
        ("Transient", sub): (Kind.BOUNCED_HERE, None)
        for sub in ("MessageTooLarge", "ContentRejected", "AttachmentRejected")
    },
}


def test_the_bounces_are_those_that_ses_documents() -> None:
    assert ses_receipts._BOUNCES == BOUNCES


@pytest.mark.parametrize("name", ["eventType", "notificationType"])
@pytest.mark.parametrize(
    ("kind", "sub"), [*BOUNCES, ("Undetermined", "Undetermined"), ("Permanent", "UnsubscribedRecipient")]
)
def test_bounces(ses: ReceiptSource, kind: str, sub: str, name: str) -> None:
    expected, reason = BOUNCES.get((kind, sub), (Kind.BOUNCED, None))
    event = bounce(kind, sub, timestamp="2026-01-02T03:04:05.000Z")
    event[name] = event.pop("eventType")
    report = says(ses, event)
    [receipt] = report.receipts
    assert (receipt.kind, receipt.error) == (expected, f"ses bounce, {kind}, {sub}, 5.1.1")
    assert receipt.happened_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    standing = AddressStatus(Channel.EMAIL, "Ada@example.org", reason or SuppressionReason.STOP, notification_id=ID)
    assert report.standings == ((standing,) if reason else ())


def test_complaints(ses: ReceiptSource) -> None:
    detail: dict[str, Any] = {"complainedRecipients": [{"emailAddress": "ada@example.org"}]}
    event = {"eventType": "Complaint", "mail": MAIL, "complaint": detail}
    standing = AddressStatus(Channel.EMAIL, "ada@example.org", SuppressionReason.COMPLAINT, notification_id=ID)
    assert says(ses, event) == Report((), (standing,))
    detail["complaintFeedbackType"] = "not-spam"
    assert says(ses, event) == Report()
    detail.update(complaintFeedbackType="abuse", complainedRecipients="nobody")
    assert says(ses, event).standings == (
        AddressStatus(Channel.EMAIL, "", SuppressionReason.COMPLAINT, notification_id=ID),
    )


@pytest.mark.parametrize("name", ["Reject", "RenderingFailure", "Rendering Failure"])
def test_what_ses_itself_does_not_send(ses: ReceiptSource, name: str) -> None:
    report = says(ses, {"eventType": name, "mail": MAIL})
    assert (report.receipts[0].kind, report.standings) == (Kind.BOUNCED, ())


@pytest.mark.parametrize("name", ["Send", "Open", "Click", "Subscription", "DeliveryDelay", "New", "", None, 17])
def test_of_no_interest(ses: ReceiptSource, name: Any) -> None:
    assert says(ses, {"eventType": name, "mail": MAIL}) == Report()


def test_an_identitys_event_names_it_by_the_message_id_that_we_wrote(ses: ReceiptSource) -> None:
    ours = f"<{ID}@example.com>"
    for mail in ({"headers": [{"name": "Message-ID", "value": ours}]}, {"commonHeaders": {"messageId": ours}}):
        report = says(ses, {"notificationType": "Delivery", "mail": mail})
        assert [receipt.notification_id for receipt in report.receipts] == [ID]


@pytest.mark.parametrize(
    "mail", [{}, None, [], {"tags": []}, {"tags": {"notification_id": [17]}}, {"tags": {"notification_id": ["x"]}}]
)
def test_somebody_elses_mail(ses: ReceiptSource, mail: Any) -> None:
    assert says(ses, {**bounce("Permanent", "General"), "mail": mail}) == Report()


def test_words_that_are_no_event(ses: ReceiptSource) -> None:
    assert says(ses, "Successfully validated SNS topic for Amazon SES event publishing.") == Report()
    with pytest.raises(Malformed):
        says(ses, [bounce("Permanent", "General")])


def test_odd_bounces_break_nothing(ses: ReceiptSource) -> None:
    for odd in ([], "x", None, {"bouncedRecipients": [17]}, {"bounceType": "Permanent", "bounceSubType": "General"}):
        [receipt] = says(ses, {"eventType": "Bounce", "mail": MAIL, "bounce": odd}).receipts
        assert receipt.kind is Kind.BOUNCED


# The sender of a message.


@pytest.mark.parametrize(
    "url",
    [
        f"https://sns.eu-central-1.amazonaws.com.evil.example{CERTIFICATE_PATH}",
        f"https://evil.example{CERTIFICATE_PATH}",
        f"https://evil.example/sns.eu-central-1.amazonaws.com{CERTIFICATE_PATH}",
        f"https://sns.eu-central-1.amazonaws.com@evil.example{CERTIFICATE_PATH}",
        f"https://user@sns.eu-central-1.amazonaws.com{CERTIFICATE_PATH}",
        f"https://sns.eu-central-1.amazonaws.com:8443{CERTIFICATE_PATH}",
        f"https://s3.eu-central-1.amazonaws.com{CERTIFICATE_PATH}",
        f"https://sns.bucket.s3.amazonaws.com{CERTIFICATE_PATH}",
        f"https://sns.eu-central-1.amazonaws.com.cn.evil.example{CERTIFICATE_PATH}",
        f"http://sns.eu-central-1.amazonaws.com{CERTIFICATE_PATH}",
        f"{SNS}/certificate.txt",
        f"{SNS}/x.pem?y=.pem",
        f"{SNS}/x.txt#.pem",
        f"{SNS}/../x.pem",
        f"{SNS}\\@evil.example/x.pem",
        "https://[::1/x.pem",
        "",
    ],
)
def test_certificates_of_others_are_not_asked_for(url: str) -> None:
    with amazon() as (reader, asked):
        with pytest.raises(NotSigned):
            says(reader, {"eventType": "Delivery", "mail": MAIL}, SigningCertURL=url)
        assert asked == []


def test_a_certificate_is_asked_for_once() -> None:
    with amazon() as (reader, asked):
        for host in (SNS, "https://sns.cn-north-1.amazonaws.com.cn"):
            for _ in range(3):
                assert says(reader, {"eventType": "Delivery", "mail": MAIL}, SigningCertURL=host + CERTIFICATE_PATH)
        assert paths(asked) == [CERTIFICATE_PATH] * 2


def test_another_topics_message_is_nobodys_and_costs_nothing() -> None:
    with amazon() as (reader, asked):
        for topic in (f"{TOPIC}2", "", TOPIC.upper()):
            with pytest.raises(NotSigned):
                says(reader, {"eventType": "Delivery", "mail": MAIL}, TopicArn=topic)
            with pytest.raises(NotSigned):
                says(reader, "", kind="SubscriptionConfirmation", TopicArn=topic)
        assert asked == []


@pytest.mark.parametrize("field", ["Message", "MessageId", "Timestamp", "Subject", "Signature", "SignatureVersion"])
def test_what_is_altered(ses: ReceiptSource, field: str) -> None:
    document = sns_message("{}", Subject="x")
    for changed in ({**document, field: "1"}, {name: value for name, value in document.items() if name != field}):
        with pytest.raises(NotSigned):
            ses.read(sns_callback(changed))


def test_raw_delivery_is_not_believed(ses: ReceiptSource) -> None:
    with pytest.raises(NotSigned):
        ses.read(sns_callback(bounce("Permanent", "General")))


def test_an_old_one_is_not_believed(ses: ReceiptSource) -> None:
    callback = sns_message("{}")
    ses.read(sns_callback(callback, at=datetime.now(UTC) + timedelta(hours=24)))
    with pytest.raises(NotSigned):
        ses.read(sns_callback(callback, at=datetime.now(UTC) + timedelta(hours=26)))


@pytest.mark.parametrize(
    "answer",
    [
        response(404),
        response(302, b"", f"location: {SNS}/other.pem"),
        response(200, b"<html>"),
        response(200, b"x" * 70_000),
        response(200, certificate(ec.generate_private_key(ec.SECP256R1()))),
        response(200, certificate(valid_for=timedelta(days=-1))),
    ],
    ids=["404", "elsewhere", "no certificate", "too large", "no RSA", "expired"],
)
def test_a_certificate_that_cannot_be_had_is_asked_for_later(answer: bytes) -> None:
    with amazon(answer) as (reader, asked):
        for _ in range(3):
            with pytest.raises(NotNow):
                says(reader, {"eventType": "Delivery", "mail": MAIL})
        assert len(asked) == 1


def test_another_key_signs_nothing() -> None:
    other = response(200, certificate(rsa.generate_private_key(65537, 2048)))
    with amazon(other) as (reader, _), pytest.raises(NotSigned):
        says(reader, {"eventType": "Delivery", "mail": MAIL})


# Subscriptions.


def test_our_topics_subscription_is_confirmed() -> None:
    with amazon() as (reader, asked):
        assert says(reader, "You have chosen to subscribe", kind="SubscriptionConfirmation") == Report()
        assert paths(asked) == [CERTIFICATE_PATH, CONFIRM]
        assert says(reader, "You have chosen to", kind="UnsubscribeConfirmation") == Report()
        assert len(asked) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com" + CONFIRM,
        "https://169.254.169.254" + CONFIRM,
        "https://evil.example" + CONFIRM,
        SNS + "/?Action=DeleteTopic&TopicArn=" + TOPIC,
        SNS + CONFIRM.replace(":mail", ":other"),
        SNS + CONFIRM + "&Action=DeleteTopic",
    ],
)
def test_nothing_else_is_visited(url: str) -> None:
    with amazon() as (reader, asked):
        with pytest.raises(Malformed):
            says(reader, "x", kind="SubscriptionConfirmation", SubscribeURL=url)
        assert paths(asked) == [CERTIFICATE_PATH]


def test_a_confirmation_that_fails_is_tried_again() -> None:
    def answer(request: Received) -> bytes:
        return response(200, certificate()) if request.line.split()[1] == CERTIFICATE_PATH else response(500)

    with receivers.http(answer) as (server, _):
        reader = source(f"ses://KEY:SECRET@127.0.0.1:{server.port}?tls=none&topic={TOPIC}")
        assert reader
        with pytest.raises(NotNow):
            says(reader, "x", kind="SubscriptionConfirmation")


@pytest.mark.parametrize("topic", ["", "mail", "arn:aws:sqs:eu-central-1:1:mail", f"{TOPIC},x"])
def test_topics_that_are_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="has a topic that is not the ARN"):
        source(f"ses://KEY:SECRET@default?topic={topic}")
    assert source("ses://KEY:SECRET@default") is None
