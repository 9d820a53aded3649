"""Untrusted text made safe to show: on terminals, in logs, and in JSON that a terminal may show."""

import unicodedata
from typing import Final

#: Joiners have no shape, and do no harm: names in Persian and Hindi, and many emoji, are wrong without them.
_JOINERS: Final = frozenset("\u200c\u200d")
#: Characters that JSON may have between its tokens, besides spaces and line feeds.
_BLANKS: Final = str.maketrans("\r\t", "  ")


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text whose characters all have a shape of their own; others become escapes of JSON, such as `\u001b`.

    `lines`: line breaks stay, and tabs are laid out; else they too are escaped, so that no value begins a line.
    """
    shown = str(text)
    if lines:
        shown = shown.replace("\r\n", "\n").expandtabs(8)
    if shown.isprintable():
        return shown
    return "".join(each if _is_harmless(each) or (lines and each == "\n") else _escaped(each) for each in shown)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def printable_json(text: str) -> str:
    r"""Return the same JSON, with characters that have no visible shape as escapes, such as `\u202e`.

    In valid JSON such characters occur in strings alone, except white space, which becomes a space.
    """
    text = text.translate(_BLANKS)
    if text.isprintable():
        return text
    return "".join(each if _is_harmless(each) or each == "\n" else _escaped(each) for each in text)
