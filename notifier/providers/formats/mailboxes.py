"""Mailboxes as callers and settings write them: `name@domain` or `Name <name@domain>` (RFC 5322, RFC 6531)."""

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final

from notifier.vocabulary.domains import ascii_domain

_FORM: Final = "Not a mailbox: write name@domain or Name <name@domain>."
#: Characters of an atom (RFC 5322, section 3.2.3).
ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
#: An atom with all characters too that are not ASCII (RFC 6531, section 3.3). By what it excludes: a class that names a
#: million characters takes Python milliseconds to compile.
_ATOM: Final = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+'
_ATOMS: Final = re.compile(rf"{_ATOM}(?: {_ATOM})*")
_DOT_ATOM: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# A name that is one quoted string is its content; any other name is taken unchanged.
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')

_LONGEST_LOCAL_PART: Final = 64
_LONGEST: Final = 254
_LONGEST_NAME: Final = 500
#: Categories of characters that no name has: controls, surrogates, separators of lines and paragraphs.
_UNFIT_FOR_NAMES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})


class NotAMailbox(ValueError):
    """A text is not an address of the form name@domain. The message is a sentence for the author of the text."""

    def __init__(self, reason: str = _FORM) -> None:
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address that mail can carry, with the name of its owner."""

    #: Text as people read it, without control characters; may be empty.
    display_name: str
    #: The part before the @: a dot-atom, which may have characters beyond ASCII.
    username: str
    #: In ASCII, with A-labels, so that every server takes it.
    domain: str

    @property
    def addr_spec(self) -> str:
        """The address alone."""
        return f"{self.username}@{self.domain}"

    def __str__(self) -> str:
        """The mailbox in Unicode, as APIs take it that write headers themselves."""
        if not self.display_name:
            return self.addr_spec
        is_plain = _ATOMS.fullmatch(self.display_name) and "=?" not in self.display_name
        return f"{self.display_name if is_plain else quoted(self.display_name)} <{self.addr_spec}>"


def quoted(text: str) -> str:
    """Return a text as a quoted string (RFC 5322, section 3.2.4)."""
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'


def mailbox(text: str) -> Mailbox:
    """Parse `name@domain` or `Name <name@domain>`; a name may be quoted. Raises NotAMailbox."""
    text = text.strip(" ")
    name, angle, address = text.removesuffix(">").rpartition("<")
    if not (angle and text.endswith(">")):
        return bare_mailbox(text)
    name = name.strip(" ")
    in_quotes = _QUOTED.fullmatch(name)
    if in_quotes:
        name = re.sub(r"\\(.)", r"\1", in_quotes[1]).strip(" ")
    elif "<" in name or ">" in name:
        raise NotAMailbox
    if len(name) > _LONGEST_NAME:
        raise NotAMailbox(f"The name of a mailbox has more than {_LONGEST_NAME} characters.")
    if not _UNFIT_FOR_NAMES.isdisjoint(map(unicodedata.category, name)):
        raise NotAMailbox("The name of a mailbox may not contain line breaks and other control characters.")
    return replace(bare_mailbox(address), display_name=name)


def bare_mailbox(text: str) -> Mailbox:
    """Read `name@domain`. Raises NotAMailbox."""
    local_part, at, domain = text.rpartition("@")
    # Beyond ASCII: no spaces and separators of any kind, and nothing that cannot be seen.
    if not at or not _DOT_ATOM.fullmatch(local_part) or any(unicodedata.category(each)[0] in "CZ" for each in text):
        raise NotAMailbox
    if "?=" in text.partition("=?")[2]:
        raise NotAMailbox("Not a mailbox: an address has no encoded words (RFC 2047) in it.")
    local_part = unicodedata.normalize("NFC", local_part)
    try:
        found = Mailbox("", local_part, ascii_domain(domain))
    except ValueError as error:
        raise NotAMailbox(f"Not a mailbox: {error}") from None
    if found.domain.endswith(".") or len(local_part.encode()) > _LONGEST_LOCAL_PART:
        raise NotAMailbox
    if len(found.addr_spec.encode()) > _LONGEST:
        raise NotAMailbox(f"Not a mailbox: an address has at most {_LONGEST} characters.")
    return found
