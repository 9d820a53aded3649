"""Celery, thin: `celery -A tasks worker` and `celery -A tasks beat`. The tasks' work is in `notifier`.

Commands import the app to count or send messages, so that the handlers of a worker's signals import what they need.
"""

from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, task_prerun, worker_init

from tasks.message_headers import REQUEST_ID, TRACEPARENT

_TASKS = ["tasks.canary", "tasks.clock", "tasks.deliver", "tasks.fan_out"]
app = Celery("notifier", config_source="celeryconfig", include=_TASKS, task_cls="tasks.guarded_task:GuardedTask")
app.set_default()

log = structlog.get_logger()


@setup_logging.connect
def _configure_logs(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    from config.logs import configure_logs  # noqa: PLC0415 -- see above
    from config.settings import load_settings  # noqa: PLC0415 -- see above

    configure_logs(load_settings(database=False))


@worker_init.connect
def _start_tracing(sender: Any, **_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    from config.tracing import start_tracing  # noqa: PLC0415 -- see above
    from config.wiring import wiring  # noqa: PLC0415 -- see above

    start_tracing(wiring().settings, str(sender.hostname))


@task_prerun.connect
def _name_the_task(task: Any, **_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    """Bind the task's name and its message's request to all its log lines."""
    structlog.contextvars.clear_contextvars()
    named = {
        "task": task.name,
        "request_id": task.request.get(REQUEST_ID),
        "traceparent": task.request.get(TRACEPARENT),
    }
    structlog.contextvars.bind_contextvars(**{name: value for name, value in named.items() if value is not None})


@worker_init.connect
def _serve_metrics(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    from config.metrics_server import MetricsServer  # noqa: PLC0415 -- see above
    from config.wiring import wiring  # noqa: PLC0415 -- see above
    from notifier.observability.metrics import REGISTRY  # noqa: PLC0415 -- see above

    settings = wiring().settings
    if settings.metrics_address is None:
        return
    try:
        MetricsServer(REGISTRY, settings.metrics_address, settings.metrics_token).start()
    except OSError as error:
        # A worker that cannot be watched still delivers.
        log.error("metrics_not_served", error=error.strerror)  # noqa: TRY400 -- foreseen
