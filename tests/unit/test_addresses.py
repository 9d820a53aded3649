"""Addresses, channel by channel."""

import pytest

from notifier.addresses import normalised
from notifier.channels import Channel


@pytest.mark.parametrize(
    ("channel", "address", "kept"),
    [
        (Channel.EMAIL, "user@email.com", "user@email.com"),
        (Channel.EMAIL, "Ada@EXAMPLE.com", "Ada@example.com"),
        (Channel.EMAIL, "jürgen@müller.example.com", "jürgen@müller.example.com"),
        (Channel.EMAIL, "box@mail.test", "box@mail.test"),
        (Channel.SMS, "+49 151 1234 5678", "+4915112345678"),
        (Channel.SMS, "+15005550001", "+15005550001"),
        (Channel.WEBHOOK, "https://example.com:8443/hook?a=b", "https://example.com:8443/hook?a=b"),
        (Channel.WEBHOOK, "http://[::1]:9000/", "http://[::1]:9000/"),
        (Channel.PUSH, "fcm:abc_DEF-123", "fcm:abc_DEF-123"),
        (Channel.CHAT, "slack://T1/B2/C3", "slack://T1/B2/C3"),
    ],
)
def test_good_ones(channel: Channel, address: str, kept: str) -> None:
    assert normalised(channel, address) == kept


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        (Channel.EMAIL, "ada"),
        (Channel.EMAIL, "ada@"),
        (Channel.EMAIL, "a@example.com\r\nBcc: b@example.com"),
        (Channel.EMAIL, "a@example.com, b@example.com"),
        (Channel.EMAIL, "x" * 65 + "@example.com"),
        (Channel.SMS, "0151 12345678"),
        (Channel.SMS, "+1"),
        (Channel.SMS, "+49151" + "1" * 20),
        (Channel.WEBHOOK, "ftp://example.com"),
        (Channel.WEBHOOK, "file:///etc/passwd"),
        (Channel.WEBHOOK, "https://"),
        (Channel.WEBHOOK, "https://example.com:99999/"),
        (Channel.WEBHOOK, "https://example.com/\r\nX: y"),
        (Channel.WEBHOOK, "http://[::1"),
        (Channel.WEBHOOK, "https://example.com/" + "x" * 2048),
        (Channel.PUSH, "two tokens"),
        (Channel.CHAT, "#general"),
    ],
)
def test_bad_ones(channel: Channel, address: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        normalised(channel, address)
