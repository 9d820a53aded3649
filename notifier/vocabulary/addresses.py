"""Recipient addresses: validate and normalise them, channel by channel.

The libraries that know email addresses and phone numbers are imported with the first of each: most commands see none.
"""

import functools
import hashlib
import re
import string
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from notifier.vocabulary.domains import ascii_domain
from notifier.vocabulary.masking import MASK, is_masked, seal_of
from notifier.vocabulary.states import Channel
from notifier.vocabulary.uris import ascii_uri, has_port_zero, with_ascii_host

_MAX_LENGTH: Final = 2048
#: The longest local part of an email address, in octets (RFC 5321, section 4.5.3.1.1).
_LONGEST_LOCAL_PART: Final = 64
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://?[^\s\x00-\x1f\x7f]+")
#: Categories of characters that no address has: controls, half surrogate pairs, separators of lines and paragraphs.
_UNFIT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: They turn the direction of all that follows, where an address is shown.
_DIRECTIONS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
#: RFC 2047 encoded words. Software that decodes them, such as an email client, reads other text than we checked.
_ENCODED_WORD: Final = re.compile(r"=\?[^?\s]*\?[bq]\?[^?\s]*\?=", re.IGNORECASE)


def _check_characters(address: str) -> None:
    if not (address.isascii() and address.isprintable()):
        for character in address:
            if character in _DIRECTIONS or unicodedata.category(character) in _UNFIT:
                raise ValueError(f"An address may not contain the character U+{ord(character):04X}.")
    if _ENCODED_WORD.search(address):
        raise ValueError("An address may not contain an encoded word (RFC 2047).")


def _email(address: str) -> str:
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 -- see above

    # No address may contain one, and some software decodes it all the same.
    if "?=" in address.partition("=?")[2]:
        raise ValueError("Not an email address: it has an encoded word (RFC 2047) in it.")
    try:
        # No DNS on the way in; `.test` addresses are there to be tried out with.
        normal = validate_email(address, check_deliverability=False, test_environment=True, strict=True).normalized
    except EmailNotValidError as error:
        raise ValueError(f"Not an email address: {error}") from None
    local_part, _, domain = normal.rpartition("@")
    if len(local_part.encode()) > _LONGEST_LOCAL_PART:
        raise ValueError(f"Not an email address: there are more than {_LONGEST_LOCAL_PART} octets before the @.")
    ascii_domain(domain)
    return normal


def _phone(address: str) -> str:
    import phonenumbers  # noqa: PLC0415 -- see above

    try:
        # Letters would be taken for the digits on their keys, and "l" for "1" would reach somebody else.
        number = phonenumbers.parse(address) if re.fullmatch(r"[0-9+() ./-]+", address) else None
    except phonenumbers.NumberParseException:
        number = None
    # Possible, not valid: providers' own test numbers are in ranges that no country has assigned. A number that is only
    # possible within its area has not all the digits of E.164.
    possible = phonenumbers.ValidationResult.IS_POSSIBLE
    if number is None or phonenumbers.is_possible_number_with_reason(number) != possible:
        raise ValueError("Not a phone number in international form (E.164), such as +4915112345678.")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _url(address: str) -> str:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", address):
        raise ValueError("Not a URL that begins with http:// or https://.")
    return ascii_uri(address)


def _chat(address: str) -> str:
    if not _SCHEME.fullmatch(address):
        raise ValueError("Not the address of a chat service, such as slack://TOKEN/CHANNEL.")
    if has_port_zero(address):
        raise ValueError("Not the address of a chat service: nothing listens on port 0.")
    return with_ascii_host(address)


def _push(address: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", address):
        raise ValueError("Not a push token: printable ASCII without spaces.")
    return address


_CHECKS: Final[dict[Channel, Callable[[str], str]]] = {
    Channel.EMAIL: _email,
    Channel.SMS: _phone,
    Channel.PUSH: _push,
    Channel.CHAT: _chat,
    Channel.WEBHOOK: _url,
}


_WITH_CREDENTIALS: Final = frozenset({Channel.PUSH, Channel.CHAT, Channel.WEBHOOK})


def normalised(channel: Channel, address: str) -> str:
    """Return the address in the single form in which it is stored and compared.

    Raises ValueError with a sentence for the caller as its message.
    """
    if len(address) > _MAX_LENGTH:
        raise ValueError(f"Longer than {_MAX_LENGTH} characters.")
    _check_characters(address)
    if channel in _WITH_CREDENTIALS and is_masked(address):
        raise ValueError(f"This is how an address is shown, with {MASK} for the credentials in it: give it whole.")
    normal = _CHECKS[channel](address)
    if len(normal) > _MAX_LENGTH:  # percent-encoded
        raise ValueError(f"Longer than {_MAX_LENGTH} characters in its ASCII form.")
    return normal


def normalised_from_query(channel: Channel, address: str) -> str:
    """Normalise like `normalised`, also where a query string has turned a plus into a space. Raises ValueError."""
    try:
        return normalised(channel, address)
    except ValueError:
        for text in _with_plus(address):
            with suppress(ValueError):
                return normalised(channel, text)
        raise


def sought(channel: Channel | None, text: str) -> tuple[str, ...]:
    """Return the forms in which a searched address may be stored, the channel's normal form first.

    Without a channel, returns the forms of every channel. Includes the form with a plus where a query string has turned
    it into a space. The last form is the text itself, for addresses stored before they were normalised.
    """
    forms = []
    for each in (text, *_with_plus(text)):
        for candidate in Channel if channel is None else (channel,):
            with suppress(ValueError):
                forms.append(normalised(candidate, each))
    return tuple(dict.fromkeys((*forms, text)))


def _with_plus(text: str) -> tuple[str, ...]:
    """Return the texts that `text` may come from, if a plus was read as a space; a phone number has it in front."""
    return (f"+{text[1:]}", text.replace(" ", "+")) if text.startswith(" ") else (text.replace(" ", "+"),)


_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def folded(channel: Channel, address: str) -> str:
    """Fold an address for comparison: ASCII letters become lower case, as no mailbox in use tells them apart.

    URLs that were stored before they were normalised are normalised here. A sealed address has a single form.
    """
    if channel is Channel.EMAIL:
        return address.translate(_LOWER)
    if channel is Channel.WEBHOOK and seal_of(address) is None:
        with suppress(ValueError):
            return ascii_uri(address)
    return address


@functools.lru_cache(maxsize=20_000)
def endpoint_of(url: str) -> UUID:
    """Return the id of the endpoint at a URL. All forms of a URL have the same id, except a sealed one."""
    if seal_of(url) is None:
        with suppress(ValueError):
            url = ascii_uri(url)
    return UUID(bytes=hashlib.sha256(url.encode(errors="replace")).digest()[:16])


def without_password(url: str) -> str:
    """Return a URL without the user and password that it may carry, so that it can be shown to others."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


def hash_of(channel: Channel, address: str) -> bytes:
    """Return SHA-256 of the folded address, to recognise an address without storing it."""
    return hashlib.sha256(folded(channel, address).encode()).digest()
