"""Permits of an API key: the channels and event types that it is restricted to, if any."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.event_types import PATTERN, matches
from notifier.vocabulary.states import Channel

#: The event types that one key may name at the most.
_MOST_PATTERNS: Final = 100


@dataclass(frozen=True, slots=True)
class Permit:
    """The channels and event types that a key may use; None for all of them."""

    channels: frozenset[str] | None = None
    #: Exact ones, or with a trailing wildcard, as in routes.
    event_types: tuple[str, ...] | None = None

    def refusal_of_channels(self, channels: Collection[str | None]) -> str | None:
        """Return why some of these channels may not be used, or None. An empty list means all channels of the user."""
        if self.channels is None or (channels and self.channels.issuperset(channels)):
            return None
        allowed = ", ".join(sorted(self.channels))
        return f"This key may use only {allowed}" + (", and must name the channel." if not any(channels) else ".")

    def refusal_of_type(self, event_type: str | None) -> str | None:
        """Return why an event type may not be used, or None. A None type means a notification without an event."""
        if self.event_types is None:
            return None
        if event_type is not None and any(matches(pattern, event_type) for pattern in self.event_types):
            return None
        allowed = ", ".join(self.event_types)
        return f"This key may use only events of these types: {allowed}."


#: The permit of a key without limits.
EVERYTHING: Final = Permit()


def permit_of(channels: Sequence[str], event_types: Sequence[str]) -> Permit:
    """Make a permit; an empty list sets no limit. Raises Invalid where one is no channel or no pattern."""
    if unknown := sorted(set(channels) - set(Channel)):
        raise Invalid({"channel": [f"Not a channel: {unknown[0]!r}; known are {', '.join(Channel)}."]})
    if wrong := [pattern for pattern in event_types if not PATTERN.fullmatch(pattern)]:
        words = f"Not an event type, nor one with a trailing wildcard (order.*): {wrong[0]!r}."
        raise Invalid({"event-type": [words]})
    if len(set(event_types)) > _MOST_PATTERNS:
        raise Invalid({"event-type": [f"At most {_MOST_PATTERNS}."]})
    return Permit(frozenset(channels) if channels else None, tuple(sorted(set(event_types))) or None)
