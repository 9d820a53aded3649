"""The commands that become another program: the HTTP server and Flower."""

import os

import click

from config.allowed_hosts import listens_on_loopback
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
    """Serve the HTTP API.

    Of several processes each answers /metrics for itself: where that is scraped, run more of one process each instead.
    """
    settings = load_settings()  # a wrong setting stops here, in one line
    try:
        if settings.auth == "off" and not listens_on_loopback(host):
            raise click.ClickException(
                f"NOTIFIER_AUTH=off and --host {host} exclude one another: without keys, whoever reaches the API may do"
                " everything, so that it listens on 127.0.0.1 or another address of this machine alone"
            )
        try_to_listen(host, port)  # in one line, before all else is loaded
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    # glibc's malloc: what large bodies and answers took goes back at once, so that bounds of memory are what they say.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(256 * 1024))
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    say(f"Listening on {url_of(host, port)}.")
    become(
        "api.serving",
        *("--host", host, "--port", str(port), "--processes", str(processes), "--threads", str(threads)),
    )


@click.command()
@on_a_stack
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5555, show_default=True, type=click.IntRange(1, 65535))
def flower(address: str, port: int) -> None:
    """Watch workers and tasks in the browser, with Flower.

    FLOWER_BASIC_AUTH=USER:PASSWORD in the environment asks for a password. Without one it listens on this
    machine alone.
    """
    load_broker_settings()
    has_password = any(os.environ.get(name) for name in ("FLOWER_BASIC_AUTH", "FLOWER_AUTH"))
    try:
        is_safe = has_password or listens_on_loopback(address)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address}: {error.strerror or error}") from None
    if not is_safe:
        raise click.ClickException(
            f"--address {address} wants FLOWER_BASIC_AUTH=USER:PASSWORD: without a password, whoever reaches it sees"
            " everything, so that it listens on 127.0.0.1 or another address of this machine alone"
        )
    become("deploy.flower", "--app", "tasks", "flower", f"--address={address}", f"--port={port}")
