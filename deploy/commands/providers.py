"""Providers from the shell: which there are, and whether they take a message."""

from contextlib import closing
from itertools import chain
from typing import Final

import click
from rich.table import Table
from rich.text import Text

from config.wiring import make_provider
from deploy.commands.group import OneLineErrors, console, on_a_stack, parts
from notifier.addresses import normalised
from notifier.channels import Channel
from notifier.ids import new_id
from notifier.providers import Fault, Message, Outcome, Result
from notifier.providers.dsn import Dsn, parse

#: Webhooks have receivers, whom subscriptions name and `POST /subscriptions/{id}/test` tries out.
_CHANNELS: Final = [channel for channel in Channel if channel is not Channel.WEBHOOK]
_TEXT: Final = "This is a test of Notifier. If you can read it, this channel works."

_MEANINGS: Final = {
    Outcome.ACCEPTED: "The provider took it over. Whether it arrives is up to the provider now.",
    Outcome.REJECTED: "The provider will never take this message: a notification would be dead at once.",
    Outcome.UNSENT: "It was certainly not sent: a notification would be tried again.",
    Outcome.AMBIGUOUS: "It may have been sent: the answer was lost. A notification would be tried again.",
}
_FAULTS: Final = {
    Fault.PROVIDER: "The fault is the provider's, or in how it is set up: see its address, and its credentials.",
    Fault.THROTTLED: "It is too much at once for the provider.",
    Fault.RECIPIENT: "The fault is the address's: nobody is there.",
}


@click.group(cls=OneLineErrors)
def providers() -> None:
    """Where each channel's messages go, and whether they would."""


@providers.command("list")
@on_a_stack
def list_providers() -> None:
    """List each channel's providers."""
    table = Table("channel", "provider", "server", "longest send")
    settings = parts().settings
    if settings.sandbox:
        click.echo("NOTIFIER_SANDBOX is on: nothing is sent anywhere, on any channel, webhooks among them.")
    for channel in _CHANNELS:
        if not settings.providers(channel):
            table.add_row(channel, "none", f"refused at intake: NOTIFIER_{channel.upper()} is not set", "")
            continue
        with closing(make_provider(settings, channel, parts().engine)) as provider:
            server = _server(parse(settings.providers(channel)[0]))
            table.add_row(channel, provider.name, server, f"{provider.timeout:g} s")
    console().print(table)


def _server(dsn: Dsn) -> str:
    """Where a DSN leads, without its secrets."""
    if dsn.host is None:
        return "its own"
    return f"{dsn.host}:{dsn.port}" if dsn.port else dsn.host


@providers.command()
@on_a_stack
@click.argument("channel", type=click.Choice([channel.value for channel in _CHANNELS]))
@click.argument("recipient")
@click.option("--text", default=_TEXT, help="What to say.")
def test(channel: str, recipient: str, text: str) -> None:
    """Send one message to RECIPIENT now, past queues, preferences and retries, and say what became of it."""
    try:
        address = normalised(Channel(channel), recipient)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="RECIPIENT") from None
    with closing(make_provider(parts().settings, Channel(channel), parts().engine)) as provider:
        if not provider.takes(address):
            raise click.ClickException(f"{provider.name} sends to addresses of another kind.")
        message = Message(id=new_id(), recipient=address, subject="A test of Notifier", text=text)
        [result] = chain.from_iterable(provider.send(iter([message])))
    _tell(result)
    if result.outcome is not Outcome.ACCEPTED:
        raise SystemExit(1)


def _tell(result: Result) -> None:
    table = Table(show_header=False, box=None)
    for name, value in {
        "provider": result.provider,
        "outcome": result.outcome,
        "code": result.status_code,
        "error": result.error,
        "its id": result.message_id,
        "took": f"{result.duration_ms:.0f} ms",
        "answer": result.response_excerpt,
    }.items():
        if value is not None:
            table.add_row(name, Text(str(value)))
    console().print(table)
    click.echo(_MEANINGS[result.outcome])
    if result.fault is not None:
        click.echo(_FAULTS[result.fault])
    if result.retry_after is not None:
        click.echo(f"It asks to be left alone for {result.retry_after:g} s.")
