"""The secret of webhooks that are addressed to a host directly."""

import click

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier.security.webhook_signatures import key_of, secret_of_host
from notifier.vocabulary.uris import host_and_port


def _host(ctx: click.Context, param: click.Parameter, value: str) -> str:
    del ctx, param
    try:
        return host_and_port(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("webhook-secret")
@on_a_stack
@click.argument("host", callback=_host)
@audited("host")
def webhook_secret(host: str) -> None:
    """Show the secret that a host's receiver verifies webhooks with that are addressed to it directly.

    HOST: a host, with :PORT where it is not the usual one, or the URL. Hand the secret to that receiver alone; it is
    derived from NOTIFIER_WEBHOOK_SECRET, which nobody else needs to know. Subscriptions have secrets of their own.
    """
    secret = load_wiring().settings.webhook_secret
    if secret is None:
        raise click.ClickException("NOTIFIER_WEBHOOK_SECRET is not set: no webhooks are addressed directly.")
    say(secret_of_host(key_of(secret), host))
