"""The suppression list: addresses that get nothing over a channel."""

from typing import Any
from uuid import UUID

from flask import abort, request
from sqlalchemy import select

from api.auth import requires
from api.pagination import page
from api.resources import Resource, read_arguments
from api.schemas.suppressions import (
    LiftSchema,
    SuppressionOutSchema,
    SuppressionPageSchema,
    SuppressionQuery,
    SuppressionSchema,
)
from api.services import services
from notifier.models import Suppression
from notifier.people import suppressions
from notifier.security.api_keys import Scope
from notifier.vocabulary.states import Channel

blp = Resource(
    "suppressions", __name__, url_prefix="/api/v1/suppressions", description="Addresses that are left alone."
)

_lift = LiftSchema()


@blp.route("")
@requires(Scope.READ)
@blp.arguments(SuppressionQuery, location="query", as_kwargs=False)
@blp.response(200, SuppressionPageSchema)
def list_suppressions(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List suppressed addresses, newest first; those whose end has come are there too."""
    query = select(Suppression)
    if asked["channel"] is not None:
        query = query.where(Suppression.channel == asked["channel"])
    if asked["address"] is not None:
        addresses = [(channel, each) for channel in Channel for each in asked["address"]]
        forms = {form for channel, each in addresses for form in suppressions.compared(channel, each)}
        # The index begins with the channel.
        query = query.where(Suppression.channel.in_(list(Channel)), Suppression.folded.in_(forms))
    return page(query, Suppression.id, asked)


@blp.route("", methods=["POST"])
@requires(Scope.USERS)
@blp.arguments(SuppressionSchema)
@blp.response(201, SuppressionOutSchema)
def suppress_address(fields: dict[str, Any]) -> Suppression:
    """Suppress an address on a channel, or give its suppression another reason and end."""
    return suppressions.add(services().wiring.engine, fields)


@blp.route("", methods=["DELETE"])
@requires(Scope.USERS)
@blp.doc(
    requestBody={"required": True, "content": {"application/json": {"schema": LiftSchema}}},
)
@blp.response(204)
@blp.alt_response(404, description="It is not suppressed.")
@blp.alt_response(422, description="No channel, or no address of that channel.")
def lift_suppression() -> None:
    """Lift a suppression, named by its `channel` and `address`.

    They may also come in the query, in place of a body, from clients that send none with a DELETE.
    """
    asked = read_arguments(_lift, "query" if request.args else "json")
    if not suppressions.remove(services().wiring.engine, asked["channel"], asked["address"]):
        abort(404, "This address is not suppressed on this channel.")


@blp.route("/<uuid:suppression_id>", methods=["DELETE"])
@requires(Scope.USERS)
@blp.response(204)
@blp.alt_response(404, description="There is no such suppression.")
def lift_suppression_by_id(suppression_id: UUID) -> None:
    """Lift a suppression by its id."""
    if not suppressions.remove_by_id(services().wiring.engine, suppression_id):
        abort(404, "There is no such suppression.")
