"""Receipts: what providers say of messages afterwards. Their signature is their key."""

from datetime import UTC, datetime
from typing import Final

import structlog
from flask import Response, abort, request
from werkzeug.exceptions import MethodNotAllowed

from api.auth import is_open
from api.problem_types import ProblemType
from api.problems import problem
from api.request_bodies import read_bytes
from api.request_heads import takes_body
from api.resources import Resource
from api.services import services
from notifier.notifications import delivery_receipts
from notifier.providers.receipts import Callback, Malformed, NotNow, NotSigned, ReceiptSource, Report

log = structlog.get_logger()

blp = Resource(
    "receipts",
    __name__,
    url_prefix="/api/v1/receipts",
    description="For providers to call, with what became of messages; no key is needed, but their own signature.",
)

#: SendGrid posts up to 768 KiB at once, others far less.
_MAX_BODY: Final = 1024 * 1024
_BODY: Final = {"schema": {"description": "As the provider documents it."}}


@blp.route("/<name:provider>", methods=["POST"])
@is_open
@takes_body(lambda _: _MAX_BODY)
@blp.doc(
    security=[],
    requestBody={
        "required": True,
        "content": {"application/json": _BODY, "application/x-www-form-urlencoded": _BODY, "text/plain": _BODY},
    },
)
@blp.response(204, description="Taken, whatever it was; by most.")
@blp.alt_response(200, description="The same, with what the provider wants to read.", content_type="text/xml")
@blp.alt_response(400, description="Not what the provider documents.")
@blp.alt_response(401, description="Not signed by the provider whose key is in our settings.")
@blp.alt_response(404, description="No provider of this name is set up to send receipts.")
@blp.alt_response(503, description="It cannot be read now; the provider is to repeat it.")
@blp.alt_response(413, description="Larger than 1 MiB.")
def take_receipt(provider: str) -> Response:
    """Take a callback of `twilio`, `vonage`, `sendgrid` or `ses`: receipts, complaints, and answers such as STOP.

    `sent` becomes `delivered`, `retrying` where another attempt may arrive, or `failed` with the reason `bounced`; hard
    bounces, complaints and STOP enter the suppression list. Callbacks may come late, early, repeated and in any order.
    """
    return _take(provider, _sources_of(provider))


@blp.route("/<name:provider>", methods=["GET"])
@is_open
@blp.doc(security=[])
@blp.response(204, description="Taken, whatever it was.")
@blp.alt_response(200, description="The same; by Vonage.", content_type="text/plain")
@blp.alt_response(400, description="Not what the provider documents.")
@blp.alt_response(401, description="Not signed by the provider whose key is in our settings.")
@blp.alt_response(404, description="No provider of this name is set up to send receipts.")
@blp.alt_response(405, description="This provider calls back by POST.")
def take_receipt_from_query(provider: str) -> Response:
    """Take a callback of `vonage`, where its account is set to call by GET. See the same by POST."""
    sources = _sources_of(provider)
    if not getattr(sources[0], "reads_queries", False):
        raise MethodNotAllowed(["POST"])
    return _take(provider, sources)


def _sources_of(provider: str) -> list[ReceiptSource]:
    sources = services().wiring.receipt_sources.get(provider)
    if not sources:
        abort(404, "No provider of this name is set up to send receipts.")
    return sources


def _take(provider: str, sources: list[ReceiptSource]) -> Response:
    wires = services().wiring
    callback = Callback(
        url=wires.settings.public_url.rstrip("/") + request.path + ("?" + _query() if request.query_string else ""),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=read_bytes(_MAX_BODY),
        received_at=datetime.now(UTC),
    )
    try:
        report = _read(sources, callback)
    except Malformed as error:
        log.warning("receipt_malformed", provider=provider, error=str(error))
        abort(400, f"The body {error}.")
    except NotNow as error:
        log.warning("receipt_not_read", provider=provider, error=str(error))
        return problem(503, f"It cannot be read now: {error}. Repeat it.", headers={"Retry-After": "30"})
    if report is None:
        log.warning("receipt_not_signed", provider=provider, public_url=wires.settings.public_url)
        return problem(
            401,
            f"This is not signed by {provider}, or not for this address: NOTIFIER_PUBLIC_URL must be the one it calls.",
            kind=ProblemType.INVALID_SIGNATURE,
            headers={"WWW-Authenticate": "Signature"},
        )
    delivery_receipts.take(wires.engine, report, wires.senders, source=provider)
    if sources[0].reply is None:
        return Response(status=204)
    body, content_type = sources[0].reply
    return Response(body, 200, content_type=content_type)


def _query() -> str:
    return request.query_string.decode("ascii", "replace")


def _read(sources: list[ReceiptSource], callback: Callback) -> Report | None:
    """Return the report of the source that accepts the signature; None if none does. Raises Malformed and NotNow."""
    for source in sources:
        try:
            return source.read(callback)
        except NotSigned:
            continue
    return None
