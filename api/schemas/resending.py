"""The body of a resend."""

from marshmallow import RAISE, fields

from api.resources import OptionalBody


class ResendSchema(OptionalBody):
    """How a notification is sent again."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    another_provider = fields.Boolean(
        load_default=False,
        metadata={
            "description": "By another provider of its channel than those that were called for it before. Those come"
            " last, the one that was called last at the very end: it is sent by them where no other one is in order"
            " or takes its address."
        },
    )
