"""API keys from the shell."""

from datetime import UTC, datetime, timedelta

import click

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.time_options import Span, When
from deploy.terminal import say, show_table
from notifier.models import ApiKey
from notifier.security import api_keys as keys
from notifier.security.api_keys import OVERLAP, Scope
from notifier.security.permits import permit_of
from notifier.vocabulary.timestamps import rfc3339


@click.group("api-keys")
def api_keys() -> None:
    """Create, rotate, list and revoke API keys."""


def _show(key: str) -> None:
    say("Keep it now, it is not shown again:", err=True)
    say(key)


@api_keys.command()
@on_a_stack
@click.option("--name", required=True, help="Who it is for; also the source, where --source gives no other.")
@click.option("--source", help="A source that keys of one service share.  [default: the name]")
@click.option("--scope", required=True, help=f"Comma-separated: {', '.join(Scope)}.")
@click.option("--channel", multiple=True, help="A channel that it may use; may be repeated.  [default: all]")
@click.option(
    "--event-type",
    "event_types",
    multiple=True,
    help="A type of the events that it may post, such as 'order.*'; may be repeated.  [default: all]",
)
@click.option("--expires", type=When(), help="When it ends by itself: P90D, or 2027-01-01.  [default: never]")
@click.option(
    "--rate", type=click.IntRange(1, 100_000), help="Requests a second at the most; beyond, a 429.  [default: no limit]"
)
@audited("name", "source", "scope", "channel", "event_types", "expires", "rate")
def create(
    name: str,
    source: str | None,
    scope: str,
    channel: tuple[str, ...],
    event_types: tuple[str, ...],
    expires: datetime | None,
    rate: int | None,
) -> None:
    """Make a key and show it, once: only its hash is kept.

    Idempotency, cancellation and deduplication keys are a source's own, and only keys of a source act on its
    notifications: keys with one --source share them all.

    A key with channels must name the channel of what it posts to people. One with event types posts no notifications
    without an event.
    """
    scopes = [part.strip() for part in scope.split(",") if part.strip()]
    permit = permit_of(channel, event_types)
    _show(keys.create(load_wiring().engine, name, scopes, source=source, permit=permit, expires_at=expires, rate=rate))


@api_keys.command()
@on_a_stack
@click.argument("name")
@click.option(
    "--overlap",
    type=Span(),
    default=OVERLAP,
    help="How long the secret before goes on working: PT1H, 0.  [default: P1D]",
)
@click.option("--expires", type=When(), help="When the key ends by itself.  [default: as before]")
@audited("name", "overlap", "expires")
def rotate(name: str, overlap: timedelta, expires: datetime | None) -> None:
    """Give a key another secret and show it, once. Its name, and with it the 'source', stays.

    The secret before goes on working until the overlap ends, so that callers can change over. One that is older still
    does not. With --overlap 0 it ends within seconds.
    """
    key = keys.rotate(load_wiring().engine, name, overlap, expires_at=expires)
    if key is None:
        raise click.ClickException(f"No key in use is named {name!r}.")
    _show(key)
    until = rfc3339((datetime.now(UTC) + overlap).replace(microsecond=0))
    say(f"The secret before works until {until}." if overlap else "The secret before ends now.", err=True)


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at:
        return f"revoked {rfc3339(key.revoked_at)}"
    if key.expires_at and key.expires_at <= now:
        return "expired"
    if key.previous_until and key.previous_until > now:
        return f"in use; the secret before until {rfc3339(key.previous_until)}"
    return "in use"


@api_keys.command("list")
@on_a_stack
def list_keys() -> None:
    """List keys, with those that were revoked or have expired."""
    now = datetime.now(UTC)
    rows = [
        (
            key.name,
            key.posts_as,
            ", ".join(key.scopes),
            ", ".join([*(key.channels or ()), *(key.event_types or ())]) or "all",
            "" if key.rate is None else f"{key.rate}/s",
            rfc3339(key.created_at),
            rfc3339(key.expires_at) if key.expires_at else "never",
            f"{key.last_used_at.astimezone(UTC):%Y-%m-%d}" if key.last_used_at else "never",
            _state(key, now),
        )
        for key in keys.listed(load_wiring().engine)
    ]
    if rows:
        show_table(("name", "source", "scopes", "may use", "limit", "created", "expires", "last used", "state"), rows)
    else:
        say("There are no keys.")


@api_keys.command()
@on_a_stack
@click.argument("name")
@audited("name")
def revoke(name: str) -> None:
    """Revoke a key, both secrets of it. It stops working within seconds."""
    if not keys.revoke(load_wiring().engine, name):
        raise click.ClickException(f"No key in use is named {name!r}.")
    say(f"Revoked {name}.")
