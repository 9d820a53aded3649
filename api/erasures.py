"""Erasures: people who are to be forgotten, also those who are known by no more than an address."""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from api.audit import put_on_record
from api.auth import caller, requires
from api.database import db
from api.pagination import page
from api.resources import Resource
from api.schemas.erasures import ErasurePageSchema, ErasureSchema, PersonSchema, about
from api.schemas.pagination import PageQuery
from api.services import services
from notifier.models import Erasure
from notifier.people import erasure
from notifier.security.api_keys import Scope

blp = Resource("erasures", __name__, url_prefix="/api/v1/erasures", description="People who are to be forgotten.")


def _find(erasure_id: UUID) -> Erasure:
    return db.get_or_404(Erasure, erasure_id, description="There is no such erasure.")


@blp.route("", methods=["POST"])
@requires(Scope.USERS)
@blp.arguments(PersonSchema)
@blp.response(202, ErasureSchema)
@blp.alt_response(409, description="Several users have this address.")
def erase_person(person: dict[str, Any]) -> tuple[Erasure, int, dict[str, str]]:
    """Erase a person by an address, known as a user or not, or by an id.

    Rows that name them are erased with the answer; then every table is read for mentions of them, as the erasure
    says. A user who has the address is deleted.
    """
    put_on_record("POST /api/v1/erasures", about(person, services().wiring.audit.fingerprint))
    wires, by = services().wiring, caller().name
    if person["user_id"] is not None:
        begun = erasure.erase_id(wires.engine, wires.vault, person["user_id"], by)
    else:
        begun = erasure.erase_address(wires.engine, wires.vault, person["channel"], person["address"], by)
    return _find(begun), 202, {"Location": f"{blp.url_prefix}/{begun}"}


@blp.route("")
@requires(Scope.READ)
@blp.arguments(PageQuery, location="query", as_kwargs=False)
@blp.response(200, ErasurePageSchema)
def list_erasures(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List erasures, newest first."""
    return page(select(Erasure), Erasure.id, asked)


@blp.route("/<uuid:erasure_id>")
@requires(Scope.READ)
@blp.response(200, ErasureSchema)
@blp.alt_response(404, description="There is no such erasure.")
def get_erasure(erasure_id: UUID) -> Erasure:
    """Read an erasure, and how far it is."""
    return _find(erasure_id)
