"""Recovery of what a subscription missed, from the shell."""

import time
from datetime import datetime
from typing import Final
from uuid import UUID

import click

from deploy.commands.audited_commands import audited, user
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.letter_filters import Moment, say_refused
from deploy.terminal import progress, say
from notifier.resending import recovery
from notifier.webhooks import subscriptions
from tasks import app
from tasks.hints import LEASE, publish_hints

#: Seconds between two looks while another process does a batch.
_LOOK_AGAIN: Final = 0.1


@click.command()
@on_a_stack
@click.argument("subscription_id", type=click.UUID)
@click.option("--since", required=True, type=Moment(), help="From this time on, such as 2026-11-21T09:00:00Z.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@audited("subscription_id", "since")
def recover(subscription_id: UUID, since: datetime, dry_run: bool) -> None:
    """Send all again that failed for a subscription, or was skipped while it was disabled.

    The notifications and their ids stay the same, so a receiver that did get an attempt recognises it. If this stops
    in between, the clock goes on.
    """
    engine = load_wiring().engine
    if subscriptions.find(engine, subscription_id) is None:
        raise click.ClickException("There is no such subscription.")
    if dry_run:
        total = recovery.count_missed(engine, subscription_id, since)
        say(f"Would have recovered {total} notification{'s' * (total != 1)}.")
        return
    standards = load_wiring().standards
    recovery_id, hints = recovery.begin(
        engine, subscription_id, since, _lease, by=f"shell:{user()}", standards=standards
    )
    publish_hints(app, hints)
    done = 0
    found = recovery.find(engine, recovery_id)
    with progress("Recovered", found.total if found else 0) as bar:
        while found:
            now = found.recovered + found.refused
            bar.advance(now - done)
            done = now
            if found.finished_at is not None:
                break
            more = recovery.go_on(engine, _lease, recovery_id, standards)
            if more is None:  # the clock has it in its hands
                time.sleep(_LOOK_AGAIN)
            publish_hints(app, more or [])
            found = recovery.find(engine, recovery_id)
    recovered = found.recovered if found else 0
    say(f"Recovered {recovered} notification{'s' * (recovered != 1)}.")
    say_refused((found.refused_reasons if found else None) or {})


def _lease(_: str) -> float:
    return LEASE
