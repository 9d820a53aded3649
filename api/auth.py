"""Authentication and authorisation: API keys as bearer tokens, a scope for each route, a rate limit for some keys."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Flask, Response, current_app, g, request

from api.key_cache import KeyCache, TooManyUnknown
from api.problems import problem
from api.request_log import note
from config.metrics_server import brings
from config.wiring import Wiring
from notifier.security.api_keys import ANONYMOUS, PARTS_OF_ADMIN, Caller, Ended, Scope, hash_of

#: Scopes whose changes are in the audit log, and methods that change nothing.
_ACTING: Final = frozenset({Scope.ADMIN, *PARTS_OF_ADMIN})
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: The environ's key for the caller, set once the head was let in; its value is None for an open route.
ADMITTED: Final = "notifier.admitted"
#: The environ's key for the caller of a request that this process makes to itself, whose key was checked before.
SIGNED_IN: Final = "notifier.signed_in"

View = TypeVar("View", bound=Callable[..., Any])


def requires(scope: Scope) -> Callable[[View], View]:
    """Declare the scope of a view. Every route declares one, or that it is open."""

    def declare(view: View) -> View:
        view.scope = scope  # type: ignore[attr-defined]  # views carry their marks
        return view

    return declare


def is_open(view: View) -> View:
    """Declare that a view needs no key."""
    view.scope = None  # type: ignore[attr-defined]  # views carry their marks
    return view


def takes_metrics_token(view: View) -> View:
    """Declare that a view also accepts NOTIFIER_METRICS_TOKEN, the one secret for everything that is scraped."""
    view.takes_metrics_token = True  # type: ignore[attr-defined]  # views carry their marks
    return view


def scope_of(view: Callable[..., Any]) -> Scope | None:
    """Return the scope that a view declares; None for an open one. Raises AttributeError if it declares nothing."""
    scope: Scope | None = view.scope  # type: ignore[attr-defined]  # views carry their marks
    return scope


def is_act(view: Callable[..., Any]) -> bool:
    """Return whether this request to `view` belongs in the audit log."""
    if getattr(view, "is_on_record", False):
        return True
    return getattr(view, "scope", None) in _ACTING and request.method not in READING


def is_on_record(view: View) -> View:
    """Declare that each use of a view is in the audit log, whatever its scope and method."""
    view.is_on_record = True  # type: ignore[attr-defined]  # views carry their marks
    return view


class Gate:
    """Checks each request's key against its route's scope."""

    def __init__(self, wires: Wiring) -> None:
        self._wires = wires
        self._required = wires.settings.auth == "required"
        self._known = KeyCache(lambda: wires.engine)

    def check(self) -> Response | None:
        """Let the request pass, with its caller as `g.caller` (none brings the metrics token), or answer it."""
        view = current_app.view_functions.get(request.endpoint or "")
        if view is None or (scope := scope_of(view)) is None or request.method == "OPTIONS":
            return None
        if ADMITTED in request.environ:  # its head was checked and counted before
            if (admitted := request.environ[ADMITTED]) is not None:
                g.caller = admitted
            return None
        signed_in: Caller | None = request.environ.get(SIGNED_IN)
        if signed_in is not None:
            return self._admit(signed_in, scope)  # it was counted with the page that needs the answer
        if not self._required:
            g.caller = ANONYMOUS
            return None
        header = request.headers.get("Authorization", "")
        token = self._wires.settings.metrics_token
        if token is not None and getattr(view, "takes_metrics_token", False) and brings(header, token):
            return None
        kind, _, key = header.partition(" ")
        try:
            caller = self._known.find(key.strip(), request.remote_addr or "") if kind.lower() == "bearer" else None
        except TooManyUnknown as error:
            words = "Too many keys that are unknown came from this address."
            return problem(429, words, headers={"Retry-After": str(error.retry_after)})
        if caller is None:
            g.ended_key = self._known.ended(key.strip())
            return problem(
                401, "Send a valid API key: 'Authorization: Bearer …'.", headers={"WWW-Authenticate": "Bearer"}
            )
        g.refused_caller = caller  # until it is let in
        if (often := self.too_often(caller)) is not None:
            return problem(429, often, headers={"Retry-After": "1"})
        return self._admit(caller, scope)

    def too_often(self, caller: Caller) -> str | None:
        """Count a request of a caller; returns words where its key is at its limit."""
        # A key without a limit costs no question to Redis.
        if caller.rate is None or self._wires.key_limits.allow(caller.name, caller.rate):
            return None
        often = f"{caller.rate} request{'s' * (caller.rate != 1)} a second"
        return f"This key may make {often}, and this is one more."

    def _admit(self, caller: Caller, scope: Scope) -> Response | None:
        """Let a known caller's request pass, unless it lacks the route's scope."""
        g.refused_caller = caller
        if not caller.may(scope):
            note(lacks=str(scope))
            return problem(403, f"This key may not do that: it lacks the scope '{scope}'.")
        g.caller = caller
        return None

    def caller_of_key(self, key: str) -> Caller | None:
        """Return the owner of a key that somebody brings in this request; None if unknown. Raises TooManyUnknown."""
        return self._known.find(key, request.remote_addr or "")

    def caller_of_hash(self, hashed: bytes) -> Caller | None:
        """Return the owner of a key by its hash, which came from a cookie that we signed; None if it has ended."""
        return self._known.find_hash(hashed)

    def lets_in(self, authorization: str, view: Callable[..., Any]) -> bool:
        """Return whether a request to a view is sure to pass, by this process's cache alone. Counts nothing."""
        scope = scope_of(view)
        return scope is None or self.known_caller(authorization, scope) is not None

    def known_caller(self, authorization: str, scope: Scope) -> Caller | None:
        """Return the caller of a request that is sure to pass, by this process's cache alone. Counts nothing."""
        if not self._required:
            return ANONYMOUS
        kind, _, key = authorization.partition(" ")
        caller = self._known.remembered(hash_of(key.strip())) if kind.lower() == "bearer" else None
        return caller if caller is not None and caller.rate is None and caller.may(scope) else None


def caller() -> Caller:
    """Return the caller of this request."""
    found: Caller = g.caller
    return found


def ended_key() -> Ended | None:
    """Return the expired or revoked key that this request was refused with, if any."""
    found: Ended | None = getattr(g, "ended_key", None)
    return found


def refused_caller() -> Caller | None:
    """Return the caller of this request, even if it was refused; None if unknown."""
    found: Caller | None = getattr(g, "caller", None) or getattr(g, "refused_caller", None)
    return found


def require_keys(app: Flask, wires: Wiring) -> Gate:
    """Guard every route of the app. Raises LookupError where one declares no scope."""
    gate = Gate(wires)
    app.before_request(gate.check)
    undeclared = [name for name, view in app.view_functions.items() if not hasattr(view, "scope")]
    if undeclared:
        raise LookupError(f"these views declare no scope: {', '.join(sorted(undeclared))}")
    return gate
