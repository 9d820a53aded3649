"""Security of browsers: response headers for our pages, and checks of requests from pages of other sites."""

import base64
import hashlib
import re
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from flask import Flask, Response, current_app, request
from jinja2 import Environment

from api.auth import READING
from api.problem_types import ProblemType
from api.problems import problem
from config.allowed_hosts import AllowedHosts, address_of
from config.settings import Settings

#: Our own files.
STATIC: Final = Path(__file__).parent / "static"
_HTML: Final = "text/html"
#: The header of every answer that keeps browsers from guessing what it is.
NO_SNIFFING: Final = ("X-Content-Type-Options", "nosniff")
_POLICY: Final = "Content-Security-Policy"
_NOTHING_ELSE: Final = "base-uri 'none'; frame-ancestors 'none'"
#: Paths below it have a token in them, with which anybody may act for its owner.
_TOKENS: Final = "/u/"
#: The longest name of a host, and its port.
LONGEST_HOST: Final = 253 + len(":65535")
#: Hosts and peers whose judgement is remembered.
_REMEMBERED: Final = 1024
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def policy(*sources: str) -> str:
    """Return a Content-Security-Policy that allows nothing but some sources, such as `img-src 'self'`."""
    return "; ".join(("default-src 'none'", *sources, _NOTHING_ELSE))


class Page:
    """A page of ours: a template whose styles are in it, each allowed by its hash. It has no scripts."""

    def __init__(self, name: str) -> None:
        """`name`: of a file in `static`."""
        text = (STATIC / name).read_text(encoding="utf-8")
        self._template = Environment(autoescape=True).from_string(text)
        digests = (hashlib.sha256(style.encode()).digest() for style in _STYLE.findall(text))
        styles = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        self._policy = policy(f"style-src {styles}", "form-action 'self'")

    def response(self, status: int = HTTPStatus.OK, **values: Any) -> Response:  # noqa: ANN401 -- of any type
        """Render the page."""
        html = self._template.render(**values)
        return Response(html, status, {_POLICY: self._policy}, content_type=f"{_HTML}; charset=utf-8")


def _add_headers(response: Response) -> Response:
    headers = response.headers
    headers[NO_SNIFFING[0]] = NO_SNIFFING[1]
    if response.mimetype == _HTML:
        headers.setdefault(_POLICY, policy())
        headers.setdefault("X-Frame-Options", "DENY")  # to browsers that do not know frame-ancestors
        headers.setdefault("Referrer-Policy", "no-referrer")
    if request.path.startswith(_TOKENS):
        headers["Cache-Control"] = "no-store"
        headers["Referrer-Policy"] = "no-referrer"
    return response


class Guard:
    """Refuses requests from pages of other sites, where no key is needed (see config.allowed_hosts)."""

    def __init__(self, settings: Settings) -> None:
        self._known = AllowedHosts(settings.public_url, settings.allowed_hosts)
        self._remembered = lru_cache(_REMEMBERED)(self._known.serves)
        self._is_here = lru_cache(_REMEMBERED)(_is_here)

    def lets_in(self, environ: dict[str, Any]) -> bool:
        """Return whether a request is sure to pass: one to us, from this machine, that no page of a browser sent."""
        return (
            "HTTP_ORIGIN" not in environ
            and "HTTP_SEC_FETCH_SITE" not in environ
            and self._serves(environ.get("HTTP_HOST"))
            and self._is_here(environ.get("REMOTE_ADDR") or "")
        )

    def _serves(self, host: str | None) -> bool:
        # A caller may send long ones, and any number of them: they are not remembered.
        return self._known.serves(host) if host is not None and len(host) > LONGEST_HOST else self._remembered(host)

    def check(self) -> Response | None:
        """Let the request pass, or answer it."""
        host = request.environ.get("HTTP_HOST")
        if not self._serves(host):
            words = "This server does not go by the name in Host; NOTIFIER_ALLOWED_HOSTS can add it."
            return problem(HTTPStatus.MISDIRECTED_REQUEST, words, kind=ProblemType.MISDIRECTED_REQUEST)
        if not self._is_here(request.remote_addr or ""):
            words = "With NOTIFIER_AUTH=off only this machine itself is served."
            return problem(HTTPStatus.MISDIRECTED_REQUEST, words, kind=ProblemType.MISDIRECTED_REQUEST)
        view = current_app.view_functions.get(request.endpoint or "")
        if request.method in READING or view is None or getattr(view, "scope", None) is None:
            return None
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if not self._known.is_own_page(host, origin, site):
            words = "A page of another site may change nothing here while no API key is asked for."
            return problem(HTTPStatus.FORBIDDEN, words, kind=ProblemType.CROSS_SITE)
        return None


def _is_here(peer: str) -> bool:
    address = address_of(peer)  # none with a Unix socket
    return address is None or address.is_loopback


def guard_browsers(app: Flask, settings: Settings) -> Guard | None:
    """Add the headers to every answer and, where no key is asked for, guard every route; returns that guard."""
    app.after_request(_add_headers)
    if settings.auth != "off":
        return None
    guard = Guard(settings)
    app.before_request(guard.check)
    return guard
