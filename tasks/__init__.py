"""Celery, thin: `celery -A tasks worker` and `celery -A tasks beat`. What the tasks do stands in `notifier`."""

from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging

from config.logs import configure_logs
from config.wiring import wiring

app = Celery("notifier", config_source="celeryconfig", include=["tasks.clock", "tasks.deliver", "tasks.fan_out"])
app.set_default()

log = structlog.get_logger()


@setup_logging.connect
def _configure_logs(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    configure_logs(wiring().settings)
