"""The filters of commands about dead letters, and words about letters."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import click

from deploy.commands.group import Command
from deploy.terminal import say
from notifier.vocabulary.states import Channel

#: The names of the filters whose values may stand in the audit log; and of those that are other people's text.
FILTERS: Final = ("channel", "reason", "event_type", "last_provider", "created_after", "created_before")
HASHED_FILTERS: Final = ("error",)


class Moment(click.ParamType[datetime]):
    """A time with its offset, such as 2026-11-21T09:00:00Z."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401 -- click's signature
        """Parse it."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is not a time with its offset, such as 2026-11-21T09:00:00Z", param, ctx)
        return moment


def filtering(command: Command) -> Command:
    """Give a command the filters of dead letters."""
    for option in (
        click.option("--created-before", type=Moment(), help="Only those written before this time."),
        click.option("--created-after", type=Moment(), help="Only those written after this time."),
        click.option("--error", help="Only those with this error, as 'dlq groups --by error' shows it."),
        click.option("--last-provider", help="Only those whose last attempt called this provider."),
        click.option("--event-type", help="Only those of this event type."),
        click.option("--reason", help="Only those with this reason, such as retries_exhausted."),
        click.option(
            "--channel", type=click.Choice([channel.value for channel in Channel]), help="Only those of this channel."
        ),
    ):
        command = option(command)
    return command


def letters_in_words(count: int) -> str:
    """Return `1 dead letter`, `2 dead letters`."""
    return f"{count} dead letter{'s' * (count != 1)}"


def say_refused(refused: Mapping[str, int]) -> None:
    """Print how many were left alone, by reason, the most frequent first; nothing if there are none."""
    if refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(refused).most_common())
        say(f"Left alone {sum(refused.values())} that a rule forbids to send: {reasons}.")
