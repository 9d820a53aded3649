"""Groups of dead letters from the shell."""

from collections.abc import Sequence
from typing import Any, Final

import click

from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.letter_filters import filtering
from deploy.terminal import is_encodable, say, show_table
from notifier.notifications.dead_letter_groups import Trait, groups
from notifier.notifications.dead_letters import Filters
from notifier.vocabulary.timestamps import rfc3339

#: Heights of a trend's bars; in ASCII where the terminal's encoding has no others.
_BARS: Final = " ▁▂▃▄▅▆▇█"
_BARS_IN_ASCII: Final = " .:-=+*#@"


@click.command("groups")
@on_a_stack
@click.option(
    "--by",
    multiple=True,
    type=click.Choice([each.value for each in Trait]),
    help="What to group by; may be given several times.  [default: reason]",
)
@filtering
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="The most groups.")
def list_groups(by: tuple[str, ...], limit: int, **filters: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """Count the dead letters that stand, by what they have in common, the largest group first.

    The trends show the last 24 hours and the last 14 days, up to now.
    """
    traits = tuple(dict.fromkeys(map(Trait, by))) or (Trait.REASON,)
    found = groups(load_wiring().engine, Filters(**filters), traits, limit)
    if not found.groups:
        say("No dead letters.")
        return
    rows = [
        (
            *(group.count, *(group.traits[trait] or "-" for trait in traits)),
            *(trend(group.hourly), trend(group.daily)),
            *(rfc3339(moment.replace(microsecond=0)) for moment in (group.first_at, group.last_at)),
        )
        for group in found.groups
    ]
    words = [trait.value.replace("_", " ") for trait in traits]
    show_table(("letters", *words, "24 hours", "14 days", "first", "last"), rows, right=("letters",))
    if found.number > len(rows):
        say(f"There are {found.number} groups: --limit shows more than {limit}.")
    if found.is_sample:
        say(f"More letters stand: these are the newest {found.counted} of them.")


def trend(counts: Sequence[int]) -> str:
    """Return counts as a row of bars; a bar of the full height is the largest count."""
    bars = _BARS if is_encodable(_BARS) else _BARS_IN_ASCII
    highest, steps = max(counts, default=0), len(bars) - 1
    # Rounded up: one letter among thousands is seen.
    return "".join(bars[-(-count * steps // highest)] if highest else bars[0] for count in counts)
