"""Mentions: find the parts of texts that name a person, by id or address, and remove them.

Callers write addresses into anything: a payload's values and names, a subject, keys, names of files; in capitals,
percent-encoded in a link, with spaces in a phone number, or as escapes of JSON. An address within a longer one belongs
to another person, and stays. An id that is a mere number or word counts only as the whole value of a member such as
`user_id`: elsewhere it means something else.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from urllib.parse import quote, urlsplit

import orjson

from notifier.vocabulary.addresses import folded, without_password
from notifier.vocabulary.domains import ascii_domain, unicode_domain
from notifier.vocabulary.masking import seal_of
from notifier.vocabulary.states import Channel

_CHANNELS: Final = frozenset(each.value for each in Channel)
#: The placeholder for a removed mention.
ERASED: Final = "[erased]"

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NAME_ENDS: Final = re.compile(r"\s*:")
_NUMBER: Final = re.compile(r"(?<![0-9.eE+-])[0-9]+(?![0-9.eE])")
#: Names of members whose value is somebody's id, without case and separators.
_WHO: Final = frozenset({"user", "userid", "uid"})
_NO_LETTERS: Final = re.compile(r"[^A-Za-z0-9]")
#: An escape of a printable ASCII character, which is never necessary: it may hide a mention.
_ESCAPED_ASCII: Final = r"\\u00[2-7]"
_FEWEST: Final = 6
#: Characters that may separate the digits of a phone number.
SEPARATORS: Final = " ()./-"
_WITHOUT_SEPARATORS: Final = str.maketrans("", "", SEPARATORS)
_BETWEEN_DIGITS: Final = f"[{SEPARATORS}]*"
_RUN: Final = re.compile("[a-z0-9]+")

# The character before may belong to a percent-encoded octet.
_ENCODED_BEFORE: Final = "(?<=%[0-9A-Fa-f]{2})"
_NO_MAILBOX_BEFORE: Final = rf"(?:(?<![\w.%+-])|{_ENCODED_BEFORE})"
# A file that has an address for its name is no domain.
_NO_DOMAIN_BEHIND: Final = (
    r"(?![A-Za-z0-9]|\.(?!(?:txt|pdf|csv|html?|json|xml|ics|eml|vcf|docx?|xlsx?|png|jpe?g)(?![\w.]))[A-Za-z0-9])"
)
_NO_DIGIT_BEFORE: Final = rf"(?:(?<![0-9])|{_ENCODED_BEFORE})"
_NO_URL_BEHIND: Final = r"(?![\w/?#&=%~-]|\.\w)"
_NO_WORD_BEFORE: Final = rf"(?:(?<![\w.@+-])|{_ENCODED_BEFORE})"
_NO_WORD_BEHIND: Final = r"(?![\w@+-]|\.\w)"
_NO_LETTER_BEFORE: Final = rf"(?:(?<![A-Za-z0-9])|{_ENCODED_BEFORE})"


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a person on a channel, as it is kept."""

    channel: Channel
    text: str


@dataclass(frozen=True)
class Named:
    """A person's ids and addresses."""

    user_ids: frozenset[str]
    addresses: frozenset[Address]

    @classmethod
    def of(cls, user_ids: Iterable[str], addresses: Iterable[tuple[Channel, str]]) -> "Named":
        """Name a person by ids and by (channel, address)."""
        return cls(frozenset(user_ids), frozenset(Address(*each) for each in addresses))

    @classmethod
    def from_json(cls, document: str) -> "Named":
        """Read the output of `to_json`."""
        read = orjson.loads(document)
        return cls.of(read["user_ids"], ((Channel(channel), text) for channel, text in read["addresses"]))

    def to_json(self) -> str:
        """Write it down."""
        addresses = sorted([each.channel.value, each.text] for each in self.addresses)
        return orjson.dumps({"user_ids": sorted(self.user_ids), "addresses": addresses}).decode()

    @cached_property
    def forms(self) -> list[str]:
        """The forms of the addresses in which rows may have them as their recipient."""
        return sorted({form for each in self.addresses for form in _forms(each)})

    @cached_property
    def _folded(self) -> frozenset[tuple[str, str]]:
        return frozenset((each.channel.value, folded(each.channel, each.text)) for each in self.addresses)

    def is_at(self, recipient: str | None, channel: str | None) -> bool:
        """Tell whether a row's recipient is an address of theirs, in any spelling."""
        if recipient is None or channel not in _CHANNELS:
            return False
        return (channel, folded(Channel(channel), recipient)) in self._folded

    def sql_pattern(self) -> str:
        """Return a regular expression (for Postgres, ignoring case) for possible mentions; some matches are none."""
        return "|".join([*(_core(each, in_sql=True) for each in self._tokens()), *self._sql_members(), _ESCAPED_ASCII])

    def sql_likes(self) -> list[str]:
        """Return LIKE patterns; a text matches one if `sql_pattern` finds anything, which takes ten times as long.

        The text must be in lower case, and without `SEPARATORS`.
        """
        runs = (max(_RUN.findall(_text(each).lower()), key=len, default="") for each in self._tokens())
        ids = (each.lower().translate(_WITHOUT_SEPARATORS) for each in self._plain_ids)
        return sorted({*(f"%{run}%" for run in (*runs, *ids)), r"%\\u00%"})

    def _sql_members(self) -> Iterator[str]:
        for each in sorted(self._plain_ids):
            yield rf'(?:user|uid)[^":]*"\s*:\s*"?{_core(each, in_sql=True)}\M'

    def are_in(self, text: str) -> bool:
        """Tell whether a text names them, also within a longer word: for keys, which are made of several things."""
        return self._in_keys is not None and self._in_keys.search(text) is not None

    def taken_out_of(self, text: str) -> str:
        """Return a text with `[erased]` in place of them."""
        return text if self._in_texts is None else self._in_texts.sub(ERASED, text)

    def taken_out_of_name(self, name: str) -> str:
        """Return a file's name with `[erased]` in place of mentions: like keys, such names combine several things."""
        return name if self._in_keys is None else self._in_keys.sub(ERASED, name)

    def taken_out_of_json(self, document: str) -> str:
        """Return a JSON text with `[erased]` in place of them; all else stays as it was written."""
        written, place, renamed, name = [], 0, 0, None
        for literal in _STRING.finditer(document):
            between = document[place : literal.start()]
            written.append(self._numbers_without(between, name))
            is_name = _NAME_ENDS.match(document, literal.end()) is not None
            value: str = json.loads(literal[0], strict=False)
            changed = ERASED if self._is_id(name, value) and not is_name else self.taken_out_of(value)
            if is_name and changed != value:
                # Two members of one name would be refused where the payload is read again.
                renamed += 1
                changed = changed if renamed == 1 else f"{changed} {renamed}"
            written.append(literal[0] if changed == value else _written(changed))
            name, place = value if is_name else None, literal.end()
        return "".join((*written, self._numbers_without(document[place:], name)))

    def _numbers_without(self, between: str, name: str | None) -> str:
        """Return the text between two strings of JSON: numbers may be phones, or the value of a `name` before."""

        def written(number: re.Match[str]) -> str:
            is_theirs = number[0] in self._phones or self._is_id(name, number[0])
            return f'"{ERASED}"' if is_theirs else number[0]

        if not self._phones and name is None:
            return between
        return _NUMBER.sub(written, between)

    def _is_id(self, name: str | None, value: str) -> bool:
        return name is not None and value in self.user_ids and _NO_LETTERS.sub("", name).lower() in _WHO

    @cached_property
    def _phones(self) -> frozenset[str]:
        return frozenset(each.text.removeprefix("+") for each in self.addresses if each.channel is Channel.SMS)

    @cached_property
    def _plain_ids(self) -> frozenset[str]:
        return frozenset(each for each in self.user_ids if not _is_identifying(each))

    def _tokens(self) -> list["str | Address"]:
        """Return the texts that may be looked for in any text, the longest first."""
        ids: list[str | Address] = [each for each in self.user_ids if _is_identifying(each)]
        addresses = [Address(each.channel, form) for each in self.addresses for form in _spellings(each)]
        found = [*ids, *(each for each in addresses if _is_identifying_address(each))]
        return sorted(set(found), key=lambda each: (-len(_text(each)), _text(each), isinstance(each, Address)))

    @cached_property
    def _in_texts(self) -> re.Pattern[str] | None:
        return _compiled(_bounded(each) for each in self._tokens())

    @cached_property
    def _in_keys(self) -> re.Pattern[str] | None:
        return _compiled(f"{_NO_LETTER_BEFORE}{_core(each)}(?![A-Za-z0-9])" for each in self._tokens())


def _written(text: str) -> str:
    """Write a text as JSON, which of half a surrogate pair is its escape."""
    try:
        return orjson.dumps(text).decode()
    except orjson.JSONEncodeError:
        return json.dumps(text)


def _compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(patterns)
    return re.compile(joined, re.IGNORECASE) if joined else None


def _text(token: str | Address) -> str:
    return token if isinstance(token, str) else token.text


def _forms(address: Address) -> set[str]:
    """Return the forms of an address that a recipient column may contain."""
    return {address.text, folded(address.channel, address.text)}


def _spellings(address: Address) -> set[str]:
    """Return the forms of an address in texts: a domain in either alphabet, a URL without its password."""
    if seal_of(address.text) is not None:
        return set()  # it stands nowhere but in a recipient's place
    if address.channel in {Channel.WEBHOOK, Channel.CHAT}:
        return {*_forms(address), without_password(address.text)}
    if address.channel is not Channel.EMAIL:
        return {address.text}
    local, at, domain = address.text.rpartition("@")
    try:
        return {address.text, f"{local}{at}{ascii_domain(domain)}", f"{local}{at}{unicode_domain(domain)}"}
    except ValueError:
        return {address.text}


def _is_identifying(token: str) -> bool:
    """Return whether an id or a token identifies the person in any place: it is long, and no mere word or number."""
    return len(token) >= _FEWEST and re.search("[A-Za-z]", token) is not None and not token.isalpha()


def _is_identifying_address(address: Address) -> bool:
    if address.channel is Channel.PUSH:
        return _is_identifying(address.text)
    if address.channel in {Channel.WEBHOOK, Channel.CHAT}:
        # The start page of a site identifies nobody.
        parts = urlsplit(address.text)
        return parts.path not in {"", "/"} or bool(parts.query)
    return True


def _core(token: str | Address, *, in_sql: bool = False) -> str:
    """Return the regular expression of a token, in any encoding."""
    if isinstance(token, Address) and token.channel is Channel.SMS:
        digits = _BETWEEN_DIGITS.join(token.text.removeprefix("+"))
        return digits if in_sql else rf"(?:\+|00)?{digits}"
    return "".join(_encoded(each, in_sql=in_sql) for each in _text(token))


def _encoded(character: str, *, in_sql: bool) -> str:
    """Return the regular expression of a character in links, in HTML and (for Postgres) in JSON."""
    if character.isascii() and character.isalnum():
        return character
    forms = [re.escape(character), re.escape(quote(character, safe="")), f"&#0*{ord(character)};"]
    if (escaped := html.escape(character)) != character:
        forms.append(escaped)
    if in_sql:
        forms.append(r"\\/" if character == "/" else rf"\\u{ord(character):04x}")
    return f"(?:{'|'.join(dict.fromkeys(forms))})"


def _bounded(token: str | Address) -> str:
    """Return the regular expression of a token that is not part of a longer one."""
    core = _core(token)
    if isinstance(token, str) or token.channel is Channel.PUSH:
        return f"{_NO_WORD_BEFORE}{core}{_NO_WORD_BEHIND}"
    if token.channel is Channel.EMAIL:
        return f"{_NO_MAILBOX_BEFORE}{core}{_NO_DOMAIN_BEHIND}"
    if token.channel is Channel.SMS:
        return f"{_NO_DIGIT_BEFORE}{core}(?![0-9])"
    return f"{core}{_NO_URL_BEHIND}"
