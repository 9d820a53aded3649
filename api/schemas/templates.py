"""Templates, in and out."""

from typing import Any, Final

import marshmallow as ma
from marshmallow import RAISE, ValidationError, fields, validate, validates_schema

from api.schemas.fields import SENDER, Mailbox, Timestamp, check_for_masks
from api.schemas.member_rules import Described, Ruled, absent, either, given, valued
from api.schemas.pagination import PageQuery
from api.schemas.users import Locale
from notifier.content.template_process import check
from notifier.content.templates import DEFAULT
from notifier.vocabulary.states import Channel

_LONGEST = 200_000


_CHANNELS: Final = [channel.value for channel in Channel if channel is not Channel.WEBHOOK]
#: Members that an email alone has.
_OF_EMAIL: Final = ("html", "from", "reply_to")


class TemplateSchema(Ruled):
    """A new version of a template for one channel and locale. Jinja2, sandboxed; what is undefined is an error."""

    RULES = (
        Described(valued("channel", *_CHANNELS)),
        Described(either(given("text"), given("html"))),
        Described(either(absent(*_OF_EMAIL), valued("channel", Channel.EMAIL.value))),
    )

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    channel = fields.Enum(
        Channel,
        by_value=True,
        required=True,
        validate=validate.NoneOf([Channel.WEBHOOK], error="A webhook carries the event as it is, without a template."),
    )
    locale = Locale(load_default=DEFAULT, allow_none=True, metadata={"description": "Null: default."})
    subject = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 2000))
    text = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, _LONGEST))
    html = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, _LONGEST),
        metadata={"description": "Email only; autoescaped."},
    )
    sender = Mailbox(
        data_key="from",
        load_default=None,
        allow_none=True,
        metadata={"description": "Email only; a sender that `NOTIFIER_EMAIL_SENDERS` allows.", **SENDER},
    )
    reply_to = Mailbox(load_default=None, allow_none=True, metadata={"description": "Email only."})

    @validates_schema(skip_on_field_errors=True)
    def _check_parts(self, data: dict[str, Any], **_: Any) -> None:
        data["locale"] = data["locale"] or DEFAULT
        for name in ("subject", "text", "html"):
            check_for_masks(data[name], name)
        if data["channel"] is not Channel.EMAIL:
            for attribute, field in (("html", "html"), ("sender", "from"), ("reply_to", "reply_to")):
                if data[attribute] is not None:
                    raise ValidationError("Only an email has it.", field)
        if data["text"] is None and data["html"] is None:
            raise ValidationError("A template needs a text.", "text")
        errors = check(data["subject"], data["text"], data["html"])
        if errors:
            raise ValidationError(errors)


class TemplateOutSchema(ma.Schema):
    """One version of a template."""

    name = fields.String()
    channel = fields.String()
    locale = fields.String(metadata={"description": "`default` where it was given none."})
    version = fields.Integer()
    subject = fields.String(allow_none=True)
    text = fields.String(allow_none=True)
    html = fields.String(allow_none=True)
    sender = fields.String(data_key="from", allow_none=True)
    reply_to = fields.String(allow_none=True)
    created_at = Timestamp()


class TemplateWithVariantsSchema(TemplateOutSchema):
    """The version that was saved last, and the current one of every channel and locale."""

    variants = fields.List(fields.Nested(TemplateOutSchema))


class TemplatePageSchema(ma.Schema):
    """A page of templates."""

    items = fields.List(fields.Nested(TemplateOutSchema))
    next_cursor = fields.String(allow_none=True)


class VariantFields(ma.Schema):
    """Which of a template's channels and locales."""

    class Meta:
        """Refuse unknown fields."""

        unknown = RAISE

    channel = fields.String(load_default=None, allow_none=True, validate=validate.OneOf(list(Channel)))
    locale = Locale(load_default=None, allow_none=True)
    version = fields.Integer(load_default=None, allow_none=True, strict=False, validate=validate.Range(1))


class VersionQuery(VariantFields, PageQuery):
    """Which versions."""

    class Meta(PageQuery.Meta):
        """Refuse unknown parameters."""


class PreviewSchema(VariantFields):
    """The data to preview a template with."""

    version = fields.Integer(load_default=None, allow_none=True, strict=True, validate=validate.Range(1))

    data = fields.Dict(
        load_default=dict,
        metadata={"description": "The payload; or members `event`, `payload` and `user`, as templates see them."},
    )


class SegmentsSchema(ma.Schema):
    """The segments of a text as an SMS: each is sent, and billed, on its own."""

    encoding = fields.String(validate=validate.OneOf(["gsm-7", "ucs-2"]))
    units = fields.Integer(metadata={"description": "Septets, or UTF-16 code units."})
    segments = fields.Integer(metadata={"description": "Over 10 of them no SMS is sent."})


class PreviewedSchema(ma.Schema):
    """The rendered message, as a recipient would read it."""

    name = fields.String()
    channel = fields.String()
    locale = fields.String()
    version = fields.Integer()
    subject = fields.String(allow_none=True)
    text = fields.String(allow_none=True)
    html = fields.String(allow_none=True)
    sms = fields.Nested(SegmentsSchema, allow_none=True, metadata={"description": "Of an SMS: what it takes."})
