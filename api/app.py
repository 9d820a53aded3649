"""The Flask application, which api.serving serves."""

import time
from collections.abc import Callable
from typing import Any, Final

import orjson
import structlog
from flask import Flask
from flask.json.provider import JSONProvider

from api import (
    audit_lines,
    compatibility,
    dead_letter_acts,
    dead_letters,
    docs_pages,
    erasures,
    events,
    exports,
    health,
    holds,
    notifications,
    preferences,
    receipts,
    routes,
    search,
    statistics,
    subscriptions,
    suppressions,
    templates,
    unsubscribe,
    users,
)
from api.audit import record_acts
from api.auth import is_open, require_keys
from api.browser_security import guard_browsers
from api.console.identity import Console
from api.console.serving import serve_console
from api.database import use_database
from api.description import INFO, SERVERS, Description, completed
from api.fast_path import FastPath
from api.masking import mask_answers
from api.problems import ProblemApi, register_problems
from api.request_heads import check_heads
from api.request_log import track
from api.request_metrics import measure
from api.resources import LateRule, NameConverter, check_queries
from api.services import keep
from api.serving.workers import ARRIVED
from config.logs import configure_logs
from config.tracing import start_tracing
from config.wiring import Wiring, wiring
from notifier import VERSION
from notifier.storage.deadlines import bound, within
from tasks.publisher import publisher

log = structlog.get_logger()

_DESCRIPTION: Final = """Events in over HTTP; people hear of them by email, SMS, push, chat or webhook.

Errors are `application/problem+json` (RFC 9457). Send your key as `Authorization: Bearer …`. Lists take `limit`
and `cursor`. Times are RFC 3339 with an offset, and come out in UTC.

Every answer has an `X-Request-Id`: the one that you sent, or a new one. It stands in the logs beside all that the
request brings about, and so does your `traceparent` (W3C), which goes on to the providers."""


_RESOURCES: Final = (
    *(events, notifications, compatibility, users, preferences, templates, routes, subscriptions, suppressions, holds),
    *(erasures, exports, dead_letters, dead_letter_acts, search, receipts, unsubscribe, audit_lines, statistics),
    health,
)


#: Seconds that the server has for a lock and for a statement, until a connection is given up, and that a request has
#: from its arrival for all that it asks of Postgres: it is answered within 10 s, whatever hangs.
_LOCK: Final = 3.0
_STATEMENT: Final = 5.0
_ANSWER: Final = 6.0
_REQUEST: Final = 7.0


def _in_time(serve: Callable[..., Any]) -> Callable[..., Any]:
    """Give each request its deadline. A streamed answer is read after it, with a deadline for each statement."""

    def serve_in_time(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401 -- WSGI's
        waited = time.monotonic() - environ.get(ARRIVED, time.monotonic())  # for a thread
        with within(_REQUEST - waited):
            return serve(environ, start_response)

    return serve_in_time


class _Orjson(JSONProvider):
    """JSON by orjson, which puts payloads out as the text they came in. It ends with a newline, for terminals."""

    def dumps(self, obj: Any, **_: Any) -> str:  # noqa: ANN401 -- Flask's signature
        return orjson.dumps(obj, option=orjson.OPT_APPEND_NEWLINE).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:  # noqa: ANN401 -- Flask's signature
        return orjson.loads(s)


def create_app(wires: Wiring | None = None) -> Flask:
    """Create the application of an API process. Raises SettingsError if a setting is wrong."""
    wires = wires or wiring()
    configure_logs(wires.settings)
    start_tracing(wires.settings, "api")
    if wires.settings.sandbox:
        log.warning("sandbox", sends="nothing")
    app = Flask("notifier", static_folder=None)
    app.url_rule_class = LateRule
    app.json = _Orjson(app)
    app.url_map.strict_slashes = False
    # A redirect would lead from `users/%2F/preferences` to the user named `preferences`.
    app.url_map.merge_slashes = False
    app.url_map.converters["name"] = NameConverter
    app.config.update(
        API_TITLE="Notifier",
        API_VERSION=VERSION,
        OPENAPI_VERSION="3.0.3",
        API_SPEC_OPTIONS={
            "info": {"description": _DESCRIPTION, **INFO},
            "servers": SERVERS,
            "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
            "security": [{"key": []}],
        },
    )
    bound(wires.engine, _ANSWER, statement=_STATEMENT, lock=_LOCK)
    app.wsgi_app = _in_time(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's documentation has it
    keep(app, wires, publisher())
    use_database(app)
    api = ProblemApi(app)
    for module in _RESOURCES:
        api.register_blueprint(module.blp)
    app.register_blueprint(docs_pages.pages)
    serve_console(app, wires.settings)
    app.extensions["openapi"] = Description(lambda: completed(*api.describe(), wires.settings, wires.sender_rules))
    register_problems(app)
    track(app)
    measure(app)
    app.view_functions = {
        name: is_open(view) if name.startswith("api-docs.") else view for name, view in app.view_functions.items()
    }
    guard = guard_browsers(app, wires.settings)
    gate = require_keys(app, wires)
    app.extensions["console"] = Console(wires, gate)
    check_queries(app)
    mask_answers(app)
    heads = check_heads(app, gate, wires.settings)
    record_acts(app, wires)
    app.extensions["fast_path"] = FastPath(app, gate, guard, heads, timeout=_REQUEST)
    wires.check_providers()
    return app
