"""manage.py: every command, and the groups they stand in."""

import click

from deploy.commands.dlq import dlq
from deploy.commands.group import OneLineErrors
from deploy.commands.holds import hold, release
from deploy.commands.keys import api_keys
from deploy.commands.listen import listen
from deploy.commands.outbox import outbox
from deploy.commands.processes import api, beat, flower, migrate, worker
from deploy.commands.recover import recover
from deploy.commands.rekey import rekey
from deploy.commands.replay import replay
from deploy.commands.routes import routes
from deploy.commands.status import alive, status
from deploy.commands.up import up


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Notifier: events in over HTTP, people told by email, SMS, push, chat or webhook.

    'up' starts everything on this machine, with nothing else installed. The commands below it start one process
    each, as in production; the others look into a running system. Settings come from the environment
    (docs/settings.md); without DATABASE_URL the stack that runs in .notifier is meant.
    """


for command in (
    up,
    migrate,
    api,
    worker,
    beat,
    flower,
    status,
    alive,
    dlq,
    outbox,
    listen,
    replay,
    routes,
    hold,
    release,
    api_keys,
    rekey,
    recover,
):
    cli.add_command(command)
