"""Routes, subscriptions, API keys, holds and the audit log."""

from typing import Any, Final
from uuid import UUID

import orjson
from flask import Response, request

from api.audit import put_on_record
from api.auth import caller
from api.console.asking import Refused, ask, path
from api.console.pages import Notice, act, acted, back, failed, page, put_showing_on_record, show
from api.services import services
from notifier.security import api_keys
from notifier.security.api_keys import Scope

_LIMIT: Final = 100
#: Members of a route that the API adds to its definition.
_ADDED: Final = frozenset({"name", "created_at", "updated_at"})


def _listed(resource: str) -> Any:  # noqa: ANN401 -- JSON
    return ask("GET", path(resource), query={"limit": _LIMIT, "cursor": request.args.get("cursor")})


@show("/routes")
def routes() -> Response:
    """List the routes."""
    return page("routes.html", title="Routes", listed=_listed("routes"))


@show("/routes/<name:route_name>")
def route(route_name: str) -> Response:
    """Show a route's definition, in a form that saves it."""
    return _route(route_name)


def _route(name: str, given: str | None = None, error: str | None = None) -> Response:
    record = ask("GET", path("routes", name))
    definition = {member: value for member, value in record.items() if member not in _ADDED and value is not None}
    text = given if given is not None else orjson.dumps(definition, option=orjson.OPT_INDENT_2).decode()
    status = 200 if error is None else 422
    return page("route.html", status, title=f"Route {name}", record=record, definition=text, error=error)


@act("/routes/<name:route_name>/save")
def save_route(route_name: str) -> Response:
    """Write a route whole."""
    given = request.form.get("definition", "")
    try:
        ask("PUT", path("routes", route_name), body=orjson.loads(given))
    except orjson.JSONDecodeError as error:
        return _route(route_name, given, f"It is not JSON: {error}.")
    except Refused as refused:
        return _route(route_name, given, refused.words)
    return back("route", Notice("done", "It holds for events from now on."), route_name=route_name)


@act("/holds")
def hold() -> Response:
    """Hold all, a channel or a route."""
    target = request.form.get("target", "").strip()
    return acted("overview", f"{target} is held: nothing of it is sent.", "PUT", path("holds", target))


@act("/holds/release")
def release() -> Response:
    """Release a hold."""
    target = request.form.get("target", "").strip()
    return acted("overview", f"{target} is released.", "DELETE", path("holds", target))


@show("/subscriptions")
def subscriptions() -> Response:
    """List the subscriptions."""
    return page("subscriptions.html", title="Subscriptions", listed=_listed("subscriptions"))


@show("/subscriptions/<uuid:subscription_id>")
def subscription(subscription_id: UUID) -> Response:
    """Show a subscription, what it was sent, and its recoveries."""
    put_showing_on_record(f"subscription_id={subscription_id}")
    target = path("subscriptions", subscription_id)
    return page(
        "subscription.html",
        title="Subscription",
        record=ask("GET", target),
        sent=ask("GET", f"{target}/notifications", query={"limit": 20, "cursor": request.args.get("cursor")}),
        recoveries=ask("GET", f"{target}/recoveries", query={"limit": 5})["items"],
    )


@act("/subscriptions/<uuid:subscription_id>/test")
def test_event(subscription_id: UUID) -> Response:
    """Send a test event, and lead to its story."""
    try:
        made = ask("POST", path("subscriptions", subscription_id, "test"))
    except Refused as refused:
        return back("subscription", Notice("failed", refused.words), subscription_id=subscription_id)
    return back("notification", Notice("done", "This is the test event."), notification_id=made["id"])


@act("/subscriptions/<uuid:subscription_id>/enable")
def enable(subscription_id: UUID) -> Response:
    """Enable it."""
    target = path("subscriptions", subscription_id, "enable")
    return acted("subscription", "It is enabled.", "POST", target, subscription_id=subscription_id)


@show("/keys")
def keys() -> Response:
    """List the API keys, without their secrets: `manage.py api-keys` makes, rotates and revokes them."""
    if not caller().may(Scope.ADMIN):
        return failed(403, "Keys are for those with the scope admin.")
    put_on_record("console: list keys", None)
    return page("keys.html", title="API keys", keys=api_keys.listed(services().wiring.engine))


@show("/audit")
def audit() -> Response:
    """Show the audit log. Reading it is on record too."""
    names = ("actor", "action", "target", "cursor")
    asked = {name: request.args.get(name, "").strip() for name in names}
    listed = ask("GET", path("audit"), query={"limit": 50, **asked})
    return page("audit.html", title="Audit log", listed=listed, asked=asked)
