"""Intake over HTTP, shared by the routes that accept events or notifications: from a body to a draft to an answer."""

from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

import marshmallow as ma
import orjson
from flask import Response, request

from api.problems import flattened
from api.request_bodies import Body
from api.services import services
from notifier.content.templates import EMPTY, Catalogue, catalogue
from notifier.events.intake import Accepted, Answer
from notifier.planning.drafts import Draft
from notifier.storage import deadlines
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.states import Channel

#: The header that may carry the idempotency key in place of the body.
KEY_HEADER: Final = "Idempotency-Key"
KEY_HEADER_DOC: Final = {
    "in": "header",
    "name": KEY_HEADER,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "The same as `idempotency_key` in the body.",
}


def loaded(schema: ma.Schema, body: Body) -> dict[str, Any]:
    """Validate a body and return its fields. Raises Invalid."""
    try:
        fields: dict[str, Any] = schema.load(body.document)
    except ma.ValidationError as error:
        raise Invalid(flattened(error.messages)) from None
    return fields


def check_channels(fields: Mapping[str, Any], usable: Container[Channel]) -> None:
    """Raise Invalid where a request names a channel that has no provider."""
    asked = {"channel": [fields["channel"]], "channels": fields.get("channels") or []}
    for name, channels in asked.items():
        for channel in channels:
            if channel is not None and channel not in usable:
                raise Invalid({name: [f"No provider is configured for {channel}: see NOTIFIER_{channel.upper()}."]})


def templates_of(fields: Sequence[Mapping[str, Any]]) -> Catalogue:
    """Return the templates that the requests name, with one query; without a query if they name none."""
    names = {each["template"] for each in fields if each["template"] is not None}
    if not names:
        return EMPTY
    with services().wiring.engine.connect() as connection:
        return catalogue(connection, names)


def check_template(fields: Mapping[str, Any], templates: Catalogue) -> None:
    """Raise Invalid if a request's template is unknown, or has no version for its channel."""
    template, channel = fields["template"], fields["channel"]
    if template is None:
        return
    if not templates.knows(template):
        raise Invalid({"template": ["There is no such template."]})
    if channel is not None and not templates.knows(template, channel):
        raise Invalid({"template": [f"The template has no version for {channel}."]})


def with_key_header(fields: dict[str, Any], header: str | None) -> dict[str, Any]:
    """Return the fields, with the idempotency key from its header if there is one. Raises Invalid."""
    if header is None:
        return fields
    if not 1 <= len(header) <= 255:
        raise Invalid({"idempotency_key": [f"The {KEY_HEADER} header must have 1 to 255 characters."]})
    if fields["idempotency_key"] not in {None, header}:
        raise Invalid({"idempotency_key": [f"It differs from the {KEY_HEADER} header."]})
    return {**fields, "idempotency_key": header}


def accept(drafts: Sequence[Draft]) -> list[Answer]:
    """Write drafts and wait for the commit. Raises Unavailable."""
    here = services()
    timeout = here.wiring.settings.intake_timeout.total_seconds()
    seconds = deadlines.left()
    return here.intake.accept(drafts, timeout if seconds is None else min(timeout, seconds)) if drafts else []


def accept_one(draft: Draft) -> Accepted:
    """Write one draft and wait for the commit. Raises Invalid or Unavailable."""
    [answer] = accept([draft])
    if isinstance(answer, Accepted):
        return answer
    raise answer


def accepted(body: object, *, duplicate: bool, location: str | None = None) -> Response:
    """Return a 202, written by orjson: this answer is on the hot path."""
    response = Response(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), 202, content_type="application/json")
    if location:
        response.headers["Location"] = location
    if duplicate:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def key_header() -> str | None:
    """Return the request's Idempotency-Key header."""
    return request.headers.get(KEY_HEADER)
