"""Recovery of what a subscription missed, from the shell."""

from datetime import datetime
from uuid import UUID

import click
from rich.progress import Progress

from deploy.commands.dlq import Moment
from deploy.commands.group import console, on_a_stack, parts
from notifier import recovery, subscriptions
from tasks import app
from tasks.hints import LEASE, publish_hints


@click.command()
@on_a_stack
@click.argument("subscription_id", type=click.UUID)
@click.option("--since", required=True, type=Moment(), help="From this time on, such as 2026-11-21T09:00:00Z.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
def recover(subscription_id: UUID, since: datetime, dry_run: bool) -> None:
    """Send all again that failed for a subscription, or was skipped while it was disabled.

    The notifications and their ids stay the same, so a receiver that did get an attempt recognises it. Where it stops,
    what was done before is kept; run it again.
    """
    wires = parts()
    if subscriptions.find(wires.engine, subscription_id) is None:
        raise click.ClickException("There is no such subscription.")
    total = recovery.count_missed(wires.engine, subscription_id, since)
    if dry_run:
        click.echo(f"Would have recovered {total} notification{'s' * (total != 1)}.")
        return
    done = 0
    with Progress(console=console()) as progress:
        bar = progress.add_task("Recovered", total=total)
        for hints in recovery.recover(wires.engine, subscription_id, since, lambda _: LEASE):
            publish_hints(app, hints)
            done += len(hints)
            progress.advance(bar, len(hints))
    click.echo(f"Recovered {done} notification{'s' * (done != 1)}.")
