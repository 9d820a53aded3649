"""Routes: the notifications that an event type causes. Recipients and times are JMESPath over the event."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, delete, select, text

from notifier.content.templates import catalogue
from notifier.models import Route
from notifier.planning.plans import Plan, Strategy, shared_fields
from notifier.runtime.isolation import Broken, attempt
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.event_types import NAME, USER_ID, matches
from notifier.vocabulary.expressions import is_false, search
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import ALL_CHANNELS, Channel, Priority
from notifier.vocabulary.timestamps import parse_rfc3339, rfc3339

Definition = Mapping[str, Any]

#: The route's own definition cannot be used: it was written by hand, or by a newer release.

_PUT: Final = text("""
    INSERT INTO routes AS known (id, name, event_type, definition, enabled, created_at, updated_at)
    VALUES (:id, :name, :event_type, CAST(:definition AS json), :enabled, :now, :now)
    ON CONFLICT (name) DO UPDATE SET event_type = excluded.event_type, definition = excluded.definition,
        enabled = excluded.enabled, updated_at = excluded.updated_at
        WHERE CAST(known.definition AS text) <> CAST(excluded.definition AS text)
    RETURNING xmax = 0 AS is_new
""")


def check(connection: Connection, name: str, definition: Definition) -> None:
    """Raise Invalid where a route cannot be named so, or its template is not there."""
    if not NAME.fullmatch(name) or name in {ALL_CHANNELS, *Channel}:
        raise Invalid({"name": ["1 to 128 letters, digits, dots, dashes and underscores, and no channel's name."]})
    template = definition["template"]
    if template is not None and not catalogue(connection, [template]).knows(template):
        raise Invalid({"template": ["There is no such template."]})


def put(connection: Connection, name: str, definition: Definition) -> str:
    """Write a route whole, in the connection's transaction; returns `added`, `changed` or `unchanged`."""
    values = {
        "id": new_id(),
        "name": name,
        "event_type": definition["event_type"],
        "definition": orjson.dumps(definition, option=orjson.OPT_SORT_KEYS).decode(),
        "enabled": definition["enabled"],
        "now": datetime.now(UTC),
    }
    is_new = connection.execute(_PUT, values).scalar_one_or_none()
    return "unchanged" if is_new is None else "added" if is_new else "changed"


def remove(connection: Connection, names: Sequence[str]) -> int:
    """Delete routes, in the connection's transaction; returns how many there were. Their notifications stay."""
    return connection.execute(delete(Route).where(Route.name.in_(names))).rowcount


def definitions(connection: Connection, *, enabled_only: bool = False) -> dict[str, dict[str, Any]]:
    """Return all routes' definitions by name, ordered by name."""
    query = select(Route.name, Route.event_type, Route.definition).order_by(Route.name)
    if enabled_only:
        query = query.where(Route.enabled)
    return {row.name: definition_of(row.event_type, row.definition) for row in connection.execute(query)}


def definition_of(event_type: str, document: str) -> dict[str, Any]:
    """Return a route's definition as stored; for one that cannot be read, its event type alone."""
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) and isinstance(found.get("event_type"), str) else {"event_type": event_type}


def view_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as paths, filters, handlers and templates see it: the contract's members, times as text."""
    payload = event["payload"]
    return {
        **{name: event[name] for name in ("event_type", "source", "user_id", "category", "critical", "priority")},
        **{name: event[name] for name in ("recipient", "channel", "cancellation_key", "timezone")},
        "id": str(event["id"]),
        "payload": orjson.loads(payload) if isinstance(payload, str) else payload,
        "occurred_at": rfc3339(event["occurred_at"]) if event["occurred_at"] else None,
        "created_at": rfc3339(event["created_at"]),
    }


def plans(name: str, route: Definition, event: Mapping[str, Any], view: Mapping[str, Any]) -> list[Plan]:
    """Return a route's plans for an event: one plan a person or address, none if it does not match.

    The route's values override the event's. A path without a usable value makes a plan that is refused, so that people
    can see why nothing was sent; so does a route that cannot be used at all.
    """
    if not matches(route["event_type"], event["event_type"]):
        return []
    made = attempt("route", name, lambda: _plans(name, route, event, view))
    return [refused(name, event, made)] if isinstance(made, Broken) else made


def refused(name: str, event: Mapping[str, Any], why: Broken) -> Plan:
    """Return a plan that records that a broken route could not plan for an event."""
    event = {**event, "target_date": None, "lead_time": None}
    return Plan(**shared_fields(event), route=name, refused=(Reason.BROKEN_ROUTE, f"The route {name} is broken. {why}"))


def _plans(name: str, route: Definition, event: Mapping[str, Any], view: Mapping[str, Any]) -> list[Plan]:
    if route.get("filter") and is_false(search(route["filter"], view)):
        return []
    base = replace(Plan(**shared_fields(event)), **_own_fields(route), route=name)
    if path := route.get("target_date"):
        try:
            base = replace(base, target_date=parse_rfc3339(search(path, view)))
        except ValueError as error:
            base = replace(
                base, refused=(Reason.INVALID_TARGET_DATE, f"The route {name} finds no time at {path}: {error}")
            )
    return [_addressed(base, path, found) for path, found in _recipients(route["to"], view)]


#: Fields that must have one type: another would break the statements of a whole batch.
_TYPES: Final = {"template": str, "category": str, "critical": bool}


def _own_fields(route: Definition) -> dict[str, Any]:
    own = {name: route[name] for name in _TYPES if route.get(name) is not None}
    if wrong := [name for name, value in own.items() if not isinstance(value, _TYPES[name])]:
        raise TypeError(f"{wrong[0]} of a route is no {_TYPES[wrong[0]].__name__}")
    if route.get("priority") is not None:
        own["priority"] = Priority(route["priority"])
    if route.get("lead_time"):
        own["lead_time"] = tuple(route["lead_time"])
    own["strategy"] = Strategy(route.get("strategy") or Strategy.ALL)
    channels = route.get("channels") or ([route["to"]["channel"]] if "channel" in route["to"] else [])
    own["channels"] = tuple(Channel(channel) for channel in channels)
    return own


def _recipients(to: Definition, view: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield (kind, value) of each recipient at the end of a route's path; if it finds nothing, that, for the record.

    An empty list is a valid answer: nobody is to be notified.
    """
    kind = "user_id" if "user_id" in to else "recipient"
    found = search(to[kind], view)
    yield from ((kind, each) for each in (found if isinstance(found, list) else [found]))


def _addressed(plan: Plan, kind: str, value: object) -> Plan:
    if value is None:
        return replace(plan, refused=(Reason.NO_ADDRESS, f"The route {plan.route} finds nobody in the event."))
    # Ids are often numbers.
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if kind == "user_id" and USER_ID.fullmatch(text):
        return replace(plan, user_id=text)
    try:
        if kind == "recipient":
            return replace(plan, recipient=normalised(plan.channels[0], text))
    except ValueError:
        pass
    return replace(plan, refused=(Reason.INVALID_ADDRESS, f"The route {plan.route} finds a value that is no {kind}."))
