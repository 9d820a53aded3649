"""Flower with its gaps closed: `python -m deploy.flower`.

Its /metrics stand behind its password, as everything else of it: Flower itself gives them to anybody, whatever password
is set, and they name workers and tasks. Without a password, pages of other sites get nothing of it
(config.allowed_hosts).
"""

from typing import Any, Final

from celery.__main__ import main
from flower.app import Flower
from flower.views.monitor import Metrics
from tornado.httputil import HTTPServerRequest
from tornado.web import ErrorHandler, authenticated

from config.allowed_hosts import AllowedHosts
from config.settings import load_allowed_hosts

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def _guard(known: AllowedHosts) -> None:
    """Have Flower answer requests that another site's page may have made with an error."""
    find_handler = Flower.find_handler

    def guarded(self: Flower, request: HTTPServerRequest, **options: Any) -> Any:  # noqa: ANN401 -- Tornado's own
        if not (self.options.basic_auth or self.options.auth):
            host, headers = request.headers.get("Host"), request.headers
            if not known.serves(host):
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 421})
            is_own = known.is_own_page(host, headers.get("Origin"), headers.get("Sec-Fetch-Site"))
            if request.method not in _READING and not is_own:
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})
        return find_handler(self, request, **options)

    Flower.find_handler = guarded


Metrics.get = authenticated(Metrics.get)

if __name__ == "__main__":
    _guard(load_allowed_hosts())
    main()
