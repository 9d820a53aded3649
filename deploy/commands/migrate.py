"""The command that migrates."""

import click

from deploy.commands.auditing import audited, nothing_changed
from deploy.commands.group import on_a_stack, parts
from deploy.terminal import say
from notifier import migrations


@click.command()
@on_a_stack
@audited()
def migrate() -> None:
    """Bring the database to this version, and make the partitions of the days to come.

    As the role of NOTIFIER_MIGRATION_DATABASE_URL, or of DATABASE_URL where that is not set. Safe to repeat, and to run
    from several places at once.
    """
    engine = parts().owner_engine
    pending = migrations.pending(engine)
    migrations.upgrade(engine)
    if pending is None:
        nothing_changed()
    say(f"Migrated to {pending}." if pending else "Nothing to migrate.")
