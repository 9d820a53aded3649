"""Health, readiness and metrics, for operators and load balancers."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Final

import structlog
from flask import Flask, Response, current_app, request
from prometheus_client.exposition import choose_encoder
from sqlalchemy.exc import SQLAlchemyError

from api.auth import is_open, requires, takes_metrics_token
from api.resources import Resource
from api.schemas.health import HealthSchema, ReadySchema
from api.services import services
from config.broker import BrokerBlocked, name_of
from notifier import migrations
from notifier.observability import heartbeats, metrics
from notifier.security.api_keys import Scope
from notifier.storage.deadlines import within
from notifier.vocabulary.errors import Unavailable
from tasks import app as celery_app
from tasks.broker_check import check_broker

log = structlog.get_logger()

blp = Resource(
    "operating",
    __name__,
    description="For operators and load balancers; only /metrics wants a key.",
    shows_credentials=False,
)

#: Seconds that `/ready` waits for the answers of all parts.
_READY_SECONDS: Final = 1.5
#: Seconds that a hanging part may keep its thread.
_PART_SECONDS: Final = 5.0
_asking: Final = ThreadPoolExecutor(20, thread_name_prefix="ready")

#: Key of the flag in app.extensions: the database was seen migrated.
_MIGRATED: Final = "notifier.migrated"

#: Returns the fault of a part, if any.
Check = Callable[[], str | None]


@blp.route("/health")
@is_open
@blp.doc(security=[])
@blp.response(200, HealthSchema)
def get_health() -> dict[str, str]:
    """Tell that the process is alive."""
    return {"status": "ok"}


def _found(checks: Mapping[str, Check]) -> dict[str, dict[str, str]]:
    """Return the state of each part. They are asked concurrently, since any of them may hang."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # of the proxy
    asked = {name: _asking.submit(_ask, app, check) for name, check in checks.items()}
    wait(asked.values(), timeout=_READY_SECONDS)
    return {name: each.result() if each.done() else _failed("no answer") for name, each in asked.items()}


def _ask(app: Flask, check: Check) -> dict[str, str]:
    with app.app_context(), within(_PART_SECONDS):
        return _state(check)


def _failed(why: str) -> dict[str, str]:
    return {"status": "failed", "detail": why}


def _state(check: Check) -> dict[str, str]:
    """Return `ok`, or `failed` and why, in words without addresses."""
    try:
        trouble = check()
    except Unavailable as error:
        trouble = str(error)
    except SQLAlchemyError as error:
        trouble = type(getattr(error, "orig", None) or error).__name__
    except Exception as error:
        trouble = type(error).__name__
    return _failed(trouble) if trouble else {"status": "ok"}


def _postgres() -> str | None:
    """Return why no POST can be committed, if so: asked the same way, over the same connection."""
    services().intake.check(_READY_SECONDS)
    with services().wiring.engine.connect():
        return None


def _migrations() -> str | None:
    known = current_app.extensions
    # The check reads all revisions, which is slow; and a migrated database stays migrated.
    pending = None if known.get(_MIGRATED) else migrations.pending(services().wiring.engine)
    known[_MIGRATED] = pending is None
    return f"the database has not reached {pending}; run 'manage.py migrate'" if pending else None


def _broker() -> str | None:
    try:
        check_broker(celery_app)
    except BrokerBlocked as error:
        return str(error)
    return None


def _workers() -> str | None:
    """Return the fault of the workers, if any: none was seen lately, or one takes no messages."""
    engine = services().wiring.engine
    alive = {heartbeat.name for heartbeat, _ in heartbeats.alive(engine) if heartbeat.kind == heartbeats.WORKER}
    # A stuck worker that is alive again has been restarted since.
    stuck = [name for name, _ in heartbeats.stuck(engine, heartbeats.GONE_AFTER) if name not in alive]
    if stuck:
        return f"{', '.join(stuck)}: takes no messages any more"
    return None if alive else "no worker has been seen lately"


def _clock() -> str | None:
    ticks = any(heartbeat.kind == heartbeats.CLOCK for heartbeat, _ in heartbeats.alive(services().wiring.engine))
    return None if ticks else "no tick lately: is beat running, and the clock worker?"


@blp.route("/ready")
@is_open
@blp.doc(security=[])
@blp.response(200, ReadySchema)
@blp.alt_response(503, schema=ReadySchema, description="Postgres or a migration is missing.")
def get_readiness() -> tuple[dict[str, Any], int]:
    """Tell whether requests can be served, and the state of each part.

    503 only where Postgres or a migration is missing; without the broker, workers or clock events are still accepted.
    """
    # By the broker's own name, which operators look for: it may be RabbitMQ.
    broker = name_of(services().wiring.settings.broker)
    found = _found(
        {"postgres": _postgres, "migrations": _migrations, broker: _broker, "workers": _workers, "clock": _clock}
    )
    checks = {"postgres": found["postgres"]}
    if checks["postgres"]["status"] == "ok":
        checks["migrations"] = found["migrations"]
    needed = all(check["status"] == "ok" for check in checks.values())
    checks[broker] = found[broker]
    if needed:
        checks |= {"workers": found["workers"], "clock": found["clock"]}
    status = "ok" if all(check["status"] == "ok" for check in checks.values()) else "degraded"
    answer = {
        "status": status if needed else "unavailable",
        "sandbox": services().wiring.settings.sandbox,
        "checks": checks,
    }
    return answer, 200 if needed else 503


@blp.route("/metrics")
@requires(Scope.READ)
@takes_metrics_token
@blp.response(200, {"type": "string"}, description="In Prometheus' text format.", content_type="text/plain")
def read_metrics() -> Response:
    """Read the metrics of this API process since its start, for Prometheus.

    For a key with the scope `read`, or for NOTIFIER_METRICS_TOKEN as a bearer token. Workers and the exporter serve
    their own: docs/metrics.md. OpenMetrics is answered where it is asked for.
    """
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(metrics.REGISTRY), content_type=content_type)
