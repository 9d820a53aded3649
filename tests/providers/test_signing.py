"""Signatures are those of the Standard Webhooks specification, as an independent verifier sees them."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifier import signing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_specifications_own_vector() -> None:
    made = signing.headers(
        [signing.key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )

    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_receivers_of_the_old_and_of_the_new_secret_both_verify() -> None:
    old, new = signing.new_secret(), signing.new_secret()
    body = '{"name": "Jörg 💌"}'.encode()
    now = int(datetime.now(UTC).timestamp())
    made = signing.headers([signing.key_of(new), signing.key_of(old)], uuid4(), now, body)

    for secret in (old, new):
        assert Webhook(secret).verify(body, made) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(body, made)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + b" ", made)


def test_new_secrets_are_valid_and_differ() -> None:
    first, second = signing.new_secret(), signing.new_secret()

    assert first != second
    assert len(signing.key_of(first)) == 32


@pytest.mark.parametrize("size", [24, 64])
def test_keys_of_24_to_64_bytes_are_taken(size: int) -> None:
    key = bytes(range(size))

    assert signing.key_of("whsec_" + b64encode(key).decode()) == key


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
        signing.key_of(secret)
