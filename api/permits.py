"""Permits of a caller: `critical` by scope, channels and event types by its key's limits, senders by a list."""

from collections.abc import Collection, Mapping
from typing import Any

from api.auth import caller
from api.services import services
from notifier.security.api_keys import Caller, Scope
from notifier.vocabulary.errors import Forbidden, Invalid


def check_event(fields: Mapping[str, Any], who: Caller) -> None:
    """Raise Forbidden where a caller may not post this event, or have it fanned out again.

    An event that names neither a recipient nor a user goes over the channels of routes and subscriptions, which are the
    operator's: it is bound by its type alone.
    """
    _check_critical(fields, who)
    addressed = fields["recipient"] is not None or fields["user_id"] is not None
    channels = [fields["channel"]] if fields["channel"] else []
    _check_permit(channels if addressed or channels else None, fields["event_type"], who)


def check_notification(fields: Mapping[str, Any]) -> None:
    """Raise Forbidden where the caller may not post this notification, which has no event and so no type."""
    _check_critical(fields, caller())
    check_use(fields["channels"] or ([fields["channel"]] if fields["channel"] else []), None)


def check_use(channels: Collection[str | None] | None, event_type: str | None) -> None:
    """Raise Forbidden where the caller may not use these channels (None: they are not its choice), or this type."""
    _check_permit(channels, event_type, caller())


def _check_permit(channels: Collection[str | None] | None, event_type: str | None, who: Caller) -> None:
    permit = who.permit
    if channels is not None and (words := permit.refusal_of_channels(channels)):
        raise Forbidden("channel", words)
    if words := permit.refusal_of_type(event_type):
        raise Forbidden("event_type", words)


def check_sender(sender: str | None) -> None:
    """Raise Invalid where an email may not be from this mailbox."""
    words = None if sender is None else services().wiring.sender_rules.refusal(sender)
    if words:
        raise Invalid({"from": [words]})


def _check_critical(fields: Mapping[str, Any], who: Caller) -> None:
    if fields["critical"] and not who.may(Scope.CRITICAL):
        words = f"This key may not say that something is critical: it lacks the scope '{Scope.CRITICAL}'."
        raise Forbidden("critical", words, Scope.CRITICAL)
