"""Sender rules: the allowed domains and addresses of email senders, and the channel's own mailbox."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from notifier.providers.formats.mailboxes import Mailbox, NotAMailbox, bare_mailbox, mailbox
from notifier.vocabulary.domains import ascii_domain

#: Allows every sender.
ALL: Final = "*"
_BELOW: Final = "*."
#: Texts in a display name that people take for an address.
_ADDRESS: Final = re.compile(r"""[^\s<>"',;:()\[\]]+@([^\s<>"',;:()\[\]@]+)""")

NOT_ALLOWED: Final = "NOTIFIER_EMAIL_SENDERS allows neither its address nor its domain."
NAME_NOT_ALLOWED: Final = "Its name has an address in it that NOTIFIER_EMAIL_SENDERS does not allow."


def sender_pattern(text: str) -> str:
    """Return a domain, `*.domain` (its subdomains), `name@domain` or `*` in the form in which they are compared.

    Raises ValueError.
    """
    if text == ALL:
        return text
    if "@" in text:
        return _comparable(bare_mailbox(text))
    below = _BELOW if text.startswith(_BELOW) else ""
    name = ascii_domain(text.removeprefix(below))
    if name.endswith("."):
        raise ValueError("a domain ends with no dot here")
    return below + name


@dataclass(frozen=True, slots=True)
class SenderRules:
    """The allow-list of senders, its entries as `sender_pattern` gives them."""

    patterns: frozenset[str]

    def refusal(self, sender: str) -> str | None:
        """Return the reason why an email may not be from a mailbox, None where it may."""
        if ALL in self.patterns:
            return None
        try:
            found = mailbox(sender)
        except NotAMailbox as error:
            return str(error)
        if not (_comparable(found) in self.patterns or self._allows(found.domain)):
            return NOT_ALLOWED
        # Mail programs show the name alone: it must not name a sender that the address could not be.
        if not all(self._allows(domain) for domain in _domains_in(found.display_name)):
            return NAME_NOT_ALLOWED
        return None

    def _allows(self, domain: str) -> bool:
        labels = domain.split(".")
        below = (_BELOW + ".".join(labels[at:]) for at in range(1, len(labels)))
        return domain in self.patterns or not self.patterns.isdisjoint(below)


def rules_of(patterns: tuple[str, ...], own: str) -> SenderRules:
    """Make the rules of the settings; `own` is the channel's own mailbox, which is always allowed.

    Without patterns every address of its domain is allowed. Raises NotAMailbox.
    """
    channel = mailbox(own)
    return SenderRules(frozenset(patterns or (channel.domain,)) | {_comparable(channel)})


#: Rules that allow every sender: for emails that were sent already.
ANY_SENDER: Final = SenderRules(frozenset({ALL}))


def _comparable(each: Mailbox) -> str:
    """Normalise an address for comparison: an ASCII name compares without case, any other name with case."""
    return f"{each.username.lower() if each.username.isascii() else each.username}@{each.domain}"


def _domains_in(name: str) -> Iterator[str]:
    """Yield the domains of address-like text in a display name; invalid domains unchanged."""
    for match in _ADDRESS.finditer(unicodedata.normalize("NFKC", name)):
        domain = match[1].rstrip(".!?")
        try:
            yield ascii_domain(domain)
        except ValueError:
            yield domain
