"""verify_webhook: what is signed comes through, and nothing else does, whatever a stranger sends."""

import base64
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Signer

from notifier_client import WebhookNotVerified, verify_webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of thirty-two byte").decode()
BODY = b'{"type":"order.paid","timestamp":"2026-11-21T09:00:00Z","id":"x","data":{"total": 12.50}}'


def signed(body: bytes = BODY, secret: str = SECRET, *, age: float = 0) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=age)
    signature = Signer(secret).sign("msg_1", at, body.decode())
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": signature,
    }


def test_a_webhook_that_is_signed_comes_through_parsed() -> None:
    found = verify_webhook(BODY, signed(), SECRET)
    assert (found["type"], found["data"]) == ("order.paid", {"total": 12.5})
    assert verify_webhook(BODY.decode(), signed(), SECRET) == found


def test_while_a_secret_changes_either_fits() -> None:
    assert verify_webhook(BODY, signed(secret=OTHER), [SECRET, OTHER])
    headers = signed()
    headers["Webhook-Signature"] = f"v1,AAAA {headers['Webhook-Signature']}"
    assert verify_webhook(BODY, headers, SECRET)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY + b" ", signed()),
        (BODY, signed(secret=OTHER)),
        (BODY, signed(age=400)),
        (BODY, signed(age=-400)),
        (BODY, {}),
        (BODY, {**signed(), "Webhook-Id": "msg_2"}),
        (BODY, {**signed(), "Webhook-Signature": "v1"}),
        (BODY, {**signed(), "Webhook-Signature": "v1,é"}),
        (BODY, {**signed(), "Webhook-Timestamp": "nan"}),
        (b"\xff", signed()),
    ],
)
def test_any_other_is_refused(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(WebhookNotVerified, match="not signed"):
        verify_webhook(body, headers, SECRET)
    with pytest.raises(WebhookNotVerified):
        verify_webhook(BODY, signed(), [])


@given(
    body=st.binary(max_size=50),
    headers=st.fixed_dictionaries(
        {}, optional={name: st.text(max_size=30) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    ),
)
def test_a_stranger_causes_no_other_error(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(WebhookNotVerified):
        verify_webhook(body, headers, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é"])
def test_a_secret_that_is_none_is_the_callers_mistake(secret: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        verify_webhook(BODY, signed(), secret)
    assert not isinstance(caught.value, WebhookNotVerified)


def test_a_body_that_a_template_made_of_text_is_told_apart() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        verify_webhook(b"Hello", signed(b"Hello"), SECRET)


def test_without_the_extra_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "standardwebhooks.webhooks", missing)
    with pytest.raises(ImportError, match="standardwebhooks"):
        verify_webhook(BODY, signed(), SECRET)
