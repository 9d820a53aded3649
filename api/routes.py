"""Routes: what an event type means for people."""

from typing import Any, Final

from flask import abort
from sqlalchemy import select

from api.auth import requires
from api.database import db
from api.pagination import page
from api.resources import Resource
from api.schemas.pagination import PageQuery
from api.schemas.routes import RouteOutSchema, RoutePageSchema, RouteSchema
from api.services import services
from notifier.models import Route
from notifier.planning import routes
from notifier.security.api_keys import Scope

blp = Resource(
    "routes", __name__, url_prefix="/api/v1/routes", description="The notifications that an event type brings about."
)

_MISSING: Final = "There is no such route."


def _shown(route: Route) -> dict[str, Any]:
    return {
        **routes.definition_of(route.event_type, route.definition),
        "name": route.name,
        "created_at": route.created_at,
        "updated_at": route.updated_at,
    }


def _find(name: str) -> dict[str, Any]:
    return _shown(db.one_or_404(select(Route).where(Route.name == name), description=_MISSING))


@blp.route("")
@requires(Scope.READ)
@blp.arguments(PageQuery, location="query", as_kwargs=False)
@blp.response(200, RoutePageSchema)
def list_routes(asked: dict[str, Any]) -> dict[str, Any]:
    """List routes, newest first."""
    found = page(select(Route), Route.id, asked)
    return {**found, "items": [_shown(route) for route in found["items"]]}


@blp.route("/<name:route_name>", methods=["PUT"])
@requires(Scope.ADMIN)
@blp.arguments(RouteSchema)
@blp.response(200, RouteOutSchema)
@blp.alt_response(201, schema=RouteOutSchema, description="The route is new.")
def put_route(definition: dict[str, Any], route_name: str) -> tuple[dict[str, Any], int]:
    """Write a route whole. It holds for events that are fanned out from now on."""
    with services().wiring.engine.begin() as connection:
        routes.check(connection, route_name, definition)
        outcome = routes.put(connection, route_name, definition)
    return _find(route_name), 201 if outcome == "added" else 200


@blp.route("/<name:route_name>")
@requires(Scope.READ)
@blp.response(200, RouteOutSchema)
@blp.alt_response(404, description="There is no such route.")
def get_route(route_name: str) -> dict[str, Any]:
    """Read a route."""
    return _find(route_name)


@blp.route("/<name:route_name>", methods=["DELETE"])
@requires(Scope.ADMIN)
@blp.response(204)
@blp.alt_response(404, description="There is no such route.")
def delete_route(route_name: str) -> None:
    """Delete a route. Its notifications stay."""
    with services().wiring.engine.begin() as connection:
        if not routes.remove(connection, [route_name]):
            abort(404, _MISSING)
