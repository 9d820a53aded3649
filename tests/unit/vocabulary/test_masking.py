"""Masking: the parts of addresses and headers that may be shown."""

import base64

import pytest

from notifier.vocabulary.masking import is_masked, masked, masked_headers

_BROWSER = (
    '{"endpoint":"https://updates.push.services.mozilla.com/wpush/v2/gAAAS3cret",'
    '"keys":{"p256dh":"BS3cretKey","auth":"S3cretAuth"}}'
)
_SHOWN_BROWSER = '{"endpoint":"https://updates.push.services.mozilla.com/***","keys":"***"}'

_MASKED = {
    # A user and password, also where the password has an @, a colon or an empty user.
    "https://ada:s3cret@example.com/hook": "https://***@example.com/hook",
    "https://s3cret@example.com/hook": "https://***@example.com/hook",
    "https://:s3cret@example.com:8443": "https://***@example.com:8443",
    "http://a:s3c@ret:x@example.com/?a=1": "http://***@example.com/?a=1",
    "HTTPS://a:s3cret@EXAMPLE.com/": "HTTPS://***@EXAMPLE.com/",
    "https://a:s3cret@[2001:db8::1]:8443/x": "https://***@[2001:db8::1]:8443/x",
    "https://a:s3cret/b@example.com": "https://***",
    "https:/a:s3cret@example.com": "https://***",
    "https://example.com\\@s3cret/": "https://***",
    # Parameters with names of secrets, however written.
    "https://example.com/h?token=s3cret&page=2": "https://example.com/h?token=***&page=2",
    "https://example.com/h?page=2&access_token=s3cret#x": "https://example.com/h?page=2&access_token=***#x",
    "https://example.com/h?accessToken=s3cret": "https://example.com/h?accessToken=***",
    "https://example.com/h?API-KEY=s3cret": "https://example.com/h?API-KEY=***",
    "https://example.com/h?apikey=s3cret": "https://example.com/h?apikey=***",
    "https://example.com/h?key=s3cret": "https://example.com/h?key=***",
    "https://example.com/h?x=1;sig=s3cret": "https://example.com/h?x=1;sig=***",
    "https://example.com/h?code=s3cret&clientId=blobs": "https://example.com/h?code=***&clientId=blobs",
    "https://example.com/h?X-Amz-Signature=s3cret": "https://example.com/h?X-Amz-Signature=***",
    "https://example.com/h?client%5Fsecret=s3cret": "https://example.com/h?client%5Fsecret=***",
    "https://example.com/h?%74oken=s3cret": "https://example.com/h?%74oken=***",
    "https://example.com/h?passwd=s3cret": "https://example.com/h?passwd=***",
    "https://example.com/h?a=b?token=s3cret": "https://example.com/h?a=b?token=***",
    "https://example.com/h?token=s3c?ret&page=2": "https://example.com/h?token=***&page=2",
    "https://example.com/h#access_token=s3cret": "https://example.com/h#access_token=***",
    "https://example.com/h;sid=s3cret/x": "https://example.com/h;sid=***",
    "https://example.com/h?next=https%3A%2F%2Fa%3As3cret%40b.example": "https://example.com/h?next=***",
    # Incoming webhooks: the path is the secret.
    "https://hooks.slack.com/services/T0/B0/s3cret": "https://hooks.slack.com/***",
    "https://HOOKS.slack.com.:443/services/T0/B0/s3cret": "https://HOOKS.slack.com.:443/***",
    "https://discord.com/api/webhooks/123/s3cret?wait=true": "https://discord.com/***",
    "https://ptb.discord.com/api/webhooks/123/s3cret": "https://ptb.discord.com/***",
    "https://acme.webhook.office.com/webhookb2/s3cret/IncomingWebhook/s3cret": "https://acme.webhook.office.com/***",
    "https://prod-1.westeurope.logic.azure.com:443/workflows/a/b?sig=s3cret": (
        "https://prod-1.westeurope.logic.azure.com:443/***"
    ),
    "https://chat.googleapis.com/v1/spaces/A/messages?key=s3cret&token=s3cret": "https://chat.googleapis.com/***",
    "https://api.telegram.org/bot123:s3cret/sendMessage": "https://api.telegram.org/***",
    "https://hook.eu2.make.com/s3cret": "https://hook.eu2.make.com/***",
    # The same services behind a host of one's own.
    "https://proxy.example.com/services/T0A/B0B/s3cret": "https://proxy.example.com/***",
    "https://proxy.example.com/api/webhooks/123/s3cret": "https://proxy.example.com/***",
    "https://proxy.example.com/bot123%3As3cret/sendMessage": "https://proxy.example.com/***",
    "https://chat.example.com/hooks/s3cretabcdefghijkl0123456": "https://chat.example.com/***",
    # Chat services: tokens stand in the host as well as in the path.
    "slack://s3cretA/s3cretB/s3cretC/#general": "slack://***",
    "discord://123/s3cret": "discord://***",
    "tgram://123:s3cret/456": "tgram://***",
    "mailto://ada:s3cret@example.com": "mailto://***",
    "json://ada:s3cret@example.com/?token=s3cret": "json://***",
    "slack:/s3cret/x": "slack://***",
    # Push tokens with which anybody can send.
    _BROWSER: _SHOWN_BROWSER,
    base64.urlsafe_b64encode(_BROWSER.encode()).decode().rstrip("="): _SHOWN_BROWSER,
    '{"endpoint":"s3cret': "***",
    "ExponentPushToken[s3cret]": "ExponentPushToken[***]",
}

_AS_IT_IS = [
    "ada@example.com",
    '"a:b"@example.com',
    "+4915112345678",
    "https://example.com",
    "https://example.com/hooks/billing?page=2&monkey=banana&author=ada&codename=x#top",
    "http://127.0.0.1:8080/hook/6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    "https://example.com/a***b?q=x***",
    "740f4707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad",
    "dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx",
    "eyJub3QiOiJqc29u",
    "",
]


@pytest.mark.parametrize(("address", "shown"), _MASKED.items())
def test_credentials_in_an_address_are_masked(address: str, shown: str) -> None:
    assert masked(address) == shown
    assert "s3c" not in shown.lower()
    assert masked(shown) == shown
    assert is_masked(shown)
    assert not is_masked(address)


@pytest.mark.parametrize("address", _AS_IT_IS)
def test_an_address_without_credentials_stays_as_it_is(address: str) -> None:
    assert masked(address) == address
    assert not is_masked(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://***:***@example.com/", True),
        ("https://***@example.com/?token=s3cret", True),
        ("https://example.com/?token=***&key=s3cret", True),
        ("slack://***/general", True),
        ("***@example.com", False),
        ("***", True),
    ],
)
def test_an_address_that_was_partly_typed_over_is_known_by_its_mask(address: str, expected: bool) -> None:
    assert is_masked(address) is expected


@pytest.mark.parametrize("part", ["?a=b", "&a=b", "?next=https%3A%2F%2Fx", "://", "[", "{", ":@"])
def test_a_long_address_is_masked_without_an_error(part: str) -> None:
    assert masked("https://ada:s3cret@example.com/" + part * 2000).startswith("https://***@example.com/")
    assert masked(part * 2000)


def test_headers_show_their_names_and_only_harmless_values() -> None:
    headers = {
        "Authorization": "Bearer s3cret",
        "X-Tenant": "acme",
        "Cookie": "a=s3cret",
        "content-type ": "application/json",
        "User-Agent": "acme/1",
    }
    assert masked_headers(headers) == {
        "Authorization": "***",
        "X-Tenant": "***",
        "Cookie": "***",
        "content-type ": "application/json",
        "User-Agent": "acme/1",
    }
    assert masked_headers(masked_headers(headers)) == masked_headers(headers)
