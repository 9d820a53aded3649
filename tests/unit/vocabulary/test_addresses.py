"""Addresses, channel by channel."""

import contextlib
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from notifier.providers.formats.mailboxes import ATEXT, NotAMailbox, bare_mailbox
from notifier.vocabulary.addresses import endpoint_of, folded, normalised, sought
from notifier.vocabulary.states import Channel


@pytest.mark.parametrize(
    ("channel", "address", "kept"),
    [
        (Channel.EMAIL, "user@email.com", "user@email.com"),
        (Channel.EMAIL, "Ada@EXAMPLE.com", "Ada@example.com"),
        (Channel.EMAIL, "jürgen@müller.example.com", "jürgen@müller.example.com"),
        (Channel.EMAIL, "box@mail.test", "box@mail.test"),
        # One form for what means the same.
        (Channel.EMAIL, "ada@xn--bcher-kva.example.com", "ada@bücher.example.com"),
        (Channel.EMAIL, "ada@XN--BCHER-KVA.Example.com", "ada@bücher.example.com"),
        (Channel.EMAIL, "ada@BÜCHER.example.com", "ada@bücher.example.com"),
        (Channel.EMAIL, "ada@bu\u0308cher。example.com", "ada@bücher.example.com"),
        (Channel.EMAIL, "ada@xn--strae-oqa.example.com", "ada@straße.example.com"),
        (Channel.SMS, "+49 151 1234 5678", "+4915112345678"),
        (Channel.SMS, "+15005550001", "+15005550001"),
        (Channel.WEBHOOK, "https://example.com:8443/hook?a=b", "https://example.com:8443/hook?a=b"),
        (Channel.WEBHOOK, "http://[::1]:9000/", "http://[::1]:9000/"),
        (Channel.WEBHOOK, "HTTPS://Example.com/A", "HTTPS://Example.com/A"),
        (Channel.WEBHOOK, "https://bücher.example/ü?q=ü#ü", "https://xn--bcher-kva.example/%C3%BC?q=%C3%BC#%C3%BC"),
        (Channel.WEBHOOK, "https://XN--BCHER-KVA.example/%C3%bc", "https://xn--bcher-kva.example/%C3%bc"),
        (Channel.WEBHOOK, "https://ＥＸＡＭＰＬＥ。com/", "https://example.com/"),
        (
            Channel.WEBHOOK,
            'https://example.com/{a}|"<b>^`\\[c]?{a}|"<b>^`\\[c]=100%',
            "https://example.com/%7Ba%7D%7C%22%3Cb%3E%5E%60%5C%5Bc%5D?%7Ba%7D%7C%22%3Cb%3E%5E%60%5C%5Bc%5D=100%25",
        ),
        (Channel.WEBHOOK, "https://ü:p%40s@example.com/", "https://%C3%BC:p%40s@example.com/"),
        (Channel.WEBHOOK, "http://my_service:8080/hook", "http://my_service:8080/hook"),
        (Channel.WEBHOOK, "https://a--b.r3---x.example.com./", "https://a--b.r3---x.example.com./"),
        (Channel.CHAT, "mattermost://bücher.example/Tok/ü", "mattermost://xn--bcher-kva.example/Tok/ü"),
        (Channel.CHAT, "slack://TokenA/ü", "slack://TokenA/ü"),
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
        (Channel.EMAIL, "ü" * 33 + "@example.com"),
        (Channel.EMAIL, "=?utf-8?q?ada?=@example.com"),
        (Channel.EMAIL, "ada@=?utf-8?q?example?=.com"),
        (Channel.EMAIL, "ada@☃.example.com"),
        (Channel.EMAIL, "ada@xn--a.example.com"),
        (Channel.EMAIL, "ada@xn--bücher.example.com"),
        (Channel.EMAIL, f"ada@{'ü' * 60}.example.com"),
        (Channel.EMAIL, "ada@example.com\u2028"),
        (Channel.EMAIL, "ada\x85@example.com"),
        # Possible within their areas only.
        (Channel.SMS, "+441111"),
        (Channel.SMS, "+49 12"),
        (Channel.SMS, "0151 12345678"),
        (Channel.SMS, "+1"),
        (Channel.SMS, "+49151" + "1" * 20),
        (Channel.WEBHOOK, "ftp://example.com"),
        (Channel.WEBHOOK, "file:///etc/passwd"),
        (Channel.WEBHOOK, "https://"),
        (Channel.WEBHOOK, "https://example.com:99999/"),
        (Channel.WEBHOOK, "https://example.com:0/"),
        (Channel.WEBHOOK, "http://[::1]:000/"),
        (Channel.WEBHOOK, "https://example.com/=?utf-8?q?a=0D=0ABcc=3Ax=40evil.example?="),
        (Channel.CHAT, "mattermost://chat.example:0/Tok"),
        (Channel.CHAT, "mailto://u:p@example.com?from==?utf-8?B?YQ==?="),
        (Channel.WEBHOOK, "https://example.com/\r\nX: y"),
        (Channel.WEBHOOK, "http://[::1"),
        (Channel.WEBHOOK, "https://example.com/" + "x" * 2048),
        (Channel.WEBHOOK, "https://example.com/" + "ü" * 1000),
        (Channel.WEBHOOK, "https://☃.example/"),
        (Channel.WEBHOOK, "https://xn--a.example/"),
        (Channel.WEBHOOK, "https://xn--bücher.example/"),
        (Channel.WEBHOOK, f"https://{'ü' * 60}.example/"),
        (Channel.WEBHOOK, f"https://{'a' * 64}.example/"),
        (Channel.WEBHOOK, "https://" + "a." * 126 + "example/"),
        (Channel.WEBHOOK, "https://a..example/"),
        (Channel.WEBHOOK, "https://ex%61mple.com/"),
        (Channel.WEBHOOK, "https://evil.example\\@example.com/"),
        (Channel.WEBHOOK, "https://[v1.x]/"),
        (Channel.WEBHOOK, "https://example.com/\u2028"),
        (Channel.WEBHOOK, "https://example.com/\ud800"),
        (Channel.CHAT, "mattermost://☃.example/Tok"),
        (Channel.PUSH, "two tokens"),
        (Channel.CHAT, "#general"),
    ],
)
def test_bad_ones(channel: Channel, address: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        normalised(channel, address)


@pytest.mark.parametrize(
    "form",
    [
        *("email a{}da@example.com", "email {}ada@example.com", "email ada@exa{}mple.com", "email ada@example.com{}"),
        *("sms +49151{}12345678", "sms +4915112345678{}", "push to{}ken", "push token{}"),
        *("chat slack://tok{}en/c", "chat slack://token/c{}", "chat slack://token/c?a={}b", "chat {}slack://token/c"),
        *("webhook https://exa{}mple.com/", "webhook https://example.com/{}", "webhook https://example.com/?a={}b"),
        *("webhook https://u{}:p@example.com/", "webhook https://example.com/#{}", "webhook {}https://example.com/"),
    ],
)
def test_no_address_has_controls_breaks_or_turns_of_direction(form: str) -> None:
    channel, _, address = form.partition(" ")
    unfit = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
    for character in map(chr, [*unfit, 0xD800]):
        with pytest.raises(ValueError, match=r"\.$"):
            normalised(Channel(channel), address.format(character))


@pytest.mark.parametrize("number", ["+15005550006", "+15005550009", "+447700900000", "+14155552671", "+4915112345678"])
def test_numbers_that_vendors_give_for_tests_are_good(number: str) -> None:
    assert normalised(Channel.SMS, number) == number


@pytest.mark.parametrize(
    ("channel", "text", "form"),
    [
        (Channel.EMAIL, "Ada@XN--BCHER-KVA.example.com", "Ada@bücher.example.com"),
        (None, "Ada@XN--BCHER-KVA.example.com", "Ada@bücher.example.com"),
        (None, "ada tag@Example.com", "ada+tag@example.com"),
        (Channel.SMS, "+49 151 12345678", "+4915112345678"),
        (None, " 49 151 12345678", "+4915112345678"),
        (Channel.WEBHOOK, "https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        (Channel.PUSH, "a b", "a+b"),
        # An address that was stored before its form was normalised is found as it was stored.
        (Channel.SMS, "+441111", "+441111"),
    ],
)
def test_an_address_is_sought_in_the_form_in_which_it_is_kept(channel: Channel | None, text: str, form: str) -> None:
    forms = sought(channel, text)

    assert form in forms
    assert forms[-1] == text
    assert len(forms) == len(set(forms))


def test_an_endpoint_is_the_same_in_all_forms_of_its_url() -> None:
    forms = ["https://bücher.example/ü", "https://BÜCHER.example/%C3%BC", "https://xn--bcher-kva.example/%C3%BC"]

    assert len({endpoint_of(form) for form in forms}) == 1
    assert {folded(Channel.WEBHOOK, form) for form in forms} == {"https://xn--bcher-kva.example/%C3%BC"}
    assert endpoint_of("https://other.example/") != endpoint_of(forms[0])


def form_of(channel: Channel, text: str) -> str | None:
    with contextlib.suppress(ValueError):
        return normalised(channel, text)
    return None


PIECES = st.lists(
    st.sampled_from(
        [*"abXZ09.-_+!#$%&'*/=?^`{|}~üß你🙂\u0301\u200d\xad\u0644", "xn--", "bücher", "xn--bcher-kva", ".com"]
    ),
    min_size=1,
    max_size=8,
).map("".join)


#: Most pieces make no address, by design; and a machine that is busy is no failure.
FILTERED = settings(suppress_health_check=[HealthCheck.filter_too_much], deadline=None)


@pytest.mark.parametrize("character", [chr(each) for each in range(0x80)])
def test_an_atom_has_the_ascii_characters_of_its_standard(character: str) -> None:
    is_one = re.fullmatch(f"[{ATEXT}]", character) is not None
    with contextlib.nullcontext() if is_one else pytest.raises(NotAMailbox):
        bare_mailbox(f"{character}@example.com")


@FILTERED
@given(PIECES, PIECES)
@example("ü" * 32, "bücher")
def test_an_email_address_that_is_taken_can_be_written_and_is_known_again(local_part: str, domain: str) -> None:
    kept = form_of(Channel.EMAIL, f"{local_part}@{domain}.example.com")
    assume(kept is not None)
    assert kept is not None
    written = bare_mailbox(kept)

    assert written.domain.isascii()
    assert form_of(Channel.EMAIL, written.addr_spec) == kept == form_of(Channel.EMAIL, kept)


@FILTERED
@given(PIECES, PIECES, PIECES)
@example("bücher.example", "ü", "%41%")
def test_a_url_that_is_taken_is_a_uri_and_stays_so(host: str, path: str, query: str) -> None:
    kept = form_of(Channel.WEBHOOK, f"https://{host}/{path}?{query}")
    assume(kept is not None)
    assert kept is not None

    assert set(kept) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?#[]@!$&'()*+,;=%")
    assert form_of(Channel.WEBHOOK, kept) == kept
    assert urlsplit(kept).scheme == "https"
    # Nobody but the host decides whom it is for.
    assert urlsplit(kept).hostname == urlsplit(f"https://{kept.split('/')[2].rpartition('@')[2]}/").hostname
