"""Vendors' codes mean what the vendors publish, and no address that a stranger chooses is held against a provider."""

import importlib
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from notifier.providers.breakers import ProviderTally
from notifier.providers.circuit import Circuit
from notifier.providers.protocol import Fault, Outcome, Result
from notifier.providers.vendors.smtp_connection import judged
from notifier.vocabulary.ids import new_id
from tests.providers.conformance import VENDORS
from tests.support.paths import ROOT

FILE = ROOT / "tests/data/vendor_codes.yaml"
TABLES: dict[str, list[dict[str, Any]]] = yaml.safe_load(FILE.read_text())
#: Where each vendor keeps its codes.
IN_CODE = {"twilio": "CODES", "vonage": "STATUSES"}


def _published(vendor: str) -> dict[str, tuple[Outcome, Fault | None, str | None]]:
    return {
        code: (Outcome(row["outcome"]), Fault(row["fault"]) if row["fault"] else None, row["suppress"])
        for row in TABLES[vendor]
        for code in row["codes"]
    }


@pytest.mark.parametrize("vendor", sorted(TABLES))
def test_every_code_means_what_its_vendor_says_and_none_is_missing(vendor: str) -> None:
    module = importlib.import_module(f"notifier.providers.vendors.{vendor}")
    found = {
        code: (outcome, fault, module.SUPPRESSES.get(code))
        for code, ((outcome, fault), _) in getattr(module, IN_CODE[vendor]).items()
    }
    assert found == _published(vendor)


def _result(outcome: Outcome, fault: Fault | None) -> Result:
    return Result(new_id(), outcome, "x", datetime.now(UTC), 1.0, status_code=400, fault=fault)


@pytest.mark.parametrize(
    ("outcome", "fault"),
    sorted(
        {(case.outcome, case.fault) for vendor in VENDORS.values() for case in vendor.errors}
        | {means[:2] for vendor in TABLES for means in _published(vendor).values()},
        key=str,
    ),
)
def test_only_a_providers_own_fault_opens_its_breaker(outcome: Outcome, fault: Fault | None) -> None:
    note = ProviderTally("x", Circuit())
    for _ in range(20):
        note.add(_result(outcome, fault), probing=False)
    assert note.is_open == (fault is Fault.PROVIDER)


#: Cases that a stranger can bring about by choosing an address, by vendor and by the label of the case.
BY_ADDRESS: dict[str, set[str]] = {
    "apns": {"BadDeviceToken", "Unregistered", "ExpiredToken", "DeviceTokenNotForTopic", "to one device"},
    "expo": {"not registered", "token", "device's rate", "sender id", "credentials"},
    "fcm": {"unregistered", "other sender", "token", "not a token", "apns"},
    "mailgun": {"recipient", "sandbox domain"},
    "messagebird": {"recipient", "no recipient"},
    "plivo": {"recipient"},
    "resend": {"recipient", "testing"},
    "sendgrid": {"no such address"},
    "ses": {"recipient not verified"},
    "twilio": {f"code {code}" for code, means in _published("twilio").items() if means[1] is not Fault.PROVIDER}
    - {"code 63038"},  # of the account, and with a status of its own
    "vonage": {f"status {code}" for code, means in _published("vonage").items() if means[1] is not Fault.PROVIDER},
    "web_push": {"never subscribed", "unsubscribed", "no key", "another key", "slow down"},
}


@pytest.mark.parametrize("vendor", sorted(BY_ADDRESS))
def test_no_address_is_held_against_a_provider(vendor: str) -> None:
    cases = {case.label: case for case in VENDORS[vendor].errors}
    assert cases.keys() >= BY_ADDRESS[vendor], BY_ADDRESS[vendor] - cases.keys()
    for label in BY_ADDRESS[vendor]:
        assert cases[label].fault is not Fault.PROVIDER, label


@pytest.mark.parametrize(
    ("code", "stage", "reply", "outcome", "fault"),
    [
        (550, "RCPT", "5.1.1 no such user", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "RCPT", "5.1.2 no such domain", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "RCPT", "5.1.3 not an address", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "RCPT", "5.1.6 moved", Outcome.REJECTED, Fault.RECIPIENT),
        (556, "RCPT", "5.1.10 null MX", Outcome.REJECTED, Fault.RECIPIENT),
        (556, "RCPT", "the domain takes no mail", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "RCPT", "5.2.1 disabled", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "the message", "5.1.1 no such user", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "RCPT", "no such user", Outcome.REJECTED, Fault.RECIPIENT),
        (551, "RCPT", "not local", Outcome.REJECTED, Fault.RECIPIENT),
        (553, "RCPT", "mailbox name", Outcome.REJECTED, Fault.RECIPIENT),
        # The enhanced code is read first.
        (550, "RCPT", "5.1.7 <notifier@localhost>: sender refused", Outcome.REJECTED, None),
        (550, "RCPT", "5.1.8 sender's domain not found", Outcome.REJECTED, None),
        (450, "RCPT", "4.1.8 sender's domain not found", Outcome.UNSENT, None),
        (550, "RCPT", "5.7.1 relaying denied", Outcome.REJECTED, None),
        (550, "RCPT", "5.4.1 access denied", Outcome.REJECTED, None),
        (552, "RCPT", "5.2.2 mailbox full", Outcome.REJECTED, None),
        (552, "the message", "5.3.4 too big", Outcome.REJECTED, None),
        (552, "the message", "5.2.3 too big", Outcome.REJECTED, None),
        (550, "RCPT", "5.3.5 misconfigured", Outcome.UNSENT, Fault.PROVIDER),
        (452, "RCPT", "4.3.1 insufficient storage", Outcome.UNSENT, Fault.PROVIDER),
        (451, "RCPT", "4.3.0 try again", Outcome.UNSENT, Fault.PROVIDER),
        (450, "RCPT", "4.2.1 busy", Outcome.UNSENT, None),
        (450, "RCPT", "4.7.1 greylisted", Outcome.UNSENT, None),
        (454, "MAIL", "4.7.0 rate", Outcome.UNSENT, None),
        (421, "RCPT", "4.3.2 closing", Outcome.UNSENT, Fault.PROVIDER),
        *((code, "MAIL", "5.7.0 log in", Outcome.UNSENT, Fault.PROVIDER) for code in (530, 534, 535, 538)),
        # A text that is no enhanced code of this reply is ignored.
        (550, "RCPT", "4.3.0 of another class", Outcome.REJECTED, Fault.RECIPIENT),
        (550, "RCPT", "5.1.1.1 is a version", Outcome.REJECTED, Fault.RECIPIENT),
        (554, "the message", "transaction failed", Outcome.REJECTED, None),
    ],
)
def test_a_mail_servers_enhanced_code_is_read_before_the_basic_one(
    code: int, stage: str, reply: str, outcome: Outcome, fault: Fault | None
) -> None:
    assert judged(code, stage, reply.encode()) == (outcome, fault)
