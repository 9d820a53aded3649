"""Moving and resending a notification over HTTP."""

from typing import Any

import requests

from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

FAR = "2040-06-01T12:00:00Z"


def resend(system: Running, notification_id: str) -> requests.Response:
    return system.post(f"/api/v1/notifications/{notification_id}/resend")


def put_user(system: Running, user_id: str, preferences: Any = None, **fields: Any) -> None:
    user: Any = fields
    system.client.users.put(user_id, user)
    if preferences is not None:
        system.client.preferences.put(user_id, preferences)


def dead(system: Running, http: HttpReceiver, user: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A dead webhook to a user, and its letter."""
    http.answer(f"/{user}", 410, 204)
    put_user(system, user, webhook_url=http.url(f"/{user}"))
    event = system.event(event_type="requeue.rule", user_id=user, channel="webhook", **fields)
    wait_for(lambda: system.notifications(event))
    return system.finished(event)["id"], system.dead_letter(event)
