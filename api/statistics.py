"""Statistics: what was accepted, sent and given up, and how long it took; and the state of the system now."""

import csv
import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from flask import Response, request

from api.auth import requires
from api.resources import Resource
from api.schemas.statistics import StatisticsQuery, StatisticsSchema, SystemStateSchema
from api.services import services
from notifier.diagnostics import system_state
from notifier.diagnostics.system_state import SystemState
from notifier.security.api_keys import Scope
from notifier.statistics import figures
from notifier.statistics.figures import Answer, Question
from notifier.vocabulary.timestamps import rfc3339

blp = Resource(
    "statistics",
    __name__,
    description="Figures by minute and hour, and the state of queues, providers, endpoints and processes.",
    shows_credentials=False,
)

_CSV: Final = "text/csv"
_JSON: Final = "application/json"
#: A spreadsheet takes a cell that begins with one of these for a formula, which may run commands.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_CSV_EXAMPLE: Final = "start,channel,name,accepted,attempts\n2026-11-29T13:00:00Z,email,email,1024,1019\n"


@blp.route("/api/v1/stats")
@requires(Scope.READ)
@blp.arguments(StatisticsQuery, location="query", as_kwargs=False)
@blp.response(200, StatisticsSchema)
@blp.alt_response(200, schema={"type": "string"}, content_type=_CSV, example=_CSV_EXAMPLE, success=True)
def get_statistics(asked: dict[str, Any]) -> Response:
    """Read figures of a span of time, by channel, provider, event type, source or queue.

    They are counted once a minute, a few seconds after its end. More than 10,000 items are a 422. With
    `Accept: text/csv` or `format=csv` the items come as CSV, with the members of `call` and `wait` as columns
    `call_p50_ms` and so on.
    """
    until = asked["until"] or datetime.now(UTC)
    question = Question(asked["by"], asked["step"], asked["since"], until, asked["name"])
    answer = figures.ask(services().wiring.engine, question)
    if (asked["format"] or _preferred()) == "csv":
        return Response(_as_csv(answer), mimetype=_CSV)
    # Not by the schema: it takes a hundred times as long for the 7,200 items of a day by minute.
    document = {
        "by": question.by,
        "step": question.step,
        "from": rfc3339(answer.since),
        "to": rfc3339(answer.until),
        "complete_until": answer.complete_until and rfc3339(answer.complete_until),
        "items": list(_items(answer)),
    }
    return Response(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE), mimetype=_JSON)


def _preferred() -> str:
    return "csv" if request.accept_mimetypes.best_match([_JSON, _CSV], default=_JSON) == _CSV else "json"


def _items(answer: Answer) -> Iterator[dict[str, Any]]:
    written = {moment: rfc3339(moment) for moment in {item["start"] for item in answer.items}}
    return ({**item, "start": written[item["start"]]} for item in answer.items)


_COLUMNS: Final = (
    *("start", "channel", "name", "accepted", "attempts", "sent", "rejected", "unsent", "ambiguous", "retries"),
    *("delivered", "failed", "success_rate", "call_p50_ms", "call_p95_ms", "call_p99_ms"),
    *("wait_p50_ms", "wait_p95_ms", "wait_p99_ms"),
)


def _as_csv(answer: Answer) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, _COLUMNS)
    writer.writeheader()
    writer.writerows(_flat(item) for item in _items(answer))
    return written.getvalue()


def _flat(item: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: _cell(value) for name, value in item.items() if name not in {"call", "wait"}}
    return flat | {f"{part}_{name}": value for part in ("call", "wait") for name, value in item[part].items()}


def _cell(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: callers choose the names of event types and sources."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


@blp.route("/api/v1/state")
@requires(Scope.READ)
@blp.response(200, SystemStateSchema)
def get_state() -> SystemState:
    """Read the state of queues, providers, endpoints, holds and processes, all at one moment.

    Depths are of rows in Postgres, where everything waits: a broker's queue never holds more than 64 messages.
    """
    engine = services().wiring.engine
    return system_state.read(engine, figures.attempts_per_minute(engine))
