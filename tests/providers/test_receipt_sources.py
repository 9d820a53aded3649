"""Callbacks of vendors: their meaning, and that nobody else can send them."""

import re
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context, parse
from notifier.providers.receipts import (
    AddressStatus,
    Callback,
    Kind,
    Malformed,
    NotSigned,
    Receipt,
    Report,
    SuppressionReason,
    source,
)
from notifier.providers.vendors import twilio_receipts
from notifier.vocabulary.states import Channel
from tests.providers import signed
from tests.providers.signed import SENDGRID_KEY, TOKEN, URL, sendgrid_callback, twilio_callback

TWILIO = source(f"twilio://AC1:{TOKEN}@default?from=+15550100")
SENDGRID = source(f"sendgrid://key@default?webhook_key={quote(SENDGRID_KEY, safe='')}")
assert TWILIO
assert SENDGRID

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ID = UUID("01890000-0000-7000-8000-00000000beef")
TO = "+4915112345678"
#: Twilio's own example, from its documentation and the tests of its libraries.
EXAMPLE_URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
EXAMPLE = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}


def twilio_says(query: str = "", **form: str) -> Report:
    return TWILIO.read(twilio_callback(form, query, at=NOW))


def status(message_status: str, **form: str) -> Report:
    return twilio_says(f"notification={ID}", MessageStatus=message_status, To=TO, From="+15550100", **form)


def test_bounces_say_of_which_message_they_are() -> None:
    [receipt] = status("undelivered", MessageSid="SM1").receipts
    assert receipt.message_id == "SM1"
    bounced = {"event": "bounce", "type": "bounce", "notification_id": str(ID), "sg_message_id": "14c5.filter1"}
    [receipt] = SENDGRID.read(sendgrid_callback(orjson.dumps([bounced]), at=NOW)).receipts
    assert receipt.message_id == "14c5.filter1"


# Twilio.


@pytest.mark.parametrize(
    ("url", "form", "signature"),
    [
        (EXAMPLE_URL, [*EXAMPLE.items()], "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (EXAMPLE_URL.replace(".com", ".com:1234"), [*EXAMPLE.items()], "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (EXAMPLE_URL, [*EXAMPLE.items()], "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (EXAMPLE_URL.replace("https", "http"), [*EXAMPLE.items()], "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        (
            EXAMPLE_URL,
            [("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"), ("Digits", "1234")],
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
    ],
    ids=["as documented", "our port", "their port", "their port, http", "a field twice"],
)
def test_twilios_own_examples(url: str, form: list[tuple[str, str]], signature: str) -> None:
    reader = source("twilio://AC1:12345@default?from=+15550100")
    assert reader
    callback = Callback(url, {"x-twilio-signature": signature}, urlencode(form).encode(), NOW)
    assert reader.read(callback) == Report()
    for wrong in (
        replace(callback, headers={}),
        replace(callback, headers={"x-twilio-signature": ""}),
        replace(callback, headers={"x-twilio-signature": signature.replace("=", "")}),
        replace(callback, headers={"x-twilio-signature": "ü" + signature}),
        replace(callback, body=callback.body + b"&a=b"),
        replace(callback, body=callback.body[:-1]),
        replace(callback, url=url + "&x=1"),
        replace(callback, url=url.replace("mycompany", "theircompany")),
    ):
        with pytest.raises(NotSigned):
            reader.read(wrong)
    other = source("twilio://AC1:12346@default?from=+15550100")
    assert other
    with pytest.raises(NotSigned):
        other.read(callback)


@pytest.mark.parametrize("state", ["delivered", "read"])
def test_twilio_delivered(state: str) -> None:
    assert status(state) == Report((Receipt("twilio", ID, Kind.DELIVERED, NOW),))


@pytest.mark.parametrize(
    "state", ["accepted", "scheduled", "queued", "sending", "sent", "canceled", "receiving", "", "Delivered"]
)
def test_twilio_is_not_done_yet(state: str) -> None:
    assert status(state) == Report()


#: Codes of Twilio's error dictionary, what may come of a later attempt, and what they mean for the number.
TWILIO_CODES: dict[str, tuple[Kind, SuppressionReason | None]] = {
    **dict.fromkeys(["30001", "30022", "30023", "30027"], (Kind.BOUNCED_FOR_NOW, None)),
    **dict.fromkeys(["30002", "30037"], (Kind.BOUNCED_HERE, None)),
    "30003": (Kind.BOUNCED_FOR_NOW, None),
    "30004": (Kind.BOUNCED_HERE, None),
    "30005": (Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
    "30006": (Kind.BOUNCED_HERE, SuppressionReason.HARD_BOUNCE),  # on repeat
    **dict.fromkeys(["30007", "30038", "30039", "30043"], (Kind.BOUNCED_HERE, None)),
    "30008": (Kind.BOUNCED_FOR_NOW, None),
    "30010": (Kind.BOUNCED, None),
    **dict.fromkeys(["30017", "30020", "30021", "30410"], (Kind.BOUNCED_FOR_NOW, None)),
    **dict.fromkeys(
        ["30018", "30024", "30034", "30035", "30040", "30041", "30042"],
        (Kind.BOUNCED_HERE, None),
    ),
    **dict.fromkeys(["30019", "30044"], (Kind.BOUNCED, None)),
    **dict.fromkeys(["30032", "30033"], (Kind.BOUNCED_HERE, None)),
    "30036": (Kind.BOUNCED_FOR_NOW, None),
    "30046": (Kind.BOUNCED_HERE, None),
    "30450": (Kind.BOUNCED_FOR_NOW, None),
    "21610": (Kind.BOUNCED, SuppressionReason.STOP),
    **dict.fromkeys(["21211", "21614", "21635", "63003", "63024"], (Kind.BOUNCED, SuppressionReason.HARD_BOUNCE)),
}


def test_twilios_codes_are_those_of_its_dictionary() -> None:
    assert {code: meaning[1:] for code, meaning in twilio_receipts._CODES.items()} == TWILIO_CODES


@pytest.mark.parametrize("state", ["undelivered", "failed"])
@pytest.mark.parametrize("code", TWILIO_CODES)
def test_twilio_bounced(state: str, code: str) -> None:
    kind, reason = TWILIO_CODES[code]
    report = status(state, ErrorCode=code)
    [receipt] = report.receipts
    assert (receipt.kind, receipt.happened_at) == (kind, NOW)
    assert re.fullmatch(rf"twilio {code}, [a-z' -]+", receipt.error or "")
    repeats = receipt.error if code == "30006" else None
    standing = AddressStatus(Channel.SMS, TO, reason or SuppressionReason.STOP, notification_id=ID, repeats=repeats)
    assert report.standings == ((standing,) if reason else ())


@pytest.mark.parametrize(
    ("code", "error"),
    [("31999", "twilio 31999"), ("", "twilio says failed"), ("+4915112345678", "twilio says failed")],
)
def test_twilio_bounced_for_no_known_reason(code: str, error: str) -> None:
    assert status("failed", ErrorCode=code) == Report((Receipt("twilio", ID, Kind.BOUNCED, NOW, error),))


OLD, NEW = "0ldt0ken", "newt0ken"


@pytest.mark.parametrize(
    ("dsn", "tokens"),
    [
        (f"twilio://AC1:{NEW}@default?receipt_token={OLD}&from=%2B15550100", {OLD, NEW}),
        (f"twilio://SK1:{TOKEN}@default?account=AC1&receipt_token={OLD}&from=%2B15550100", {OLD}),
        (f"twilio://SK1:{TOKEN}@default?account=AC1&receipt_token={OLD},{NEW}&from=%2B15550100", {OLD, NEW}),
        (
            f"twilio://SK1:{TOKEN}@default?account=AC1&receipt_token={OLD}&receipt_token={NEW}&from=%2B15550100",
            {OLD, NEW},
        ),
        (f"twilio://SK1:{TOKEN}@default?account=AC1&from=%2B15550100", set()),
    ],
)
def test_twilios_tokens(dsn: str, tokens: set[str]) -> None:
    reader = source(dsn)
    assert (reader is None) is (not tokens)
    for token in (OLD, NEW, TOKEN, "") if reader else ():
        callback = twilio_callback({"MessageStatus": "delivered"}, f"notification={ID}", at=NOW, token=token)
        if token in tokens:
            assert reader.read(callback).receipts
        else:
            with pytest.raises(NotSigned):
                reader.read(callback)
    provider: Any = registry.make(dsn, _context(Channel.SMS))
    request = provider.request(signed.message(ID))
    assert request.url == "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json"
    credentials = dsn.split("//")[1].split("@", maxsplit=1)[0]
    assert f"authorization: Basic {b64encode(credentials.encode()).decode()}" in request.headers
    # One that could not be checked is not asked for.
    assert (b"StatusCallback" in request.body) is bool(tokens)
    provider.close()


@pytest.mark.parametrize("query", ["from=%2B15550100", "account=SK2&from=%2B15550100", "account=AC1/2&from=Acme"])
def test_twilios_keys_need_their_account(query: str) -> None:
    with pytest.raises(ValueError, match="account"):
        registry.make(f"twilio://SK1:{TOKEN}@default?{query}", _context(Channel.SMS))


@pytest.mark.parametrize("fragment", ["", "#rc=5&rp=all"])
@pytest.mark.parametrize("port", ["", ":443"])
def test_twilio_signs_with_what_asks_for_repeats_or_without(fragment: str, port: str) -> None:
    form, query = {"MessageStatus": "delivered"}, f"?notification={ID}"
    signature = signed.twilio_signature(URL.replace(".com", f".com{port}") + query + fragment, form)
    callback = Callback(URL + query, {"x-twilio-signature": signature}, urlencode(form).encode(), NOW)
    assert TWILIO.read(callback).receipts
    forged = signed.twilio_signature(URL + query + "#rc=9", form)
    with pytest.raises(NotSigned):
        TWILIO.read(replace(callback, headers={"x-twilio-signature": forged}))


@pytest.mark.parametrize("text", ["STOP", "stop", " Stop\r\n", "StopAll", "unsubscribe", "cancel", "end", "QUIT"])
def test_twilio_stop(text: str) -> None:
    assert twilio_says(From=TO, Body=text) == Report((), (AddressStatus(Channel.SMS, TO, SuppressionReason.STOP),))


@pytest.mark.parametrize("text", ["START", "yes", "Unstop "])
def test_twilio_start(text: str) -> None:
    assert twilio_says(From=TO, Body=text) == Report(
        (), (AddressStatus(Channel.SMS, TO, SuppressionReason.STOP, lifted=True),)
    )


@pytest.mark.parametrize("form", [{"Body": "stop it"}, {"Body": "HELP"}, {"Body": ""}, {}])
def test_twilio_other_answers(form: dict[str, str]) -> None:
    assert twilio_says(From=TO, **form) == Report()


def test_twilio_advanced_opt_out_knows_better() -> None:
    assert twilio_says(From=TO, Body="arrêt", OptOutType="STOP").standings[0].lifted is False
    assert twilio_says(From=TO, Body="moin", OptOutType="START").standings[0].lifted is True
    assert twilio_says(From=TO, Body="stop", OptOutType="HELP") == Report()


@pytest.mark.parametrize("query", ["notification=", "notification=17", f"notification={ID}0"])
def test_twilio_names_no_id(query: str) -> None:
    with pytest.raises(Malformed, match=r"^names a notification that is no id$"):
        twilio_says(query, MessageStatus="delivered")


@pytest.mark.parametrize("body", [b"\xff=1", "Body=ä".encode(), b"&".join(b"a=%d" % n for n in range(1100))])
def test_twilio_no_form(body: bytes) -> None:
    with pytest.raises(Malformed, match=r"^is not a form$"):
        TWILIO.read(Callback(URL, {}, body, NOW))


# SendGrid.

#: From the tests of SendGrid's own libraries.
EXAMPLE_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eN"
    "Ec6wEA3F+g=="
)
EXAMPLE_HEADERS = {
    "x-twilio-email-event-webhook-signature": (
        "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
    ),
    "x-twilio-email-event-webhook-timestamp": "1600112502",
}
EXAMPLE_BODY = (
    b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
    b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
    b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
    b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n'
)


@pytest.mark.parametrize("key", [quote(EXAMPLE_KEY, safe=""), EXAMPLE_KEY, EXAMPLE_KEY.replace("+", "%20")])
def test_sendgrids_own_example(key: str) -> None:
    reader = source(f"sendgrid://key@default?webhook_key={key}")
    assert reader
    signed_at = datetime.fromtimestamp(1600112502, UTC)
    callback = Callback(URL, EXAMPLE_HEADERS, EXAMPLE_BODY, signed_at + timedelta(hours=24))
    assert reader.read(callback) == Report()  # it is of nobody's notification
    signature, timestamp = EXAMPLE_HEADERS
    for wrong in (
        replace(callback, body=EXAMPLE_BODY.rstrip()),
        replace(callback, body=b""),
        replace(callback, headers={}),
        replace(callback, headers={timestamp: "1600112502"}),
        replace(callback, headers={signature: EXAMPLE_HEADERS[signature]}),
        replace(callback, headers=EXAMPLE_HEADERS | {timestamp: "1600112503"}),
        replace(callback, headers=EXAMPLE_HEADERS | {timestamp: "ü"}),
        replace(callback, headers=EXAMPLE_HEADERS | {signature: EXAMPLE_HEADERS[signature][4:]}),
        replace(callback, headers=EXAMPLE_HEADERS | {signature: "?"}),
        replace(callback, headers=EXAMPLE_HEADERS | {signature: "ü"}),
        replace(callback, received_at=signed_at + timedelta(hours=25, seconds=1)),
    ):
        with pytest.raises(NotSigned):
            reader.read(wrong)
    with pytest.raises(NotSigned):
        SENDGRID.read(callback)


def sendgrid_says(*events: Any) -> Report:
    return SENDGRID.read(sendgrid_callback(orjson.dumps(events), at=NOW))


def event(name: str, **more: Any) -> dict[str, Any]:
    then = int(NOW.timestamp()) - 60
    return {"email": "Ada@example.org", "timestamp": then, "event": name, "notification_id": str(ID), **more}


def test_sendgrid_delivered() -> None:
    receipt = Receipt("sendgrid", ID, Kind.DELIVERED, NOW - timedelta(minutes=1))
    assert sendgrid_says(event("delivered", response="250 OK")) == Report((receipt,))


@pytest.mark.parametrize(
    "name", ["processed", "deferred", "open", "click", "unsubscribe", "group_unsubscribe", "group_resubscribe", ""]
)
def test_sendgrid_is_of_no_interest(name: str) -> None:
    assert sendgrid_says(event(name)) == Report()


HERE, FOR_NOW = Kind.BOUNCED_HERE, Kind.BOUNCED_FOR_NOW


def a_bounce(kind: str, classification: str = "", status: str = "") -> dict[str, str]:
    return {"event": "bounce", "type": kind, "bounce_classification": classification, "status": status}


def a_drop(reason: Any) -> dict[str, Any]:
    return {"event": "dropped", "reason": reason}


@pytest.mark.parametrize(
    ("more", "error", "kind", "reason"),
    [
        (a_bounce("bounce", "", "5.1.1"), "bounce, 5.1.1", Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
        (a_bounce("bounce", "", "5.1.10"), "bounce, 5.1.10", Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
        (a_bounce("bounce", "Invalid Address", "5.0.0"), "bounce, 5.0.0, invalid address", Kind.BOUNCED, "hard_bounce"),
        (
            a_bounce("bounce", "Mailbox Unavailable", "5.1.1"),
            "bounce, 5.1.1, mailbox unavailable",
            Kind.BOUNCED,
            "hard_bounce",
        ),
        (a_bounce("bounce", "", "5.1.8"), "bounce, 5.1.8", Kind.BOUNCED, None),  # the sender's
        (a_bounce("bounce", "Content"), "bounce, content", HERE, None),
        (a_bounce("bounce", "Reputation", "5.7.1"), "bounce, 5.7.1, reputation", HERE, None),
        (a_bounce("bounce", "Technical Failure"), "bounce, technical failure", HERE, None),
        (a_bounce("bounce", "Frequency or Volume Too High"), "bounce, frequency or volume too high", HERE, None),
        (a_bounce("bounce", "Mailbox Unavailable", "5.2.2"), "bounce, 5.2.2, mailbox unavailable", HERE, None),
        (a_bounce("bounce", "Unclassified"), "bounce, unclassified", Kind.BOUNCED, None),
        (a_bounce("blocked", "Technical Failure"), "blocked, technical failure", FOR_NOW, None),
        (a_bounce("blocked", "Frequency or Volume Too High"), "blocked, frequency or volume too high", FOR_NOW, None),
        (a_bounce("blocked", "Mailbox Unavailable", "5.2.2"), "blocked, 5.2.2, mailbox unavailable", FOR_NOW, None),
        (a_bounce("blocked", "", "4.2.1"), "blocked, 4.2.1", FOR_NOW, None),
        (a_bounce("blocked", "Content"), "blocked, content", HERE, None),
        (a_bounce("blocked", "Reputation", "5.7.1"), "blocked, 5.7.1, reputation", HERE, None),
        (
            {"event": "bounce", "type": "blocked", "status": "5.7.1", "reason": "550 <ada@example.org> refused"},
            "blocked, 5.7.1",
            Kind.BOUNCED,
            None,
        ),
        (a_bounce("expired", "", "ada@example.org"), "bounce", Kind.BOUNCED, None),
        ({"event": "bounce"}, "bounce", Kind.BOUNCED, None),
        (a_drop("Bounced Address"), "dropped, bounced address", Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
        (a_drop("Invalid"), "dropped, invalid", Kind.BOUNCED, SuppressionReason.HARD_BOUNCE),
        (
            a_drop("Spam Reporting Address"),
            "dropped, spam reporting address",
            Kind.BOUNCED,
            SuppressionReason.COMPLAINT,
        ),
        (a_drop("Unsubscribed Address"), "dropped, unsubscribed address", Kind.BOUNCED, None),
        (a_drop("Spam Content"), "dropped, spam content", Kind.BOUNCED, None),
        (a_drop("Invalid SMTPAPI header"), "dropped, invalid smtpapi header", Kind.BOUNCED, None),
        (a_drop("Recipient List over Package Quota"), "dropped, recipient list over package quota", HERE, None),
        (a_drop("ada@example.org is odd"), "dropped", Kind.BOUNCED, None),
        (a_drop(17), "dropped", Kind.BOUNCED, None),
    ],
)
def test_sendgrid_bounced(more: dict[str, Any], error: str, kind: Kind, reason: SuppressionReason | None) -> None:
    receipt = Receipt("sendgrid", ID, kind, NOW - timedelta(minutes=1), f"sendgrid {error}")
    standing = AddressStatus(Channel.EMAIL, "Ada@example.org", SuppressionReason(reason or "stop"), notification_id=ID)
    assert sendgrid_says(event("", **more)) == Report((receipt,), (standing,) if reason else ())


def test_sendgrid_keys_of_several_webhooks() -> None:
    for joined in (f"{EXAMPLE_KEY},{SENDGRID_KEY}", f"{SENDGRID_KEY}&webhook_key={EXAMPLE_KEY}"):
        reader = source(f"sendgrid://key@default?webhook_key={joined}")
        assert reader
        assert reader.read(sendgrid_callback(b"[]", at=NOW)) == Report()


def test_sendgrid_complaint() -> None:
    standing = AddressStatus(Channel.EMAIL, "Ada@example.org", SuppressionReason.COMPLAINT, notification_id=ID)
    assert sendgrid_says(event("spamreport")) == Report((), (standing,))


def test_sendgrid_events_of_others() -> None:
    strangers = [event("bounce", type="bounce", notification_id=other) for other in ("", "17", None, 17, [str(ID)])]
    del strangers[0]["notification_id"]
    report = sendgrid_says(*strangers, event("delivered"), event("spamreport"))
    assert (len(report.receipts), len(report.standings)) == (1, 1)


@pytest.mark.parametrize("moment", [None, "1", [], True, 1e300, -1e300, int(NOW.timestamp()) + 100])
def test_sendgrid_moments_that_cannot_be(moment: Any) -> None:
    [receipt] = sendgrid_says(event("delivered", timestamp=moment)).receipts
    assert receipt.happened_at <= NOW


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"[null]", b'"x"', b"[", b"\xff", b"[" * 100_000])
def test_sendgrid_no_list_of_events(body: bytes) -> None:
    with pytest.raises(Malformed):
        SENDGRID.read(sendgrid_callback(body, at=NOW))
    with pytest.raises(NotSigned):  # before it is looked at
        SENDGRID.read(Callback(URL, {}, body, NOW))


# Where they come from.


def test_what_sends_no_receipts_has_no_source() -> None:
    for dsn in ("outbox:", "smtp://host", "sendgrid://key@default", "vonage://k:s@default?from=Acme", "apprise:"):
        assert source(dsn) is None


def _context(channel: Channel, public_url: str = "https://notifier.example.com") -> Context:
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    return Context(channel, 5.0, "notifier@example.com", public_url, (), engine)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "hidden",
        b64encode(b64decode(EXAMPLE_KEY)[:-1]).decode(),
        b64encode(signed.public_der(ec.generate_private_key(ec.SECP384R1()))).decode(),
    ],
    ids=["empty", "no base64", "cut off", "another curve"],
)
def test_sendgrid_keys_that_are_refused(key: str) -> None:
    dsn = f"sendgrid://key@default?webhook_key={quote(key, safe='')}"
    for make in (source, lambda dsn: registry.make(dsn, _context(Channel.EMAIL))):
        with pytest.raises(ValueError, match=r"^has a webhook_key that is not SendGrid's verification key") as caught:
            make(dsn)
        assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "public_url", "is_told"),
    [
        ("default", "https://notifier.example.com", True),
        ("default", "http://notifier.example.com/under", True),
        ("default", "http://93.184.216.34:8000", True),
        ("default", "http://localhost:8000", False),
        ("default", "https://localhost", False),
        ("default", "https://api.localhost", False),
        ("default", "http://api:8000", False),
        ("default", "http://127.0.0.1:8000", False),
        ("default", "http://192.168.1.7", False),
        ("default", "http://[::1]:8000", False),
        ("127.0.0.1:9", "http://localhost:8000", True),
    ],
)
def test_twilio_is_told_where_receipts_go(host: str, public_url: str, is_told: bool) -> None:
    provider: Any = registry.make(
        f"twilio://AC1:{TOKEN}@{host}?from=+15550100&tls=none", _context(Channel.SMS, public_url)
    )
    body = provider.request(signed.message(ID)).body.decode()
    callback = urlencode({"StatusCallback": f"{public_url}/api/v1/receipts/twilio?notification={ID}#rc=5&rp=all"})
    assert (callback in body) is is_told
    assert ("StatusCallback" in body) is is_told
    provider.close()


def test_secrets_are_shown_nowhere() -> None:
    for reader in (TWILIO, SENDGRID):
        assert not re.search(f"{TOKEN}|{re.escape(SENDGRID_KEY)}", repr(reader))
    assert TOKEN not in repr(parse(f"twilio://AC1:{TOKEN}@default"))
