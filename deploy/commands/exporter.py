"""The command that serves gauges to Prometheus."""

import signal
import sys
from contextlib import suppress

import click

from config.logs import configure_logs
from config.metrics_server import MetricsServer
from deploy.commands.group import load_wiring, on_a_stack
from deploy.exporter import registry_of, send_canaries


@click.command()
@on_a_stack
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9090, show_default=True, type=click.IntRange(1, 65535))
def exporter(host: str, port: int) -> None:
    """Serve gauges of queues, breakers, dead letters, workers and the clock to Prometheus.

    It reads Postgres and the broker at most every few seconds, and sends a canary through every queue once a minute.
    One is enough. The API and the workers count for themselves: docs/metrics.md.
    """
    wires = load_wiring()
    configure_logs(wires.settings)
    registry = registry_of(wires)
    try:
        server = MetricsServer(registry, (host, port), wires.settings.metrics_token)
    except OSError as error:
        raise click.ClickException(f"{host}:{port} cannot be listened on: {error.strerror}") from None
    send_canaries()
    # In a container it may be process 1, which a signal that nobody handles does not end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with suppress(KeyboardInterrupt):
        server.serve_forever()
