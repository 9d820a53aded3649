"""The audit log from the shell."""

from datetime import datetime

import click

from deploy.commands.group import on_a_stack, parts
from deploy.commands.moments import When
from deploy.terminal import say, show_table
from notifier import audit as stored
from notifier.times import rfc3339


@click.command()
@on_a_stack
@click.option("--since", type=When(back=True), help="Only from then on: PT1H (an hour ago), 2026-11-21, or a time.")
@click.option("--actor", help="Only this key's name, or shell:USER.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
def audit(since: datetime | None, actor: str | None, limit: int) -> None:
    """Show who did what, newest first: with keys of scope admin, and with commands that change something."""
    lines = stored.lines(parts().engine, since=since, actor=actor, limit=limit + 1)
    if not lines:
        say("The audit log has no such line." if since or actor else "The audit log is empty.")
        return
    rows = [
        (
            rfc3339(line.at.replace(microsecond=0)),
            *(line.actor, line.action, line.target or "", line.outcome, line.request_id or ""),
        )
        for line in lines[:limit]
    ]
    show_table(("at", "actor", "action", "target", "outcome", "request id"), rows)
    if len(lines) > limit:
        say(f"There are more: --limit shows more than {limit}.")
