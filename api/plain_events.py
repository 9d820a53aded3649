"""Plain events: those that have only the members that most events have, read without a schema.

marshmallow takes 50 µs for an event, a third of all that is done with it. It reads all others, and says what is wrong
with one that is refused.
"""

from typing import Any, Final

from marshmallow import ValidationError

from api.schemas.events import EventSchema
from api.schemas.fields import USER_ID_FORM
from api.schemas.member_rules import Addressed
from api.schemas.scheduling import CATEGORY, EVENT_TYPE
from notifier.vocabulary.event_types import OURS
from notifier.vocabulary.states import Channel, Priority

_LONGEST_KEY: Final = 255
_LONGEST_ADDRESS: Final = 2048
_ADDRESSED: Final = Addressed("recipient", instead="user_id")
_CHANNELS: Final[dict[str | None, Channel | None]] = {None: None, **{each.value: each for each in Channel}}
_PRIORITIES: Final = {each.value: each for each in Priority}
#: The fields of an event without any of its optional members.
_DEFAULTS: Final[dict[str, Any]] = {
    name: field.load_default
    for name, field in EventSchema().load_fields.items()
    if name not in {"event_type", "payload", "lead_time_days"}
}
_MEMBERS: Final = frozenset(
    {
        *("event_type", "payload", "recipient", "channel", "user_id", "category", "critical", "priority"),
        *("idempotency_key", "cancellation_key"),
    }
)


def plain_fields(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a plain event, as EventSchema loads them; None where only the schema can tell.

    `document`: an object that strict_json has parsed.
    """
    if not document.keys() <= _MEMBERS:
        return None
    fields = {**_DEFAULTS, "payload": {}, **document}
    if not _is_plain(fields):
        return None
    fields["channel"] = _CHANNELS[fields["channel"]]
    fields["priority"] = _PRIORITIES[fields["priority"]]
    try:
        _ADDRESSED.check(fields)
    except ValidationError:
        return None
    return fields


def _is_plain(fields: dict[str, Any]) -> bool:
    """Return whether each value is one that its field takes."""
    event_type = fields.get("event_type")
    user_id, category = fields["user_id"], fields["category"]
    channel, priority = fields["channel"], fields["priority"]
    return (
        type(event_type) is str
        and EVENT_TYPE.regex.fullmatch(event_type) is not None
        and not event_type.startswith(OURS)
        and type(fields["payload"]) is dict
        and type(fields["critical"]) is bool
        and (channel is None or (type(channel) is str and channel in _CHANNELS))
        and (priority is Priority.NORMAL or (type(priority) is str and priority in _PRIORITIES))
        and _is_text(fields["recipient"], _LONGEST_ADDRESS)
        and _is_text(fields["idempotency_key"], _LONGEST_KEY)
        and _is_text(fields["cancellation_key"], _LONGEST_KEY)
        and (user_id is None or (type(user_id) is str and USER_ID_FORM.regex.fullmatch(user_id) is not None))
        and (category is None or (type(category) is str and CATEGORY.regex.fullmatch(category) is not None))
    )


def _is_text(value: object, longest: int) -> bool:
    return value is None or (type(value) is str and 1 <= len(value) <= longest)
