"""Handlers: Python code for plans that a route cannot express.

A package registers a function for an event type (or a pattern such as `order.*`) under the entry point group
`notifier.handlers`; docs/handlers.md has a worked example. It gets the event and returns plans.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import orjson

from notifier.planning.plans import Plan
from notifier.runtime import progress
from notifier.runtime.isolation import contained, kind_of
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.event_types import USER_ID, matches
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.strict_json import parse_object

GROUP: Final = "notifier.handlers"

#: Receives the event as planning.routes.view_of returns it, and returns plans. It may be called several times for one
#: event, and must return the same each time; an exception is retried, and then dead-lettered.
Handler = Callable[[Mapping[str, Any]], Iterable[Plan]]


@functools.cache
def _registered() -> tuple[EntryPoint, ...]:
    """Return the installed handlers; an entry's name is its pattern."""
    return tuple(entry_points(group=GROUP))


@functools.cache
def _loaded(entry: EntryPoint) -> Handler:
    handler: Handler = contained(entry.load)
    return handler


def broken() -> list[tuple[str, str]]:
    """Return (pattern, error) of the handlers that cannot be loaded; events of their types will fail."""
    failed = []
    for entry in _registered():
        try:
            _loaded(entry)
        except Exception as error:
            failed.append((entry.name, f"{kind_of(error)}: {error}"))
    return failed


def plans(view: Mapping[str, Any]) -> list[Plan]:
    """Return the plans of the handlers of an event's type. Raises their exceptions, BaseExceptionRaised for one that is
    no Exception, TypeError for a result that is no plan, and ValueError for content that cannot be kept.
    """
    made: list[Plan] = []
    for entry in _registered():
        # Loaded only for events of its type: a broken package costs those alone.
        if matches(entry.name, view["event_type"]):
            made.extend(contained(_called, entry, view))
            progress.note()
    for plan in made:
        if not isinstance(plan, Plan):
            raise TypeError(f"a handler of {view['event_type']} returned a {type(plan).__name__}, not a Plan")
        if plan.content is not None:
            parse_object(orjson.dumps(plan.content))  # what is kept of it must be what anybody reads in it
    return [_addressed(plan) for plan in made]


def _called(entry: EntryPoint, view: Mapping[str, Any]) -> list[Plan]:
    """Return all that a handler returns: its code may run until the last plan is taken."""
    return list(_loaded(entry)(view))


def _addressed(plan: Plan) -> Plan:
    """Normalise the address of a plan, in the form in which addresses are stored; refuse a plan without a recipient."""
    if plan.user_id is not None and not USER_ID.fullmatch(str(plan.user_id)):
        words = "The value that a handler gives is no user_id."
        return replace(plan, user_id=None, recipient=None, refused=(Reason.INVALID_ADDRESS, words))
    if plan.recipient is None or not plan.channels:
        return plan
    try:
        return replace(plan, recipient=normalised(plan.channels[0], plan.recipient))
    except ValueError as error:
        return replace(
            plan,
            recipient=None,
            refused=(Reason.INVALID_ADDRESS, f"The value that a handler gives is no recipient: {error}"),
        )
