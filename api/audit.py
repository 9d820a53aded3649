"""Audit log lines for requests, written by one hook.

The log has the changes made with an administrative scope, the requests that a view declares or records itself
(exports, cancellations, revealed credentials), and refused requests.
"""

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import structlog
from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from api.auth import caller, ended_key, is_act, refused_caller
from api.key_cache import neighbourhood
from api.refusal_log import SIGN_IN, Refusal, RefusalLog
from api.request_log import cause, method, route
from config.wiring import Wiring

log = structlog.get_logger()

#: Path arguments that are names given by operators. These and our ids are logged; others as a fingerprint.
_NAMES: Final = frozenset({"target", "route_name", "template_name"})
_ARGUMENT: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


def action() -> str:
    """Return the request's action for the audit log, such as `PUT /api/v1/holds/{target}`."""
    path = _ARGUMENT.sub(r"{\1}", route())
    return f"{method()} {path}"


def put_on_record(action: str, target: str | None) -> None:
    """Have a line written for this request, even if it changes nothing. Default target: the path's arguments."""
    g.on_record = (action, target)


def record_acts(app: Flask, wires: Wiring) -> None:
    """Write a line for each act after it is done.

    If the line cannot be written, log its content as an error. The answer stays the same: the act is done, and the
    caller must learn that.
    """
    refusals = RefusalLog(lambda: wires.audit)

    def target(arguments: dict[str, Any]) -> str | None:
        shown = (
            f"{name}={value if name in _NAMES or isinstance(value, UUID) else wires.audit.fingerprint(str(value))}"
            for name, value in arguments.items()
        )
        return " ".join(shown) or None

    def record(response: Response) -> Response:
        view = current_app.view_functions.get(request.endpoint or "")
        noted: tuple[str, str | None] | None = getattr(g, "on_record", None)
        # `caller` is set only for requests that were let in: a refused request has changed nothing.
        if view is not None and "caller" in g and (noted or is_act(view)):
            _write(wires, response, noted, target)
        elif response.status_code in _REFUSED:
            _note(refusals, response)
        return response

    app.after_request(record)


def _write(wires: Wiring, response: Response, noted: tuple[str, str | None] | None, target: Any) -> None:  # noqa: ANN401 -- a function
    line: dict[str, Any] = {
        "actor": caller().name,
        "action": noted[0] if noted else action(),
        "outcome": str(response.status_code),
        "request_id": cause().request_id,
        "peer": request.remote_addr,
    }
    # Postgres is unreachable: another attempt would only delay the caller.
    away = "Postgres" if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE else None
    try:
        if away is None:
            line["target"] = (noted and noted[1]) or target(request.view_args or {})
            wires.audit.record(at=datetime.now(UTC), **line)
    except SQLAlchemyError as error:
        away = type(error).__name__
    if away is not None:
        log.error("audit_not_written", error=away, **{"target": None, **line})


def _note(refusals: RefusalLog, response: Response) -> None:
    """Record a refused request. A request without a key did not try to sign in, and is not recorded."""
    known, ended, status = refused_caller(), ended_key(), str(response.status_code)
    if known is not None:
        refusal = Refusal(action(), status, known.name, request.remote_addr)
    elif ended is not None:
        refusal = Refusal(SIGN_IN, f"{status} {ended.why}", ended.name, request.remote_addr)
    elif request.headers.get("Authorization") or "tried_to_sign_in" in g:
        refusal = Refusal(SIGN_IN, status, peer=neighbourhood(request.remote_addr or ""))
    else:
        return
    refusals.note(refusal, cause().request_id)
