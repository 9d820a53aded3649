"""Checks of a request's head, before its body is read: is the request allowed, and how large may the body be?

A route takes the body that its view describes for OpenAPI, up to the limit that the view declares. A head is refused
by the same checks as a whole request, with the same answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flask import Flask, abort, g, request

from api.auth import ADMITTED, Gate, scope_of
from api.problems import problem
from api.serving.workers import Reader, send
from config.settings import Settings
from notifier.storage.deadlines import within
from notifier.vocabulary.errors import NotifierError

View = TypeVar("View", bound=Callable[..., Any])
Environ = dict[str, Any]

#: The largest body in bytes, unless a view declares another: the three parts of a template fit.
MAX_BODY: Final = 1024 * 1024
#: A route without a body takes an empty one, as some clients send with every POST.
_NO_BODY: Final = 1024
#: Seconds that the checks of a head may wait for Postgres.
_SECONDS: Final = 2.5
_JSON: Final = "application/json"
#: Methods of views that are described for another method alone.
_UNDESCRIBED: Final = frozenset({"HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class BodyRule:
    """The bodies that a route takes."""

    limit: int
    #: Media types that its view describes; empty for any.
    types: frozenset[str]


_NONE: Final = BodyRule(_NO_BODY, frozenset())


def takes_body(limit: Callable[[Settings], int]) -> Callable[[View], View]:
    """Declare the largest body of a view, if it is not MAX_BODY."""

    def declare(view: View) -> View:
        view.body_limit = limit  # type: ignore[attr-defined]  # views carry their marks
        return view

    return declare


class HeadChecks:
    """Judges requests by their heads."""

    def __init__(self, app: Flask, gate: Gate, settings: Settings) -> None:
        self._app, self._gate = app, gate
        #: By endpoint and method.
        self.rules: dict[tuple[str, str], BodyRule] = {}
        #: Routes without arguments that need a key, by method and path.
        self._plain: dict[tuple[str, str], tuple[BodyRule, Callable[..., Any]]] = {}
        for rule in app.url_map.iter_rules():
            view = app.view_functions[rule.endpoint]
            for method in rule.methods or ():
                body = _rule_of(view, method, settings)
                self.rules[rule.endpoint, method] = body
                if not rule.arguments and scope_of(view) is not None:
                    self._plain[method, rule.rule] = (body, view)

    def check_body(self) -> None:
        """Answer 413 to a request whose Content-Length exceeds its route's limit."""
        length = request.content_length
        if length is not None and request.url_rule is not None and length > (limit := self._rule().limit):
            _too_large(limit)

    def _rule(self) -> BodyRule:
        return self.rules.get((request.endpoint or "", request.method), _NONE)

    def at_once(self, environ: Environ, length: int) -> int | None:
        """Return the body's limit if it is known without I/O; None if `check` must be asked."""
        body, view = self._plain.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]), (_NONE, None))
        if view is None or length > body.limit or not self._gate.lets_in(environ.get("HTTP_AUTHORIZATION", ""), view):
            return None
        media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        return body.limit if media_type in body.types else None

    def check(self, environ: Environ, reader: Reader) -> tuple[int, bool] | None:
        """Return the body's limit, and whether its sender is unauthenticated; or answer the request and return None."""
        with within(_SECONDS), self._app.request_context(environ):
            try:
                answer = self._app.preprocess_request()
                if answer is None:
                    if request.routing_exception is not None:
                        self._app.raise_routing_exception(request)
                    body = self._rule()
                    _check_type(body)
                    environ[ADMITTED] = g.get("caller")
                    return body.limit, "caller" not in g
            except Exception as error:
                answer = self._app.handle_user_exception(error)
            response = self._app.finalize_request(answer)
        send(response, environ, reader)
        return None

    def refuse(self, environ: Environ, status: int, detail: str, reader: Reader) -> None:
        """Answer a request whose body was not read."""
        headers = {"Retry-After": "1"} if status == 503 else {}
        self._answer(environ, reader, lambda: problem(status, detail, headers=headers))

    def answer_error(self, environ: Environ, error: NotifierError, reader: Reader) -> None:
        """Answer a request with an error that was met outside Flask."""
        self._answer(environ, reader, lambda: self._app.handle_user_exception(error))

    def _answer(self, environ: Environ, reader: Reader, make: Callable[[], Any]) -> None:
        """Answer a request with what `make` returns, unless a check of its head answers it."""
        with within(_SECONDS), self._app.request_context(environ):
            try:
                answer = self._app.preprocess_request()
                if answer is None:
                    answer = make()
            except Exception as error:
                answer = self._app.handle_user_exception(error)
            response = self._app.finalize_request(answer)
        send(response, environ, reader)


def _rule_of(view: Callable[..., Any], method: str, settings: Settings) -> BodyRule:
    limit = getattr(view, "body_limit", None)
    described: frozenset[str] | None = None if method in _UNDESCRIBED else getattr(view, "body_types", None)
    if limit is None and described is None:
        return _NONE
    # Providers and people's browsers choose what they send.
    types = described if described and scope_of(view) is not None else frozenset[str]()
    return BodyRule(limit(settings) if limit else MAX_BODY, types)


def _too_large(limit: int) -> None:
    abort(413, "This takes no body." if limit == _NO_BODY else f"The body is larger than {limit} bytes.")


def _check_type(body: BodyRule) -> None:
    if not body.types or (_JSON in body.types and request.is_json) or request.mimetype in body.types:
        return
    others = "".join(f", or '{each}'" for each in sorted(body.types - {_JSON}))
    abort(415, f"Send JSON, with 'Content-Type: {_JSON}'{others}.")


def check_heads(app: Flask, gate: Gate, settings: Settings) -> HeadChecks:
    """Check every request's body against its route's limit. Call it after all other checks."""
    heads = HeadChecks(app, gate, settings)
    app.before_request(heads.check_body)
    app.extensions["heads"] = heads
    return heads
