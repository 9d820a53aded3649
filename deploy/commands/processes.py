"""The commands that become one of Notifier's processes, and the one that migrates."""

import os
import socket

import click

from config.queues import WORKERS
from config.wiring import wiring
from deploy.commands.auditing import audited, nothing_changed
from deploy.commands.group import become, on_a_stack, parts
from notifier import migrations


@click.command()
@on_a_stack
@audited()
def migrate() -> None:
    """Bring the database to this version, and make the partitions of the days to come.

    Safe to repeat, and to run from several places at once.
    """
    engine = parts().engine
    pending = migrations.pending(engine)
    migrations.upgrade(engine)
    if pending is None:
        nothing_changed()
    click.echo(f"Migrated to {pending}." if pending else "Nothing to migrate.")


@click.command()
@on_a_stack
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 64), help="API processes.")
@click.option("--threads", default=64, show_default=True, type=click.IntRange(1, 1024), help="Threads in each.")
def api(host: str, port: int, processes: int, threads: int) -> None:
    """Serve the HTTP API, with granian.

    Of several processes each answers /metrics for itself: where that is scraped, run more of one process each instead.
    """
    wiring()  # a wrong setting stops here, in one line
    become(
        "granian",
        *("--interface", "wsgi", "--factory", "--host", host, "--port", str(port)),
        *("--workers", str(processes), "--blocking-threads", str(threads), "--backlog", "2048"),
        *("--backpressure", str(threads * 4), "--no-ws", "--http", "1", "--respawn-failed-workers"),
        *("--workers-kill-timeout", "10", "--log-level", "warning"),
        "api.app:create_app",
    )


@click.command()
@on_a_stack
@click.argument("lane", type=click.Choice([*WORKERS, "all"]))
@click.option("--name", help="Its node name; unique among workers.  [default: LANE]")
@click.option("--concurrency", type=click.IntRange(1, 256), help="Threads.  [default: NOTIFIER_WORKER_CONCURRENCY]")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Serve metrics on this port of 127.0.0.1.  [default: NOTIFIER_METRICS_ADDRESS]",
)
def worker(lane: str, name: str | None, concurrency: int | None, metrics_port: int | None) -> None:
    """Run a Celery worker.

    LANE says what it works on: 'fresh' fans events out and sends notifications, 'retry' sends those that failed
    before, 'clock' hands over what is due. Keep them apart, so that hanging retries hold up nothing else; 'all'
    is for trying things out.
    """
    if metrics_port is not None:
        os.environ["NOTIFIER_METRICS_ADDRESS"] = f"127.0.0.1:{metrics_port}"
    wiring()
    queues = WORKERS.get(lane) or [queue for consumed in WORKERS.values() for queue in consumed]
    # One tick at a time: a second one would find nothing left to do.
    threads = 1 if lane == "clock" else concurrency
    become(
        "celery",
        *("--app", "tasks", "worker", "--queues", ",".join(queues)),
        *("--hostname", f"{name or lane}@{socket.gethostname()}", "--without-gossip", "--without-mingle"),
        *(("--concurrency", str(threads)) if threads else ()),
    )


@click.command()
@on_a_stack
def beat() -> None:
    """Run Celery's beat, which keeps time. Run two, on different machines: ticks are idempotent."""
    wiring()
    become("celery", "--app", "tasks", "beat", "--pidfile", "")


@click.command()
@on_a_stack
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5555, show_default=True, type=click.IntRange(1, 65535))
def flower(address: str, port: int) -> None:
    """Watch workers and tasks in the browser, with Flower.

    FLOWER_BASIC_AUTH=USER:PASSWORD in the environment asks for a password.
    """
    wiring()
    become("deploy.flower", "--app", "tasks", "flower", f"--address={address}", f"--port={port}")
