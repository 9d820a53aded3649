"""Signatures are those of the Standard Webhooks specification, as an independent verifier sees them."""

import json
import time
from base64 import b64encode
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifier.security import webhook_signatures

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_specifications_own_vector() -> None:
    made = webhook_signatures.headers(
        [webhook_signatures.key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_receivers_of_the_old_and_of_the_new_secret_both_verify() -> None:
    old, new = webhook_signatures.new_secret(), webhook_signatures.new_secret()
    body = '{"name": "Jörg 💌"}'.encode()
    now = int(datetime.now(UTC).timestamp())
    made = webhook_signatures.headers(
        [webhook_signatures.key_of(new), webhook_signatures.key_of(old)], uuid4(), now, body
    )

    for secret in (old, new):
        assert Webhook(secret).verify(body, made) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook_signatures.new_secret()).verify(body, made)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + b" ", made)


def test_new_secrets_are_valid_and_differ() -> None:
    first, second = webhook_signatures.new_secret(), webhook_signatures.new_secret()

    assert first != second
    assert len(webhook_signatures.key_of(first)) == 32


@pytest.mark.parametrize("size", [24, 64])
def test_keys_of_24_to_64_bytes_are_taken(size: int) -> None:
    key = bytes(range(size))

    assert webhook_signatures.key_of("whsec_" + b64encode(key).decode()) == key


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\n",
        "whsec_" + b64encode(bytes(23)).decode(),
        "whsec_" + b64encode(bytes(65)).decode(),
        "whsec_" + "é" * 32,
    ],
)
def test_anything_else_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a webhook secret: whsec_ and 24 to 64 bytes in base64$"):
        webhook_signatures.key_of(secret)


# Verifying

KEY = webhook_signatures.key_of(SECRET)
VECTOR = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
BODY = b'{"test": 2432232314}'
NOW = 1614265330


def test_the_specifications_own_vector_is_verified() -> None:
    webhook_signatures.verify([KEY], VECTOR, BODY, now=NOW)
    webhook_signatures.verify([KEY], {name.title(): value for name, value in VECTOR.items()}, BODY, now=NOW)


def test_what_an_independent_signer_made_is_verified_by_the_machines_clock() -> None:
    body = '{"name": "Jörg 💌"}'
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, body)
    made = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}

    webhook_signatures.verify([KEY], made, body.encode())
    made |= webhook_signatures.headers([KEY], "msg_1", int(time.time()) - 3600, body.encode())
    with pytest.raises(webhook_signatures.NotVerified, match=r"^it was signed 360\d s ago, and 300 s are allowed$"):
        webhook_signatures.verify([KEY], made, body.encode())


def test_one_signature_that_fits_one_key_is_enough() -> None:
    stranger, other = (
        webhook_signatures.key_of(webhook_signatures.new_secret()),
        webhook_signatures.key_of(webhook_signatures.new_secret()),
    )
    made = webhook_signatures.headers([stranger, KEY], "msg_1", NOW, BODY)
    among_others = {**made, "webhook-signature": f"v1a,x {made['webhook-signature']} v2,y"}

    webhook_signatures.verify([KEY], among_others, BODY, now=NOW)
    webhook_signatures.verify([other, KEY], among_others, BODY, now=NOW)
    with pytest.raises(webhook_signatures.NotVerified):
        webhook_signatures.verify([other], among_others, BODY, now=NOW)
    with pytest.raises(webhook_signatures.NotVerified):
        webhook_signatures.verify([], among_others, BODY, now=NOW)


@pytest.mark.parametrize("away", [-300, 300])
def test_five_minutes_either_way_are_fresh(away: int) -> None:
    webhook_signatures.verify([KEY], VECTOR, BODY, now=NOW + away)


@pytest.mark.parametrize(("away", "said"), [(301, "301 s ago"), (-301, "301 s ahead of this clock")])
def test_a_second_more_is_not(away: int, said: str) -> None:
    with pytest.raises(webhook_signatures.NotVerified, match=said):
        webhook_signatures.verify([KEY], VECTOR, BODY, now=NOW + away)


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("webhook-id", None, "it has no webhook-id"),
        ("webhook-timestamp", None, "it has no webhook-timestamp"),
        ("webhook-signature", "", "it has no webhook-signature"),
        ("webhook-id", "msg_2", "no signature fits"),
        ("webhook-id", "\ud800é", "no signature fits"),
        ("webhook-timestamp", "1614265331", "no signature fits"),
        ("webhook-timestamp", "1614265330.0", "its webhook-timestamp is not a number of seconds"),
        ("webhook-timestamp", "nan", "its webhook-timestamp is not a number of seconds"),
        ("webhook-timestamp", "١٦١٤٢٦٥٣٣٠", "its webhook-timestamp is not a number of seconds"),
        ("webhook-timestamp", "9" * 400, "its webhook-timestamp is not a number of seconds"),
        ("webhook-signature", "v1", "its webhook-signature has none of version 1"),
        ("webhook-signature", VECTOR["webhook-signature"].replace("v1,", "v2,"), "has none of version 1"),
        ("webhook-signature", VECTOR["webhook-signature"].removeprefix("v1,"), "has none of version 1"),
        ("webhook-signature", "v1,", "no signature fits"),
        ("webhook-signature", "v1,\ud800é", "no signature fits"),
        ("webhook-signature", VECTOR["webhook-signature"][:-1], "no signature fits"),
        ("webhook-signature", VECTOR["webhook-signature"].lower(), "no signature fits"),
    ],
)
def test_anything_else_is_not_verified(header: str, value: str | None, said: str) -> None:
    received = {name: each for name, each in {**VECTOR, header: value}.items() if each is not None}

    with pytest.raises(webhook_signatures.NotVerified, match=said):
        webhook_signatures.verify([KEY], received, BODY, now=NOW)


@pytest.mark.parametrize("body", [b"", b'{"test":2432232314}', BODY + b"\n", b"\xff"])
def test_another_body_is_not_verified(body: bytes) -> None:
    with pytest.raises(webhook_signatures.NotVerified, match="no signature fits"):
        webhook_signatures.verify([KEY], VECTOR, body, now=NOW)
