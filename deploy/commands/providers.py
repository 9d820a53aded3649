"""Providers from the shell: which there are, whether they take a message, and why one did not go out."""

from contextlib import closing
from itertools import chain
from typing import Final

import click

from config.providers import make_providers
from deploy.commands.group import OneLineErrors, load_wiring, on_a_stack
from deploy.commands.why import tell_why
from deploy.terminal import say, show_fields, show_table
from notifier.providers.dsn import Dsn, parse
from notifier.providers.failover import Providers
from notifier.providers.protocol import Fault, Message, Outcome, Provider, Result
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel

#: Webhooks have receivers, whom subscriptions name and `POST /subscriptions/{id}/test` tries out.
_CHANNELS: Final = [channel for channel in Channel if channel is not Channel.WEBHOOK]
_NAMES: Final = click.Choice([channel.value for channel in _CHANNELS])
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
    Fault.ROUTE: "This account or sender reaches no such addresses (a country, a trial's list); others may.",
    Fault.RECIPIENT: "The fault is the address's: nobody is there.",
}


@click.group(cls=OneLineErrors)
def providers() -> None:
    """Where each channel's messages go, and whether they would."""


@providers.command("list")
@on_a_stack
def list_providers() -> None:
    """List each channel's providers, in order of preference."""
    rows: list[tuple[object, ...]] = []
    settings = load_wiring().settings
    if settings.sandbox:
        say("NOTIFIER_SANDBOX is on: nothing is sent anywhere, on any channel, webhooks among them.")
    for channel in _CHANNELS:
        dsns = settings.of(channel).providers
        if not dsns:
            rows.append((channel, "none", f"refused at intake: NOTIFIER_{channel.upper()} is not set", "", "", ""))
            continue
        with closing(make_providers(settings, channel, load_wiring().engine)) as made:
            for place, (choice, dsn) in enumerate(zip(made.choices, dsns, strict=True)):
                weight = "" if choice.weight is None else choice.weight
                rate = "" if choice.rate is None else f"{choice.rate:g}/s"
                name, longest = "" if place else channel, f"{choice.provider.timeout:g} s"
                rows.append((name, choice.name, _server(parse(dsn)), weight, rate, longest))
    show_table(("channel", "provider", "server", "weight", "rate", "longest send"), rows)


def _server(dsn: Dsn) -> str:
    """Where a DSN leads, without its secrets."""
    if dsn.host is None:
        return "its own"
    return f"{dsn.host}:{dsn.port}" if dsn.port else dsn.host


@providers.command()
@on_a_stack
@click.argument("channel", type=_NAMES)
@click.argument("recipient")
@click.option("--text", default=_TEXT, help="The text to send.")
@click.option("--provider", "name", help="By which provider, where there are several; else by the first one.")
def test(channel: str, recipient: str, text: str, name: str | None) -> None:
    """Send one message to RECIPIENT now, past queues, preferences and retries, and say what became of it."""
    address = _address(Channel(channel), recipient)
    with closing(make_providers(load_wiring().settings, Channel(channel), load_wiring().engine)) as made:
        provider = _chosen(made, name, address)
        message = Message(id=new_id(), recipient=address, subject="A test of Notifier", text=text)
        [result] = chain.from_iterable(provider.send(iter([message])))
    _tell(result)
    if result.outcome is not Outcome.ACCEPTED:
        raise SystemExit(1)


def _address(channel: Channel, recipient: str) -> str:
    try:
        return normalised(channel, recipient)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="RECIPIENT") from None


def _chosen(made: Providers, name: str | None, address: str) -> Provider:
    named = [choice for choice in made.choices if name in {None, choice.name}]
    if not named:
        known = ", ".join(choice.name for choice in made.choices)
        raise click.ClickException(f"There is no provider {name!r}; there are: {known}.")
    fitting = [choice.provider for choice in named if choice.provider.takes(address)]
    if not fitting:
        raise click.ClickException(f"{named[0].name} sends to addresses of another kind.")
    return fitting[0]


def _tell(result: Result) -> None:
    show_fields(
        {
            "provider": result.provider,
            "outcome": result.outcome,
            "code": result.status_code,
            "error": result.error,
            "its id": result.message_id,
            "took": f"{result.duration_ms:.0f} ms",
            "answer": result.response_excerpt,
        }
    )
    say(_MEANINGS[result.outcome])
    if result.fault is not None:
        say(_FAULTS[result.fault])
    if result.retry_after is not None:
        say(f"It asks to be left alone for {result.retry_after:g} s.")


@providers.command()
@on_a_stack
@click.argument("channel", type=_NAMES, required=False)
@click.argument("recipient", required=False)
def status(channel: str | None, recipient: str | None) -> None:
    """Say how providers fare, and why messages do not go out: all, those of CHANNEL, or those to RECIPIENT."""
    channels = [Channel(channel)] if channel else _CHANNELS
    address = _address(channels[0], recipient) if recipient else None
    for each in channels:
        tell_why(load_wiring().settings, load_wiring().engine, each, address)
