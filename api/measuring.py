"""Measures requests: how long each took, and which brought events or notifications in vain."""

from time import perf_counter
from typing import Final

from flask import Flask, Response, g, request

from notifier import metrics

#: Any other method is a word that a caller made up.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: What counts the refusals of the routes that accept something.
_REJECTED: Final = {
    "events.post_event": metrics.EVENTS_REJECTED,
    "events.post_batch": metrics.EVENTS_REJECTED,
    "notifications.post_notification": metrics.NOTIFICATIONS_REJECTED,
}


def _begin() -> None:
    g.began = perf_counter()


def _end(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "unmatched"
    method = request.method if request.method in _METHODS else "other"
    code = f"{response.status_code // 100}xx"
    metrics.REQUEST_SECONDS.labels(route, method, code).observe(perf_counter() - g.began)
    if response.status_code >= 400 and request.endpoint in _REJECTED:
        _REJECTED[request.endpoint].labels(str(response.status_code)).inc()
    return response


def measure(app: Flask) -> None:
    """Measure every request of an app. To be called before anything else that may answer one."""
    app.before_request(_begin)
    app.after_request(_end)
