"""Replay events from the shell."""

from uuid import UUID

import click
from sqlalchemy.orm import Session

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier.events import fan_out
from notifier.models import Event
from tasks import app
from tasks.hints import LEASE, publish_hints


@click.command()
@on_a_stack
@click.argument("event_ids", nargs=-1, required=True, type=click.UUID)
@audited("event_ids")
def replay(event_ids: tuple[UUID, ...]) -> None:
    """Fan events out again, as new notifications."""
    for event_id in event_ids:
        with Session(load_wiring().engine) as session:
            event = session.get(Event, event_id)
        if event is None:
            raise click.ClickException(f"There is no event {event_id}.")
        hints = fan_out.replay(
            load_wiring().engine, vars(event), load_wiring().planner(lambda _: LEASE), load_wiring().subscribers
        )
        publish_hints(app, hints)
        say(f"Replayed {event_id}: {len(hints)} notification{'s' * (len(hints) != 1)} to be sent now.")
