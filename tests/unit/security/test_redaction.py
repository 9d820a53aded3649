"""Texts, JSON documents and answers without the credentials in them."""

import base64
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from notifier.providers.masked_results import without_secrets
from notifier.providers.protocol import Outcome, Result
from notifier.security.redaction import holds_mask, masked_json, masked_text, secrets_of

_TEXTS = {
    "See https://ada:s3cret@example.com/x.": "See https://***@example.com/x.",
    'Go <a href="https://example.com/?a=1&amp;token=s3cret">there</a>': (
        'Go <a href="https://example.com/?a=1&amp;token=***">there</a>'
    ),
    "(https://hooks.slack.com/services/T0/B0/s3cret)": "(https://hooks.slack.com/***)",
    "to slack://s3cret/B/C, too": "to slack://***, too",
    "one https://a:s3cret@x.example two https://b:s3cret@y.example": "one https://***@x.example two https://***@y.example",
    '{"u":"https:\\/\\/a:s3cret@x.example\\/y"}': '{"u":"https://***@x.example/y"}',
    "shop://ada:s3cret@orders/42": "shop://***@orders/42",
    "shop://reset?token=s3cret": "shop://reset?token=***",
    "'slack://s3cret/B/C'": "'slack://***'",
}


@pytest.mark.parametrize(("text", "shown"), _TEXTS.items())
def test_credentials_in_a_text_are_masked(text: str, shown: str) -> None:
    assert masked_text(text) == shown
    assert masked_text(shown) == shown
    assert holds_mask(shown)
    assert not holds_mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "See https://example.com/orders/42?page=2, or call +4915112345678.",
        "shop://orders/42",
        "https://example.com/reset?token={{ token }}",
        "https://{{ user }}:{{ password }}@example.com/",
        "join('', ['slack://', source])",
        "It is 10:/20",
        "",
    ],
)
def test_a_text_without_credentials_stays_as_it_is(text: str) -> None:
    assert masked_text(text) == text


def test_a_json_document_keeps_all_else_as_it_was_written() -> None:
    written = (
        '{ "b":1.0, "a":1e2,"big":12345678901234567890123, "esc":"\\u00e9\\n", "recipient":"custom://s3cret/x",'
        ' "deep":"custom://shown/x","push_tokens":["abc:def","ExponentPushToken[s3cret]"], '
        '"u":"https\\u003a//a:s3cret@x.example/","slashed":"https:\\/\\/a:s3cret@x.example\\/",'
        '"in":{"text":"{\\"url\\":\\"https://a:s3cret@x.example/\\"}"}, "https://a:b@key.example":"v" }'
    )
    shown = masked_json(written)
    assert "s3cret" not in shown
    assert shown.startswith(
        '{ "b":1.0, "a":1e2,"big":12345678901234567890123, "esc":"\\u00e9\\n", "recipient":"custom://***"'
    )
    assert '"deep":"custom://shown/x"' in shown
    document = json.loads(shown)
    assert document["push_tokens"] == ["abc:def", "ExponentPushToken[***]"]
    assert document["u"] == document["slashed"] == "https://***@x.example/"
    assert document["in"]["text"] == '{"url":"https://***@x.example/"}'
    assert masked_json(shown) == shown
    plain = '{"a":"b","at":"2026-11-21T09:00:00Z","u":"https://example.com/"}'
    assert masked_json(plain) == plain


def test_a_large_document_is_masked_in_no_time() -> None:
    document = json.dumps({"items": [{"payload": {"text": 'x\\n"' * 50_000}, "u": "https://a:s3cret@x.example"}] * 5})
    assert "s3cret" not in masked_json(document)


def test_secrets_are_known_in_the_forms_in_which_an_answer_repeats_them() -> None:
    url = "https://ada:pass%21word@example.com/hook?token=abc%2Bdef&page=2222"
    secrets = secrets_of(
        url, [("X-Tenant", "acme-key"), ("Authorization", "Bearer t0ken123"), ("Accept", "text/plain")]
    )
    basic = base64.b64encode(b"ada:pass!word").decode()
    assert secrets == {
        *("pass%21word", "pass!word", basic, "abc%2Bdef", "abc+def"),
        *("acme-key", "Bearer t0ken123", "t0ken123"),
    }
    assert secrets_of("https://example.com/hook?page=2") == frozenset()
    assert secrets_of("ada@example.com") == frozenset()
    assert secrets_of("https://hooks.slack.com/services/T0AB/B0CD/zyx987") == {"T0AB", "B0CD", "zyx987"}
    assert {"TokenA", "TokenB"} <= secrets_of("slack://TokenA/TokenB")
    assert "S3cretAuth" in secrets_of('{"endpoint":"https://push.example/x","keys":{"p256dh":"B","auth":"S3cretAuth"}}')


def _result(excerpt: str) -> Result:
    return Result(
        *(UUID(int=1), Outcome.UNSENT, "webhook", datetime.now(UTC), 1.0, 500),
        error="http 500: for https://ada:s3cret@example.com/",
        response_excerpt=excerpt,
        response_headers={"location": "https://ada:s3cret@example.com/x", "x-echo": "Bearer t0ken123", "server": "x"},
    )


def test_an_answer_that_repeats_secrets_is_shown_without_them() -> None:
    secrets = secrets_of("https://ada:s3cret@example.com/", [("Authorization", "Bearer t0ken123")])
    basic = base64.b64encode(b"ada:s3cret").decode()
    shown = without_secrets(_result(f"you sent Basic {basic}, s3cret and t0ken123"), secrets)
    assert shown.response_excerpt == "you sent Basic ***, *** and ***"
    assert shown.error == "http 500: for https://***@example.com/"
    assert shown.response_headers == {"location": "https://***@example.com/x", "x-echo": "***", "server": "x"}
    assert shown.status_code == 500


def test_an_excerpt_that_ends_within_a_secret_shows_nothing_of_it() -> None:
    long = "x" * 1016 + "t0ken123"[:8]
    secrets = secrets_of("https://example.com/", [("Authorization", "Bearer t0ken123456789")])
    assert without_secrets(_result(long), secrets).response_excerpt == "x" * 1016 + "***"
