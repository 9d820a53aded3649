"""Lines of the audit log."""

import marshmallow as ma
from marshmallow import fields

from api.schemas.fields import Timestamp, name
from api.schemas.pagination import PageQuery


class AuditLineSchema(ma.Schema):
    """One act, or several alike within a minute."""

    id = fields.UUID()
    at = Timestamp()
    actor = fields.String(metadata={"description": "A key's name, `shell:USER`, or `(unknown)`.", "example": "billing"})
    action = fields.String(metadata={"example": "PUT /api/v1/holds/{target}"})
    target = fields.String(
        allow_none=True, metadata={"description": "`name=value`; `hmac:…` stands for what is personal."}
    )
    outcome = fields.String(metadata={"description": "An HTTP status; of a command `done`, `aborted` or `failed: …`."})
    request_id = fields.String(allow_none=True)
    peer = fields.String(allow_none=True, metadata={"description": "The address that the request came from."})
    times = fields.Integer(metadata={"description": "Refusals that are alike share a line: how many they were."})
    number = fields.Integer(
        allow_none=True, metadata={"description": "Its place in the chain; null for a line outside of it."}
    )


class AuditPageSchema(ma.Schema):
    """A page of the audit log."""

    items = fields.List(fields.Nested(AuditLineSchema))
    next_cursor = fields.String(allow_none=True)


class AuditQuery(PageQuery):
    """Which lines are listed."""

    class Meta(PageQuery.Meta):
        """Refuse unknown parameters."""

    actor = name(load_default=None)
    action = name(load_default=None)
    target = name(load_default=None, metadata={"description": "One `name=value` of the target, as a line has it."})
    created_after = Timestamp(load_default=None)
    created_before = Timestamp(load_default=None)
