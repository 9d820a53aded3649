"""People's data from the shell."""

import functools
import time
from typing import Any, BinaryIO, Final

import click

from deploy.commands.audited_commands import audited, user
from deploy.commands.group import Command, load_wiring, on_a_stack
from deploy.commands.reveal_option import revealing
from deploy.terminal import reveals_credentials, say
from notifier.models import Erasure
from notifier.people import erasure
from notifier.people.export import export as export_data
from notifier.people.export import export_address
from notifier.vocabulary.addresses import folded, normalised
from notifier.vocabulary.states import Channel
from notifier.vocabulary.untrusted_text import printable_json

#: Channels that an address shows by its look: an @, a plus and digits, or a scheme.
_BY_LOOK: Final = (Channel.EMAIL, Channel.SMS, Channel.WEBHOOK)


@click.group()
def users() -> None:
    """Hand out, or erase, what is known of a person."""


def _naming(command: Command) -> Command:
    """Give a command the argument and the options that name a person."""
    for declare in (
        click.option(
            "--channel",
            type=click.Choice([each.value for each in Channel]),
            help="The address's channel.  [default: by its look, email, sms or webhook]",
        ),
        click.option(
            "--address", metavar="ADDRESS", help="In place of an id: somebody who is reached at this address."
        ),
        click.argument("user_id", required=False),
    ):
        command = declare(command)
    return command


def _address(address: str, channel: str | None) -> tuple[Channel, str]:
    """Return an address in its normal form, and its channel."""
    errors = []
    for each in _BY_LOOK if channel is None else (Channel(channel),):
        try:
            return each, normalised(each, address)
        except ValueError as error:
            errors.append(str(error))
    words = "This is no email address, phone number or URL: say --channel." if channel is None else errors[0]
    raise click.UsageError(words)


def _check_one(user_id: str | None, address: str | None) -> None:
    if (user_id is None) == (address is None):
        raise click.UsageError("Name a USER_ID, or an --address.")


def _about(command: Command) -> Command:
    """Give a command `about`: a fingerprint of the named person, for the audit log."""

    @functools.wraps(command)
    def run(**named: Any) -> Any:  # noqa: ANN401 -- as click parsed them
        _check_one(named["user_id"], named["address"])
        address = named["address"] and folded(*_address(named["address"], named["channel"]))
        return command(about=load_wiring().audit.fingerprint(named["user_id"] or address), **named)

    return run  # type: ignore[return-value]  # as functools.wraps made it


@users.command()
@on_a_stack
@_naming
@revealing("user_id")
@click.option("--output", "-o", type=click.File("wb", lazy=True), default="-", help="A file.  [default: the terminal]")
@_about
@audited("about")
def export(user_id: str | None, address: str | None, channel: str | None, output: BinaryIO, about: str) -> None:
    """Write all that is known of a person as one JSON document.

    Credentials in addresses are *** unless --reveal is given: with it this is what the person has a right to.

    The user and their preferences, notifications with attempts, events that name them, suppressions and opt-outs of
    their addresses. To erase it all: users erase.
    """
    del about  # it is for the audit log
    if address is not None:
        pieces = export_address(load_wiring().engine, *_address(address, channel), reveals=reveals_credentials())
    else:
        found = export_data(load_wiring().engine, str(user_id), reveals=reveals_credentials())
        if found is None:
            raise click.ClickException("There is no such user.")
        pieces = found
    for piece in pieces:
        output.write(printable_json(piece.decode()).encode())  # a terminal may show it
    output.write(b"\n")


@users.command()
@on_a_stack
@_naming
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait until it is finished: about a minute, with millions of rows longer.")
@_about
@audited("about")
def erase(**named: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """Erase a person: by their id, also where there is no such user any more, or by an address.

    Waiting notifications are cancelled. Rows that name them are erased at once; then every table is read, twice, for
    what else mentions them. A worker of the clock does that, or this command with --wait.
    """
    user_id, address = named["user_id"], named["address"]
    found = None if address is None else _address(address, named["channel"])
    if not named["yes"]:
        click.confirm("This cannot be undone. Erase them?", abort=True)
    wires, by = load_wiring(), f"shell:{user()}"
    if found is None:
        erasure_id = erasure.erase_id(wires.engine, wires.vault, user_id, by)
    else:
        erasure_id = erasure.erase_address(wires.engine, wires.vault, *found, by)
    say(f"Erased the rows that name them. Mentions of them elsewhere follow: erasure {erasure_id}.")
    if named["wait"]:
        _wait(erasure_id)


def _wait(erasure_id: Any) -> None:  # noqa: ANN401 -- a UUID
    """Continue the erasure until it is finished."""
    wires = load_wiring()
    while True:
        goes_on = erasure.go_on(wires.engine, wires.vault)
        found: Erasure | None = erasure.find(wires.engine, erasure_id)
        if found is None or found.due_at is None:
            break
        if not goes_on:
            time.sleep(0.5)
    say(f"Finished: {found.erased if found else 0} rows.")
    if found and found.left_in:
        say(f"Settings that mention them, to be changed by hand: {', '.join(found.left_in)}.")
