"""A line in the audit log for every request of scope admin that changes something: one hook, none in the views."""

import re
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from api.auth import caller, is_act
from api.tracking import cause
from config.wiring import Wiring
from notifier import audit

log = structlog.get_logger()

#: Arguments of paths that are names which operators gave. Ids of ours are shown too, and of all others a fingerprint.
_NAMES: Final = frozenset({"target", "route_name", "template_name"})
_ARGUMENT: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def _action(rule: str) -> str:
    """`PUT /api/v1/holds/{target}`: as OpenAPI writes paths."""
    path = _ARGUMENT.sub(r"{\1}", rule)
    return f"{request.method} {path}"


def _target(arguments: dict[str, Any]) -> str | None:
    shown = (
        f"{name}={value if name in _NAMES or isinstance(value, UUID) else audit.fingerprint(str(value))}"
        for name, value in arguments.items()
    )
    return " ".join(shown) or None


def put_on_record(action: str, target: str | None) -> None:
    """Have a line written for this request, though it changes nothing."""
    g.on_record = (action, target)


def record_acts(app: Flask, wires: Wiring) -> None:
    """Write a line for each act once it is over.

    Where none can be written that is logged, at error, with all that the line would have said. The answer stays as it
    is: the act is done, and whoever asked for it must hear so.
    """

    def record(response: Response) -> Response:
        # A caller is known only where the request was let through: what is refused has done nothing.
        view = current_app.view_functions.get(request.endpoint or "")
        noted = getattr(g, "on_record", None)
        if view is None or not (noted or is_act(view)) or "caller" not in g or request.url_rule is None:
            return response
        action, target = noted or (_action(request.url_rule.rule), _target(request.view_args or {}))
        line: dict[str, Any] = {
            "actor": caller().name,
            "action": action,
            "target": target,
            "outcome": str(response.status_code),
            "request_id": cause().request_id,
        }
        # Postgres is away: waiting for it once more would only keep the caller.
        away = "Postgres" if response.status_code == 503 else None
        try:
            if away is None:
                audit.record(wires.engine, at=datetime.now(UTC), **line)
        except SQLAlchemyError as error:
            away = type(error).__name__
        if away is not None:
            log.error("audit_not_written", error=away, **line)
        return response

    app.after_request(record)
