"""The command that runs Celery's beat: in this process, as that of workers does."""

from pathlib import Path

import click

from config.settings import load_broker_settings
from deploy.commands.group import on_a_stack
from tasks import app
from tasks.beat import TickScheduler


@click.command()
@on_a_stack
@click.option(
    "--sign-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that it touches each time that it has asked the broker, for 'alive'.",
)
def beat(sign_file: Path | None) -> None:
    """Run Celery's beat, which keeps time. Run two, on different machines: ticks are idempotent.

    It needs the broker alone, and no DATABASE_URL.
    """
    load_broker_settings()
    TickScheduler.sign_file = sign_file
    app.conf.include = []  # it sends tasks by their names: to load them is most of the product
    app.Beat().run()
