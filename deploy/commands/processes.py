"""The commands that become another program: granian and Flower."""

import click

from config.settings import load_broker_settings, load_settings
from deploy.commands.group import become, on_a_stack
from deploy.ports import try_to_listen, url_of
from deploy.terminal import say


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
    load_settings()  # a wrong setting stops here, in one line
    try:
        try_to_listen(host, port)  # granian would say in a traceback that it cannot
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    say(f"Listening on {url_of(host, port)}.")
    become(
        "granian",
        *("--interface", "wsgi", "--factory", "--host", host, "--port", str(port)),
        *("--workers", str(processes), "--blocking-threads", str(threads), "--backlog", "2048"),
        *("--backpressure", str(threads * 4), "--no-ws", "--http", "1", "--respawn-failed-workers"),
        *("--workers-kill-timeout", "10", "--log-level", "error"),
        "api.app:create_app",
    )


@click.command()
@on_a_stack
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5555, show_default=True, type=click.IntRange(1, 65535))
def flower(address: str, port: int) -> None:
    """Watch workers and tasks in the browser, with Flower.

    FLOWER_BASIC_AUTH=USER:PASSWORD in the environment asks for a password.
    """
    load_broker_settings()
    become("deploy.flower", "--app", "tasks", "flower", f"--address={address}", f"--port={port}")
