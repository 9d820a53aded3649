"""Recovery of what a subscription missed, from the shell."""

from datetime import datetime
from uuid import UUID

import click
from rich.progress import Progress

from deploy.commands.auditing import audited, user
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
@audited("subscription_id", "since")
def recover(subscription_id: UUID, since: datetime, dry_run: bool) -> None:
    """Send all again that failed for a subscription, or was skipped while it was disabled.

    The notifications and their ids stay the same, so a receiver that did get an attempt recognises it. Where this stops
    in between, the clock goes on.
    """
    engine = parts().engine
    if subscriptions.find(engine, subscription_id) is None:
        raise click.ClickException("There is no such subscription.")
    if dry_run:
        total = recovery.count_missed(engine, subscription_id, since)
        click.echo(f"Would have recovered {total} notification{'s' * (total != 1)}.")
        return
    recovery_id = recovery.begin(engine, subscription_id, since, f"shell:{user()}")
    with Progress(console=console()) as progress:
        bar = progress.add_task("Recovered", total=None)
        while (found := recovery.find(engine, recovery_id)) and found.finished_at is None:
            publish_hints(app, recovery.go_on(engine, lambda _: LEASE, recovery_id, parts().standards) or [])
            progress.update(bar, total=found.total, completed=found.recovered + found.refused)
        done = found.recovered if found else 0
        progress.update(bar, total=done, completed=done)
    click.echo(f"Recovered {done} notification{'s' * (done != 1)}.")
    if found and found.refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted((found.refused_reasons or {}).items()))
        click.echo(f"Left alone {found.refused} that a rule forbids to send: {reasons}.")
