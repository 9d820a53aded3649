"""Composer: makes messages of claimed notifications, from their content, template and unsubscribe link."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from notifier.content import attachments
from notifier.content.rendering import Content, Envelope, context_of, envelope_of, message_of, render
from notifier.content.sender_rules import SenderRules
from notifier.content.template_process import Rendered, Source, TemplateProcess
from notifier.models import Template
from notifier.models.columns import in_order_of
from notifier.notifications.claims import Claimed
from notifier.people.preferences import GENERAL
from notifier.people.unsubscribe import Links
from notifier.people.users import Person, people
from notifier.planning.routes import view_of
from notifier.providers.protocol import Attachment, Message
from notifier.runtime.isolation import Broken, attempt
from notifier.security.address_seals import AddressSeals, seals_of
from notifier.security.secret_box import CannotDecrypt, Vault
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.states import Channel
from notifier.webhooks.targets import WebhookTarget

Made = TypeVar("Made")

_LINE_BREAK: Final = re.compile(r"[\r\n\0]")
#: Template versions that a process remembers; they never change.
_REMEMBERED: Final = 1000

_PAYLOADS: Final = text("""
    SELECT id, CAST(payload AS text) AS payload, coalesce(occurred_at, created_at) AS moment
    FROM events WHERE id = ANY(:ids)
""")
# All that templates see of an event: read only for rows that have a template.
_EVENTS: Final = text("""
    SELECT id, event_type, source, user_id, category, critical, priority, recipient, channel, cancellation_key,
        timezone, CAST(payload AS text) AS payload, occurred_at, created_at
    FROM events WHERE id = ANY(:ids)
""")
_SOURCE: Final = in_order_of(Source, Template)
_TEMPLATES: Final = text(f"SELECT {', '.join(_SOURCE)}, sender, reply_to FROM templates WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class _Template:
    source: Source
    sender: str | None
    reply_to: str | None


class CannotCompose(NotifierError):
    """A notification of which no message can be made; the text says why, without its data."""


class Composer:
    """Makes the messages of one channel. Used by several threads at once."""

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        *,
        template_process: TemplateProcess,
        links: Links,
        vault: Vault,
        senders: SenderRules,
    ) -> None:
        #: Each statement is a transaction of its own: a third of the round trips.
        self._engine = autocommit_of(engine)
        self._seals = seals_of(engine)
        self._channel = channel
        self._template_process = template_process
        self._links = links
        self._vault = vault
        self._senders = senders
        self._templates: dict[UUID, _Template] = {}

    def begin(self, rows: Sequence[Claimed], known: Mapping[UUID, WebhookTarget]) -> "Composition":
        """Read the content of a batch in a constant number of queries. `known`: its targets, by subscription."""
        templated = [row for row in rows if row.template_id is not None]
        with self._engine.connect() as connection:
            templates = self._read_templates(connection, {row.template_id for row in templated if row.template_id})
            self._seals.get_ready(row.recipient for row in rows)
            events, persons = _seen_by_templates(connection, templated)
            contents = _contents(connection, rows)
            envelopes = _envelopes(contents) if self._channel is Channel.EMAIL else {}
            named = {each for envelope in envelopes.values() for each in _attached(envelope)}
            sizes = attachments.sizes(connection, named)
        return Composition(
            _engine=self._engine,
            _seals=self._seals,
            _channel=self._channel,
            _template_process=self._template_process,
            _links=self._links,
            _vault=self._vault,
            _senders=self._senders,
            _contents=contents,
            _envelopes=envelopes,
            _sizes=sizes,
            _templates=templates,
            _events=events,
            _persons=persons,
            _receivers=known,
        )

    def _read_templates(self, connection: Connection, ids: set[UUID]) -> Mapping[UUID, _Template]:
        missing = sorted(ids - self._templates.keys())
        if missing:
            if len(self._templates) > _REMEMBERED:
                self._templates = {}
            found = connection.execute(_TEMPLATES, {"ids": sorted(ids)})
            self._templates |= {
                row.id: _Template(Source(*row[: len(_SOURCE)]), row.sender, row.reply_to) for row in found
            }
        return self._templates


def _seen_by_templates(
    connection: Connection, rows: Sequence[Claimed]
) -> tuple[dict[UUID, dict[str, Any] | Broken], dict[str, Person]]:
    """Return the events (as templates see them, where they can be read) and the users of some rows."""
    event_ids = [row.event_id for row in rows if row.event_id]
    found = connection.execute(_EVENTS, {"ids": event_ids}).mappings().all() if event_ids else ()
    seals = seals_of(connection)
    seals.get_ready(row["recipient"] for row in found)
    views = {row["id"]: attempt("event", row["id"], partial(_view_of, seals, dict(row))) for row in found}
    persons = people(connection, (row.user_id for row in rows))
    return views, {user_id: person.opened(seals) for user_id, person in persons.items()}


def _view_of(seals: AddressSeals, event: Mapping[str, Any]) -> dict[str, Any]:
    recipient = event["recipient"]
    return view_of({**event, "recipient": recipient and seals.opened_or_kept(recipient)})


def _contents(connection: Connection, rows: Sequence[Claimed]) -> dict[UUID, Content]:
    """Return the content of each row; rows whose event is gone are missing."""
    event_ids = [row.event_id for row in rows if row.event_id]
    events = {row.id: row for row in connection.execute(_PAYLOADS, {"ids": event_ids})} if event_ids else {}
    contents = {}
    for row in rows:
        event = events.get(row.event_id)
        if row.content is not None:
            contents[row.id] = Content(row.event_id, row.event_type, row.content, row.created_at, given=True)
        elif event is not None:
            contents[row.id] = Content(row.event_id, row.event_type, event.payload, event.moment)
    return contents


def _envelopes(contents: Mapping[UUID, Content]) -> dict[UUID, Envelope | Broken]:
    """Return the envelopes that were given for emails, by row, each or the reason why it cannot be read."""
    found = {each: attempt("content", each, partial(envelope_of, content)) for each, content in contents.items()}
    return {row_id: envelope for row_id, envelope in found.items() if envelope is not None}


def _attached(envelope: Envelope | Broken | None) -> tuple[UUID, ...]:
    return envelope.attachments if isinstance(envelope, Envelope) else ()


def _check_parts(message: Message) -> None:
    """Raise TypeError where a part of a message is no text, or a header more than one line: providers rely on it."""
    optional = (message.subject, message.html, message.sender, message.reply_to, message.unsubscribe)
    texts = (message.recipient, message.text, *filter(lambda part: part is not None, optional))
    if not all(isinstance(part, str) for part in (*texts, *(part for pair in message.headers for part in pair))):
        raise TypeError("a part of the message is no text")
    if any(_LINE_BREAK.search(part) for pair in message.headers for part in pair):
        raise TypeError("a header has a line break")


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """A batch whose messages can be made."""

    _engine: Engine
    _seals: AddressSeals
    _channel: Channel
    _template_process: TemplateProcess
    _links: Links
    _vault: Vault
    _senders: SenderRules
    _contents: Mapping[UUID, Content]
    _envelopes: Mapping[UUID, Envelope | Broken]
    #: Of attachments, in bytes.
    _sizes: Mapping[UUID, int]
    _templates: Mapping[UUID, _Template]
    _events: Mapping[UUID, Mapping[str, Any] | Broken]
    _persons: Mapping[str, Person]
    _receivers: Mapping[UUID, WebhookTarget]

    def fitting(self, rows: Sequence[Claimed], room: int) -> Sequence[Claimed]:
        """Return the first rows, at least one, with no more than `room` bytes of attachments in all."""
        for place, row in enumerate(rows if self._sizes else ()):
            room -= sum(self._sizes.get(each, 0) for each in self._named(row))
            if room < 0 and place > 0:
                return rows[:place]
        return rows

    def has_content(self, row: Claimed) -> bool:
        """Return whether the content of a row is still stored: its event may have been purged."""
        return row.id in self._contents

    def messages(self, rows: Sequence[Claimed]) -> list[Message | CannotCompose]:
        """Return, in order, the message of each row or the reason why there is none. A row that breaks fails alone.

        Reads their attachments, where they have any; raises what the database raises.
        """
        named = {each for row in rows for each in self._named(row)}
        files: Mapping[UUID, Attachment] = {}
        if named:
            with self._engine.connect() as connection:
                files = attachments.load(connection, named)
        made = self._bare(rows)
        return [
            self._by_itself("message", row, partial(self._enveloped, row, answer, files))
            for row, answer in zip(rows, made, strict=True)
        ]

    def _by_itself(self, step: str, row: Claimed, make: Callable[[], Made]) -> Made | CannotCompose:
        """Return the result of `make` for one row, or the reason why it failed. All reading of row data uses it."""
        made = attempt(step, row.id, make)
        return CannotCompose(str(made)) if isinstance(made, Broken) else made

    def _named(self, row: Claimed) -> tuple[UUID, ...]:
        return _attached(self._envelopes.get(row.id))

    def _enveloped(
        self, row: Claimed, message: Message | CannotCompose, files: Mapping[UUID, Attachment]
    ) -> Message | CannotCompose:
        """Return a message with the given envelope, which overrides the template's."""
        envelope = self._envelopes.get(row.id)
        if isinstance(message, CannotCompose):
            return message
        if isinstance(envelope, Broken):
            return CannotCompose(str(envelope))
        if envelope is not None:
            if not all(each in files for each in envelope.attachments):
                return CannotCompose("attachment: it is gone")
            message = replace(
                message,
                sender=envelope.sender or message.sender,
                reply_to=envelope.reply_to or message.reply_to,
                attachments=tuple(files[each] for each in envelope.attachments),
            )
        _check_parts(message)
        # Callers and templates were asked before; but the list may have changed, and handlers give senders too.
        if message.sender is not None and self._senders.refusal(message.sender) is not None:
            return CannotCompose("sender: NOTIFIER_EMAIL_SENDERS does not allow it")
        return message

    def _bare(self, rows: Sequence[Claimed]) -> list[Message | CannotCompose]:
        """Render the messages from their templates and texts."""
        answers: dict[UUID, Message | CannotCompose] = {}
        templated: list[tuple[Claimed, tuple[Source, Mapping[str, Any]]]] = []
        for row in rows:
            if row.id not in self._contents:
                answers[row.id] = CannotCompose("content: its event is gone")
            elif row.template_id is None:
                answers[row.id] = self._by_itself("render", row, partial(self._built_in, row))
            elif row.template_id not in self._templates:
                answers[row.id] = CannotCompose("template: its version is gone")
            else:
                job = self._by_itself("template", row, partial(self._job, row))
                if isinstance(job, CannotCompose):
                    answers[row.id] = job
                else:
                    templated.append((row, job))
        outcomes = self._template_process.render([job for _, job in templated]) if templated else ()
        for (row, _), outcome in zip(templated, outcomes, strict=True):
            answers[row.id] = (
                self._by_itself("template", row, partial(self._from_template, row, outcome))
                if isinstance(outcome, Rendered)
                else CannotCompose(f"template: {outcome}")
            )
        return [answers[row.id] for row in rows]

    def _built_in(self, row: Claimed) -> Message | CannotCompose:
        try:
            recipient = self._seals.opened(row.recipient or "")
            message = render(row.id, self._channel, recipient, self._contents[row.id], unsubscribe=self._link(row))
            receiver = self._receivers.get(row.subscription_id) if row.subscription_id else None
            if receiver is None:
                return message
            keys, headers = receiver.keys(self._vault), tuple(receiver.headers(self._vault).items())
            return replace(
                message,
                recipient=receiver.url(self._vault),
                keys=keys,
                headers=headers,
                permanent_statuses=receiver.permanent_statuses,
            )
        except CannotDecrypt as error:
            return CannotCompose(f"secret: {error}")

    def _job(self, row: Claimed) -> tuple[Source, Mapping[str, Any]]:
        return self._template(row).source, self._context(row)

    def _template(self, row: Claimed) -> _Template:
        return self._templates[row.template_id or row.id]

    def _context(self, row: Claimed) -> Mapping[str, Any]:
        content = self._contents[row.id]
        person = self._persons.get(row.user_id or "")
        event = self._events.get(row.event_id or row.id)
        if isinstance(event, Broken):
            raise TypeError("the event cannot be read")
        return context_of(content, event, person, self._link(row))

    def _from_template(self, row: Claimed, rendered: Rendered) -> Message | CannotCompose:
        template = self._template(row)
        try:
            recipient = self._seals.opened(row.recipient or "")
        except CannotDecrypt as error:
            return CannotCompose(f"secret: {error}")
        return message_of(
            row.id,
            recipient,
            rendered,
            sender=template.sender,
            reply_to=template.reply_to,
            unsubscribe=self._link(row),
        )

    def _link(self, row: Claimed) -> str | None:
        if self._channel is not Channel.EMAIL or row.critical:
            return None
        return self._links.url(self._channel, row.category or GENERAL, row.user_id, row.recipient or "")
