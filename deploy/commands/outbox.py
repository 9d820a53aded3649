"""The local outbox, where messages go that have no provider yet."""

from textwrap import indent

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.reveal_option import revealing
from deploy.terminal import printable, say, shown_address
from notifier.models import OutboxMessage
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339


@click.command()
@on_a_stack
@revealing("recipient")
@click.option("--channel", type=click.Choice([channel.value for channel in Channel]), help="Only this channel.")
@click.option("--recipient", help="Only this recipient.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
def outbox(channel: str | None, recipient: str | None, limit: int) -> None:
    """Show what was sent on channels that have no provider, newest last."""
    query = select(OutboxMessage).order_by(OutboxMessage.id.desc()).limit(limit)
    if channel:
        query = query.where(OutboxMessage.channel == channel)
    if recipient:
        query = query.where(
            OutboxMessage.recipient.in_(
                load_wiring().seals.forms_sought(Channel(channel) if channel else None, recipient)
            )
        )
    with Session(load_wiring().engine) as session:
        messages = session.scalars(query).all()
    if not messages:
        say("The outbox is empty.")
    for message in reversed(messages):
        say(f"{message.channel} to {shown_address(message.recipient)}, {rfc3339(message.created_at)}", bold=True)
        say(f"notification {message.notification_id}")
        text = "\n\n".join(filter(None, (message.subject and printable(message.subject), message.text)))
        # Set in, so that no text passes for the head of another message.
        say(f"\n{indent(printable(text, lines=True), '  ')}\n", lines=True)
