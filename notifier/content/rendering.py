"""Rendering: turn a notification into the message that its recipient reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html.parser import HTMLParser
from typing import Any, Final
from uuid import UUID

import orjson

from notifier.content.template_process import Rendered
from notifier.people.users import Person
from notifier.providers.protocol import Message
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339

#: The event type of a webhook without an event.

DIRECT_TYPE: Final = "notification"


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a notification: an event's type and payload, or the content given with the notification itself."""

    event_id: UUID | None
    event_type: str | None
    #: JSON text, exactly as it was posted.
    data: str
    #: When it happened, or else when it was accepted.
    timestamp: datetime
    #: `data` is `{"subject", "body"}` or `{"data": {…}}`, given with the notification; the email's envelope is beside
    #: it, and is not template data.
    given: bool = False


@dataclass(frozen=True, slots=True)
class Envelope:
    """The email fields given with a notification; None means the template's own, or the channel's."""

    sender: str | None = None
    reply_to: str | None = None
    #: The ids of its attachments.
    attachments: tuple[UUID, ...] = ()


_ENVELOPE: Final = ("from", "reply_to", "attachments")


def as_members(envelope: Envelope) -> dict[str, Any]:
    """Return the given fields of an envelope as members of a notification's content."""
    values = (envelope.sender, envelope.reply_to, envelope.attachments)
    return {name: value for name, value in zip(_ENVELOPE, values, strict=True) if value}


def envelope_of(content: Content) -> Envelope | None:
    """Return the envelope given with the content, or None."""
    data = orjson.loads(content.data) if content.given else None
    if not isinstance(data, dict) or data.keys().isdisjoint(_ENVELOPE):
        return None
    return Envelope(data.get("from"), data.get("reply_to"), tuple(UUID(each) for each in data.get("attachments") or ()))


def _without_envelope(data: str) -> str:
    document = orjson.loads(data)
    if not isinstance(document, dict) or document.keys().isdisjoint(_ENVELOPE):
        return data
    return orjson.dumps({name: value for name, value in document.items() if name not in _ENVELOPE}).decode()


def _lines(data: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}" for name, value in data.items()
    )


def _webhook_body(notification_id: UUID, content: Content) -> str:
    # Put together as text: the payload reaches the receiver as it was sent to us, and every attempt is the same.
    members = (
        f'"type":{orjson.dumps(content.event_type or DIRECT_TYPE).decode()}',
        f'"timestamp":"{rfc3339(content.timestamp)}"',
        f'"id":"{content.event_id or notification_id}"',
        f'"data":{_without_envelope(content.data) if content.given else content.data}',
    )
    return "{" + ",".join(members) + "}"


def render(
    notification_id: UUID, channel: Channel, recipient: str, content: Content, *, unsubscribe: str | None = None
) -> Message:
    """Render the message of a notification without a template: its content, or the event's type and payload."""
    if channel is Channel.WEBHOOK:
        return Message(notification_id, recipient, None, _webhook_body(notification_id, content))
    data = orjson.loads(content.data)
    if content.given and "body" in data:
        return Message(notification_id, recipient, data.get("subject"), data["body"], unsubscribe=unsubscribe)
    title = content.event_type or DIRECT_TYPE
    body = "\n\n".join(filter(None, (title, _lines(data["data"] if content.given else data))))
    return Message(notification_id, recipient, title, body, unsubscribe=unsubscribe)


def context_of(
    content: Content, event: Mapping[str, Any] | None, person: Person | None, unsubscribe: str | None
) -> dict[str, Any]:
    """Return a template's context: `event`, `payload` (also as `data`), `user`, and the payload's members."""
    data = orjson.loads(content.data)
    payload = data.get("data", {}) if content.given else data
    return {
        **payload,
        "payload": payload,
        "data": payload,
        "event": event or {},
        "user": person.as_members() if person else {},
        "unsubscribe_url": unsubscribe or "",
    }


def preview_context(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template's context in a preview: `data` is the payload, or contains `event`, `payload` and `user`."""
    given = {name: data[name] for name in ("event", "payload", "user") if isinstance(data.get(name), Mapping)}
    payload = given.get("payload", data)
    context = {**payload, "payload": payload, "data": payload, "event": {"payload": payload}, "user": {}}
    return {**context, "unsubscribe_url": "", **given}


def message_of(
    notification_id: UUID,
    recipient: str,
    rendered: Rendered,
    *,
    sender: str | None,
    reply_to: str | None,
    unsubscribe: str | None,
) -> Message:
    """Build the message from a rendered template. A message with HTML alone also gets its text."""
    return Message(
        notification_id,
        recipient,
        rendered.subject,
        rendered.text if rendered.text is not None else text_of(rendered.html or ""),
        rendered.html,
        sender=sender,
        reply_to=reply_to,
        unsubscribe=unsubscribe,
    )


_BLOCKS: Final = frozenset(
    {
        *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figure", "footer"),
        *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section"),
        *("table", "tr", "ul"),
    }
)
_CELLS: Final = frozenset({"td", "th"})
_UNSEEN: Final = frozenset({"head", "script", "style", "title"})


class _Text(HTMLParser):
    """Collects the text that a reader of HTML would see, and the targets of its links."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0
        #: The address of the link that is open, and where its text began.
        self._link: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        self._break(tag)
        given = dict(attrs)
        if tag == "a" and (href := given.get("href")):
            self._link = (href, len(self.parts))
        elif tag == "img" and (alt := given.get("alt")):
            self.parts.append(alt)

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        if tag == "a" and self._link:
            href, began = self._link
            self._link = None
            if "".join(self.parts[began:]).strip() != href and not href.startswith("#"):
                self.parts.append(f" ({href})")
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(re.sub(r"\s+", " ", data))

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in _CELLS:
            self.parts.append(" ")


def text_of(html: str) -> str:
    """Convert an HTML document to text, for readers without HTML."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    lines = (re.sub(r" {2,}", " ", line).strip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
