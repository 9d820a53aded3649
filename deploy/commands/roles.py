"""`manage.py roles`: the database roles that own the tables, and work with them."""

import click
from sqlalchemy import Engine, inspect, make_url

from config.settings import SettingsError
from deploy.commands.audited_commands import audited, nothing_changed
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier.storage.database_roles import Login, set_up


@click.command()
@on_a_stack
@audited()
def roles() -> None:
    """Make, or bring up to date, the database roles that own the tables, and that work with their rows alone.

    Their names and passwords are those in NOTIFIER_MIGRATION_DATABASE_URL and DATABASE_URL. Objects of other roles are
    made the owner's. It works as the superuser of NOTIFIER_ADMIN_DATABASE_URL; without that, as the owner, if that role
    may make others. Running it again does no harm.
    """
    wires = load_wiring()
    engine = wires.admin_engine
    owner = _login("NOTIFIER_MIGRATION_DATABASE_URL", wires.settings.migration_database_url)
    app = _login("DATABASE_URL", wires.settings.database_url)
    for line in set_up(engine, owner, app):
        say(line)
    say(f"{owner.name} owns the tables, and {app.name} works with their rows.")
    if not _is_migrated(engine):
        nothing_changed()  # there is no audit log yet


def _login(name: str, url: str | None) -> Login:
    if url is None:
        raise SettingsError(f"{name} is not set: it names a role and its password")
    parsed = make_url(url)
    return Login(parsed.username or "", str(parsed.password or ""))


def _is_migrated(engine: Engine) -> bool:
    return inspect(engine).has_table("audit")
