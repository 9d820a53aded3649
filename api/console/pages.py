"""The console's blueprint: who may see its pages, how they are rendered, and how they fail."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import structlog
from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    g,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from api.audit import put_on_record
from api.auth import caller, is_open
from api.browser_security import policy
from api.console import words
from api.console.asking import Refused, ask
from api.console.identity import Console, NotSignedIn
from api.console.masks import masked_address, masked_text, masked_values
from api.console.sessions import NOTICE_SECONDS
from api.request_heads import MAX_BODY, takes_body
from notifier import VERSION
from notifier.security.api_keys import Scope
from notifier.vocabulary.errors import NotifierError, Unavailable

log = structlog.get_logger()

View = TypeVar("View", bound=Callable[..., Any])

_HERE: Final = Path(__file__).parent
#: Our own style and script, our own images, and frames of rendered messages; forms lead here alone.
_POLICY: Final = policy(
    "style-src 'self'", "script-src 'self'", "img-src 'self' data:", "frame-src 'self'", "form-action 'self'"
)
#: The query parameter by which somebody asks to see personal data.
SHOW: Final = "show"
#: The cookie that carries a notice from a form to the page behind it, which shows it once.
_NOTICE: Final = "notifier_console_notice"
_LONGEST_NOTICE: Final = 500
#: The form's field that carries the session's token.
FIELD: Final = "token"

pages = Blueprint("console", __name__, url_prefix="/console", template_folder="templates")


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence over a page, on what an act has come to. `kind`: `done` or `failed`."""

    kind: str
    text: str


def console() -> Console:
    """Return the console of the app that serves this request."""
    found: Console = current_app.extensions["console"]
    return found


def show(rule: str, *, without_session: bool = False) -> Callable[[View], View]:
    """Serve a page at a path below `/console`; `without_session`: also to people who are not signed in."""

    def declare(view: View) -> View:
        served = is_open(view if without_session else cast(View, _for_signed_in(view)))
        return pages.get(rule, strict_slashes=False)(served)

    return declare


def act(rule: str) -> Callable[[View], View]:
    """Serve a form at a path below `/console`: it changes something, and its form brings the session's token."""

    def declare(view: View) -> View:
        served = is_open(takes_body(lambda _: MAX_BODY)(cast(View, _for_signed_in(view))))
        return pages.post(rule)(served)

    return declare


def _for_signed_in(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def serve(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- the view's
        g.session = console().enter()
        if (often := console().gate.too_often(caller())) is not None:
            return failed(HTTPStatus.TOO_MANY_REQUESTS, often)
        if request.method == "POST" and not _is_own_form():
            return failed(HTTPStatus.FORBIDDEN, "This form is out of date. Load its page again, and repeat it.")
        put_showing_on_record(f"page={view.__name__}")  # unless the page says more exactly whose data it shows
        return view(*args, **kwargs)

    return serve


def _is_own_form() -> bool:
    return console().is_own_form() and console().sessions.is_token(g.session, request.form.get(FIELD, ""))


def page(template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:  # noqa: ANN401 -- of any type
    """Render a page."""
    html = render_template(
        template,
        version=VERSION,
        caller=g.get("caller"),
        may_act="caller" in g and caller().may(Scope.ADMIN),
        may_requeue="caller" in g and caller().may(Scope.REQUEUE),
        may_cancel="caller" in g and Scope.SEND in caller().scopes,
        may_change_people="caller" in g and caller().may(Scope.USERS),
        may_save_templates="caller" in g and caller().may(Scope.TEMPLATES),
        is_open=console().is_open,
        token=console().sessions.token(g.session) if "session" in g else None,
        is_shown=shows(),
        **values,
    )
    return Response(html, status, {"Content-Security-Policy": _POLICY}, content_type="text/html; charset=utf-8")


def failed(status: int, text: str) -> Response:
    """Render the page of an error."""
    return page("failed.html", status, title=HTTPStatus(status).phrase, text=text)


def shows() -> bool:
    """Return whether this request asks to see personal data."""
    return request.args.get(SHOW) == "1"


def put_showing_on_record(target: str) -> None:
    """Have a line in the audit log where this request asks to see personal data. `target`: `name=value` of our ids."""
    if shows():
        put_on_record("console: show personal data", target)


def back(endpoint: str, notice: Notice, **values: Any) -> Response:  # noqa: ANN401 -- of any type
    """Lead from a form to a page, which shows the notice once. It is in no URL: refusals may name an address."""
    response = cast(Response, redirect(url_for(f"console.{endpoint}", **values), HTTPStatus.SEE_OTHER))
    sealed = console().sessions.sealed_notice(notice.kind, notice.text[:_LONGEST_NOTICE])
    console().set_cookie(response, _NOTICE, sealed, NOTICE_SECONDS)
    return response


def acted(endpoint: str, done: str, method: str, target: str, body: Any = None, **values: Any) -> Response:  # noqa: ANN401 -- JSON, and the page's values
    """Ask the API to act, and lead to a page that says what came of it. `done`: its words where it was done."""
    try:
        ask(method, target, body=body)
    except Refused as refused:
        return back(endpoint, Notice("failed", refused.words), **values)
    return back(endpoint, Notice("done", done), **values)


@pages.context_processor
def _notices() -> dict[str, Any]:
    """Give the templates the notice of the form that led here, if any, and the words."""
    sealed = request.cookies.get(_NOTICE)
    found = None if sealed is None or "session" not in g else console().sessions.notice(sealed)
    g.has_shown_notice = found is not None
    return {"notice": None if found is None else Notice(*found), "words": words}


def _unless_shown(hide: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: value if shows() else hide(value)


def add_filters(app: Flask) -> None:
    """Give the templates the filters that hide personal data until a request asks for it."""
    app.jinja_env.filters.update(
        private_address=_unless_shown(masked_address),
        private_text=_unless_shown(masked_text),
        private_values=_unless_shown(masked_values),
    )


@pages.after_request
def _finish(response: Response) -> Response:
    """Keep pages out of caches, and write the session that this request began."""
    if request.endpoint != "console.static_file":
        response.headers["Cache-Control"] = "no-store"
        # With `no-referrer` browsers say `Origin: null` with the forms of these pages, as if they were a stranger's.
        response.headers["Referrer-Policy"] = "same-origin"
    if "begun" in g:
        console().write(response, g.begun)
    if g.get("has_shown_notice"):
        console().drop_cookie(response, _NOTICE)
    return response


@pages.errorhandler(NotSignedIn)
def _sign_in_first(_: NotSignedIn) -> Response:
    """Lead to the page where one signs in, and from there back to the one that was asked for."""
    wanted = request.full_path.rstrip("?") if request.method == "GET" else url_for("console.overview")
    return cast(Response, redirect(url_for("console.sign_in_page", next=wanted), 303))


@pages.errorhandler(Refused)
def _refused(error: Refused) -> Response:
    return failed(error.status, error.words)


@pages.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> Response:
    return failed(error.code or HTTPStatus.INTERNAL_SERVER_ERROR, error.description or "")


@pages.errorhandler(SQLAlchemyError)
def _database_error(error: SQLAlchemyError) -> Response:
    log.warning("console_without_database", error=type(error).__name__)
    return failed(HTTPStatus.SERVICE_UNAVAILABLE, "Postgres does not answer. Load the page again in a moment.")


@pages.errorhandler(NotifierError)
def _own_error(error: NotifierError) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, Unavailable) else HTTPStatus.UNPROCESSABLE_ENTITY
    return failed(status, str(error))


@pages.get("/static/<path:name>")
@is_open
def static_file(name: str) -> Response:
    """Serve the console's style and script. Their URLs carry the version, so browsers may keep them."""
    return send_from_directory(_HERE / "static", name, max_age=86_400, conditional=False)


@show("/<path:rest>", without_session=True)
def unknown_page(rest: str) -> Response:
    """Say that there is no such page."""
    with suppress(NotSignedIn):
        g.session = console().enter()
    return failed(HTTPStatus.NOT_FOUND, f"There is no page /console/{rest[:100]}.")
