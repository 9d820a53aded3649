"""Dead letters from the shell."""

from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from deploy.commands import letter_acts
from deploy.commands.audited_commands import audited, user
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.letter_acts import list_acts, resume, stop
from deploy.commands.letter_filters import FILTERS, HASHED_FILTERS, filtering, letters_in_words, say_refused
from deploy.commands.letter_groups import list_groups
from deploy.commands.reveal_option import revealing
from deploy.terminal import say, show_fields, show_table
from notifier.models import DeadLetter
from notifier.notifications import dead_letters
from notifier.notifications.dead_letters import Filters
from notifier.vocabulary.timestamps import rfc3339


@click.group()
def dlq() -> None:
    """List, group, show, requeue and purge dead letters."""


for command in (list_groups, list_acts, resume, stop):
    dlq.add_command(command)


@dlq.command("list")
@on_a_stack
@revealing()
@filtering
@click.option("--requeued", is_flag=True, help="Those that were requeued, instead of those that stand.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
def list_letters(limit: int, requeued: bool, **filters: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """List the dead letters that stand, newest first."""
    query = Filters(**filters, requeued=requeued).on(select(DeadLetter))
    with Session(load_wiring().engine) as session:
        letters = session.scalars(query.order_by(DeadLetter.id.desc()).limit(limit + 1)).all()
    if not letters:
        say("No dead letters.")
        return
    rows = [
        (
            *(letter.id, letter.channel or "-", letter.event_type or "-", letter.reason, letter.error or ""),
            *(letter.attempts, rfc3339(letter.created_at)),
        )
        for letter in letters[:limit]
    ]
    show_table(("id", "channel", "event type", "reason", "error", "attempts", "created"), rows)
    if len(letters) > limit:
        say(f"There are more: --limit shows more than {limit}.")


@dlq.command()
@on_a_stack
@revealing("letter_id")
@click.argument("letter_id", type=click.UUID)
def show(letter_id: UUID) -> None:
    """Show one dead letter, with all that is known of it."""
    with Session(load_wiring().engine) as session:
        letter = session.get(DeadLetter, letter_id)
    if letter is None:
        raise click.ClickException("There is no such dead letter.")
    values = {column.name: getattr(letter, column.name) for column in DeadLetter.__table__.columns}
    show_fields({name: rfc3339(value) if isinstance(value, datetime) else value for name, value in values.items()})


def _check_chosen(ids: tuple[UUID, ...], everything: bool, filters: dict[str, Any]) -> None:
    """Make sure that the letters are named in one way."""
    given = any(value is not None for value in filters.values())
    if sum((bool(ids), everything, given)) != 1:
        raise click.UsageError("Name ids, or give filters, or say --all.")


def _count(ids: tuple[UUID, ...], filters: Filters) -> int:
    query = filters.on(select(func.count()).select_from(DeadLetter))
    if ids:
        query = query.where(DeadLetter.id.in_(ids))
    with load_wiring().engine.connect() as connection:
        return connection.scalar(query) or 0


class _Requeueing:
    """Requeues dead letters batch by batch, and counts those that a rule forbids to send."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self.refused = Counter[str]()

    def requeue(self, ids: list[UUID]) -> int:
        """Requeue a batch; return the number of requeued letters."""
        # Here, since they bring Celery and the rules of delivery, and the other commands of the group do without.
        from notifier.resending import resend  # noqa: PLC0415 -- see above
        from tasks import app  # noqa: PLC0415 -- see above
        from tasks.hints import LEASE, publish_hints  # noqa: PLC0415 -- see above

        here = load_wiring()
        by = f"shell:{user()}"
        done = resend.requeue(here.engine, ids, lambda _: LEASE, by, here.standards, dry_run=self._dry_run)
        publish_hints(app, done.hints)
        self.refused.update(resend.counted(done.refused.values()))
        return len(done.letters)

    def tell(self) -> None:
        """Print which letters were left alone, and why."""
        say_refused(self.refused)


@dlq.command()
@on_a_stack
@click.argument("letter_ids", nargs=-1, type=click.UUID)
@filtering
@click.option("--all", "everything", is_flag=True, help="All that stand.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@audited("letter_ids", "everything", *FILTERS, hashed=HASHED_FILTERS)
def requeue(letter_ids: tuple[UUID, ...], everything: bool, dry_run: bool, **filters: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """Send dead letters once more, each with its full number of attempts.

    Name them by id, by filters, or with --all. The notification and its id stay the same, so a receiver that did
    get an earlier attempt recognises it. A notification that a rule forbids to send (its recipient has
    opted out or is suppressed, it has expired, its subscription is disabled) is left as it is.

    By filters or with --all this is an act with progress, which 'dlq acts' lists. Ctrl-C stops it; if this command
    ends otherwise in between, the clock goes on with it.
    """
    _check_chosen(letter_ids, everything, filters)
    chosen = Filters(**filters, requeued=False)
    if not letter_ids and not dry_run:
        letter_acts.begin("requeue", chosen)
        return
    requeueing = _Requeueing(dry_run=dry_run)
    batches = [list(letter_ids)] if letter_ids else dead_letters.matching(load_wiring().engine, chosen)
    count = sum(requeueing.requeue(ids) for ids in batches)
    say(f"{'Would have requeued' if dry_run else 'Requeued'} {letters_in_words(count)}.")
    requeueing.tell()


@dlq.command()
@on_a_stack
@click.argument("letter_ids", nargs=-1, type=click.UUID)
@filtering
@click.option("--all", "everything", is_flag=True, help="All, requeued ones too.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@audited("letter_ids", "everything", *FILTERS, hashed=HASHED_FILTERS)
def purge(letter_ids: tuple[UUID, ...], everything: bool, dry_run: bool, yes: bool, **filters: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """Delete dead letters for good; their notifications stay, as failed.

    By filters or with --all this is an act with progress, as 'dlq requeue' says.
    """
    _check_chosen(letter_ids, everything, filters)
    chosen = Filters(**filters)
    count = _count(letter_ids, chosen)
    if dry_run:
        say(f"Would have purged {letters_in_words(count)}.")
        return
    if count and not yes:
        click.confirm(f"Delete {letters_in_words(count)} for good?", abort=True)
    if letter_ids:
        say(f"Purged {letters_in_words(dead_letters.purge(load_wiring().engine, list(letter_ids)))}.")
    else:
        letter_acts.begin("drop", chosen)
