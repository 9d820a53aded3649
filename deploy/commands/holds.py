"""Holds from the shell: pause sending, and go on."""

import click
from rich.table import Table

from deploy.commands.auditing import audited, user
from deploy.commands.group import console, on_a_stack, parts
from notifier import holds
from notifier.ids import time_of
from notifier.times import rfc3339


@click.command()
@on_a_stack
@click.argument("target", default=holds.ALL, metavar="[CHANNEL|ROUTE]")
@click.option("--list", "only_list", is_flag=True, help="Only show what is held.")
@audited("target")
def hold(target: str, only_list: bool) -> None:
    """Send nothing more: of a channel, of a route, or at all.

    Nothing is lost: events are accepted, and what would be sent waits and says that it is held. What a worker has
    begun goes out still.
    """
    if not only_list:
        held_by = f"manage.py ({user()})"
        is_new = holds.hold(parts().engine, target, held_by)
        click.echo(f"Held: {target}." if is_new else f"{target} was held already.")
    table = Table("held", "by", "since")
    for each in holds.listed(parts().engine):
        table.add_row(each.target, each.held_by, rfc3339(time_of(each.id)))
    if table.row_count:
        console().print(table)
    else:
        click.echo("Nothing is held.")


@click.command()
@on_a_stack
@click.argument("target", default=holds.ALL, metavar="[CHANNEL|ROUTE]")
@audited("target")
def release(target: str) -> None:
    """Lift a hold. What waited goes out within seconds, oldest first."""
    if not holds.release(parts().engine, target):
        raise click.ClickException(f"{target} is not held.")
    click.echo(f"Released: {target}.")
    left = [each.target for each in holds.listed(parts().engine)]
    if left:
        click.echo(f"Still held: {', '.join(left)}.")
    if parts().settings.hold:
        click.echo("NOTIFIER_HOLD is set: the next start of a worker holds everything again.")
