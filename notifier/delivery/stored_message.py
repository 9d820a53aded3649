"""Stored message: the message of a notification, composed again from the stored data.

No copy of a message is kept. Its content, its event and the version of its template are kept until their retention ends
or its recipient is erased; the code that composes messages for sending composes this one too. A template gets the
user's data as they are now.
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Engine

from notifier.content.sender_rules import ANY_SENDER, SenderRules
from notifier.content.template_process import TemplateProcess
from notifier.delivery.composer import CannotCompose, Composer
from notifier.models import Notification
from notifier.notifications.claims import Claimed
from notifier.people.unsubscribe import HiddenLinks
from notifier.providers.protocol import Message
from notifier.security.secret_box import Vault
from notifier.vocabulary.states import Channel

_FIELDS: Final = frozenset(each.name for each in dataclasses.fields(Claimed)) - {"now"}


@dataclass(frozen=True, slots=True)
class Gone:
    """The content is missing or was deleted; the text says why, for people."""

    why: str


def content_of(
    engine: Engine,
    template_process: TemplateProcess,
    vault: Vault,
    public_url: str,
    senders: SenderRules,
    notification: Notification,
) -> Message | Gone | CannotCompose:
    """Return the message of a notification, or the reason why there is none. The unsubscribe link, a key, is left out.

    Gone: it is not kept. CannotCompose: it is, but no message can be made of it, and so none was sent.
    """
    if notification.channel is None:
        return Gone("No message was made: nobody could be reached over any channel.")
    if notification.recipient is None and notification.subscription_id is None:
        return Gone("Its recipient was erased, or has no address any more, and what it said is not shown.")
    row = Claimed(**{name: getattr(notification, name) for name in _FIELDS}, now=datetime.now(UTC))
    # Senders that are allowed no more were, when it was sent.
    rules = senders if notification.sent_at is None else ANY_SENDER
    composer = Composer(
        engine,
        Channel(notification.channel),
        template_process=template_process,
        links=HiddenLinks(public_url),
        vault=vault,
        senders=rules,
    )
    composition = composer.begin([row], {})
    if not composition.has_content(row):
        return Gone("Its event is not kept any more: its retention is over.")
    [message] = composition.messages([row])
    return message
