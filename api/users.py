"""Users: where people can be reached, and what they want to hear of."""

from typing import Any, Final

import orjson
from flask import Response, abort
from sqlalchemy import select

from api.auth import caller, is_on_record, requires
from api.database import db
from api.pagination import filtered, page
from api.resources import Resource
from api.schemas.users import (
    PreferencesSchema,
    UserExportSchema,
    UserOutSchema,
    UserPageSchema,
    UserQuery,
    UserSchema,
)
from api.services import services
from api.streaming import document
from api.visibility import reveals
from notifier.models import User
from notifier.people import users
from notifier.people.erasure import erase_user
from notifier.people.export import export
from notifier.security.api_keys import Scope

blp = Resource("users", __name__, url_prefix="/api/v1/users", description="People, and what they want to hear of.")

_MISSING: Final = "There is no such user."
_NOTHING_SET: dict[str, Any] = {"channels": {}, "categories": {}, "quiet_hours": []}


def _find(user_id: str) -> User:
    user: User = db.one_or_404(select(User).where(User.user_id == user_id), description=_MISSING)
    return user


@blp.route("")
@requires(Scope.READ)
@blp.arguments(UserQuery, location="query", as_kwargs=False)
@blp.response(200, UserPageSchema)
def list_users(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List users, newest first."""
    query = filtered(select(User), User, asked, ())
    if asked["address"] is not None:
        query = query.where(users.is_reached_at(db.session(), asked["address"]))
    return page(query, User.id, asked)


@blp.route("/<name:user_id>", methods=["PUT"])
@requires(Scope.USERS)
@blp.arguments(UserSchema)
@blp.response(200, UserOutSchema)
@blp.alt_response(201, schema=UserOutSchema, description="The user is new.")
def put_user(fields: dict[str, Any], user_id: str) -> tuple[User, int]:
    """Replace a user. Notifications that wait for a changed address go to the new one; preferences stay."""
    attributes = orjson.dumps(fields.pop("attributes"))
    is_new = users.put(services().wiring.engine, user_id, fields, attributes)
    return _find(user_id), 201 if is_new else 200


@blp.route("/<name:user_id>")
@requires(Scope.READ)
@blp.response(200, UserOutSchema)
@blp.alt_response(404, description="There is no such user.")
def get_user(user_id: str) -> User:
    """Read a user."""
    return _find(user_id)


@blp.route("/<name:user_id>", methods=["DELETE"])
@requires(Scope.USERS)
@blp.response(204)
@blp.alt_response(404, description="There is no such user.")
def delete_user(user_id: str) -> None:
    """Erase a person's data, keep the counts, and cancel their waiting notifications. Mentions elsewhere follow."""
    wires = services().wiring
    if erase_user(wires.engine, wires.vault, user_id, caller().name) is None:
        abort(404, _MISSING)


@blp.route("/<name:user_id>/export")
@requires(Scope.ADMIN)
@is_on_record
@blp.response(200, UserExportSchema)
@blp.alt_response(404, description="There is no such user.")
def export_user(user_id: str) -> Response:
    """Export all that is known of a person, as one document that is made while it is read."""
    pieces = export(services().wiring.engine, user_id, reveals=reveals())
    if pieces is None:
        abort(404, _MISSING)
    return document(pieces)


@blp.route("/<name:user_id>/preferences")
@requires(Scope.READ)
@blp.response(200, PreferencesSchema)
@blp.alt_response(404, description="There is no such user.")
def get_preferences(user_id: str) -> dict[str, Any]:
    """Read what a user wants to hear of."""
    return {**_NOTHING_SET, **(_find(user_id).preferences or {})}


@blp.route("/<name:user_id>/preferences", methods=["PUT"])
@requires(Scope.USERS)
@blp.arguments(PreferencesSchema)
@blp.response(200, PreferencesSchema)
@blp.alt_response(404, description="There is no such user.")
def put_preferences(preferences: dict[str, Any], user_id: str) -> dict[str, Any]:
    """Write what a user wants to hear of, whole. It holds for what is sent from now on, whenever it was posted."""
    if not users.set_preferences(services().wiring.engine, user_id, preferences):
        abort(404, _MISSING)
    return preferences
