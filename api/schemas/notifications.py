"""Notifications and their attempts, in and out."""

from typing import Any, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.schemas.attachments import AttachmentSchema
from api.schemas.earlier_sends import EarlierSendSchema
from api.schemas.fields import (
    EACH_ONCE,
    SENDER,
    AddressFilter,
    JsonText,
    Mailbox,
    Timestamp,
    name,
    reason_field,
    user_id,
)
from api.schemas.member_rules import (
    Described,
    Group,
    Needs,
    NotBoth,
    OneOf,
    Ruled,
    SomeOf,
    absent,
    both,
    either,
    valued,
)
from api.schemas.pagination import PageQuery
from api.schemas.restricted import RestrictedSchema, for_readers
from api.schemas.scheduling import EVENT_TYPE, SchedulingFields
from notifier.planning.plans import Strategy
from notifier.providers.protocol import Outcome
from notifier.providers.receipts import Kind
from notifier.vocabulary.states import Channel, Status

#: The most files that go along with one notification.
MOST_ATTACHMENTS: Final = 20


#: An email alone has an envelope: among the channels, of which there may be several.
_ANY_OTHER: Final = {"type": "string", "enum": [each.value for each in Channel if each is not Channel.EMAIL]}
_AN_EMAIL: Final = (
    absent("channel", "channels"),
    valued("channel", Channel.EMAIL.value),
    {
        "required": ["channels"],
        "properties": {"channels": {"type": "array", "items": {}, "not": {"items": _ANY_OTHER}}},
    },
)
_NO_FILES: Final = {"type": "array", "nullable": True, "maxItems": 0, "items": {}}
_NO_ENVELOPE: Final = both(absent("from", "reply_to"), {"properties": {"attachments": _NO_FILES}})


class DirectNotificationSchema(SchedulingFields):
    """A message to one recipient or user, without an event: a template and its data, or a subject and a body."""

    RULES = (
        Group(
            (
                *SchedulingFields.ADDRESSING,
                SomeOf(("user_id", "recipient"), "Name a recipient and its channel, or a user_id."),
                NotBoth("channel", "channels", "Give channel or channels, not both."),
                NotBoth("recipient", "channels", "A recipient has one channel; several are for a user_id."),
                Described(either(_NO_ENVELOPE, *_AN_EMAIL)),
            )
        ),
        *SchedulingFields.SCHEDULING,
        Group(
            (
                OneOf("template", "body", "Give a template (and its data), or a body (and a subject)."),
                Needs("data", "template", "Data are for a template.", "data"),
                NotBoth("template", "subject", "A template has its own subject."),
            )
        ),
    )

    channels = fields.List(
        fields.Enum(Channel, by_value=True),
        load_default=None,
        allow_none=True,
        validate=[validate.Length(1, len(Channel)), EACH_ONCE],
        metadata={"uniqueItems": True, "description": "In order of preference; instead of `channel`, for a user."},
    )
    strategy = fields.Enum(
        Strategy,
        by_value=True,
        load_default=Strategy.ALL,
        metadata={"description": "`first`: the next channel only where the one before cannot be used or is dead."},
    )
    data = fields.Dict(load_default=None, allow_none=True, metadata={"description": "Values for the template."})
    subject = name(998, load_default=None, allow_none=True)
    body = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 200_000))
    sender = Mailbox(
        data_key="from",
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Whom an email is from, before its template's and `NOTIFIER_EMAIL_FROM`: a sender that"
            " `NOTIFIER_EMAIL_SENDERS` allows. Other channels leave it out, and so they do with `reply_to` and"
            " `attachments`.",
            **SENDER,
        },
    )
    reply_to = Mailbox(
        load_default=None,
        allow_none=True,
        metadata={"description": "Where answers to an email go."},
    )
    attachments = fields.List(
        fields.Nested(AttachmentSchema),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=MOST_ATTACHMENTS),
        metadata={
            "description": "Files that go along with an email: at most 20, and 5 MiB in all (decoded;"
            " `NOTIFIER_MAX_ATTACHMENT_BYTES`). They do not count towards the size of the notification itself."
        },
    )

    @validates_schema(skip_on_field_errors=True)
    def _check_envelope(self, data: dict[str, Any], **_: Any) -> None:
        channels = data["channels"] or ([data["channel"]] if data["channel"] else [Channel.EMAIL])
        if Channel.EMAIL in channels:
            return
        given = {"from": data["sender"], "reply_to": data["reply_to"], "attachments": data["attachments"]}
        errors = {name: ["Only an email has it."] for name, value in given.items() if value}
        if errors:
            raise ValidationError(errors)


class MoveSchema(Ruled):
    """Another time for a scheduled notification."""

    #: Also where one of them is null.
    RULES = (Described(either({"properties": {"send_at": {"not": {}}}}, {"properties": {"target_date": {"not": {}}}})),)

    class Meta:
        """Refuse unknown fields, and an object without any."""

        unknown = RAISE
        min_properties = 1

    send_at = Timestamp(allow_none=True, metadata={"description": "Null: at once."})
    target_date = Timestamp(allow_none=True, metadata={"description": "A reminder keeps its lead time."})
    expires_at = Timestamp(allow_none=True)

    @validates_schema(skip_on_field_errors=True)
    def _check_some(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ValidationError("Give send_at, target_date or expires_at.")
        if "send_at" in data and "target_date" in data:
            raise ValidationError("Give send_at or target_date, not both.", "send_at")


class CancelSchema(ma.Schema):
    """The notifications to cancel."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    cancellation_key = name(required=True)


class CancelledSchema(ma.Schema):
    """How many were cancelled, and for how many it was too late."""

    cancelled = fields.Integer()
    too_late = fields.Integer(metadata={"description": "They were sent, or are being sent."})


class PinnedTemplateSchema(ma.Schema):
    """The version of a template that a notification was given when it was made."""

    name = fields.String()
    version = fields.Integer()


def _by_name(values: dict[str, Any], metadata: dict[str, Any]) -> JsonText:
    """Return the schema of an object of an HTTP call; null if there was no call."""
    return JsonText(allow_none=True, metadata={"type": "object", "additionalProperties": values, **metadata})


class AttemptSchema(RestrictedSchema):
    """One call to a provider."""

    number = fields.Integer(metadata={"description": "From 1."})
    provider = fields.String(allow_none=True, metadata={"description": "Null where its worker died."})
    outcome = fields.String(validate=validate.OneOf(list(Outcome)))
    status_code = fields.Integer(allow_none=True)
    message_id = fields.String(
        allow_none=True,
        metadata=for_readers("The provider's id of the message, where it gives one: its support knows it by that."),
    )
    error = fields.String(allow_none=True, metadata=for_readers())
    response_excerpt = fields.String(allow_none=True, metadata=for_readers("The beginning of the answer's body."))
    duration_ms = fields.Float(allow_none=True)
    started_at = Timestamp(allow_none=True)
    request_headers = _by_name(
        {"type": "string"},
        for_readers(
            "The headers that we set, of a webhook; whatever may be a secret is `***`.",
            example={"content-type": "application/json", "webhook-signature": "v1,***"},
        ),
    )
    response_headers = _by_name(
        {"type": "string"},
        for_readers(
            "The headers of the answer: the first 30 lines, values cut to 256 characters, 4 KiB in all; cookies and"
            " what else may be a secret are `***`. Null where there was no answer.",
            example={"server": "nginx", "set-cookie": "***"},
        ),
    )
    timing = _by_name(
        {"type": "number", "nullable": True},
        {
            "description": "Milliseconds from the beginning of the call to the end of each phase; null for one that was"
            " not reached or did not happen: a connection that was kept has no `dns_ms`, `connect_ms` and `tls_ms`,"
            " http no `tls_ms`.",
            "example": {"dns_ms": 1.2, "connect_ms": 20.5, "tls_ms": 61.0, "first_byte_ms": 95.3, "total_ms": 95.4},
        },
    )


class NotificationSchema(RestrictedSchema):
    """A notification and where it stands."""

    id = fields.UUID()
    event_id = fields.UUID(allow_none=True)
    user_id = fields.String(allow_none=True)
    recipient = fields.String(allow_none=True, metadata=for_readers("The address that it goes to."))
    channel = fields.String(allow_none=True, validate=validate.OneOf(list(Channel)))
    category = fields.String(allow_none=True)
    critical = fields.Boolean()
    priority = fields.String()
    template = fields.Nested(
        PinnedTemplateSchema, attribute="pinned_template", allow_none=True, metadata={"description": "Null: built in."}
    )
    event_type = fields.String(allow_none=True)
    source = fields.String(metadata={"description": "The source of the key that posted it or its event."})
    request_id = fields.String(allow_none=True, metadata={"description": "The request that brought it or its event."})
    status = fields.String(validate=validate.OneOf(list(Status)))
    reason = reason_field(allow_none=True)
    due_at = Timestamp(
        allow_none=True,
        metadata={
            "description": "When it is looked at again; null once finished. While it is `queued` or `sending` this is"
            " no delay, but the end of a lease: until then nobody else takes it."
        },
    )
    attempts = fields.Integer(metadata={"description": "Provider calls so far; never reset."})
    created_at = Timestamp()
    sent_at = Timestamp(allow_none=True)
    delivered_at = Timestamp(allow_none=True)
    subscription_id = fields.UUID(allow_none=True)
    route = fields.String(allow_none=True, metadata={"description": "The route that made it."})
    target_date = Timestamp(allow_none=True)
    lead_time = fields.String(allow_none=True)
    send_at = Timestamp(allow_none=True)
    expires_at = Timestamp(allow_none=True)
    cancellation_key = fields.String(allow_none=True, metadata=for_readers())
    follows = fields.UUID(
        allow_none=True, metadata={"description": "The notification on the channel before, which was of no use."}
    )


class ReceiptSchema(RestrictedSchema):
    """A receipt from a provider, after it accepted a message."""

    provider = fields.String()
    kind = fields.String(
        validate=validate.OneOf(list(Kind)),
        metadata={
            "description": "`delivered`, `bounced` for good, `bounced_here` (another provider may do better) or"
            " `bounced_for_now` (a later attempt may arrive)."
        },
    )
    happened_at = Timestamp(metadata={"description": "By the provider's clock, where it says when."})
    taken_at = Timestamp(metadata={"description": "When we were told, the first time."})
    error = fields.String(allow_none=True, metadata=for_readers("Of a bounce: why."))
    message_id = fields.String(allow_none=True, metadata=for_readers("The provider's id of the message."))
    applied = fields.Boolean(
        metadata={"description": "Whether it counted; not where it came too late, too early or said what was known."}
    )


class NotificationWithAttemptsSchema(NotificationSchema):
    """A notification with its attempts, and its state each time that it was sent again."""

    explanation = fields.String(allow_none=True, metadata=for_readers("Where it stands and why, in words."))
    attempt_log = fields.List(fields.Nested(AttemptSchema))
    judged = JsonText(
        allow_none=True,
        metadata=for_readers(
            "The last rule of its recipient that put it off or stopped it, also once it was sent: `rule`"
            " (`quiet_hours`, `category`, `channel`, `suppression`), `local_time` with its offset and `timezone` as"
            " they were judged then, and an `explanation`. Null: none has.",
            type="object",
            example={
                "rule": "quiet_hours",
                "local_time": "2026-11-21T23:10:00+01:00",
                "timezone": "Europe/Berlin",
                "explanation": "Quiet hours for sms, 22:00–07:00 Europe/Berlin, until 2026-11-22T06:00:00Z.",
            },
        ),
    )
    receipts = fields.List(
        fields.Nested(ReceiptSchema),
        metadata={"description": "Reports of its providers, in order; only of those that were called for it."},
    )
    earlier_sends = fields.List(
        fields.Nested(EarlierSendSchema),
        metadata={
            "description": "One for each resend, requeue and recovery, oldest first: how the notification stood when"
            " somebody asked for it, and who that was."
        },
    )


class AttachedSchema(ma.Schema):
    """A file that goes along with an email, without its content."""

    name = fields.String()
    content_type = fields.String()
    bytes = fields.Integer()


class ContentSchema(ma.Schema):
    """The content of a notification."""

    id = fields.UUID()
    channel = fields.String(validate=validate.OneOf(list(Channel)))
    status = fields.String(validate=validate.OneOf(list(Status)))
    attempts = fields.Integer(metadata={"description": "Provider calls so far; 0: nobody was sent this yet."})
    template = fields.Nested(
        PinnedTemplateSchema, attribute="pinned_template", allow_none=True, metadata={"description": "Null: built in."}
    )
    rendered_now = fields.Boolean(
        metadata={
            "description": "True where a template said it: that was rendered now, in the version that the notification"
            " has, with what is known of the user now. False: nothing in it can have changed."
        }
    )
    subject = fields.String(allow_none=True)
    text = fields.String(
        metadata={
            "description": "The text; of a webhook its body. A link to unsubscribe ends in `***`, since it is a key."
        }
    )
    html = fields.String(allow_none=True)
    sender = fields.String(
        data_key="from", allow_none=True, metadata={"description": "Null: the channel's, `NOTIFIER_EMAIL_FROM`."}
    )
    reply_to = fields.String(allow_none=True)
    attachments = fields.List(fields.Nested(AttachedSchema))


class NotificationsSchema(ma.Schema):
    """The notifications that a request made."""

    items = fields.List(fields.Nested(NotificationSchema))


class NotificationPageSchema(NotificationsSchema):
    """A page of notifications."""

    next_cursor = fields.String(allow_none=True)


class AttemptPageSchema(ma.Schema):
    """A page of attempts."""

    items = fields.List(fields.Nested(AttemptSchema))
    next_cursor = fields.String(allow_none=True)


class NotificationQuery(PageQuery):
    """Which notifications."""

    status = fields.String(load_default=None, validate=validate.OneOf(list(Status)))
    channel = fields.String(load_default=None, validate=validate.OneOf(list(Channel)))
    user_id = user_id(load_default=None)
    recipient = AddressFilter(metadata={"description": "In any form in which it may be given."})
    event_type = fields.String(load_default=None, validate=EVENT_TYPE)
    event_id = fields.UUID(load_default=None)
    request_id = name(load_default=None, metadata={"description": "`X-Request-Id` of the request that brought it."})
    subscription_id = fields.UUID(load_default=None)
    source = name(load_default=None)
    category = name(load_default=None)
    template = name(load_default=None)
    reason = name(load_default=None)
    cancellation_key = name(load_default=None)
    dedup_key = name(load_default=None)
    idempotency_key = name(load_default=None, metadata={"description": "For as long as it is kept."})
    provider = name(load_default=None, metadata={"description": "One that was called for it."})
    message_id = name(1024, load_default=None, metadata={"description": "The provider's id of the message."})
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)
