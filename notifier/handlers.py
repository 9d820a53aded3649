"""Handlers: Python for what a route cannot say.

A package registers a function for an event type (or a pattern such as `order.*`) under the entry point group
`notifier.handlers`; docs/handlers.md has a worked example. It gets the event and returns plans.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from notifier.patterns import matches
from notifier.plans import Plan

GROUP: Final = "notifier.handlers"

#: Takes the event as notifier.routes.view_of gives it, and returns what is to be sent. It may be called several
#: times for one event, and must return the same each time; what it raises is tried again, and dead-lettered.
Handler = Callable[[Mapping[str, Any]], Iterable[Plan]]


@functools.cache
def _registered() -> tuple[tuple[str, Handler], ...]:
    """(pattern, handler) of what is installed. Raises what a broken package raises."""
    return tuple((entry.name, entry.load()) for entry in entry_points(group=GROUP))


def plans(view: Mapping[str, Any]) -> list[Plan]:
    """What the handlers of an event's type want to be sent. Raises what they raise, TypeError for what is no plan."""
    made: list[Plan] = []
    for pattern, handler in _registered():
        if matches(pattern, view["event_type"]):
            made.extend(handler(view))
    for plan in made:
        if not isinstance(plan, Plan):
            raise TypeError(f"a handler of {view['event_type']} returned a {type(plan).__name__}, not a Plan")
    return made
