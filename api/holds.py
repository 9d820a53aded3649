"""Holds: pause sending, and go on."""

from typing import Any, Final

from flask import abort
from sqlalchemy import select

from api.auth import caller, requires
from api.database import db
from api.resources import Resource
from api.schemas.suppressions import HoldPageSchema, HoldSchema
from api.services import services
from notifier.models import Hold
from notifier.notifications import holds
from notifier.security.api_keys import Scope

blp = Resource(
    "holds",
    __name__,
    url_prefix="/api/v1/holds",
    description="Channels and routes that an operator holds.",
    shows_credentials=False,
)

_MISSING: Final = "It is not held."


def _find(target: str) -> Hold:
    hold: Hold = db.one_or_404(select(Hold).where(Hold.target == target), description=_MISSING)
    return hold


@blp.route("")
@requires(Scope.READ)
@blp.response(200, HoldPageSchema)
def list_holds() -> dict[str, Any]:
    """List what is held."""
    return {"items": db.session.scalars(select(Hold).order_by(Hold.target)).all(), "next_cursor": None}


@blp.route("/<name:target>", methods=["PUT"])
@requires(Scope.ADMIN)
@blp.response(200, HoldSchema)
@blp.alt_response(201, schema=HoldSchema, description="It was not held before.")
@blp.alt_response(422, description="Neither `all`, a channel nor a route.")
def put_hold(target: str) -> tuple[Hold, int]:
    """Send nothing more of `all`, a channel or a route. Nothing is lost; held notifications say so."""
    is_new = holds.hold(services().wiring.engine, target, caller().name)
    return _find(target), 201 if is_new else 200


@blp.route("/<name:target>", methods=["DELETE"])
@requires(Scope.ADMIN)
@blp.response(204)
@blp.alt_response(404, description="It is not held.")
def release_hold(target: str) -> None:
    """Lift a hold: what waited goes out within seconds."""
    if not holds.release(services().wiring.engine, target):
        abort(404, _MISSING)
