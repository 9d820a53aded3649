"""Searches, in and out."""

from typing import Final

import marshmallow as ma
from marshmallow import RAISE, fields, validate

from api.schemas.fields import Matches, Timestamp, name
from api.schemas.restricted import RestrictedSchema, for_readers
from api.schemas.scheduling import EVENT_TYPE
from notifier.diagnostics.search import Type
from notifier.vocabulary.states import Channel, Status

#: The longest address.
_LONGEST: Final = 2048
_TEXT: Final = Matches(
    r"^ *[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$", error="Not a text to look for: it is blank, or has a control character."
)


class SearchQuery(ma.Schema):
    """The text that is looked for, and which of its notifications."""

    class Meta:
        """Refuse unknown parameters."""

        unknown = RAISE

    q = fields.String(
        required=True,
        validate=[validate.Length(1, _LONGEST), _TEXT],
        metadata={
            "description": "The whole of an email address, phone number, push token, chat address or webhook URL; of a"
            " user's id; of the id of a notification, event, dead letter, subscription or request; of an idempotency"
            " key (for as long as it is kept), cancellation key or dedup key; or of a provider's id of a message."
            " Addresses may be in any form in which they are given elsewhere."
        },
    )
    limit = fields.Integer(
        load_default=20,
        validate=validate.Range(1, 100),
        metadata={"description": "The most items of each type."},
    )
    status = fields.String(
        load_default=None,
        validate=validate.OneOf(list(Status)),
        metadata={"description": "Of notifications, as all filters are: records of other types are found without."},
    )
    reason = name(load_default=None)
    channel = fields.String(load_default=None, validate=validate.OneOf(list(Channel)))
    provider = name(load_default=None, metadata={"description": "One that was called for it."})
    event_type = fields.String(load_default=None, validate=EVENT_TYPE)
    source = name(load_default=None)
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)


class SearchItemSchema(RestrictedSchema):
    """A record that was found. Members that its type does not have are null."""

    type = fields.String(validate=validate.OneOf(list(Type)))
    id = fields.String(metadata={"description": "What its path ends with; of a user the `user_id`."})
    matched = fields.List(
        fields.String(), metadata={"description": "Its fields that have the text.", "example": ["recipient"]}
    )
    created_at = Timestamp()
    status = fields.String(
        allow_none=True,
        metadata={
            "description": "Of a notification or event; of a dead letter `open` or `requeued`, of a subscription"
            " `enabled` or `disabled`."
        },
    )
    reason = fields.String(
        allow_none=True,
        metadata=for_readers("Why it has its status; of a suppression, why the address is suppressed."),
    )
    channel = fields.String(allow_none=True)
    event_type = fields.String(allow_none=True)
    source = fields.String(allow_none=True)
    user_id = fields.String(allow_none=True)
    recipient = fields.String(
        allow_none=True,
        metadata=for_readers("The address; of a user the one that was looked for, of a subscription its URL."),
    )
    notification_id = fields.String(allow_none=True, metadata={"description": "Of a dead letter."})
    event_id = fields.String(allow_none=True, metadata={"description": "Of a notification or dead letter."})
    subscription_id = fields.String(allow_none=True, metadata={"description": "Of a notification."})


class MoreSchema(ma.Schema):
    """A list that has more than was found."""

    type = fields.String(validate=validate.OneOf(list(Type)))
    matched = fields.String(metadata={"description": "The field that has the text.", "example": "recipient"})
    path = fields.String(
        allow_none=True,
        metadata={
            "description": "The list of all of them. Null where the text has credentials, which no answer shows.",
            "example": "/api/v1/notifications?recipient=ada%40example.com",
        },
    )


class SearchSchema(ma.Schema):
    """The records that were found: newest first within each type."""

    items = fields.List(fields.Nested(SearchItemSchema))
    more = fields.List(
        fields.Nested(MoreSchema),
        metadata={"description": "Where there are more of a type with the text in a field than are shown."},
    )
