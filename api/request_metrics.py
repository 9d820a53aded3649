"""Metrics of requests: their duration, and the events and notifications that were rejected."""

from time import perf_counter
from typing import Final

from flask import Flask, Response, g, request

from api.request_log import method, route
from notifier.observability import metrics

#: The counters of rejected requests, by endpoint.
_REJECTED: Final = {
    "events.post_event": metrics.EVENTS_REJECTED,
    "events.post_batch": metrics.EVENTS_REJECTED,
    "notifications.post_notification": metrics.NOTIFICATIONS_REJECTED,
    "front doors.post_typed_event": metrics.EVENTS_REJECTED,
    "front doors.send_notification": metrics.NOTIFICATIONS_REJECTED,
    "front doors.notify_user": metrics.NOTIFICATIONS_REJECTED,
}


def _end(response: Response) -> Response:
    code = f"{response.status_code // 100}xx"
    metrics.REQUEST_SECONDS.labels(route(), method(), code).observe(perf_counter() - g.began)
    if response.status_code >= 400 and request.endpoint in _REJECTED:
        _REJECTED[request.endpoint].labels(str(response.status_code)).inc()
    return response


def measure(app: Flask) -> None:
    """Measure every request of an app that is tracked (api.request_log)."""
    app.after_request(_end)
