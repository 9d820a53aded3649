"""What the routes that accept something share: one item's body to a draft, drafts to answers."""

from collections.abc import Callable, Sequence
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, request

from api.auth import caller
from api.bodies import Body
from api.parts import parts
from api.problems import flattened
from notifier.channels import Channel
from notifier.drafts import Draft
from notifier.errors import Invalid
from notifier.intake import Accepted, Answer

#: How an idempotency key may come besides in the body.
KEY_HEADER = "Idempotency-Key"


def load(schema: ma.Schema, body: Body) -> dict[str, Any]:
    """The fields of a body. Raises Invalid."""
    try:
        fields: dict[str, Any] = schema.load(body.document)
    except ma.ValidationError as error:
        raise Invalid(flattened(error.messages)) from None
    channel: Channel | None = fields["channel"]
    if channel is not None and channel not in parts().wiring.channels:
        raise Invalid({"channel": [f"No provider is configured for {channel}: see NOTIFIER_{channel.upper()}."]})
    return fields


def with_key_header(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the key from the header, where it came there. Raises Invalid."""
    header = request.headers.get(KEY_HEADER)
    if header is None:
        return fields
    if not 1 <= len(header) <= 255:
        raise Invalid({"idempotency_key": [f"The {KEY_HEADER} header must have 1 to 255 characters."]})
    if fields["idempotency_key"] not in {None, header}:
        raise Invalid({"idempotency_key": [f"It differs from the {KEY_HEADER} header."]})
    return {**fields, "idempotency_key": header}


def accept(drafts: Sequence[Draft]) -> list[Answer]:
    """Write drafts and wait for the commit. Raises Unavailable."""
    here = parts()
    return here.intake.accept(drafts, here.wiring.settings.intake_timeout.total_seconds()) if drafts else []


def accept_one(draft: Draft) -> Accepted:
    """Write one draft and wait for the commit. Raises Invalid or Unavailable."""
    [answer] = accept([draft])
    if isinstance(answer, Accepted):
        return answer
    raise answer


def accepted(body: object, *, duplicate: bool, location: str | None = None) -> Response:
    """202, as orjson writes it: the one answer that is on the hot path."""
    response = Response(orjson.dumps(body), 202, content_type="application/json")
    if location:
        response.headers["Location"] = location
    if duplicate:
        response.headers["Idempotency-Replayed"] = "true"
    return response


Drafting = Callable[[str, dict[str, Any], bytes, bytes, Callable[[str], float]], Draft]


def draft(make: Drafting, kind: str, fields: dict[str, Any], body: Body, text: bytes) -> Draft:
    """A draft of validated fields by `make`: the caller is its source, `kind` tells apart what shares a key."""
    return make(caller().name, fields, text, body.fingerprint(kind), parts().publisher.lease)
