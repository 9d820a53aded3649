"""Acts on many dead letters from the shell: begin, follow, list, resume and stop them.

The modules that requeue bring Celery and the rules of delivery; they are imported where they are used, since other
commands of the group do without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from deploy.commands.audited_commands import audited, user
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.letter_filters import letters_in_words, say_refused
from deploy.terminal import progress, say, show_table
from notifier.models import DeadLetterAct
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.timestamps import rfc3339

if TYPE_CHECKING:
    from notifier.notifications.dead_letters import Filters

#: (queue, id) of rows that are due now.
Hints = Sequence[tuple[str, UUID]]

#: Seconds between two looks while another process does a batch.
_LOOK_AGAIN: Final = 0.1
_DONE: Final = {"requeue": "Requeued", "drop": "Purged"}


def begin(act: str, filters: Filters) -> None:
    """Begin an act, and follow it to its end."""
    from notifier.resending import dead_letter_acts  # noqa: PLC0415 -- see above
    from tasks.hints import LEASE  # noqa: PLC0415 -- see above

    here = load_wiring()
    asked = dead_letter_acts.Asked(dead_letter_acts.Act(act), filters, f"shell:{user()}")
    act_id = new_id()

    def first_batch() -> Hints:
        _, hints = dead_letter_acts.begin(here.engine, asked, lambda _: LEASE, here.standards, act_id=act_id)
        return hints

    _follow(act_id, first_batch)


def _follow(act_id: UUID, first_batch: Callable[[], Hints] = tuple) -> None:
    """Do batch after batch of an act, and show how far it is. Ctrl-C stops the act; anything else leaves it running.

    `first_batch` begins it, where it has not begun, and returns the (queue, id) of its rows.
    """
    try:
        found = _work_on(act_id, first_batch())
    except KeyboardInterrupt:
        _stop(act_id)
        stopped = _look(act_id)
        if stopped is None:  # before it had begun
            raise click.Abort from None
        found = stopped
        if found.status == "stopped":
            say(f"Stopped: {_done_of(found)}. 'dlq resume {act_id}' goes on.")
            raise click.Abort from None
    if found.status == "stopped":  # by somebody else
        say(f"It was stopped: {_done_of(found)}. 'dlq resume {act_id}' goes on.")
        return
    say(f"{_DONE[found.act]} {letters_in_words(found.done)}.")
    say_refused(found.refused_reasons or {})


def _work_on(act_id: UUID, hints: Hints) -> DeadLetterAct:
    """Do batches until the act is finished or stopped; `hints` are those of the batches before."""
    from notifier.resending import dead_letter_acts  # noqa: PLC0415 -- see above
    from tasks import app  # noqa: PLC0415 -- see above
    from tasks.hints import LEASE, publish_hints  # noqa: PLC0415 -- see above

    here, shown = load_wiring(), 0
    found = _find(act_id)
    with progress(_DONE[found.act], found.total or 0) as bar:
        while True:
            publish_hints(app, hints)
            bar.advance(found.done + found.refused - shown)
            shown = found.done + found.refused
            if found.status != "running":
                return found
            more = dead_letter_acts.go_on(here.engine, lambda _: LEASE, act_id, here.standards)
            if more is None:  # the clock has it in its hands
                time.sleep(_LOOK_AGAIN)
            hints = more or []
            found = _find(act_id)


def _look(act_id: UUID) -> DeadLetterAct | None:
    with Session(load_wiring().engine) as session:
        return session.get(DeadLetterAct, act_id)


def _find(act_id: UUID) -> DeadLetterAct:
    found = _look(act_id)
    if found is None:
        raise click.ClickException("There is no such act.")
    return found


def _stop(act_id: UUID) -> None:
    from notifier.resending import dead_letter_acts  # noqa: PLC0415 -- see above
    from notifier.vocabulary.errors import Conflict  # noqa: PLC0415 -- see above

    try:
        dead_letter_acts.stop(load_wiring().engine, act_id)
    except Conflict:
        return  # its last batch was done meanwhile


@click.command("acts")
@on_a_stack
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
def list_acts(limit: int) -> None:
    """List requeues and purges of many dead letters, newest first, and how far they are."""
    query = select(DeadLetterAct).order_by(DeadLetterAct.id.desc()).limit(limit)
    with Session(load_wiring().engine) as session:
        found = session.scalars(query).all()
    if not found:
        say("No acts.")
        return
    rows = [
        (
            *(each.id, each.act, each.status, f"{each.done}/{_total(each)}", each.refused, _in_words(each.filters)),
            *(each.asked_by, rfc3339(each.created_at)),
        )
        for each in found
    ]
    headers = ("id", "act", "status", "done", "refused", "filters", "by", "created")
    show_table(headers, rows, right=("done", "refused"))


def _total(act: DeadLetterAct) -> str:
    return "?" if act.total is None else str(act.total)


def _done_of(act: DeadLetterAct) -> str:
    return f"{letters_in_words(act.done)} of {_total(act)} done"


def _in_words(filters: dict[str, Any]) -> str:
    """Return the filters of an act as the options of a command."""
    named = {name: value[0] if isinstance(value, list) else value for name, value in filters.items()}
    return " ".join(f"{name}={value}" for name, value in named.items() if name != "requeued") or "all"


@click.command()
@on_a_stack
@click.argument("act_id", type=click.UUID)
@audited("act_id")
def resume(act_id: UUID) -> None:
    """Go on with a requeue or purge of many dead letters that was stopped, or follow one that the clock does."""
    from notifier.resending import dead_letter_acts  # noqa: PLC0415 -- see above

    _find(act_id)
    dead_letter_acts.resume(load_wiring().engine, act_id)
    _follow(act_id)


@click.command()
@on_a_stack
@click.argument("act_id", type=click.UUID)
@audited("act_id")
def stop(act_id: UUID) -> None:
    """Stop a requeue or purge of many dead letters. 'dlq resume' goes on with it."""
    from notifier.resending import dead_letter_acts  # noqa: PLC0415 -- see above

    _find(act_id)
    dead_letter_acts.stop(load_wiring().engine, act_id)
    say(f"Stopped: {_done_of(_find(act_id))}.")
