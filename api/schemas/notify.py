"""A notification in camelCase."""

import marshmallow as ma
from marshmallow import RAISE, fields, validate

from api.schemas.fields import name, user_id
from api.schemas.scheduling import TEMPLATE_NAME
from notifier.vocabulary.states import Channel

_TYPES = [channel.upper() for channel in (Channel.EMAIL, Channel.SMS, Channel.PUSH)]


class NotifySchema(ma.Schema):
    """A template to a user over one channel."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    user_id = user_id(data_key="userId", required=True)
    type = fields.String(required=True, validate=validate.OneOf(_TYPES))
    template = fields.String(required=True, validate=TEMPLATE_NAME)
    data = fields.Dict(allow_none=True, metadata={"description": "Values for the template."})
    idempotency_key = name(
        data_key="idempotencyKey",
        allow_none=True,
        metadata={"description": "May also come as header `Idempotency-Key`."},
    )
