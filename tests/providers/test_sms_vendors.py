"""SMS vendors in detail: what their requests say, and which DSNs they take."""

import itertools
import re
from contextlib import closing
from urllib.parse import parse_qs

import orjson
import pytest
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.vendors import Vendor, messagebird, plivo, twilio, vonage

VENDORS = [twilio.VENDOR, vonage.VENDOR, plivo.VENDOR, messagebird.VENDOR]
SECRET = "hunter2secret"
SERVICE = "MG" + "2b" * 16

each_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)


def context() -> Context:
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    return Context(Channel.SMS, 5.0, "notifier@example.com", "https://notifier.example.com", (), engine)


def sent(vendor: Vendor, text: str, *, dsn: str = "", answer: bytes = b"") -> tuple[Result, dict[str, list[str]]]:
    """Return what becomes of a text, and the fields that went out. `dsn` names the port {port}."""
    message = Message(id=new_id(), recipient=vendor.recipient, subject=None, text=text)
    with receivers.http(answer or vendor.success) as (server, received):
        named = dsn.format(port=server.port) if dsn else vendor.dsn(server.port)
        with closing(registry.make(named, context())) as provider:
            [result] = itertools.chain.from_iterable(provider.send(iter([message])))
    body = received[0].body if received else b""
    fields = (
        {name: [value] for name, value in orjson.loads(body).items()}
        if body.startswith(b"{")
        else parse_qs(body.decode("ascii"), strict_parsing=bool(body))
    )
    assert result.id == message.id
    return result, fields


@each_vendor
@pytest.mark.parametrize("text", ["a" * 1530, "€" * 760, "世" * 670, "💌" * 330])
def test_the_longest_text(vendor: Vendor, text: str) -> None:
    result, fields = sent(vendor, text)
    assert result.outcome is Outcome.ACCEPTED
    assert text in {*fields.get("Body", []), *fields.get("text", []), *fields.get("body", [])}


@each_vendor
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a" * 1531, "too long: 11 segments, at most 10"),
        ("€" * 761, "too long: 11 segments, at most 10"),
        ("世" * 671, "too long: 11 segments, at most 10"),
        ("💌" * 331, "too long: 11 segments, at most 10"),
        ("a" * 1800, "too long: 12 segments, at most 10"),
        ("", "empty: an SMS needs a text"),
    ],
)
def test_texts_that_do_not_go_out(vendor: Vendor, text: str, error: str) -> None:
    result, fields = sent(vendor, text)
    assert (result.outcome, result.fault, result.error) == (Outcome.REJECTED, None, error)
    assert not fields


@each_vendor
def test_secrets_are_shown_nowhere(vendor: Vendor) -> None:
    result, _ = sent(vendor, "Hello", answer=receivers.response(401, b"{}"))
    provider = registry.make(vendor.dsn(1), context())
    for secret in (twilio.TOKEN, vonage.SECRET, messagebird.KEY, "t0ken", "s3cret", "Basic"):
        assert secret not in repr(result)
        assert secret not in repr(provider)
    provider.close()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (21211, "http 400: twilio 21211, not a phone number"),
        (21610, "http 400: twilio 21610, opted out"),
        (29999, "http 400: twilio 29999"),
    ],
)
def test_twilio_in_our_words(code: int, error: str) -> None:
    assert sent(twilio.VENDOR, "Hello", answer=twilio.error(code))[0].error == error


@pytest.mark.parametrize(
    ("sender", "field", "value"),
    [
        ("from=+15550100", "From", "+15550100"),
        ("from=%2B15550100", "From", "+15550100"),
        ("from=72404", "From", "72404"),
        ("from=Acme+Inc", "From", "Acme Inc"),
        (f"service={SERVICE}", "MessagingServiceSid", SERVICE),
    ],
)
def test_twilio_senders(sender: str, field: str, value: str) -> None:
    dsn = f"twilio://{twilio.ACCOUNT}:{SECRET}@127.0.0.1:{{port}}?tls=none&{sender}"
    result, fields = sent(twilio.VENDOR, "Hello", dsn=dsn)
    assert result.outcome is Outcome.ACCEPTED
    assert fields[field] == [value]
    assert set(fields) == {"To", "Body", "StatusCallback", field}


@pytest.mark.parametrize(
    ("sender", "value"),
    [
        ("+15550100", "15550100"),
        ("%2B15550100", "15550100"),
        ("15550100", "15550100"),
        ("Acme", "Acme"),
        ("Acme+Inc", "Acme Inc"),
    ],
)
def test_vonage_senders(sender: str, value: str) -> None:
    dsn = f"vonage://key:{SECRET}@127.0.0.1:{{port}}?tls=none&from={sender}"
    result, fields = sent(vonage.VENDOR, "Hello", dsn=dsn)
    assert result.outcome is Outcome.ACCEPTED
    assert (fields["from"], fields["to"]) == ([value], ["15550123"])


@pytest.mark.parametrize(
    ("text", "kind"), [("Price: 5 €, {net}", "text"), ("Grüße", "text"), ("Привет", "unicode"), ("a💌", "unicode")]
)
def test_vonage_is_told_what_the_text_is(text: str, kind: str) -> None:
    _, fields = sent(vonage.VENDOR, text)
    assert (fields["type"], fields["text"]) == ([kind], [text])


def test_vonage_with_several_parts() -> None:
    result, _ = sent(vonage.VENDOR, "a" * 400, answer=vonage.parts("0", "0", "0"))
    assert (result.outcome, result.message_id) == (Outcome.ACCEPTED, vonage.MESSAGE_ID)
    result, _ = sent(vonage.VENDOR, "a" * 400, answer=vonage.parts("0", "9", "9"))
    assert (result.outcome, result.fault) == (Outcome.AMBIGUOUS, Fault.PROVIDER)
    assert result.error == "http 200: vonage 9, out of credit; 2 of 3 parts refused"


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("twilio:", "has no account: twilio://SID:TOKEN@default?from=+15550100"),
        ("plivo:", "has no auth id of letters and digits: "),
        ("plivo://MA1@default?from=+15550100", "has no auth token: "),
        (f"plivo://MA1:{SECRET}@default", "needs one of from and powerpack, and only one: "),
        (f"plivo://MA1:{SECRET}@default?from=+1555&powerpack=x", "needs one of from and powerpack, and only one: "),
        (f"plivo://MA1:{SECRET}@default?powerpack=x", "has a powerpack that is not a UUID"),
        (f"plivo://MA1:{SECRET}@default?from=a+name+too+long", "has a from that is neither "),
        ("messagebird:", "has no key of visible ASCII characters: "),
        (f"messagebird://{SECRET}@default", "needs a from: "),
        (f"messagebird://{SECRET}@default/x?from=Acme", "has a path: "),
        (f"messagebird://{SECRET}@default?from=", "has a from that is neither "),
        (f"twilio://:{SECRET}@default?from=+15550100", "has no account: "),
        (f"twilio://AC%3A1:{SECRET}@default?from=+15550100", "has an account that is not a SID"),
        ("twilio://AC1@default?from=+15550100", "has no token: "),
        (f"twilio://AC1:{SECRET}@default/{SECRET}?from=+15550100", "has a path: "),
        (f"twilio://AC1:{SECRET}@default:443?from=+15550100", "has a port without a host: "),
        (f"twilio://AC1:{SECRET}@default", "needs one of from and service, and only one: "),
        (f"twilio://AC1:{SECRET}@default?from=+15550100&service=MG1", "needs one of from and service, and only one: "),
        (f"twilio://AC1:{SECRET}@default?from=", "has a from that is neither "),
        (f"twilio://AC1:{SECRET}@default?from=a+name+too+long", "has a from that is neither "),
        (f"twilio://AC1:{SECRET}@default?from=+{SECRET}", "has a from that is neither "),
        (f"twilio://AC1:{SECRET}@default?service={SECRET}", "has a service that is not a SID"),
        (f"twilio://AC1:{SECRET}@default?from=+15550100&sender=1", "has an option 'sender'; known are "),
        (f"twilio://AC1:{SECRET}@host?from=+15550100&tls=required", "has a tls that is not none"),
        ("vonage:", "has no key: vonage://KEY:SECRET@default?from=Acme"),
        ("vonage://key@default?from=Acme", "has no secret: "),
        (f"vonage://key:{SECRET}@default/x?from=Acme", "has a path: "),
        (f"vonage://key:{SECRET}@default:443?from=Acme", "has a port without a host: "),
        (f"vonage://key:{SECRET}@default", "has no from: "),
        (f"vonage://key:{SECRET}@default?from=", "has no from: "),
        (f"vonage://key:{SECRET}@default?from=a+name+too+long", "has a from that is neither "),
        (f"vonage://key:{SECRET}@default?from=Acme&region=eu", "has an option 'region'; known are "),
        (f"vonage://key:{SECRET}@default?from=Acme&tls=no", "has a tls that is not none"),
    ],
)
def test_dsns_that_are_refused(dsn: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as caught:
        registry.make(dsn, context())
    assert SECRET not in str(caught.value)
