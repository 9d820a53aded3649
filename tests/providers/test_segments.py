"""Segments at their exact boundaries."""

import pytest

from notifier.providers.formats.sms_segments import MOST_SEGMENTS, Segments, checked, count
from notifier.providers.http.api import CannotSend

#: Every character of TS 23.038 that takes one septet, in its order, without the escape; and those that take two.
BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = "\f^{}\\[~]|€"


@pytest.mark.parametrize(
    ("text", "units", "segments"),
    [
        ("", 0, 0),
        ("a", 1, 1),
        ("a" * 160, 160, 1),
        ("a" * 161, 161, 2),
        ("a" * 306, 306, 2),
        ("a" * 307, 307, 3),
        ("€" * 80, 160, 1),
        ("a" * 158 + "€", 160, 1),
        ("a" * 159 + "€", 161, 2),
        # The sign ends the first segment, or begins the second and leaves a septet empty.
        ("a" * 151 + "€" + "a" * 153, 306, 2),
        ("a" * 152 + "€" + "a" * 151, 305, 2),
        ("a" * 152 + "€" + "a" * 152, 306, 3),
        # A segment takes 76 of them, and a septet of each stays empty.
        ("€" * 152, 304, 2),
        ("€" * 153, 306, 3),
        ("a" * 1530, 1530, 10),
        ("a" * 1531, 1531, 11),
        ("€" * 760, 1520, 10),
        ("€" * 761, 1522, 11),
    ],
)
def test_septets(text: str, units: int, segments: int) -> None:
    assert count(text) == Segments("gsm-7", units, segments)


@pytest.mark.parametrize(
    ("text", "units", "segments"),
    [
        ("世", 1, 1),
        ("世" * 70, 70, 1),
        ("世" * 71, 71, 2),
        ("世" * 134, 134, 2),
        ("世" * 135, 135, 3),
        # One such character, and the euro sign takes one unit as all the others do.
        ("€" * 69 + "世", 70, 1),
        ("a" * 68 + "💌", 70, 1),
        ("a" * 69 + "💌", 71, 2),
        # The emoji ends the first segment, or begins the second and leaves a unit empty.
        ("a" * 65 + "💌" + "a" * 67, 134, 2),
        ("a" * 66 + "💌" + "a" * 65, 133, 2),
        ("a" * 66 + "💌" + "a" * 66, 134, 3),
        ("💌" * 66, 132, 2),
        ("💌" * 67, 134, 3),
        ("\uffff", 1, 1),
        ("\U00010000", 2, 1),
        ("\ud800", 1, 1),
        ("世" * 670, 670, 10),
        ("世" * 671, 671, 11),
    ],
)
def test_code_units(text: str, units: int, segments: int) -> None:
    assert count(text) == Segments("ucs-2", units, segments)


def test_the_alphabet() -> None:
    assert len(set(BASIC)) == 127
    for code in [*range(0x3000), 0xFB01, 0x1F48C]:
        character = chr(code)
        if character in BASIC:
            assert count(character) == Segments("gsm-7", 1, 1)
        elif character in EXTENSION:
            assert count(character) == Segments("gsm-7", 2, 1)
        else:
            assert count(character).encoding == "ucs-2"


def test_what_one_sms_carries() -> None:
    assert checked("a" * 1530).segments == MOST_SEGMENTS == 10
    with pytest.raises(CannotSend, match=r"^too long: 12 segments, at most 10$"):
        checked("a" * (11 * 153 + 1))
    with pytest.raises(CannotSend, match=r"^empty: "):
        checked("")
