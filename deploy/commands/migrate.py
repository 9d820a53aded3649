"""The command that migrates."""

from typing import Final

import click
from sqlalchemy.exc import ProgrammingError

from deploy.commands.audited_commands import audited, nothing_changed
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier import migrations

_INSUFFICIENT_PRIVILEGE: Final = "42501"


@click.command()
@on_a_stack
@audited()
def migrate() -> None:
    """Bring the database to this version, and make the partitions of the days to come.

    As the role of NOTIFIER_MIGRATION_DATABASE_URL, or of DATABASE_URL where that is not set. Safe to repeat, and to run
    from several places at once.
    """
    engine = load_wiring().owner_engine
    pending = migrations.pending(engine)
    try:
        migrations.upgrade(engine)
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise click.ClickException(
            f"{engine.url.username} may not change the tables, which are another role's: set"
            " NOTIFIER_MIGRATION_DATABASE_URL, with the role that owns them (docs/production.md)."
        ) from None
    if pending is None:
        nothing_changed()
    say(f"Migrated to {pending}." if pending else "Nothing to migrate.")
