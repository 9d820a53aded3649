"""The command that runs a Celery worker.

In this process, by what `celery worker` calls itself: its command line would import all of Celery's commands and
Flower's, and all of ours once more, which together is half of a start.
"""

import os
import socket
import sys
from pathlib import Path

import click

from config.queues import WORKERS
from config.settings import load_settings
from deploy.commands.group import load_wiring, on_a_stack
from deploy.process_limits import give_memory_back, raise_descriptors
from tasks import app, watchdog


@click.command()
@on_a_stack
@click.argument("role", type=click.Choice([*WORKERS, "all"]))
@click.option("--name", help="Its node name; unique among workers.  [default: ROLE]")
@click.option("--concurrency", type=click.IntRange(1, 256), help="Threads.  [default: NOTIFIER_WORKER_CONCURRENCY]")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Serve metrics on this port of 127.0.0.1.  [default: NOTIFIER_METRICS_ADDRESS]",
)
@click.option(
    "--sign-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that it touches every few seconds, as long as it takes messages: for 'alive'.",
)
def worker(
    role: str, name: str | None, concurrency: int | None, metrics_port: int | None, sign_file: Path | None
) -> None:
    """Run a Celery worker.

    ROLE says what it works on: 'fresh' fans events out and sends notifications, 'retry' sends those that failed
    before, 'clock' hands over what is due. Keep them apart, so that hanging retries hold up nothing else; 'all'
    is for trying things out.

    One that takes no messages any more, though Postgres and the broker answer, ends itself after
    NOTIFIER_WORKER_STUCK_AFTER: have it started again whenever it ends.
    """
    if metrics_port is not None:
        os.environ["NOTIFIER_METRICS_ADDRESS"] = f"127.0.0.1:{metrics_port}"
    settings = load_settings()
    give_memory_back()
    raise_descriptors()
    # It also starts the counters that alerts watch at 0, before the first call to each provider.
    load_wiring().check_providers()
    hostname = f"{name or role}@{socket.gethostname()}"
    stuck_after = max(settings.worker_stuck_after.total_seconds(), 1.5 * load_wiring().longest_batch)
    watchdog.own = watchdog.Watchdog(app, load_wiring().engine, hostname, stuck_after=stuck_after, sign_file=sign_file)
    consumed = WORKERS.get(role) or [queue for queues in WORKERS.values() for queue in queues]
    node = app.Worker(
        queues=[*consumed, watchdog.own.declare()],
        hostname=hostname,
        # One tick at a time: a second one would find nothing left to do.
        concurrency=1 if role == "clock" else concurrency,
        without_gossip=True,
        without_mingle=True,
        loglevel="WARNING",  # for its banner; what is logged is up to config.logs
    )
    node.start()
    sys.exit(node.exitcode)
