"""A person: where they are reached, what they want, whether a message would go now, and what they were sent."""

from typing import Any, Final

from flask import Response, request

from api.audit import put_on_record
from api.console.asking import ask, ask_if_allowed, path
from api.console.pages import act, acted, page, show, shows
from api.services import services

#: A user's addresses, by the channel that uses them.
_ADDRESSES: Final = (("email", "email"), ("sms", "phone"), ("webhook", "webhook_url"), ("chat", "chat_url"))
_LIMIT: Final = 20


@show("/people/<name:user_id>")
def person(user_id: str) -> Response:
    """Show a person. Their id in the audit log is a fingerprint, as everywhere."""
    user = ask("GET", path("users", user_id))
    if shows():
        named = services().wiring.audit.fingerprint(user_id)
        put_on_record("console: show personal data", f"user_id={named}")
    listed = ask(
        "GET",
        path("notifications"),
        query={"user_id": user_id, "limit": _LIMIT, "cursor": request.args.get("cursor")},
    )
    reached = _reached(user)
    return page(
        "person.html",
        title="Person",
        user=user,
        preferences=ask("GET", path("users", user_id, "preferences")),
        reached=reached,
        suppressions=[each for channel, address in reached for each in _suppressions(channel, address)],
        checks=[_check(user_id, channel) for channel in dict(reached)],
        notifications=listed["items"],
        next_cursor=listed["next_cursor"],
    )


def _reached(user: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the channels and addresses at which a user is reached."""
    found = [(channel, user[name]) for channel, name in _ADDRESSES if user.get(name)]
    return [*found, *(("push", each) for each in user.get("push_tokens") or ())]


def _suppressions(channel: str, address: str) -> list[Any]:
    found = ask_if_allowed("GET", path("suppressions"), query={"channel": channel, "address": address})
    return [] if found is None else list(found["items"])


def _check(user_id: str, channel: str) -> dict[str, Any]:
    """Return whether a message without a category would go to a person now."""
    found = ask_if_allowed("POST", path("preferences", "check"), body={"user_id": user_id, "channel": channel})
    return {"channel": channel, **(found or {"allowed": None})}


@act("/people/<name:user_id>/lift/<uuid:suppression_id>")
def lift_of_person(user_id: str, suppression_id: Any) -> Response:  # noqa: ANN401 -- a UUID
    """Lift a suppression of one of a person's addresses."""
    target = path("suppressions", suppression_id)
    return acted("person", "The suppression is lifted.", "DELETE", target, user_id=user_id)
