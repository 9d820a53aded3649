"""Liveness of a worker, for health checks. They run often, so this imports little."""

import socket
import time
from pathlib import Path

import click

from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier.observability import heartbeats


@click.command()
@on_a_stack
@click.argument("name", required=False)
@click.option(
    "--sign-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Ask the file that a worker or beat of this machine touches, in place of the database.",
)
def alive(name: str | None, sign_file: Path | None) -> None:
    """Tell whether a worker lives, by its exit code: for health checks.

    A probe that has a worker started again asks its file, which is touched while Postgres or the broker is away, too:
    a worker that waits for them is well. One that takes no messages though both answer touches it no more.

    NAME is a worker's node name, with or without its host, or 'clock' for the ticks that beat sends. A worker that is
    named 'clock' is asked for with its host.
    """
    if sign_file is not None and name is None:
        _ask_file(sign_file)
        return
    if name is None or sign_file is not None:
        raise click.UsageError("Give either NAME or --sign-file.")
    alive_now = {(heartbeat.kind, heartbeat.name) for heartbeat, _ in heartbeats.alive(load_wiring().engine)}
    node = name if "@" in name else f"{name}@{socket.gethostname()}"
    wanted = (heartbeats.CLOCK, name) if name == heartbeats.CLOCK else (heartbeats.WORKER, node)
    if wanted not in alive_now:
        raise click.ClickException(f"{name} has not been seen for {heartbeats.GONE_AFTER:.0f} seconds.")
    say(f"{name} is alive.")


def _ask_file(file: Path) -> None:
    try:
        age = time.time() - file.stat().st_mtime
    except OSError as error:
        raise click.ClickException(f"{file} cannot be asked: {error.strerror}.") from None
    if age > heartbeats.GONE_AFTER:
        raise click.ClickException(f"{file} has not been touched for {heartbeats.GONE_AFTER:.0f} seconds.")
    say("It is alive.")
