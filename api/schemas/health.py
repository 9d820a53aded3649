"""Health and readiness."""

import marshmallow as ma
from marshmallow import fields, validate

from api.schemas.fields import SOMETIMES


class HealthSchema(ma.Schema):
    """The process lives."""

    status = fields.String(metadata={"example": "ok"})


class CheckSchema(ma.Schema):
    """The state of one part."""

    status = fields.String(validate=validate.OneOf(["ok", "failed"]))
    detail = fields.String(metadata={"description": "The fault that was found.", **SOMETIMES})


class ReadySchema(ma.Schema):
    """The state of each part."""

    status = fields.String(validate=validate.OneOf(["ok", "degraded", "unavailable"]))
    sandbox = fields.Boolean(metadata={"description": "Nothing is sent anywhere: NOTIFIER_SANDBOX is on."})
    checks = fields.Dict(keys=fields.String(), values=fields.Nested(CheckSchema))
