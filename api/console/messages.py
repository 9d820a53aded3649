"""Pages of one message: a notification's story with its buttons, the message as it was rendered, and an event."""

from typing import Any, Final
from uuid import UUID

from flask import Response, request

from api.auth import caller
from api.console.asking import Refused, ask, ask_if_allowed, path
from api.console.pages import act, acted, page, put_showing_on_record, show, shows
from api.console.story import PHASES, moments
from api.services import services
from notifier.vocabulary.states import Channel

_ENDED: Final = frozenset({"sent", "delivered", "failed", "cancelled", "expired", "skipped"})
_PENDING: Final = frozenset({"scheduled", "queued", "retrying"})
#: For a message that somebody else wrote: it runs nothing and loads nothing. Emails carry their styles in them.
_FRAMED: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'self'"
)


def _target(notification_id: UUID) -> str:
    return path("notifications", notification_id)


@show("/notifications/<uuid:notification_id>")
def notification(notification_id: UUID) -> Response:
    """Show a notification's story."""
    record = ask("GET", _target(notification_id))
    put_showing_on_record(f"notification_id={notification_id}")
    content, why_not = _content(notification_id) if shows() else (None, None)
    return page(
        "notification.html",
        title=f"Notification {str(notification_id)[-8:]}",
        record=record,
        moments=moments(record),
        phases=PHASES,
        content=content,
        why_not=why_not,
        can_resend=record["status"] in _ENDED | {"retrying"},
        can_change_provider=_has_another_provider(record),
        is_own=caller().owns(record["source"]),
        can_cancel=record["status"] in _PENDING,
        can_move=record["status"] == "scheduled",
        check=_check(record),
        suppressions=_suppressions(record),
    )


def _has_another_provider(record: dict[str, Any]) -> bool:
    """Tell whether its channel has several providers, and one was called for it before."""
    channel = record["channel"]
    several = channel in list(Channel) and len(services().wiring.settings.of(Channel(channel)).providers) > 1
    return several and bool(record["attempts"])


def _content(notification_id: UUID) -> tuple[Any, str | None]:
    """Return what a notification says, and why that cannot be shown."""
    try:
        return ask("GET", path("notifications", notification_id, "content")), None
    except Refused as refused:
        return None, refused.words


def _check(record: dict[str, Any]) -> Any:  # noqa: ANN401 -- JSON
    """Return the preferences' decision on such a message to the same person now; None without a user."""
    if not record["user_id"] or not record["channel"]:
        return None
    asked = {name: record[name] for name in ("user_id", "channel", "category", "critical")}
    return ask_if_allowed("POST", path("preferences", "check"), body=asked)


def _suppressions(record: dict[str, Any]) -> list[Any]:
    """Return the suppressions of its address, on its channel."""
    if not record.get("recipient") or not record["channel"] or record["channel"] == "webhook":
        return []
    asked = {"address": record["recipient"], "channel": record["channel"]}
    found = ask_if_allowed("GET", path("suppressions"), query=asked)
    return [] if found is None else list(found["items"])


@show("/notifications/<uuid:notification_id>/message")
def message(notification_id: UUID) -> Response:
    """Show a notification's HTML alone, for a frame: nothing in it runs, and nothing is loaded from elsewhere."""
    put_showing_on_record(f"notification_id={notification_id}")
    if not shows():
        return page("failed.html", 404, title="Hidden", text="The message is hidden until somebody asks for it.")
    content = ask("GET", path("notifications", notification_id, "content"))
    html = content.get("html") or ""
    headers = {"Content-Security-Policy": _FRAMED, "X-Frame-Options": "SAMEORIGIN"}
    return Response(html, 200, headers, mimetype="text/html")


def _acted(notification_id: UUID, done: str, method: str, target: str, body: Any = None) -> Response:  # noqa: ANN401 -- JSON
    """Ask the API to act on a notification, and lead back to it."""
    return acted("notification", done, method, target, body, notification_id=notification_id)


@act("/notifications/<uuid:notification_id>/resend")
def resend(notification_id: UUID) -> Response:
    """Send it again, by another provider where the form asks for that."""
    body = {"another_provider": True} if request.form.get("another_provider") == "1" else None
    return _acted(notification_id, "It is sent again.", "POST", path("notifications", notification_id, "resend"), body)


@act("/notifications/<uuid:notification_id>/cancel")
def cancel(notification_id: UUID) -> Response:
    """Cancel it."""
    return _acted(notification_id, "It is cancelled.", "POST", path("notifications", notification_id, "cancel"))


@act("/notifications/<uuid:notification_id>/move")
def move(notification_id: UUID) -> Response:
    """Move it to another time, in UTC; no time means at once."""
    given = request.form.get("send_at", "").strip()
    until = (given if given.count(":") == 2 else f"{given}:00") + "Z" if given else None
    words = f"It goes at {until}." if until else "It goes at once."
    return _acted(notification_id, words, "PATCH", _target(notification_id), {"send_at": until})


@act("/notifications/<uuid:notification_id>/suppress")
def suppress(notification_id: UUID) -> Response:
    """Suppress its address on its channel."""
    record = ask("GET", _target(notification_id))
    body = {"channel": record["channel"], "address": record["recipient"], "reason": "manual"}
    return _acted(notification_id, "Its address is suppressed.", "POST", path("suppressions"), body)


@act("/notifications/<uuid:notification_id>/lift/<uuid:suppression_id>")
def lift(notification_id: UUID, suppression_id: UUID) -> Response:
    """Lift the suppression of its address."""
    target = path("suppressions", suppression_id)
    return _acted(notification_id, "Its address is suppressed no more.", "DELETE", target)


@show("/events/<uuid:event_id>")
def event(event_id: UUID) -> Response:
    """Show an event, and what became of each of its notifications."""
    record = ask("GET", path("events", event_id))
    put_showing_on_record(f"event_id={event_id}")
    return page("event.html", title=f"Event {record['event_type']}", record=record)


@act("/events/<uuid:event_id>/replay")
def replay(event_id: UUID) -> Response:
    """Fan an event out again."""
    words = "It is fanned out again, as new notifications."
    return acted("event", words, "POST", path("events", event_id, "replay"), event_id=event_id)
