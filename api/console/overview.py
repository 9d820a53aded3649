"""The overview: whether all works, what waits, how much flows and how fast, and what is held."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Response, request

from api.console.asking import Refused, answer_of, ask, path
from api.console.pages import page, show
from api.services import services
from notifier.vocabulary.states import ALL_CHANNELS, Channel

_TARGETS: Final = [ALL_CHANNELS, *(channel.value for channel in Channel)]
_SPANS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
#: Seconds after which the page is loaded again.
_REFRESH: Final = 30


@show("")
def overview() -> Response:
    """Show the state of the system, and the figures of the last hour, day or week."""
    chosen = request.args.get("span", "hour")
    chosen = chosen if chosen in _SPANS else "hour"
    figures = {by: _figures(by, _since(chosen)) for by in ("channel", "provider")}
    return page(
        "overview.html",
        title="Overview",
        refresh=_REFRESH,
        ready=answer_of("GET", "/ready").document,
        state=ask("GET", path("state")),
        figures=figures,
        chosen=chosen,
        spans=list(_SPANS),
        targets=_TARGETS,
        newest=ask("GET", path("notifications"), query={"limit": 10})["items"],
        links=_links(),
    )


@show("/figures.csv")
def figures_csv() -> Response:
    """Download the figures of the last hour, day or week as CSV, minute by minute or hour by hour."""
    chosen = request.args.get("span", "hour")
    step = "minute" if chosen == "hour" else "hour"
    query = {"by": "channel", "from": _since(chosen), "step": step, "format": "csv"}
    answer = answer_of("GET", path("stats"), query=query)
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise Refused(answer.status, answer.document["detail"])
    headers = {"Content-Disposition": "attachment; filename=figures.csv"}
    return Response(answer.content, answer.status, headers, mimetype="text/csv")


def _since(chosen: str) -> str:
    span = _SPANS.get(chosen, _SPANS["hour"])
    return (datetime.now(UTC) - span).strftime("%Y-%m-%dT%H:%M:%SZ")


def _figures(by: str, since: str) -> Any:  # noqa: ANN401 -- JSON
    return ask("GET", path("stats"), query={"by": by, "from": since, "step": "total"})


def _links() -> list[tuple[str, str]]:
    """Return the other programs that watch, by the settings."""
    settings = services().wiring.settings
    named = (("Flower", settings.flower_url), ("Grafana", settings.grafana_url))
    return [(name, url) for name, url in named if url and urlsplit(url).scheme in {"http", "https"}]
