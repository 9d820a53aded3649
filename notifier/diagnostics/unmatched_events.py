"""Unmatched events: why an event made no notification, by the routes and subscriptions as they are now."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from notifier.models import Event, Route
from notifier.planning import routes
from notifier.planning.plans import plan_of
from notifier.planning.subscribers import SubscriberCache
from notifier.runtime.isolation import Broken, attempt
from notifier.vocabulary.event_types import matches
from notifier.vocabulary.expressions import is_false, search
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import EventStatus

#: Subscriptions whose filters are asked: each may take a while.
_MOST: Final = 20


def why_unheard(session: Session, event: Event) -> Iterator[str]:
    """Say in sentences why a processed event made no notification; none where it has not come so far."""
    if event.status != EventStatus.PROCESSED:
        return
    known = vars(event)
    if plan_of(known) is not None:
        yield "It names its recipient or user: its notifications were deleted meanwhile."
        return
    view = attempt("event", event.id, lambda: routes.view_of(known))
    if isinstance(view, Broken):
        yield f"Its own data cannot be read. {view}"
        return
    yield from _routes(session, known, view)
    yield from _subscriptions(session, event, view)


def _routes(session: Session, event: Mapping[str, Any], view: Mapping[str, Any]) -> Iterator[str]:
    enabled = dict(session.execute(select(Route.name, Route.enabled)).tuples().all())
    found = routes.definitions(session.connection())
    meant = {name: each for name, each in found.items() if matches(each["event_type"], event["event_type"])}
    if not meant:
        yield f"No route is for {event['event_type']}."
    for name, route in meant.items():
        yield f"The route {name} {_of_route(name, route, event, view) if enabled.get(name) else 'is disabled'}."


def _of_route(name: str, route: routes.Definition, event: Mapping[str, Any], view: Mapping[str, Any]) -> str:
    made = routes.plans(name, route, event, view)
    broken = [each.refused[1] for each in made if each.refused and each.refused[0] == Reason.BROKEN_ROUTE]
    if broken:
        return f"is for it, and cannot be used: {broken[0].removesuffix('.')}"
    if made:
        return "is for it by now: it was written or changed later, and a replay of the event would use it"
    if route.get("filter") and is_false(search(route["filter"], view)):
        return f"is for its type, and its filter does not want it: {route['filter']}"
    return "is for it, and finds nobody in it"


def _subscriptions(session: Session, event: Event, view: Mapping[str, Any]) -> Iterator[str]:
    meant = SubscriberCache().read(session.connection()).of(event.event_type)
    if not meant:
        yield f"No subscription is for {event.event_type}."
    for each in meant[:_MOST]:
        wants = attempt("subscription", each.id, partial(each.wants, view))
        if isinstance(wants, Broken):
            says = f"is for its type, and its filter cannot be used. {wants}".removesuffix(".")
        elif wants:
            says = "would hear of it by now: it was made or changed later"
        else:
            says = f"is for its type, and its filter does not want it: {each.filter}"
        yield f"The subscription {each.id} {says}."
    if len(meant) > _MOST:
        yield f"{len(meant) - _MOST} more subscriptions are for its type."
