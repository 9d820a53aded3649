"""Receipts of Vonage's callbacks, which nobody else can forge."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import orjson
import pytest
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.receipts import (
    AddressStatus,
    Callback,
    Kind,
    Malformed,
    NotSigned,
    Report,
    SuppressionReason,
    source,
)
from notifier.providers.vendors import vonage_receipts
from notifier.vocabulary.states import Channel
from tests.providers import signed

URL = "https://notifier.example.com/api/v1/receipts/vonage"
NOW = datetime.now(UTC)
ID = UUID("01890000-0000-7000-8000-00000000beef")
SECRET = "s1gn&ture=secret"
DSN = f"vonage://KEY:PASSWORD@default?from=Acme&signature_secret={SECRET.replace('&', '%26').replace('=', '%3D')}"


def signature(given: Mapping[str, str], method: str) -> str:
    text = "".join(f"&{name}={given[name].replace('&', '_').replace('=', '_')}" for name in sorted(given)).encode()
    if method == "md5hash":
        return hashlib.md5(text + SECRET.encode()).hexdigest()
    return hmac.new(SECRET.encode(), text, method).hexdigest().upper()


def receipt(**more: str) -> dict[str, str]:
    return {
        "msisdn": "4915112345678",
        "to": "Acme",
        "network-code": "26201",
        "messageId": "0A0000001",
        "price": "0.03",
        "status": "delivered",
        "scts": "2603011200",
        "err-code": "0",
        "api-key": "KEY",
        "client-ref": str(ID),
        "message-timestamp": "2026-03-01 12:00:00",
        "timestamp": str(int(NOW.timestamp())),
        "nonce": "a&b=c",
        **more,
    }


def callback(given: Mapping[str, str], form: str = "query", query: str = "") -> Callback:
    match form:
        case "query":
            return Callback(f"{URL}?{urlencode(given)}", {}, b"", NOW)
        case "form":
            return Callback(URL + query, {}, urlencode(given).encode(), NOW)
        case _:
            return Callback(URL + query, {}, orjson.dumps(given), NOW)


def says(given: Mapping[str, str], form: str = "query", method: str = "sha256", query: str = "") -> Report:
    reader = source(DSN)
    assert reader
    return reader.read(callback({**given, "sig": signature(given, method)}, form, query))


@pytest.mark.parametrize("form", ["query", "form", "json"])
@pytest.mark.parametrize("method", ["md5hash", "md5", "sha1", "sha256", "sha512"])
def test_every_form_and_signature(form: str, method: str) -> None:
    [found] = says(receipt(), form, method).receipts
    assert (found.notification_id, found.kind, found.message_id) == (ID, Kind.DELIVERED, "0A0000001")
    assert found.happened_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("form", ["form", "json"])
def test_the_addresss_own_parameters_may_be_signed_or_not(form: str) -> None:
    assert says(receipt(), form, query=f"?notification={ID}&token=x").receipts
    given = receipt()
    whole = {**given, "notification": str(ID)}
    reader = source(DSN)
    assert reader
    assert reader.read(callback({**given, "sig": signature(whole, "sha1")}, form, f"?notification={ID}")).receipts


#: Vonage's err-codes.
CODES: dict[str, tuple[Kind, SuppressionReason | None]] = {
    "1": (Kind.BOUNCED, None),
    **dict.fromkeys(["2", "7", "8", "11", "99"], (Kind.BOUNCED_FOR_NOW, None)),
    **dict.fromkeys(["3", "4"], (Kind.BOUNCED, SuppressionReason.HARD_BOUNCE)),
    **dict.fromkeys(["5", "12", "14", "15", "6", "10", "13"], (Kind.BOUNCED, None)),
    "9": (Kind.BOUNCED, SuppressionReason.STOP),
}


def test_the_codes_are_vonages() -> None:
    assert {code: meaning[1:] for code, meaning in vonage_receipts._CODES.items()} == CODES


@pytest.mark.parametrize("status", ["failed", "rejected", "expired"])
@pytest.mark.parametrize("code", [*CODES, "0", "17", "", "+4915112345678"])
def test_bounces(status: str, code: str) -> None:
    kind, reason = CODES.get(code, (Kind.BOUNCED, None))
    report = says(receipt(status=status, **{"err-code": code}))
    assert report.receipts[0].kind is kind
    assert "4915112345678" not in str(report.receipts[0].error)
    standing = AddressStatus(Channel.SMS, "+4915112345678", reason or SuppressionReason.STOP, notification_id=ID)
    assert report.standings == ((standing,) if reason else ())


@pytest.mark.parametrize("status", ["accepted", "buffered", "unknown", "", "Delivered"])
def test_of_no_interest(status: str) -> None:
    assert says(receipt(status=status)) == Report()


@pytest.mark.parametrize("reference", ["", "17", "order-5"])
def test_messages_of_others(reference: str) -> None:
    assert says(receipt(**{"client-ref": reference})) == Report()


@pytest.mark.parametrize("name", ["status", "client-ref", "err-code", "timestamp", "sig", "msisdn"])
def test_what_is_altered(name: str) -> None:
    reader = source(DSN)
    assert reader
    given = receipt()
    given["sig"] = signature(given, "sha256")
    for changed in ({**given, name: "1"}, {key: value for key, value in given.items() if key != name}):
        with pytest.raises(NotSigned):
            reader.read(callback(changed))


def test_old_ones_are_not_believed() -> None:
    says(receipt(timestamp=str(int((NOW - timedelta(hours=24)).timestamp()))))
    for timestamp in (str(int((NOW - timedelta(hours=26)).timestamp())), "", "x", "9" * 400):
        with pytest.raises(NotSigned):
            says(receipt(timestamp=timestamp))


@pytest.mark.parametrize("body", [b"{", b"\xff", b"&".join(b"a=%d" % n for n in range(300)), b"{" * 9999])
def test_no_form(body: bytes) -> None:
    reader = source(DSN)
    assert reader
    with pytest.raises(Malformed):
        reader.read(Callback(URL, {}, body, NOW))


@pytest.mark.parametrize(("text", "lifted"), [("STOP", False), (" stop ", False), ("Start", True), ("stop it", None)])
def test_answers(text: str, lifted: bool | None) -> None:
    given = {"msisdn": "4915112345678", "to": "4915100", "text": text, "timestamp": str(int(NOW.timestamp()))}
    expected = (
        () if lifted is None else (AddressStatus(Channel.SMS, "+4915112345678", SuppressionReason.STOP, lifted=lifted),)
    )
    assert says(given, "form") == Report((), expected)


# Without a signature secret.


def asked_for(dsn: str) -> str | None:
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    context = Context(Channel.SMS, 5.0, "n@example.com", "https://notifier.example.com", (), engine)
    provider: Any = registry.make(dsn, context)
    fields = parse_qs(provider.request(signed.message(ID)).body.decode())
    provider.close()
    return fields.get("callback", [None])[0]


def test_the_address_of_a_message_is_its_key_where_nothing_is_signed() -> None:
    dsn = "vonage://KEY:PASSWORD@default?from=Acme&receipts=on"
    reader = source(dsn)
    address = asked_for(dsn)
    assert reader
    assert address
    assert address.startswith(f"{URL}?notification={ID}&token=")
    query = urlsplit(address).query
    given = receipt(status="failed", **{"err-code": "9"})
    assert reader.read(callback(given, "form", f"?{query}")).receipts[0].kind is Kind.BOUNCED
    assert reader.read(Callback(f"{URL}?{query}&{urlencode(given)}", {}, b"", NOW)).standings
    other = str(UUID(int=ID.int + 1))
    for wrong in ("", f"?{query[:-1]}", f"?{query.replace(str(ID), other)}", f"?notification={ID}", "?token="):
        with pytest.raises(NotSigned):
            reader.read(callback(given, "form", wrong))
    with pytest.raises(NotSigned):
        reader.read(callback({**given, "client-ref": other}, "form", f"?{query}"))


def test_who_asks_for_none_gets_none() -> None:
    dsn = "vonage://KEY:PASSWORD@default?from=Acme"
    assert (source(dsn), asked_for(dsn)) == (None, None)
    assert asked_for(DSN) is not None
    for wrong in ("receipts=off", "signature_secret="):
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            source(f"{dsn}&{wrong}")
