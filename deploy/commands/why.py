"""Explanations: why a channel does not send (`providers status`), and the story of one message (`why`)."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import click
from sqlalchemy import Engine

from config.providers import make_providers
from config.settings import Settings
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.reveal_option import revealing
from deploy.terminal import say, show_table
from notifier.diagnostics import records
from notifier.diagnostics.explanations import explain
from notifier.diagnostics.timeline import timelines
from notifier.providers.breakers import BreakerStatus, breaker_statuses
from notifier.vocabulary.states import Channel, Status
from notifier.vocabulary.timestamps import rfc3339

#: How far back recent attempts go.
_RECENTLY = timedelta(hours=1)


def _at(moment: datetime) -> str:
    """Return a time to the second, for people."""
    return rfc3339(moment.replace(microsecond=0))


def tell_why(settings: Settings, engine: Engine, channel: Channel, recipient: str | None) -> None:
    """Print a channel's providers, its waiting messages with reasons, and its failures; or one recipient's."""
    say(channel.value, bold=True)
    for sentence in _providers(settings, engine, channel):
        say(f"  {sentence}")
    for hold in records.holds_on(engine, channel):
        say(f"  An operator holds {hold}: nothing of it goes out before manage.py release {hold}.")
    if recipient is not None:
        _tell_of_recipient(engine, channel, recipient)
        return
    for waiting in records.waiting(engine, channel):
        why = waiting.reason or waiting.status
        # That of a row which is queued or being sent is the end of a lease, and no delay.
        is_delay = waiting.status not in {Status.QUEUED, Status.SENDING}
        due = f"; the first is due at {_at(waiting.first_due)}" if is_delay else ""
        say(f"  {waiting.rows:,} wait: {why}{due}.")
    _tell_of_attempts(engine, channel)


def _providers(settings: Settings, engine: Engine, channel: Channel) -> Iterator[str]:
    if not settings.of(channel).providers:
        yield f"No provider: NOTIFIER_{channel.upper()} is not set, and the API answers 422."
        return
    known = {standing.name: standing for standing in breaker_statuses(engine) if standing.channel == channel}
    with closing(make_providers(settings, channel, engine)) as made:
        for choice in made.choices:
            yield _standing(choice.name, known.get(choice.name))


def _standing(name: str, known: BreakerStatus | None) -> str:
    """Describe a provider's state in a sentence."""
    if known is None or known.failed_at is None:
        return f"{name} is well: no failure of its own is known."
    last = f"its last failure was at {_at(known.failed_at)}: {known.error}"
    if known.open_until is None:
        in_a_row = f", {known.failures} in a row" if known.failures else ""
        return f"{name} is used; {last}{in_a_row}."
    since = f" since {_at(known.failing_since)}" if known.failing_since else ""
    if known.probing:
        then = "one message is out to try it"
    elif known.open_until > datetime.now(UTC):
        then = f"one message tries it from {_at(known.open_until)} on"
    else:
        then = "the next message tries it"
    return f"{name} is left alone{since}, after {known.failures} failures in a row; {then}; {last}."


def _tell_of_attempts(engine: Engine, channel: Channel) -> None:
    recent = records.recent_attempts(engine, channel, _RECENTLY)
    if not recent:
        say("  Nothing was tried within the last hour.")
        return
    rows = [
        (each.provider or "", each.outcome, each.error or "", f"{each.attempts:,}", _at(each.last)) for each in recent
    ]
    show_table(("provider", "outcome", "error", "attempts", "last"), rows, title="the last hour")


def _tell_of_recipient(engine: Engine, channel: Channel, recipient: str) -> None:
    if (suppressed := records.suppression(engine, channel, recipient)) is not None:
        say(f"  The address is on the suppression list, and gets nothing: {suppressed}.")
    found = records.latest(engine, channel, recipient)
    if not found:
        say("  No notification to this address is known.")
    for notification, attempts in found:
        say(f"  {notification.id}, made at {_at(notification.created_at)}: {explain(notification)}")
        for attempt in attempts:
            what = " ".join(filter(None, (attempt.outcome, attempt.error and f"({attempt.error})")))
            say(f"    attempt {attempt.number} by {attempt.provider or 'a worker that was lost'}: {what}")


@click.command()
@on_a_stack
@revealing("asked")
@click.argument("asked", metavar="ID|ADDRESS|USER|REQUEST")
def why(asked: str) -> None:
    """Say why a notification did not arrive, arrived twice, or came at that hour.

    Name it by its id or its event's, or name an address, a user or a request: then its newest notifications follow,
    each with what happened to it in its recipient's local time. An event that made no notification says why.
    """
    found = timelines(load_wiring().engine, asked, load_wiring().settings.timezone) if _is_text(asked) else []
    if not found:
        raise click.ClickException("No notification or event of that id, address, user or request is known.")
    for timeline in found:
        say(timeline.title, bold=True)
        for moment, sentence in timeline.moments:
            local = moment.astimezone(timeline.zone) if moment else None
            at = f"{local:%Y-%m-%d %H:%M:%S} {timeline.zone.key}" if local else "at a time that nobody recorded"
            say(f"  {at}: {sentence}")
        for sentence in timeline.conclusions:
            say(f"  {sentence}")


def _is_text(asked: str) -> bool:
    """Tell whether an argument is text: bytes that are none in the terminal's encoding come as half characters."""
    return asked.isascii() or not any("\ud800" <= each <= "\udfff" for each in asked)
