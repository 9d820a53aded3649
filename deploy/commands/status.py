"""`manage.py status`: tables of queues, rows, holds, dead letters and workers."""

from datetime import UTC, datetime

import click
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import func, select

from config.queues import ALL
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import in_words, say, show_table
from notifier.models import DeadLetter
from notifier.notifications import holds
from notifier.observability import heartbeats
from notifier.scheduling.due import live_rows
from tasks import app
from tasks.queue_depth import depth


def _messages() -> dict[str, int] | None:
    """Return the messages by queue; None if the broker is unreachable."""
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
    for live in live_rows(load_wiring().engine):
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
        show_table(("queue", "status", *numbers), queues, title="Waiting", right=numbers)
    else:
        say("Nothing waits.")
    held = [each.target for each in holds.listed(load_wiring().engine)]
    if held:
        say(f"Held: {', '.join(held)}. 'manage.py release' lets it go.", fg="yellow")
    if messages is None:
        say("The broker cannot be reached: the clock hands everything over when it is back.", fg="yellow")

    standing = select(DeadLetter.channel, DeadLetter.reason, func.count(), func.max(DeadLetter.created_at))
    standing = standing.where(DeadLetter.requeued_at.is_(None)).group_by(DeadLetter.channel, DeadLetter.reason)
    with load_wiring().engine.connect() as connection:
        letters = connection.execute(standing.order_by(DeadLetter.channel, DeadLetter.reason)).all()
    if letters:
        rows = [(channel or "-", reason, f"{count:,}", _due(newest)) for channel, reason, count, newest in letters]
        show_table(("channel", "reason", "letters", "newest"), rows, title="Dead letters")
    else:
        say("No dead letters.")

    alive = heartbeats.alive(load_wiring().engine)
    if alive:
        seen = [(beat.name, ", ".join(beat.queues) or "ticks", f"{in_words(age)} ago") for beat, age in alive]
        show_table(("worker", "queues", "seen"), seen, title="Alive")
    else:
        say("No worker and no clock has been seen lately.", fg="yellow")
    for name, age in heartbeats.stuck(load_wiring().engine):
        say(f"{name} took no messages any more, and ended itself {in_words(age)} ago; see its log.", fg="yellow")
