"""`manage.py reader`: the database role that dashboards ask with."""

import click

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier.storage import dashboard_role as roles


@click.command()
@on_a_stack
@click.option("--role", default=roles.ROLE, show_default=True, help="Its name.")
@audited("role")
def reader(role: str) -> None:
    """Make, or bring up to date, the database role that dashboards ask with.

    It may read states, times, providers and outcomes, column by column, and neither addresses nor contents. Its
    password is taken from NOTIFIER_READER_PASSWORD. Run it after each 'migrate'; running it again does no harm.
    """
    password = load_wiring().settings.reader_password
    if not password:
        raise click.ClickException("NOTIFIER_READER_PASSWORD is not set: the role needs a password.")
    done = roles.set_up(load_wiring().admin_engine, password, role)
    tables = len({name.partition(".")[0] for name in done.readable})
    say(f"{'Made' if done.created else 'Brought up to date'}: the role {role}, with its password and its limits.")
    for what, names in (("Granted", done.granted), ("Revoked", done.revoked)):
        if names and not done.created:
            say(f"{what}: {', '.join(names)}.")
    say(f"It may read {len(done.readable)} columns of {tables} tables, and nothing else.")
