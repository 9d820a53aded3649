"""Email over HTTP APIs: what exactly is asked for, how it is signed, and which DSNs are refused."""

import logging
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import CredentialRetrievalError
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.formats.mime import mailbox
from notifier.providers.http.api import HttpApi
from notifier.providers.protocol import Attachment, Fault, Message, Outcome, Provider, Result
from notifier.providers.vendors.ses import Ses
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import Received
from tests.providers.vendors import Case, Vendor, mailgun, resend, sendgrid, ses

VENDORS = (sendgrid.VENDOR, ses.VENDOR, resend.VENDOR, mailgun.VENDOR)
SENDER = "Notifier <notifier@example.com>"
HARMLESS = "Hello, Ada."

Post = Callable[..., tuple[Result, Received]]

ids = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)


def context(sender: str = SENDER, timeout: float = 5.0) -> Context:
    return Context(
        channel=Channel.EMAIL,
        timeout=timeout,
        sender=sender,
        public_url="http://127.0.0.1",
        allowed_networks=(),
        engine=create_engine("sqlite://"),
    )


def message(**fields: Any) -> Message:
    return Message(
        **({"id": uuid4(), "recipient": "ada@example.org", "subject": "Hello", "text": HARMLESS} | fields),
    )


def send(provider: Provider, *messages: Message) -> list[Result]:
    try:
        return [result for results in provider.send(iter(messages)) for result in results]
    finally:
        provider.close()


@pytest.fixture
def post() -> Iterator[Post]:
    """Sends one message to a server that says a vendor's yes, or another answer: what came of it, what it received."""
    with ExitStack() as stack:

        def to(vendor: Vendor, sent: Message, answer: bytes | None = None, more: str = "") -> tuple[Result, Received]:
            listener, received = stack.enter_context(receivers.http(answer or vendor.success))
            [result] = send(registry.make(vendor.dsn(listener.port) + more, context()), sent)
            [request] = received
            return result, request

        yield to


RICH: dict[str, Any] = {
    "subject": "Grüße an Ada, 你好 🙂, und noch ein langer Betreff, der auf keine einzige Zeile mehr passt",
    "text": ".Ein Punkt\n..zwei\n\n你好 🙂 Größe\n",
    "html": "<p>.你好 🙂 <b>Größe</b></p>\n",
    "sender": "Grüße <other@example.net>",
    "reply_to": "Answers <answers@example.net>",
    "unsubscribe": "https://example.com/u/" + "x" * 90,
}


@ids
@pytest.mark.parametrize("fields", [{}, {"html": "<b>Hello</b>"}, RICH], ids=["text", "html", "rich"])
def test_a_message_is_told_whole(vendor: Vendor, post: Post, fields: dict[str, Any]) -> None:
    sent = message(**fields)
    result, request = post(vendor, sent)
    assert (result.outcome, result.message_id, result.error) == (Outcome.ACCEPTED, vendor.message_id, None)
    vendor.check(request, sent)


@pytest.mark.parametrize(
    ("vendor", "case"),
    [pytest.param(vendor, case, id=f"{vendor.name}: {case.label}") for vendor in VENDORS for case in vendor.errors],
)
def test_what_an_answer_comes_to(vendor: Vendor, case: Case, post: Post) -> None:
    result, _ = post(vendor, message(), case.answer)
    assert (result.outcome, result.fault, result.retry_after) == (case.outcome, case.fault, case.retry_after)
    assert result.error is not None
    assert "@" not in result.error


@ids
@pytest.mark.parametrize(
    "fields",
    [
        {"recipient": "nobody"},
        {"recipient": "Ada <ada@example.org>"},
        {"recipient": "ada@example.org, bob@example.org"},
        {"recipient": "ada@example.org\r\nBcc: bob@example.org"},
        {"sender": "nobody"},
        {"reply_to": "<>"},
        {"recipient": "=?utf-8?q?ada?=@example.org"},
        {"recipient": "ada@xn--a.example"},
        {"sender": "Ada <=?utf-8?q?ada?=@example.org>"},
    ],
)
def test_no_mailbox(vendor: Vendor, fields: dict[str, str]) -> None:
    provider = registry.make(vendor.dsn(receivers.unused_port()), context())
    [result] = send(provider, message(**fields))
    assert (result.outcome, result.error) == (Outcome.REJECTED, "address: not a mailbox")


@ids
@pytest.mark.parametrize("domain", ["bücher.example", "xn--bcher-kva.example"])
def test_international_domains_go_out_in_ascii(vendor: Vendor, post: Post, domain: str) -> None:
    sent = message(
        recipient=f"ada@{domain}",
        sender=f'"Müller, Jörg" <jm@{domain}>',
        reply_to=f"help@{domain}",
        unsubscribe=f"https://{domain}/u/ü",
    )
    result, request = post(vendor, sent)

    assert result.outcome is Outcome.ACCEPTED
    body = request.body
    if b'"Raw"' in body:  # the letter itself
        mail = orjson.loads(body)
        body = orjson.dumps({**mail, "Content": None}) + b64decode(mail["Content"]["Raw"]["Data"])
    assert "bücher".encode() not in body
    for said in ("ada@", "jm@", "help@", f"{sent.id}@", "https://"):
        assert f"{said}xn--bcher-kva.example".encode() in body


@ids
@pytest.mark.parametrize("field", ["recipient", "sender", "reply_to"])
def test_a_local_part_beyond_ascii_is_for_others(vendor: Vendor, field: str) -> None:
    provider = registry.make(vendor.dsn(receivers.unused_port()), context())
    [result] = send(provider, message(**{field: "jörg@example.org"}))

    assert result.outcome is Outcome.REJECTED
    assert result.error == f"address: international, and {vendor.name} does not offer SMTPUTF8"
    assert not provider.takes("jörg@example.org")
    assert provider.takes("ada@bücher.example")


@ids
def test_secrets_are_shown_nowhere(vendor: Vendor, post: Post, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        result, _ = post(vendor, message(), receivers.response(403))
    shown = repr(result) + caplog.text + repr(registry.make(vendor.dsn(1), context()))
    assert "some-key" not in shown
    assert "some/secret" not in shown
    assert "Signature=" not in shown


def test_sendgrid_in_detail(post: Post) -> None:
    sent = message(**RICH)
    _, request = post(sendgrid.VENDOR, sent)
    assert orjson.loads(request.body) == {
        "personalizations": [{"to": [{"email": "ada@example.org"}]}],
        "from": {"email": "other@example.net", "name": "Grüße"},
        "reply_to": {"email": "answers@example.net", "name": "Answers"},
        "subject": RICH["subject"],
        "content": [{"type": "text/plain", "value": RICH["text"]}, {"type": "text/html", "value": RICH["html"]}],
        "headers": {
            "Message-ID": f"<{sent.id}@example.net>",
            "Auto-Submitted": "auto-generated",
            "List-Unsubscribe": f"<{RICH['unsubscribe']}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        "custom_args": {"notification_id": str(sent.id)},
    }


def test_sendgrid_from_the_channels_sender(post: Post) -> None:
    _, request = post(sendgrid.VENDOR, message(subject="Two\r\nlines"))
    mail = orjson.loads(request.body)
    assert mail["from"] == {"email": "notifier@example.com", "name": "Notifier"}
    assert mail["subject"] == "Two lines"
    assert "reply_to" not in mail
    assert "List-Unsubscribe" not in mail["headers"]


INVITATION = Attachment("invite.ics", "text/calendar; method=REQUEST; charset=utf-8", b"BEGIN:VCALENDAR")


@ids
def test_a_files_type_has_its_parameters(vendor: Vendor, post: Post) -> None:
    _, request = post(vendor, message(attachments=(INVITATION,)))
    body = request.body
    if b'"Raw"' in body:
        body = b64decode(orjson.loads(body)["Content"]["Raw"]["Data"])
    assert b"text/calendar; method=REQUEST; charset=utf-8" in body


FILES = (Attachment("ö.pdf", "application/pdf", b"\0%PDF\r\n.\r\n"), Attachment("a b.csv", "text/csv", b"a;b\n"))


def test_sendgrid_gets_files(post: Post) -> None:
    _, request = post(sendgrid.VENDOR, message(attachments=FILES))
    assert orjson.loads(request.body)["attachments"] == [
        {
            "content": "ACVQREYNCi4NCg==",
            "filename": "ö.pdf",
            "type": "application/pdf",
            "disposition": "attachment",
        },
        {"content": "YTtiCg==", "filename": "a b.csv", "type": "text/csv", "disposition": "attachment"},
    ]
    _, request = post(sendgrid.VENDOR, message())
    assert "attachments" not in orjson.loads(request.body)


def test_ses_gets_files_in_the_letter(post: Post) -> None:
    sent = message(**RICH, attachments=FILES)
    _, request = post(ses.VENDOR, sent)
    ses.check(request, sent)
    parts = list(ses.mail_of(request).iter_attachments())
    found = [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in parts]
    assert found == [(file.name, file.content_type, file.content) for file in FILES]


def test_resend_gets_files(post: Post) -> None:
    _, request = post(resend.VENDOR, message(attachments=FILES))
    assert orjson.loads(request.body)["attachments"] == [
        {"filename": "ö.pdf", "content_type": "application/pdf", "content": "ACVQREYNCi4NCg=="},
        {"filename": "a b.csv", "content_type": "text/csv", "content": "YTtiCg=="},
    ]


def test_mailgun_gets_files_in_the_letter(post: Post) -> None:
    sent = message(**RICH, attachments=FILES)
    _, request = post(mailgun.VENDOR, sent)
    parts = list(mailgun.mail_of(request, sent).iter_attachments())
    found = [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in parts]
    assert found == [(file.name, file.content_type, file.content) for file in FILES]


def test_sendgrid_gets_no_empty_part(post: Post) -> None:
    _, request = post(sendgrid.VENDOR, message(text="", html="<p>Hello</p>"))
    assert orjson.loads(request.body)["content"] == [{"type": "text/html", "value": "<p>Hello</p>"}]


@pytest.mark.parametrize(
    ("ahead", "waits"), [(40, (38.0, 40.0)), (10**6, (86400.0, 86400.0))], ids=["soon", "beyond a day"]
)
def test_sendgrid_names_the_moment_to_go_on(post: Post, ahead: int, waits: tuple[float, float]) -> None:
    reset = f"X-RateLimit-Reset: {int(time.time()) + ahead}"
    result, _ = post(sendgrid.VENDOR, message(), sendgrid.complaint(429, "too many requests", None, reset))
    assert result.retry_after is not None
    assert waits[0] <= result.retry_after <= waits[1]


@pytest.mark.parametrize("value", ["soon", "-1", "9" * 40, ""])
def test_sendgrid_names_no_moment(post: Post, value: str) -> None:
    answer = sendgrid.complaint(429, "too many requests", None, f"X-RateLimit-Reset: {value}")
    result, _ = post(sendgrid.VENDOR, message(), answer)
    assert (result.fault, result.retry_after) == (Fault.THROTTLED, None)


def test_sendgrid_repeats_no_address_in_its_errors(post: Post) -> None:
    answer = sendgrid.complaint(400, "no", "ada@example.org")
    assert post(sendgrid.VENDOR, message(), answer)[0].error == "http 400"
    answer = sendgrid.complaint(400, "no", "content.0.value")
    assert post(sendgrid.VENDOR, message(), answer)[0].error == "http 400: sendgrid complains about content.0.value"


def test_sendgrid_yes_without_a_name(post: Post) -> None:
    result, _ = post(sendgrid.VENDOR, message(), receivers.response(202))
    assert (result.outcome, result.message_id) == (Outcome.ACCEPTED, None)


def test_ses_carries_the_whole_letter(post: Post) -> None:
    sent = message(**RICH)
    _, request = post(ses.VENDOR, sent, more="&configuration_set=receipts")
    asked = orjson.loads(request.body)
    assert asked["FromEmailAddress"] == "other@example.net"
    assert asked["ConfigurationSetName"] == "receipts"
    mail = ses.mail_of(request)
    assert mail["From"] == "Grüße <other@example.net>"
    assert mail["Reply-To"] == RICH["reply_to"]
    assert mail["Message-ID"] == f"<{sent.id}@example.net>"
    assert mail["List-Unsubscribe"] == f"<{RICH['unsubscribe']}>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_ses_dots_are_as_they_were(post: Post) -> None:
    _, request = post(ses.VENDOR, message(text=".one\n..two\n.\nthe end"))
    assert ses.part_of(ses.mail_of(request), "plain") == ".one\n..two\n.\nthe end"


def signature(received: Received, url: str, region: str, secret: str, token: str | None) -> str:
    """Return what botocore would sign a received request with."""
    signed = received.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: received.headers[name] for name in signed}
    request = AWSRequest(method="POST", url=url, data=received.body, headers=headers)
    request.context["timestamp"] = received.headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", secret, token), "ses", region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


@pytest.mark.parametrize("token", [None, "a+session/token=="])
def test_ses_signature(token: str | None) -> None:
    with receivers.http(ses.VENDOR.success) as (listener, received):
        dsn = ses.VENDOR.dsn(listener.port) + (f"&session_token={token}" if token else "")
        [result] = send(registry.make(dsn, context()), message())
    [request] = received
    assert result.outcome is Outcome.ACCEPTED
    assert request.headers.get("x-amz-security-token") == token
    url = f"http://127.0.0.1:{listener.port}/v2/email/outbound-emails"
    authorization = request.headers["authorization"]
    day = request.headers["x-amz-date"][:8]
    assert f"Credential=AKIDEXAMPLE/{day}/eu-central-1/ses/aws4_request" in authorization
    names = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "content-type"} <= set(names)
    assert authorization.endswith(f"Signature={signature(request, url, 'eu-central-1', 'some/secret', token)}")
    assert not authorization.endswith(f"Signature={signature(request, url, 'eu-central-1', 'another', token)}")


def test_ses_credentials_that_cannot_be_renewed() -> None:
    class Expired:
        def get_frozen_credentials(self) -> object:
            raise CredentialRetrievalError(provider="iam-role", error_msg="no answer")

    answer = ses.refusal(403, "MissingAuthenticationTokenException")
    with receivers.http(answer) as (listener, received):
        url = f"http://127.0.0.1:{listener.port}"
        provider = Ses(url=url, region="eu-central-1", credentials=Expired(), sender=mailbox(SENDER), timeout=5.0)
        [result] = send(provider, message())
    assert (result.outcome, result.fault) == (Outcome.UNSENT, Fault.PROVIDER)
    assert "authorization" not in received[0].headers


@pytest.fixture
def bare_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which AWS's tools find nothing."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


def test_ses_credentials_from_the_environment(bare_aws: pytest.MonkeyPatch) -> None:
    bare_aws.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    bare_aws.setenv("AWS_SECRET_ACCESS_KEY", "from-the-environment")
    bare_aws.setenv("AWS_DEFAULT_REGION", "us-west-2")
    with receivers.http(ses.VENDOR.success) as (listener, received):
        send(registry.make(f"ses://127.0.0.1:{listener.port}?tls=none", context()), message())
    url = f"http://127.0.0.1:{listener.port}/v2/email/outbound-emails"
    expected = signature(received[0], url, "us-west-2", "from-the-environment", None)
    assert received[0].headers["authorization"].endswith(expected)


def test_ses_without_credentials_anywhere(bare_aws: pytest.MonkeyPatch) -> None:
    del bare_aws
    with pytest.raises(ValueError, match=r"^has no access key, and there is none in AWS's"):
        registry.make("ses://default?region=eu-central-1", context())


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("sendgrid://default", "has no key: sendgrid://KEY@default"),
        ("sendgrid://hidden:secret@default", "has a password"),
        ("sendgrid://hid%0Aden@default", "has a key with other than"),
        ("sendgrid://hidden@default/path", "has a path"),
        ("sendgrid://hidden@default?region=mars", "has a region that is not one of eu, global"),
        ("sendgrid://hidden@default?tls=maybe", "has a tls that is not none"),
        ("sendgrid://hidden@default?regoin=eu", "has an option 'regoin'"),
        ("ses://hidden@default?region=eu-central-1", "has an access key without a secret"),
        ("ses://hidden:secret@default", "has no region"),
        ("ses://hidden:secret@default?region=evil.example/", "has no region"),
        ("ses://hid%0Aden:secret@default?region=eu-central-1", "has credentials with other than"),
        ("ses://hidden:secret@default/more?region=eu-central-1", "has a path"),
        ("ses://hidden:secret@default?region=eu-central-1&tls=maybe", "has a tls that is not none"),
        ("ses://hidden:secret@default?region=eu-central-1&set=x", "has an option 'set'"),
        ("ses://hidden:secret@default?region=eu-central-1&configuration_set=a%20b", "has a configuration_set"),
        ("ses://default?session_token=hidden", "has a session_token without"),
        ("resend://default", "has no key of visible"),
        ("resend://hidden:secret@default", "has no key of visible"),
        ("resend://hidden@default/path", "has a path"),
        ("mailgun://hidden@default", "names no domain to send from"),
        ("mailgun://hidden@default/nodomain", "names no domain to send from"),
        ("mailgun://hidden:secret@default/mg.example.com", "has no key of visible"),
        ("mailgun://hidden@default/mg.example.com?region=mars", "has a region that is not one of eu, us"),
    ],
)
def test_dsns_that_are_refused(dsn: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|begins|names)") as refused:
        registry.make(dsn, context())
    assert str(refused.value).startswith(says)
    assert "hid" not in str(refused.value)


@ids
def test_the_channel_needs_a_sender(vendor: Vendor) -> None:
    with pytest.raises(ValueError, match=r"^has no sender: NOTIFIER_EMAIL_FROM is not a mailbox$"):
        registry.make(vendor.dsn(1), context(sender="nobody"))


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("sendgrid://key@default", "https://api.sendgrid.com/v3/mail/send"),
        ("sendgrid://key@", "https://api.sendgrid.com/v3/mail/send"),
        ("sendgrid://key@default?region=eu", "https://api.eu.sendgrid.com/v3/mail/send"),
        ("sendgrid://key@proxy.internal:8443", "https://proxy.internal:8443/v3/mail/send"),
        ("resend://key@default", "https://api.resend.com/emails"),
        ("mailgun://key@default/mg.example.com", "https://api.mailgun.net/v3/mg.example.com/messages.mime"),
        ("mailgun://key@/mg.a.b?region=eu", "https://api.eu.mailgun.net/v3/mg.a.b/messages.mime"),
        (
            "ses://key:secret@default?region=us-gov-west-1",
            "https://email.us-gov-west-1.amazonaws.com/v2/email/outbound-emails",
        ),
    ],
)
def test_where_the_apis_are(dsn: str, url: str) -> None:
    provider = registry.make(dsn, context())
    assert isinstance(provider, HttpApi)
    assert provider.request(message()).url == url
    provider.close()


def test_every_call_is_bounded() -> None:
    """A vendor that never answers: the message may have been sent."""
    with receivers.listening(receivers.until_closed) as listener:
        for vendor in VENDORS:
            provider = registry.make(vendor.dsn(listener.port), context(timeout=0.2))
            [result] = send(provider, message())
            assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, Fault.PROVIDER)
