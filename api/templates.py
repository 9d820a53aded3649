"""Templates: what notifications say."""

from typing import Any, Final

from flask import abort
from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from api.auth import requires
from api.database import db
from api.pagination import page
from api.permits import check_sender
from api.problems import validation_problem
from api.resources import Resource
from api.schemas.pagination import PageQuery
from api.schemas.templates import (
    PreviewedSchema,
    PreviewSchema,
    TemplateOutSchema,
    TemplatePageSchema,
    TemplateSchema,
    TemplateWithVariantsSchema,
    VariantFields,
    VersionQuery,
)
from api.services import services
from notifier.content import templates
from notifier.content.rendering import preview_context
from notifier.content.template_process import Rendered, Source
from notifier.models import Template
from notifier.providers.formats import sms_segments
from notifier.security.api_keys import Scope
from notifier.vocabulary.states import Channel

blp = Resource("templates", __name__, url_prefix="/api/v1/templates", description="The texts of notifications.")

_MISSING: Final = "There is no such template."


def _current() -> Select[Template]:
    """Return the newest version of each name, channel and locale."""
    newer = aliased(Template)
    same = (newer.name == Template.name, newer.channel == Template.channel, newer.locale == Template.locale)
    return select(Template).where(~select(newer.id).where(*same, newer.version > Template.version).exists())


def _find(name: str, asked: dict[str, Any]) -> Template:
    """The version that was asked for, or the one that was saved last."""
    query = select(Template).where(Template.name == name)
    for field in ("channel", "version"):
        if asked[field] is not None:
            query = query.where(getattr(Template, field) == asked[field])
    if asked["locale"] is not None:
        query = query.where(func.lower(Template.locale) == asked["locale"].lower())
    template: Template = db.first_or_404(query.order_by(Template.id.desc()).limit(1), description=_MISSING)
    return template


def _as_sent(name: str, asked: dict[str, Any]) -> Template:
    """The variant that a notification would get: for its channel, in its locale or what stands in for that.

    A version that is asked for is that one. Without a channel it is that of the version that was saved last.
    """
    if asked["version"] is not None:
        return _find(name, asked)
    channel = asked["channel"] or _find(name, {**asked, "locale": None}).channel
    picked = templates.catalogue(db.session.connection(), [name]).pick(name, Channel(channel), asked["locale"])
    words = f"There is no such template for {channel} in this locale, and none without a locale."
    return db.get_or_404(Template, picked.id, description=words) if picked else abort(404, words)


@blp.route("")
@requires(Scope.READ)
@blp.arguments(PageQuery, location="query", as_kwargs=False)
@blp.response(200, TemplatePageSchema)
def list_templates(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List the current version of every name, channel and locale, newest first."""
    return page(_current(), Template.id, asked)


@blp.route("/<name:template_name>", methods=["PUT"])
@requires(Scope.TEMPLATES)
@blp.arguments(TemplateSchema)
@blp.response(200, TemplateOutSchema)
@blp.alt_response(201, schema=TemplateOutSchema, description="The first version for this channel and locale.")
def put_template(fields: dict[str, Any], template_name: str) -> tuple[Template, int]:
    """Save a new version for a channel and a locale. Existing notifications keep their version."""
    check_sender(fields["sender"])
    template = templates.save(services().wiring.engine, template_name, fields)
    return template, 201 if template.version == 1 else 200


@blp.route("/<name:template_name>")
@requires(Scope.READ)
@blp.arguments(VariantFields, location="query", as_kwargs=False)
@blp.response(200, TemplateWithVariantsSchema)
@blp.alt_response(404, description="There is no such template.")
def get_template(asked: dict[str, Any], template_name: str) -> dict[str, Any]:
    """Read a template: the version that was saved last (for a channel, a locale), and all current ones."""
    found = _find(template_name, asked)
    variants = db.session.scalars(
        _current().where(Template.name == template_name).order_by(Template.channel, Template.locale)
    ).all()
    return {**vars(found), "variants": variants}


@blp.route("/<name:template_name>/versions")
@requires(Scope.READ)
@blp.arguments(VersionQuery, location="query", as_kwargs=False)
@blp.response(200, TemplatePageSchema)
@blp.alt_response(404, description="There is no such template.")
def list_template_versions(asked: dict[str, Any], template_name: str) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List all versions of a template, newest first."""
    _find(template_name, asked)
    query = select(Template).where(Template.name == template_name)
    for field in ("channel", "version", "locale"):
        if asked[field] is not None:
            query = query.where(getattr(Template, field) == asked[field])
    return page(query, Template.id, asked)


@blp.route("/<name:template_name>/preview", methods=["POST"])
@requires(Scope.READ)
@blp.arguments(PreviewSchema)
@blp.response(200, PreviewedSchema)
@blp.alt_response(404, description="There is no such template.")
@blp.alt_response(
    422, description="It cannot be rendered with these data: which line, what is missing; or its sender is refused."
)
def preview_template(asked: dict[str, Any], template_name: str) -> Any:  # noqa: ANN401 -- a schema dumps it
    """Render a template with data of your own, in the variant that sending would choose. Nothing is sent."""
    template = _as_sent(template_name, asked)
    db.session.remove()
    check_sender(template.sender)
    source = Source(template.id, template.name, template.version, template.subject, template.text, template.html)
    [outcome] = services().wiring.template_process.render([(source, preview_context(asked["data"]))])
    if not isinstance(outcome, Rendered):
        return validation_problem({"data": [str(outcome)]})
    return {
        "name": template.name,
        "channel": template.channel,
        "locale": template.locale,
        "version": template.version,
        "subject": outcome.subject,
        "text": outcome.text,
        "html": outcome.html,
        "sms": sms_segments.count(outcome.text or "") if template.channel == Channel.SMS else None,
    }
