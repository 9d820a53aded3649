"""Earlier sends: the states that a notification had before it was sent again."""

from marshmallow import fields, validate

from api.schemas.fields import Timestamp, reason_field
from api.schemas.restricted import RestrictedSchema, for_readers
from notifier.vocabulary.states import How, Status


class EarlierSendSchema(RestrictedSchema):
    """The state of a notification when somebody had it sent again, and who that was."""

    how = fields.String(
        validate=validate.OneOf(list(How)),
        metadata={"description": "`another_provider`: a resend by another provider than those before."},
    )
    asked_by = fields.String(metadata={"description": "The name of a key, or `shell:` and a user."})
    asked_at = Timestamp()
    status = fields.String(validate=validate.OneOf(list(Status)))
    reason = reason_field(allow_none=True)
    explanation = fields.String(allow_none=True, metadata=for_readers())
    sent_at = Timestamp(allow_none=True)
    delivered_at = Timestamp(allow_none=True)
    attempts = fields.Integer(metadata={"description": "Provider calls until then."})
