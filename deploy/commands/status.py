"""What is going on, in one table each."""

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import func, select

from config.queues import ALL
from deploy.commands.group import on_a_stack, parts
from deploy.terminal import in_words, say, show_table
from notifier.models import DeadLetter
from notifier.notifications import holds
from notifier.observability import heartbeats
from notifier.scheduling.due import live_rows
from tasks import app
from tasks.hints import depth


def _messages() -> dict[str, int] | None:
    """Messages by queue; None where the broker cannot be reached."""
    try:
        with app.connection_for_write() as connection:
            return {queue: depth(connection, queue) for queue in ALL}
    except (BrokerError, *app.connection_for_write().recoverable_connection_errors):
        return None


def _due(oldest: datetime) -> str:
    late = (datetime.now(UTC) - oldest).total_seconds()
    return f"{in_words(late)} ago" if late >= 0 else f"in {in_words(-late)}"


def _queues(messages: dict[str, int] | None) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    shown = set()
    for live in live_rows(parts().engine):
        in_redis = "?" if messages is None else str(messages.get(live.queue, 0))
        again = live.queue in shown
        rows.append((live.queue, live.status, f"{live.rows:,}", _due(live.oldest), "" if again else in_redis))
        shown.add(live.queue)
    for queue, count in (messages or {}).items():
        if count and queue not in shown:
            rows.append((queue, "", "0", "", count))
    return rows


@click.command()
@on_a_stack
def status() -> None:
    """Show queues, live rows by status, the oldest due, dead letters and workers."""
    messages = _messages()
    if queues := _queues(messages):
        numbers = ("rows", "oldest due", "messages")
        show_table(("queue", "status", *numbers), queues, title="What waits", right=numbers)
    else:
        say("Nothing waits.")
    held = [each.target for each in holds.listed(parts().engine)]
    if held:
        say(f"Held: {', '.join(held)}. 'manage.py release' lets it go.", fg="yellow")
    if messages is None:
        say("The broker cannot be reached: the clock hands everything over when it is back.", fg="yellow")

    standing = select(DeadLetter.channel, DeadLetter.reason, func.count(), func.max(DeadLetter.created_at))
    standing = standing.where(DeadLetter.requeued_at.is_(None)).group_by(DeadLetter.channel, DeadLetter.reason)
    with parts().engine.connect() as connection:
        letters = connection.execute(standing.order_by(DeadLetter.channel, DeadLetter.reason)).all()
    if letters:
        rows = [(channel or "-", reason, f"{count:,}", _due(newest)) for channel, reason, count, newest in letters]
        show_table(("channel", "reason", "letters", "newest"), rows, title="Dead letters")
    else:
        say("No dead letters.")

    alive = heartbeats.alive(parts().engine)
    if alive:
        seen = [(beat.name, ", ".join(beat.queues) or "ticks", f"{in_words(age)} ago") for beat, age in alive]
        show_table(("worker", "queues", "seen"), seen, title="Alive")
    else:
        say("No worker and no clock has been seen lately.", fg="yellow")
    for name, age in heartbeats.stuck(parts().engine):
        say(f"{name} took no messages any more, and ended itself {in_words(age)} ago; see its log.", fg="yellow")


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
    alive_now = {(heartbeat.kind, heartbeat.name) for heartbeat, _ in heartbeats.alive(parts().engine)}
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
