"""Search: one text, looked for in all that may have it as an id, an address or a key."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import select

from api.auth import requires
from api.database import db
from api.pagination import filtered
from api.resources import Resource
from api.schemas.search import SearchQuery, SearchSchema
from api.services import services
from api.visibility import reveals
from notifier.diagnostics.search import Match, Type, Wanted, search
from notifier.models import DeadLetter, Event, Notification, Subscription, Suppression, User
from notifier.notifications.filters import was_tried_by, ways_to
from notifier.people.users import ADDRESS_FIELDS
from notifier.security.api_keys import Scope
from notifier.storage.time_limits import in_time
from notifier.vocabulary.masking import masked
from notifier.vocabulary.timestamps import rfc3339
from notifier.webhooks.subscriptions import revealed

blp = Resource("search", __name__, url_prefix="/api/v1/search", description="Find records by any of their names.")

_EQUAL: Final = ("status", "reason", "channel", "event_type", "source")
#: The filters of notifications that a search takes.
_FILTERS: Final = (*_EQUAL, "provider", "created_after", "created_before")
#: The list of each type.
_LISTS: Final = {
    Type.NOTIFICATION: "/api/v1/notifications",
    Type.EVENT: "/api/v1/events",
    Type.USER: "/api/v1/users",
    Type.DEAD_LETTER: "/api/v1/dead-letters",
    Type.SUBSCRIPTION: "/api/v1/subscriptions",
    Type.SUPPRESSION: "/api/v1/suppressions",
}


@blp.route("")
@requires(Scope.READ)
@blp.arguments(SearchQuery, location="query", as_kwargs=False)
@blp.response(200, SearchSchema)
def search_everything(asked: dict[str, Any]) -> dict[str, Any]:
    """Find what has a text as an id, an address or a key.

    The text must be all of it. Found are notifications, events, users, dead letters, subscriptions and suppressed
    addresses: of each type the newest, with the fields that have the text. A text that nothing has finds no items.
    """
    query = filtered(select(Notification), Notification, asked, _EQUAL)
    if asked["provider"] is not None:
        query = query.where(was_tried_by(asked["provider"]))
    with in_time(db.session, "q"):
        wanted = Wanted(query, ways_to(asked), asked["limit"])
        found = search(db.session(), services().wiring.vault, asked["q"], wanted)
    return {
        "items": [_item(each) for each in found.items],
        "more": [{"type": kind, "matched": name, "path": _path(kind, name, asked)} for kind, name in found.more],
    }


def _path(kind: Type, matched: str, asked: Mapping[str, Any]) -> str | None:
    """Return the list of all records of a type with the text in a field; None where the text is a credential."""
    text = asked["q"]
    if masked(text) != text and not reveals():
        return None
    parameter = "address" if kind is Type.USER and matched in ADDRESS_FIELDS.values() else matched
    query: dict[str, Any] = {parameter: text}
    if kind is Type.NOTIFICATION:
        query |= {name: asked[name] for name in _FILTERS if asked[name] is not None}
    written = {name: rfc3339(each) if isinstance(each, datetime) else each for name, each in query.items()}
    return f"{_LISTS[kind]}?{urlencode(written)}"


def _item(match: Match) -> dict[str, Any]:
    """Return a record as the results show it."""
    members: dict[str, Any] = dict.fromkeys(_MEMBERS)
    members |= {"type": match.type, "matched": match.matched, **_fields(match.record, "id", "created_at")}
    return members | _SHOWN[match.type](match)


def _fields(record: Any, *names: str) -> dict[str, Any]:  # noqa: ANN401 -- a row of any table
    return {name: getattr(record, name) for name in names}


#: Members that some types have and others have not.
_MEMBERS: Final = (
    *("status", "reason", "channel", "event_type", "source", "user_id", "recipient"),
    *("notification_id", "event_id", "subscription_id"),
)
_OF_BOTH: Final = ("status", "channel", "event_type", "source", "user_id", "recipient")


def _notification(match: Match) -> dict[str, Any]:
    row: Notification = match.record
    return _fields(row, *_OF_BOTH, "reason", "event_id", "subscription_id")


def _event(match: Match) -> dict[str, Any]:
    row: Event = match.record
    return _fields(row, *_OF_BOTH)


def _user(match: Match) -> dict[str, Any]:
    row: User = match.record
    channel = next((channel for channel, name in ADDRESS_FIELDS.items() if name in match.matched), None)
    return {"id": row.user_id, "user_id": row.user_id, "channel": channel, "recipient": match.address}


def _dead_letter(match: Match) -> dict[str, Any]:
    row: DeadLetter = match.record
    status = "open" if row.requeued_at is None else "requeued"
    return {"status": status, **_fields(row, "reason", "channel", "event_type", "notification_id", "event_id")}


def _subscription(match: Match) -> dict[str, Any]:
    row: Subscription = match.record
    row = revealed(services().wiring.vault, row) if reveals() else row
    status = "enabled" if row.enabled else "disabled"
    return {"status": status, "reason": row.disabled_reason, "channel": "webhook", "recipient": row.url}


def _suppression(match: Match) -> dict[str, Any]:
    row: Suppression = match.record
    return {**_fields(row, "channel", "reason"), "recipient": row.address}


_SHOWN: Final[dict[Type, Callable[[Match], dict[str, Any]]]] = {
    Type.NOTIFICATION: _notification,
    Type.EVENT: _event,
    Type.USER: _user,
    Type.DEAD_LETTER: _dead_letter,
    Type.SUBSCRIPTION: _subscription,
    Type.SUPPRESSION: _suppression,
}
