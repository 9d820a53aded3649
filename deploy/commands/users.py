"""People's data from the shell."""

from typing import BinaryIO

import click

from deploy.commands.group import on_a_stack, parts
from deploy.commands.revealing import revealing
from deploy.terminal import reveals_credentials
from notifier.exporting import export as export_data


@click.group()
def users() -> None:
    """Hand out what is known of a person."""


@users.command()
@on_a_stack
@click.argument("user_id")
@revealing("user_id")
@click.option("--output", "-o", type=click.File("wb", lazy=True), default="-", help="A file.  [default: the terminal]")
def export(user_id: str, output: BinaryIO) -> None:
    """Write all that is known of a user as one JSON document.

    Credentials in addresses are *** unless --reveal is given: with it this is what the person has a right to.

    The user and their preferences, notifications with attempts, events that name them, suppressions and opt-outs of
    their addresses. To erase it all, DELETE /api/v1/users/USER_ID.
    """
    pieces = export_data(parts().engine, user_id, reveals=reveals_credentials())
    if pieces is None:
        raise click.ClickException("There is no such user.")
    for piece in pieces:
        output.write(piece)
    output.write(b"\n")
