"""Imports of commands: health checks and people's looks start often, so they load only what they use."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import QUICK, clean_environment
from tests.support.paths import ROOT

#: Run as manage.py is, and then name the modules that stand in the process.
_RUN: Final = """
import contextlib, io, sys
from deploy.commands.cli import cli
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    cli(sys.argv[1:], prog_name="manage.py")
print(*sys.modules)
"""
#: The same for beat, once it has sent a tick.
_RUN_BEAT: Final = """
import os, sys, threading, time
from pathlib import Path
from deploy.commands.cli import cli
def tell():
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
    print(*sys.modules, flush=True)
    os._exit(0)
threading.Thread(target=tell).start()
cli(["beat", "--sign-file", sys.argv[1]], prog_name="manage.py")
"""
#: Libraries that workers, the API and single commands need, and which take longer to import than most commands to run.
_HEAVY: Final = {
    *("alembic", "apprise", "api", "celery", "email_validator", "flask", "jinja2", "kombu", "limits", "marshmallow"),
    *("notifier.delivery.batch", "opentelemetry", "phonenumbers", "pycurl", "redis", "requests"),
}
#: Everything else that is known to take long.
_SLOW: Final = _HEAVY | {"config.settings", "cryptography", "prometheus_client", "rich", "sqlalchemy", "structlog"}


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_loads_no_command(arguments: str) -> None:
    loaded = modules_of(arguments, clean_environment())
    assert "click" in loaded
    assert not _SLOW & loaded
    assert not {name for name in loaded if name.startswith("deploy.commands.")} - {
        *("deploy.commands.cli", "deploy.commands.group"),
    }


@pytest.mark.parametrize("arguments", ["alive clock", "api-keys list", "dlq list", "hold", "outbox", "audit"])
def test_commands_that_only_ask_postgres_load_nothing_else(arguments: str, database_url: str) -> None:
    loaded = modules_of(arguments, {**clean_environment(), **QUICK, "DATABASE_URL": database_url})
    assert "psycopg2" in loaded
    assert not _HEAVY & loaded


def test_status_loads_the_broker_and_nothing_that_delivers(database_url: str, new_redis: Callable[[], str]) -> None:
    environment = {**clean_environment(), **QUICK, "DATABASE_URL": database_url, "REDIS_URL": new_redis()}
    loaded = modules_of("status", environment)
    assert {"kombu", "redis"} <= loaded
    # redis-py imports OpenTelemetry wherever that is installed.
    assert not (_HEAVY - {"celery", "kombu", "limits", "opentelemetry", "redis"}) & loaded


def test_beat_loads_the_broker_and_none_of_its_tasks(new_redis: Callable[[], str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN_BEAT, tmp_path / "sign"],
        env={**clean_environment(), "REDIS_URL": new_redis()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert {"celery.beat", "redis", "tasks.beat"} <= loaded
    assert (
        not {"tasks.clock", "tasks.deliver", "sqlalchemy", "psycopg2", "notifier.models", "prometheus_client"} & loaded
    )
    assert not (_HEAVY - {"celery", "kombu", "opentelemetry", "redis"}) & loaded


def modules_of(arguments: str, environment: dict[str, str]) -> set[str]:
    """Return the names of the modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments.split()],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())
