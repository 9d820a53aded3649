"""Which senders email may have: the list of the settings, and the tricks that do not get past it."""

import pytest

from config.settings import SettingsError, read_settings
from notifier.content.sender_rules import rules_of, sender_pattern

URL = {"DATABASE_URL": "postgresql://localhost/x"}


def allows(sender: str, *patterns: str, own: str = "Notifier <notifier@shop.example>") -> bool:
    return rules_of(tuple(map(sender_pattern, patterns)), own).refusal(sender) is None


@pytest.mark.parametrize(
    "sender",
    [
        *("a@shop.example", "A@SHOP.Example", "Ada <a@shop.example>", '"Ada, Countess" <a@shop.example>'),
        *("Ada @ the shop <a@shop.example>", "write a@shop.example <b@shop.example>"),
        "a@ｓhop.example",  # UTS 46 reads other widths as what they are
    ],
)
def test_by_default_it_is_the_domain_of_the_channel_s_own_sender(sender: str) -> None:
    assert allows(sender)


@pytest.mark.parametrize(
    "sender",
    [
        *("ceo@your-bank.example", "CEO <ceo@your-bank.example>", "a@mail.shop.example", "a@notshop.example"),
        *("a@shop.example.evil.example", "a@example", "a@shop.example.", "a@shop.example@evil.example"),
        *("a@evil.example, b@shop.example", "a@shop.example, b@evil.example", "a@shop.example; b@evil.example"),
        *("<a@evil.example> <b@shop.example>", "b@shop.example <a@evil.example>", "a@evil.example (a@shop.example)"),
        *('"a@shop.example" <a@evil.example>', '"a@evil.example@"shop.example', '"x"@shop.example', "@shop.example"),
        *("a%evil.example@shop.example <x", "a@[127.0.0.1]", "a@shоp.example", "a@shop。example。evil.example"),
        *("a@xn--shp-0qa.example", "a@shop.example\u200b", "a@shop.example\r\nBcc: x@evil.example", "", "shop.example"),
        # The name is what people see.
        *("ceo@your-bank.example <a@shop.example>", '"ceo@your-bank.example" <a@shop.example>'),
        *('"ceo＠your-bank.example" <a@shop.example>', "CEO (ceo@your-bank.example) <a@shop.example>"),
        "ceo@your-bank.example, a@shop.example <a@shop.example>",
    ],
)
def test_no_other_domain_passes_by_a_trick(sender: str) -> None:
    assert not allows(sender)


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("example.org", "a@example.org", "a@mail.example.org"),
        ("*.example.org", "a@mail.example.org", "a@example.org"),
        ("*.example.org", "a@a.b.example.org", "a@badexample.org"),
        ("bücher.example", "a@xn--bcher-kva.example", "a@bucher.example"),
        ("XN--BCHER-KVA.example", "a@BÜCHER.example", "a@bücher.example.org"),
        ("Billing@Example.org", "billing@example.org", "ceo@example.org"),
        ("*", "anybody@anywhere.example", None),
    ],
)
def test_the_list_has_domains_what_is_below_them_and_addresses(pattern: str, allowed: str, refused: str | None) -> None:
    assert allows(allowed, pattern)
    assert refused is None or not allows(refused, pattern)
    assert allows("notifier@shop.example", pattern)  # the channel's own sender
    assert pattern == "*" or not allows("other@shop.example", pattern)


@pytest.mark.parametrize(
    "value", ["a b", "*.", "exa*mple.org", "**", "a@*", "<a@example.org>", "example.org.", "☃.org", "@x"]
)
def test_a_wrong_list_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="NOTIFIER_EMAIL_SENDERS"):
        read_settings({**URL, "NOTIFIER_EMAIL_SENDERS": f"example.com,{value}"})


def test_the_setting_is_a_list() -> None:
    read = read_settings({**URL, "NOTIFIER_EMAIL_SENDERS": " Example.com, *.example.com,a@Example.org "})
    assert read.email_senders == ("example.com", "*.example.com", "a@example.org")
    assert read_settings({**URL, "NOTIFIER_EMAIL_SENDERS": ""}).email_senders == ()
