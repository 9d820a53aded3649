"""Masking of answers: `***` for the credentials in addresses, unless an administrator asks for them with `reveal=1`.

One hook sees every JSON answer to a key, so that no resource can forget it.
"""

from typing import Final

from flask import Flask, Response, current_app, g, request

from api.audit import action, put_on_record
from api.auth import caller
from api.problems import MEDIA_TYPE, problem
from api.services import services
from api.visibility import REVEAL, reveals
from notifier.security.api_keys import Scope
from notifier.security.redaction import masked_json, opened_json
from notifier.vocabulary.errors import Invalid

_VALUES: Final = {"0": False, "false": False, "1": True, "true": True}
_JSON: Final = frozenset({"application/json", MEDIA_TYPE})


def mask_answers(app: Flask) -> None:
    """Mask every answer of an app. Call it after require_keys."""
    app.before_request(_check)
    app.after_request(_mask)


def _check() -> Response | None:
    """Note that a request asks to see credentials, or answer 403 if it may not. Raises Invalid."""
    asked = request.args.get(REVEAL)
    if asked is None or "caller" not in g:
        return None
    view = current_app.view_functions.get(request.endpoint or "")
    if not getattr(view, "takes_reveal", False) or request.method not in {"GET", "HEAD"}:
        raise Invalid({REVEAL: ["Unknown field."]})
    if asked not in _VALUES:
        raise Invalid({REVEAL: ["Not a valid boolean."]})
    if _VALUES[asked]:
        if Scope.ADMIN not in caller().scopes:
            return problem(403, f"This key may not do that: {REVEAL}=1 needs the scope '{Scope.ADMIN}'.")
        g.reveals = True
        put_on_record(f"reveal: {action()}", None)
    return None


def _mask(response: Response) -> Response:
    """Mask the credentials in a JSON answer, or reveal them. Streamed documents do so themselves."""
    if "caller" not in g or response.is_streamed or response.mimetype not in _JSON:
        return response
    document = response.get_data(as_text=True)
    shown = opened_json(document, services().wiring.seals.opened_or_kept) if reveals() else masked_json(document)
    if shown != document:
        response.set_data(shown)
    return response
