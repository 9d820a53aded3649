"""What is going on, in one table each."""

import socket
from datetime import UTC, datetime

import click
from kombu.exceptions import OperationalError as BrokerError
from rich.table import Table
from sqlalchemy import func, select

from config.queues import ALL
from deploy.commands.group import console, on_a_stack, parts
from notifier import heartbeats, holds
from notifier.handover import live_rows
from notifier.models import DeadLetter
from tasks import app
from tasks.hints import depth


def _messages() -> dict[str, int] | None:
    """Messages by queue; None where the broker cannot be reached."""
    try:
        with app.connection_for_write() as connection:
            return {queue: depth(connection, queue) for queue in ALL}
    except (BrokerError, *app.connection_for_write().recoverable_connection_errors):
        return None


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _due(oldest: datetime) -> str:
    late = (datetime.now(UTC) - oldest).total_seconds()
    return f"{_seconds(late)} ago" if late >= 0 else f"in {_seconds(-late)}"


def _queues(messages: dict[str, int] | None) -> Table:
    table = Table("queue", "status", title="What waits", title_justify="left")
    for column in ("rows", "oldest due", "messages"):
        table.add_column(column, justify="right")
    shown = set()
    for live in live_rows(parts().engine):
        in_redis = "?" if messages is None else str(messages.get(live.queue, 0))
        again = live.queue in shown
        table.add_row(live.queue, live.status, f"{live.rows:,}", _due(live.oldest), "" if again else in_redis)
        shown.add(live.queue)
    for queue, count in (messages or {}).items():
        if count and queue not in shown:
            table.add_row(queue, "", "0", "", str(count))
    return table


@click.command()
@on_a_stack
def status() -> None:
    """Show queues, live rows by status, the oldest due, dead letters and workers."""
    out, messages = console(), _messages()
    queues = _queues(messages)
    out.print(queues if queues.row_count else "Nothing waits.")
    held = [each.target for each in holds.listed(parts().engine)]
    if held:
        out.print(f"[yellow]Held:[/] {', '.join(held)}. 'manage.py release' lets it go.")
    if messages is None:
        out.print("[yellow]The broker cannot be reached:[/] the clock hands everything over when it is back.")

    standing = select(DeadLetter.channel, DeadLetter.reason, func.count(), func.max(DeadLetter.created_at))
    standing = standing.where(DeadLetter.requeued_at.is_(None)).group_by(DeadLetter.channel, DeadLetter.reason)
    with parts().engine.connect() as connection:
        letters = connection.execute(standing.order_by(DeadLetter.channel, DeadLetter.reason)).all()
    if letters:
        table = Table("channel", "reason", "letters", "newest", title="Dead letters", title_justify="left")
        for channel, reason, count, newest in letters:
            table.add_row(channel or "-", reason, f"{count:,}", _due(newest))
        out.print(table)
    else:
        out.print("No dead letters.")

    alive = heartbeats.alive(parts().engine)
    if alive:
        table = Table("worker", "queues", "seen", title="Alive", title_justify="left")
        for heartbeat, age in alive:
            table.add_row(heartbeat.name, ", ".join(heartbeat.queues) or "ticks", f"{_seconds(age)} ago")
        out.print(table)
    else:
        out.print("[yellow]No worker and no clock has been seen lately.[/]")


@click.command()
@on_a_stack
@click.argument("name")
def alive(name: str) -> None:
    """Tell whether a worker lives, by its exit code: for health checks.

    NAME is a worker's node name, with or without its host, or 'clock' for the ticks that beat sends. A worker that is
    named 'clock' is asked for with its host.
    """
    alive_now = {(heartbeat.kind, heartbeat.name) for heartbeat, _ in heartbeats.alive(parts().engine)}
    node = name if "@" in name else f"{name}@{socket.gethostname()}"
    wanted = (heartbeats.CLOCK, name) if name == heartbeats.CLOCK else (heartbeats.WORKER, node)
    if wanted not in alive_now:
        raise click.ClickException(f"{name} has not been seen for {heartbeats.GONE_AFTER:.0f} seconds.")
    click.echo(f"{name} is alive.")
