"""Exports: what is known of a person, also of one who is known by no more than an address."""

from typing import Any

from flask import Response, abort

from api.audit import put_on_record
from api.auth import requires
from api.resources import Resource
from api.schemas.erasures import PersonSchema, about
from api.schemas.users import UserExportSchema
from api.services import services
from api.streaming import document
from notifier.people.export import export, export_address
from notifier.security.api_keys import Scope

blp = Resource("exports", __name__, url_prefix="/api/v1/exports", description="All that is known of a person.")


@blp.route("", methods=["POST"])
@requires(Scope.ADMIN)
@blp.arguments(PersonSchema)
@blp.response(200, UserExportSchema)
@blp.alt_response(404, description="There is no such user.")
@blp.alt_response(409, description="Several users have this address.")
def export_person(person: dict[str, Any]) -> Response:
    """Export all that is known of a person, by an address, known as a user or not, or by an id."""
    put_on_record("POST /api/v1/exports", about(person, services().wiring.audit.fingerprint))
    engine = services().wiring.engine
    if person["user_id"] is not None:
        return document(export(engine, person["user_id"]) or abort(404, "There is no such user."))
    return document(export_address(engine, person["channel"], person["address"]))
