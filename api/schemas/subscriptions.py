"""Webhook subscriptions, in and out."""

import re
from typing import Any, Final

import marshmallow as ma
import orjson
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.resources import OptionalBody
from api.schemas.fields import Address, StrictBoolean, StrictNumber, Timestamp, name
from api.schemas.pagination import PageQuery
from api.schemas.restricted import RestrictedSchema, for_readers
from api.schemas.routes import Path, Pattern
from api.visibility import reveals
from notifier.vocabulary.masking import MASK, masked_headers
from notifier.vocabulary.states import Channel, Status

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_NO_MASK: Final = r"(?! *[*]{3} *$)"
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1024}")
#: Headers that are set by us, by HTTP or by the connection.
_OURS: Final = frozenset(
    {
        *("content-type", "content-length", "host", "user-agent", "connection", "transfer-encoding", "expect", "te"),
        *("upgrade", "trailer", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("traceparent", "tracestate"),
    }
)

#: They say of themselves that a later attempt may do.
_NEVER_PERMANENT: Final = frozenset({408, 425, 429})


class Headers(fields.Dict):
    """Headers of the receiver's own, name → value; they never override ours."""

    _MOST = 20

    def __init__(self, **kwargs: Any) -> None:
        kwargs["metadata"] = {
            "maxProperties": self._MOST,
            "properties": {"": {"not": {}}},  # nobody's name
            "additionalProperties": {"type": "string", "pattern": f"^{_NO_MASK}{_HEADER_VALUE.pattern}$"},
            "description": "Names of headers (RFC 9110) that are not ours → values in ASCII.",
            **kwargs.get("metadata", {}),
        }
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, str]:
        headers: dict[str, Any] = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]  # marshmallow's
        if len(headers) > self._MOST:
            raise ValidationError(f"More than {self._MOST} headers.")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValidationError("A header stands there twice: their names know no upper case.")
        errors = {name: [text] for name, content in headers.items() if (text := _wrong_with_header(name, content))}
        if errors:
            raise ValidationError(errors)
        return headers


def _wrong_with_header(name: str, value: object) -> str | None:
    if not _HEADER_NAME.fullmatch(name):
        return "Not the name of a header."
    if name.lower() in _OURS or name.lower().startswith("webhook-"):
        return "This header is ours."
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        return "Not the value of a header: at most 1024 printable ASCII characters."
    if value.strip() == MASK:
        return f"This is how its value is shown ({MASK}): give the value itself."
    return None


class PermanentStatus(fields.Integer):
    """A 4xx by which a receiver may refuse a message for good."""

    def __init__(self) -> None:
        super().__init__(
            strict=True,
            validate=validate.Range(400, 499),
            metadata={"not": {"type": "integer", "enum": sorted(_NEVER_PERMANENT)}},
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        status: int | None = super()._deserialize(value, attr, data, **kwargs)
        if status in _NEVER_PERMANENT:
            raise ValidationError(f"{status} asks for another attempt, so that it is never permanent.")
        return status or 0


class SubscriptionFields(ma.Schema):
    """A receiver, and what it wants to hear of."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    url = Address(Channel.WEBHOOK, required=True)
    event_types = fields.List(
        Pattern(),
        required=True,
        validate=validate.Length(1, 100),
        metadata={"description": "Types, or the beginning of types and `*`."},
    )
    filter = Path(
        load_default=None,
        allow_none=True,
        metadata={"description": "JMESPath over the event; only those for which it holds."},
    )
    description = fields.String(load_default=None, allow_none=True, validate=validate.Length(0, 1000))
    headers = Headers(load_default=dict)
    rate_limit_per_second = StrictNumber(
        load_default=None,
        allow_none=True,
        validate=validate.Range(0.01, 10_000),
        metadata={"description": "Null: none."},
    )
    permanent_statuses = fields.List(
        PermanentStatus(),
        load_default=list,
        validate=validate.Length(0, 100),
        metadata={
            "description": "The 4xx by which the receiver refuses a webhook for good: it becomes a dead letter at once."
            " Other 4xx are tried again, as a receiver gives them during a deploy; 410 is always permanent; 408, 425,"
            " and 429 never are.",
        },
    )
    enabled = StrictBoolean(load_default=True)


class SubscriptionChanges(SubscriptionFields):
    """Changes to a subscription; absent fields stay as they are."""

    class Meta(SubscriptionFields.Meta):
        """Refuse an object without any."""

        min_properties = 1

    @validates_schema
    def _check_some(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ValidationError("Give something to change.")


def _shown_headers(row: Any) -> dict[str, str]:
    try:
        headers: dict[str, str] = dict(orjson.loads(row.headers))
    except (ValueError, TypeError):  # stored by somebody else: it costs no page, and its webhooks say why they fail
        return {}
    return headers if reveals() else masked_headers(headers)


class SubscriptionSchema(RestrictedSchema):
    """A subscription. Its secret is shown when it is made and when it is rotated only."""

    id = fields.UUID()
    url = fields.String(allow_none=True, metadata=for_readers())
    event_types = fields.List(fields.String())
    filter = fields.String(allow_none=True, metadata=for_readers())
    description = fields.String(allow_none=True, metadata=for_readers())
    headers = fields.Function(
        _shown_headers,
        metadata=for_readers(
            "Their values are `***`, but for a few that are surely no secret.",
            type="object",
            additionalProperties={"type": "string"},
            nullable=True,
        ),
    )
    rate_limit_per_second = fields.Float(allow_none=True)
    permanent_statuses = fields.List(
        fields.Integer(), metadata={"description": "The 4xx that are permanent beside 410.", "example": [422]}
    )
    enabled = fields.Boolean()
    disabled_reason = fields.String(
        allow_none=True, metadata={"description": "`by_hand`, `gone` (it answered 410) or `failing`."}
    )
    created_at = Timestamp()
    updated_at = Timestamp()


class NewSubscriptionSchema(SubscriptionSchema):
    """A subscription with its secret."""

    secret = fields.String(metadata={"description": "Keep it now.", "example": "whsec_…"})


class SecretSchema(ma.Schema):
    """A new secret; the one before signs too for 24 hours."""

    secret = fields.String(metadata={"example": "whsec_…"})
    previous_secret_until = Timestamp()


class SubscriptionPageSchema(ma.Schema):
    """A page of subscriptions."""

    items = fields.List(fields.Nested(SubscriptionSchema))
    next_cursor = fields.String(allow_none=True)


class SubscriptionQuery(PageQuery):
    """Which subscriptions."""

    enabled = fields.Boolean(load_default=None)
    url = name(
        2048,
        load_default=None,
        metadata={"description": "Its URL, in any form. Of URLs that differ in credentials alone, 1000 are compared."},
    )


class SubscriptionNotificationQuery(PageQuery):
    """Which of a subscription's notifications."""

    status = fields.String(load_default=None, validate=validate.OneOf(list(Status)))


class EnableSchema(OptionalBody):
    """The missed events to recover at once, if any."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    recover_since = Timestamp(
        load_default=None,
        allow_none=True,
        metadata={"description": "Also recover what was missed since then, as `recover` does."},
    )


class RecoverSchema(ma.Schema):
    """From when on."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    since = Timestamp(required=True)


class RecoverySchema(ma.Schema):
    """A recovery and its progress. Notifications that are created after its start are not part of it."""

    id = fields.UUID()
    subscription_id = fields.UUID()
    since = Timestamp()
    status = fields.String(metadata={"enum": ["running", "finished"]})
    total = fields.Integer(metadata={"description": "How many notifications there were to recover when it began."})
    recovered = fields.Integer(metadata={"description": "How many of them are sent again by now."})
    refused = fields.Integer(metadata={"description": "How many stay as they are: a rule forbids to send them."})
    refused_reasons = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        allow_none=True,
        metadata={"description": "Reason → how many.", "example": {"subscription_disabled": 3}},
    )
    asked_by = fields.String(allow_none=True, metadata={"description": "The name of a key, or `shell:` and a user."})
    source = fields.String(
        allow_none=True, metadata={"description": "The source whose notifications are meant; null: those of all."}
    )
    created_at = Timestamp()
    finished_at = Timestamp(allow_none=True)


class RecoveryPageSchema(ma.Schema):
    """A page of recoveries."""

    items = fields.List(fields.Nested(RecoverySchema))
    next_cursor = fields.String(allow_none=True)


class EnabledSchema(SubscriptionSchema):
    """A subscription that was enabled, and the recovery that was asked for with it."""

    recovery = fields.Nested(RecoverySchema, allow_none=True)
