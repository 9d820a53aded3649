"""API keys from the shell."""

import click
from rich.table import Table

from deploy.commands.group import console, on_a_stack, parts
from notifier import keys
from notifier.keys import Scope
from notifier.times import rfc3339


@click.group("api-keys")
def api_keys() -> None:
    """Create, list and revoke API keys."""


@api_keys.command()
@on_a_stack
@click.option("--name", required=True, help="Who it is for; the 'source' of what it posts.")
@click.option("--scope", required=True, help=f"Comma-separated: {', '.join(Scope)}.")
def create(name: str, scope: str) -> None:
    """Make a key and show it, once: only its hash is kept."""
    key = keys.create(parts().engine, name, [part.strip() for part in scope.split(",") if part.strip()])
    click.echo("Keep it now, it is not shown again:", err=True)
    click.echo(key)


@api_keys.command("list")
@on_a_stack
def list_keys() -> None:
    """List keys, revoked ones too."""
    table = Table("name", "scopes", "created", "revoked")
    for key in keys.listed(parts().engine):
        revoked = rfc3339(key.revoked_at) if key.revoked_at else ""
        table.add_row(key.name, ", ".join(key.scopes), rfc3339(key.created_at), revoked)
    if table.row_count:
        console().print(table)
    else:
        click.echo("There are no keys.")


@api_keys.command()
@on_a_stack
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a key. It stops working within seconds."""
    if not keys.revoke(parts().engine, name):
        raise click.ClickException(f"No key in use is named {name!r}.")
    click.echo(f"Revoked {name}.")
