"""Forms of texts, as patterns of ECMA-262 for the API's description.

A text that a pattern matches is accepted by the check of its field; tests hold them to that. Some checks cannot be
written as a pattern in full (international domains, nested expressions): such a check accepts a little more than its
pattern says.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata

from notifier.content.sender_rules import ALL, SenderRules
from notifier.vocabulary.states import Channel
from notifier.vocabulary.time_zones import names

Form = dict[str, Any]

#: Any text that can be kept.
TEXT: Final = r"^[^\u0000]*$"

# --- moments and durations

_YEAR: Final = "(?:19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"
_TWO_DIGITS: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
#: An RFC 3339 time of the years 1970 to 9998 (`vocabulary.timestamps`). In UTC, too: so no offsets at either end.
MOMENT: Final = (
    rf"^(?!1970-01-01.*[+])(?!9998-12-31.{{9,20}}-){_YEAR}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    rf"[Tt]{_TWO_DIGITS}:[0-5][0-9](?:[.][0-9]{{1,9}})?(?:[Zz]|[+-]{_TWO_DIGITS})$"
)


def _up_to(most: int) -> str:
    """Return a pattern of the whole numbers from 0 to `most`, without leading zeros."""
    digits = str(most)
    parts = ["[1-9]" + "[0-9]" * (length - 1) for length in range(1, len(digits))]
    for at, digit in enumerate(digits):
        low = 1 if at == 0 else 0
        if int(digit) > low:
            parts.append(f"{digits[:at]}[{low}-{int(digit) - 1}]" + "[0-9]" * (len(digits) - at - 1))
    return f"(?:0|{'|'.join(parts)}|{digits})"


_DAYS: Final = 36_525  # a hundred years
_SECOND: Final = "(?:[.][0-9]{1,6})?"
#: Several units: each so few that they are less than a hundred years together.
_SEVERAL: Final = (
    rf"P(?=[0-9]|T[0-9])(?:[0-9]{{1,3}}W)?(?:[0-9]{{1,4}}D)?"
    rf"(?:T(?=[0-9])(?:[0-9]{{1,5}}H)?(?:[0-9]{{1,6}}M)?(?:[0-9]{{1,7}}{_SECOND}S)?)?"
)
#: An ISO 8601 duration of at most a hundred years (`notifier.vocabulary.durations`).
DURATION: Final = (
    rf"^(?:{_SEVERAL}|P{_up_to(_DAYS // 7)}W|P{_up_to(_DAYS)}D|PT{_up_to(_DAYS * 24)}H|PT{_up_to(_DAYS * 1440)}M"
    rf"|PT[0-9]{{1,9}}{_SECOND}S)$"
)

#: A `next_cursor` that a list gave: the 16 bytes of an id.
CURSOR: Final = "^[A-Za-z0-9_-]{21}[AQgw]$"
LOCALE: Final = "^[A-Za-z]{2,8}(?:[_-][A-Za-z0-9]{1,8}){0,4}$"

# --- addresses

_LABEL: Final = "(?!..--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = rf"{_LABEL}(?:[.]{_LABEL}){{0,3}}"
_ATOM: Final = "[A-Za-z0-9!#$%&'*/=?^_`{|}~+-]{1,20}"
_LOCAL_PART: Final = rf"{_ATOM}(?:[.]{_ATOM}){{0,2}}"
#: The name of a mailbox: no address stands in it.
_DISPLAY_NAME: Final = r"[^<>@\uff20\ufe6b\u0022\\\u0000-\u001f\u007f-\u009f\u2028\u2029]{1,300}"
_NO_ENCODED_WORD: Final = "(?!.*[?]=)"

#: `format: idn-email` says the rest: domains in any script.
EMAIL: Final = rf"^{_NO_ENCODED_WORD}(?!.*@(?:.*[.])?..--)[^@]{{1,64}}@[^@]+[.][^@.]+$"
_PORT: Final = "(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?"
#: In no address: what looks like a mask of ours, or like an encoded word (RFC 2047), or turns the direction of texts.
_NO_MASK: Final = r"(?!.*[*]{3})(?!.*=[?][^?]*[?][BbQq][?])"
_BREAKS: Final = r"\s\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
#: Of an ASCII host, without a user.
URL: Final = rf"^{_NO_MASK}https?://{_DOMAIN}{_PORT}(?:[/?#][^{_BREAKS}]*)?$"
CHAT: Final = r"^[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._~-]+(?:[/?][A-Za-z0-9._~/?&=%+-]*)?$"
PUSH: Final = rf"^{_NO_MASK}[!-~]+$"


def mailbox_form(rules: SenderRules | None = None) -> Form:
    """`name@domain` or `Name <name@domain>`; with rules, of a sender that they allow."""
    if rules is None or ALL in rules.patterns:
        address = rf"{_LOCAL_PART}@{_DOMAIN}"
    else:
        address = f"(?:{'|'.join(sorted(map(_sender, rules.patterns)))})"
    return {"pattern": rf"^{_NO_ENCODED_WORD}(?:{address}|{_DISPLAY_NAME}<{address}>)$", "maxLength": 254}


def _sender(pattern: str) -> str:
    if pattern.startswith("*."):
        return rf"{_LOCAL_PART}@(?:{_LABEL}[.]){{1,3}}{_literal(pattern[2:])}"
    return _literal(pattern) if "@" in pattern else rf"{_LOCAL_PART}@{_literal(pattern)}"


def _literal(text: str) -> str:
    # In a way that all dialects know.
    return re.sub(r"[.$*+?(){}|/-]", r"[\g<0>]", text).replace("^", r"\^")


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last one of each run of numbers without a gap."""
    runs: list[tuple[int, int]] = []
    for each in sorted(numbers):
        if runs and runs[-1][1] == each - 1:
            runs[-1] = (runs[-1][0], each)
        else:
            runs.append((each, each))
    return runs


@functools.cache
def phone_form() -> str:
    """Return the pattern of phone numbers as E.164, of as many digits as their country has; spaces may be in them."""
    codes = defaultdict(list)
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        found = (
            PhoneMetadata.metadata_for_nongeo_region(code)
            if regions[0] == "001"
            else PhoneMetadata.metadata_for_region(regions[0])
        )
        if found is None or found.general_desc is None:
            continue
        # A digit that dials within the country would be taken off, where it stands first.
        first = "".join(each for each in "0123456789" if each != (found.national_prefix or "0")[0])
        lengths = tuple(each for each in found.general_desc.possible_length if each > 1)
        codes[first, lengths].append(str(code))
    digit = "[ .-]?[0-9]"
    kinds = []
    for (first, lengths), each in codes.items():
        rest = "|".join(f"(?:{digit}){{{few - 1},{most - 1}}}" for few, most in _runs(lengths))
        kinds.append(f"(?:{'|'.join(each)})[ .-]?[{first}](?:{rest})")
    return rf"^[+](?:{'|'.join(kinds)})$"


@functools.cache
def zone_form() -> str:
    """Return the pattern of the names of time zones, as tzdata has them."""
    areas, one_of = defaultdict(list), "|".join
    for name in sorted(names()):
        area, slash, rest = name.rpartition("/")
        areas[area + slash].append(re.sub(r"[+]", "[+]", rest))
    return f"^(?:{'|'.join(f'{area}(?:{one_of(rest)})' for area, rest in areas.items())})$"


def reference_to(name: str) -> Form:
    """Return a reference to a named form."""
    return {"$ref": f"#/components/schemas/{name}"}


#: The form of an address, by its channel.
ADDRESSES: Final[dict[Channel, Form]] = {
    Channel.EMAIL: {"type": "string", "format": "idn-email", "pattern": EMAIL, "maxLength": 254},
    Channel.SMS: reference_to("PhoneNumber"),
    Channel.PUSH: {"type": "string", "pattern": PUSH, "minLength": 1, "maxLength": 2048},
    Channel.CHAT: {"type": "string", "pattern": CHAT, "maxLength": 2048},
    Channel.WEBHOOK: {"type": "string", "pattern": URL, "maxLength": 2048},
}

# --- JMESPath, without what nests

_IDENTIFIER: Final = "[A-Za-z_][A-Za-z0-9_]*"
_NAME_OR_QUOTED: Final = rf"""(?:{_IDENTIFIER}|"[^"\\\u0000-\u001f]+")"""
_INDEX: Final = r"\[(?:-?[0-9]{1,9}|[*]|)\]"
_STEPS: Final = rf"(?:@|{_NAME_OR_QUOTED})(?:[.]{_NAME_OR_QUOTED}|{_INDEX}|[.][*])*"
_LITERAL: Final = (
    r"""(?:`(?:-?(?:0|[1-9][0-9]{0,8})(?:[.][0-9]{1,6})?|true|false|null|"[^"\\`\u0000-\u001f]*")`|'[^'\\\u0000]*')"""
)
_FUNCTION: Final = (
    rf"(?:abs|avg|ceil|contains|ends_with|floor|join|keys|length|max|min|not_null|reverse|sort|starts_with|sum"
    rf"|to_array|to_number|to_string|type|values)\((?:{_STEPS}|{_LITERAL})(?:, ?(?:{_STEPS}|{_LITERAL}))*\)"
)
_VALUE: Final = rf"(?:{_STEPS}|{_LITERAL})"
_COMPARED: Final = "(?: ?(?:==|!=|<=|>=|<|>) ?"
_CONDITION: Final = rf"!?(?:{_FUNCTION}|{_VALUE}){_COMPARED}{_VALUE})?"
_FILTER: Final = rf"{_STEPS}\[[?]{_VALUE}{_COMPARED}{_VALUE})?\](?:[.]{_NAME_OR_QUOTED}|{_INDEX})*"
JMESPATH: Final = rf"^(?:(?:{_CONDITION} ?(?:&&|[|]{{2}}) ?)*{_CONDITION}|{_FILTER})$"

#: A JSON document's member that is null or left out.
NULL: Final[Form] = {"type": "string", "nullable": True, "enum": [None]}


def named_forms() -> dict[str, Form]:
    """Return the schemas of forms that are too long to be written where they are used."""
    return {
        "Duration": {
            "type": "string",
            "pattern": DURATION,
            "description": "An ISO 8601 duration of weeks, days, hours, minutes and seconds, such as `P7D` or `PT30M`;"
            " at most a hundred years.",
        },
        "PhoneNumber": {
            "type": "string",
            "pattern": phone_form(),
            "maxLength": 40,
            "description": "A phone number in international form (E.164); spaces, dots and dashes are left out.",
        },
        "TimeZone": {
            "type": "string",
            "pattern": zone_form(),
            "description": "The exact name of an IANA time zone, such as `Europe/Berlin`.",
        },
        "JmesPath": {
            "type": "string",
            "pattern": JMESPATH,
            "maxLength": 2000,
            "description": "A [JMESPath](https://jmespath.org) expression over the event. The pattern has what does not"
            " nest; parentheses, selections and functions within functions are understood too.",
        },
    }


def of_name(name: str, *, nullable: bool) -> Form:
    """Return a reference to a named form, which a field has in its metadata; where null is allowed, either."""
    reference = reference_to(name)
    return {"anyOf": [reference, NULL]} if nullable else {"allOf": [reference]}
