"""Every source of receipts, the example of docs/providers.md among them, is held to the protocol."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest

from notifier.providers.dsn import parse
from notifier.providers.receipts import AddressStatus, Callback, Kind, SuppressionReason, source
from notifier.providers.vendors.vonage_receipts import callback_query
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receipt_conformance import Case, hold
from tests.providers.receivers import response
from tests.providers.signed import (
    SENDGRID_KEY,
    TOKEN,
    TOPIC,
    certificate,
    sendgrid_callback,
    sns_callback,
    sns_message,
    twilio_callback,
)
from tests.support.paths import ROOT

NOW = datetime.now(UTC)
ID = UUID("01890000-0000-7000-8000-00000000beef")


def altered(good: Callback) -> list[Callback]:
    return [replace(good, headers={}), replace(good, body=good.body + b" ")]


def twilio_case() -> Case:
    reader = source(f"twilio://AC1:{TOKEN}@default?from=+15550100")
    assert reader
    form, query = {"MessageStatus": "delivered"}, f"notification={ID}"
    return Case(
        reader,
        twilio_callback(form, query, at=NOW),
        [twilio_callback(form, query, at=NOW, token="stranger"), *altered(twilio_callback(form, query, at=NOW))],
        [twilio_callback(form, "notification=17", at=NOW)],
        TOKEN,
    )


def sendgrid_case() -> Case:
    reader = source(f"sendgrid://key@default?webhook_key={quote(SENDGRID_KEY, safe='')}")
    assert reader
    good = sendgrid_callback(b'[{"event": "delivered", "notification_id": "%s"}]' % str(ID).encode(), at=NOW)
    return Case(
        reader, good, altered(good), [sendgrid_callback(body, at=NOW) for body in (b"{}", b"[1]", b"")], SENDGRID_KEY
    )


def vonage_case() -> Case:
    dsn = "vonage://KEY:hunter2@default?from=Acme&receipts=on"
    reader = source(dsn)
    assert reader
    url = f"https://n.example.com/api/v1/receipts/vonage?{callback_query(parse(dsn), ID)}"
    good = Callback(url, {}, b"status=delivered", NOW)
    forged = [replace(good, url=url[:-1]), replace(good, url=url.partition("?")[0])]
    return Case(reader, good, forged, [replace(good, body=body) for body in (b"{", b"\xff")], "hunter2")


def acme_callback(body: bytes, secret: str = "hunter2") -> Callback:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return Callback("https://n.example.com/api/v1/receipts/acme", {"x-acme-signature": signature}, body, NOW)


@pytest.fixture
def acme_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The example, as pip would leave it."""
    docs = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```py\n(.*?)^```", docs, re.DOTALL | re.MULTILINE)
    [entry] = re.findall(r'^(\[project.entry-points."notifier.receipts"\]\n.*?)^```', docs, re.DOTALL | re.MULTILINE)
    name, _, module = entry.splitlines()[1].replace('"', "").partition(" = ")
    (tmp_path / f"{module.partition(':')[0]}.py").write_text(code, encoding="utf-8")
    info = tmp_path / "notifier_acme_receipts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notifier-acme-receipts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[notifier.receipts]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    reader = source("acme://TOKEN@default?webhook_secret=hunter2")
    assert reader
    good = b'{"id": "%s", "state": "arrived"}' % str(ID).encode()
    return Case(
        reader,
        acme_callback(good),
        [acme_callback(good, "stranger"), *altered(acme_callback(good))],
        [acme_callback(body) for body in (b"", b"[]", b"{}", b'{"id": 1, "state": []}', b"[" * 9999)],
        "hunter2",
    )


@pytest.fixture
def ses_case() -> Iterator[Case]:
    with receivers.http(response(200, certificate())) as (server, _):
        reader = source(f"ses://KEY:hunter2@127.0.0.1:{server.port}?tls=none&topic={TOPIC}")
        assert reader
        event = f'{{"eventType": "Delivery", "mail": {{"tags": {{"notification_id": ["{ID}"]}}}}}}'
        good = sns_message(event)
        forged = [
            {**good, "Message": event + " "},
            {**good, "TopicArn": f"{TOPIC}2"},
            sns_message(event, TopicArn=f"{TOPIC}2"),
            {name: value for name, value in good.items() if name != "Signature"},
        ]
        malformed = [sns_callback(body) for body in (b"", b"[]", b'"x"', b"[" * 99999)]
        malformed += [sns_callback(sns_message("[]")), sns_callback(sns_message("17"))]
        yield Case(reader, sns_callback(good), [sns_callback(each) for each in forged], malformed, "hunter2")


def test_amazons(ses_case: Case) -> None:
    hold(ses_case)


@pytest.mark.parametrize("make", [twilio_case, sendgrid_case, vonage_case])
def test_ours(make: type[Case]) -> None:
    hold(make())


def test_the_one_of_the_documentation(acme_case: Case) -> None:
    hold(acme_case)
    report = acme_case.source.read(acme_callback(b'{"id": "%s", "state": "unknown"}' % str(ID).encode()))
    assert report.receipts[0].kind is Kind.BOUNCED
    assert report.standings == (AddressStatus(Channel.SMS, "", SuppressionReason.HARD_BOUNCE, notification_id=ID),)
    assert source("acme://TOKEN@default") is None
