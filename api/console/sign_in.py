"""Signing in by an API key, and out again."""

from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from flask import Response, g, redirect, request, url_for

from api.audit import put_on_record
from api.auth import is_open
from api.console.identity import NotSignedIn, lifetime_in_words
from api.console.pages import act, console, page, pages, show
from api.console.sessions import new_session
from api.key_cache import TooManyUnknown
from api.request_heads import takes_body
from api.services import services
from notifier.security.api_keys import Scope, hash_of

_MAX_FORM: Final = 16 * 1024
_OWN: Final = "/console"


def _wanted() -> str:
    """Return the path to go on to: one of the console's, whatever the link said."""
    given = request.values.get("next", "")
    return given if given.isprintable() and "\\" not in given and _is_own(given) else url_for("console.overview")


def _is_own(link: str) -> bool:
    """Tell whether a link is to a path of the console's as it stands: browsers would undo `..`, also as `%2e%2e`."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    is_below = parts.path == _OWN or parts.path.startswith(f"{_OWN}/")
    return is_below and not parts.scheme and not parts.netloc and ".." not in unquote(parts.path).split("/")


def _form(status: int = HTTPStatus.OK, *, error: str | None = None) -> Response:
    lifetime = lifetime_in_words(services().wiring.settings.console_session)
    return page("sign_in.html", status, title="Sign in", error=error, wanted=_wanted(), lifetime=lifetime)


@show("/sign-in", without_session=True)
def sign_in_page() -> Response:
    """Ask for a key, unless somebody is signed in already."""
    try:
        console().enter()
    except NotSignedIn:
        return _form()
    return cast(Response, redirect(_wanted(), HTTPStatus.SEE_OTHER))


@pages.post("/sign-in")
@is_open
@takes_body(lambda _: _MAX_FORM)
def sign_in() -> Response:
    """Begin a session, for a key that may read."""
    if not console().is_own_form():
        return _form(HTTPStatus.FORBIDDEN, error="Please sign in on this page itself.")
    key = request.form.get("key", "").strip()
    try:
        found = console().gate.caller_of_key(key)
    except TooManyUnknown as error:
        answer = _form(HTTPStatus.TOO_MANY_REQUESTS, error="Too many keys that are unknown came from this address.")
        answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    if found is None:
        g.tried_to_sign_in = True
        return _form(HTTPStatus.UNAUTHORIZED, error="There is no such key, or it has ended.")
    if Scope.READ not in found.scopes:
        g.refused_caller = found
        return _form(HTTPStatus.FORBIDDEN, error="This key may not look at anything: it lacks the scope read.")
    g.caller, g.begun = found, new_session(hash_of(key))
    put_on_record("console: sign in", None)
    return cast(Response, redirect(_wanted(), HTTPStatus.SEE_OTHER))


@act("/sign-out")
def sign_out() -> Response:
    """End the session in this browser."""
    g.begun = None
    put_on_record("console: sign out", None)
    return cast(Response, redirect(url_for("console.sign_in_page"), HTTPStatus.SEE_OTHER))
