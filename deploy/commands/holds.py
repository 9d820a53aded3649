"""Holds from the shell: pause sending, and go on."""

import click

from deploy.commands.audited_commands import audited, nothing_changed, user
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say, show_table
from notifier.notifications import holds
from notifier.vocabulary.ids import time_of
from notifier.vocabulary.states import ALL_CHANNELS
from notifier.vocabulary.timestamps import rfc3339


@click.command()
@on_a_stack
@click.argument("target", required=False, metavar="[CHANNEL|ROUTE]")
@click.option("--all", "everything", is_flag=True, help="Hold everything.")
@click.option("--list", "only_list", is_flag=True, help="Only show what is held, as without arguments.")
@audited("target", "everything")
def hold(target: str | None, everything: bool, only_list: bool) -> None:
    """Send nothing more: of a channel, of a route, or with --all nothing at all. Without arguments, show what is held.

    Nothing is lost: events are accepted, and notifications wait and say that they are held. A message that a worker has
    begun goes out still.
    """
    if everything and target not in {None, ALL_CHANNELS}:
        raise click.UsageError("Name a channel or a route, or say --all.")
    if everything:
        target = ALL_CHANNELS
    if target is None or only_list:
        nothing_changed()
    else:
        held_by = f"manage.py ({user()})"
        is_new = holds.hold(load_wiring().engine, target, held_by)
        say(f"Held: {target}." if is_new else f"{target} was held already.")
    held = [(each.target, each.held_by, rfc3339(time_of(each.id))) for each in holds.listed(load_wiring().engine)]
    if held:
        show_table(("held", "by", "since"), held)
    else:
        say("Nothing is held.")


@click.command()
@on_a_stack
@click.argument("target", default=ALL_CHANNELS, metavar="[CHANNEL|ROUTE]")
@audited("target")
def release(target: str) -> None:
    """Lift a hold; without arguments, the one on everything. Held messages go out within seconds, oldest first."""
    if not holds.release(load_wiring().engine, target):
        raise click.ClickException(f"{target} is not held.")
    say(f"Released: {target}.")
    left = [each.target for each in holds.listed(load_wiring().engine)]
    if left:
        say(f"Still held: {', '.join(left)}.")
    if load_wiring().settings.hold:
        say("NOTIFIER_HOLD is set: the next start of a worker holds everything again.")
