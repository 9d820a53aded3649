"""Dead letters from the shell."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from deploy.commands.audited_commands import audited, user
from deploy.commands.group import Command, load_wiring, on_a_stack
from deploy.commands.reveal_option import revealing
from deploy.terminal import progress, say, show_fields, show_table
from notifier.models import DeadLetter
from notifier.notifications import dead_letters
from notifier.notifications.dead_letters import Filters
from notifier.vocabulary.states import Channel
from notifier.vocabulary.timestamps import rfc3339

#: The names of the filters.
_FILTERS: Final = ("channel", "reason", "event_type", "created_after", "created_before")


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
        click.option("--event-type", help="Only those of this event type."),
        click.option("--reason", help="Only those with this reason, such as retries_exhausted."),
        click.option(
            "--channel", type=click.Choice([channel.value for channel in Channel]), help="Only those of this channel."
        ),
    ):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """List, show, requeue and purge dead letters."""


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


def _chosen(ids: tuple[UUID, ...], everything: bool, filters: dict[str, Any], **more: Any) -> tuple[int, Any]:  # noqa: ANN401 -- filters as click parsed them
    """Return the number of chosen letters, and their ids in batches."""
    given = any(value is not None for value in filters.values())
    if sum((bool(ids), everything, given)) != 1:
        raise click.UsageError("Name ids, or give filters, or say --all.")
    query = Filters(**filters, **more).on(select(func.count()).select_from(DeadLetter))
    if ids:
        query = query.where(DeadLetter.id.in_(ids))
    with load_wiring().engine.connect() as connection:
        count = connection.scalar(query) or 0
    return count, [list(ids)] if ids else dead_letters.matching(load_wiring().engine, Filters(**filters, **more))


def _run(what: str, count: int, batches: Iterable[list[UUID]], act: Callable[[list[UUID]], int]) -> None:
    done = 0
    with progress(what.capitalize(), count) as bar:
        for ids in batches:
            acted = act(ids)
            done += acted
            bar.advance(acted)
    say(f"{what.capitalize()} {_letters(done)}.")


def _letters(count: int) -> str:
    return f"{count} dead letter{'s' * (count != 1)}"


def say_refused(refused: Mapping[str, int]) -> None:
    """Print how many were left alone, by reason, the most frequent first; nothing if there are none."""
    if refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(refused).most_common())
        say(f"Left alone {sum(refused.values())} that a rule forbids to send: {reasons}.")


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
@audited("letter_ids", "everything", *_FILTERS)
def requeue(letter_ids: tuple[UUID, ...], everything: bool, dry_run: bool, **filters: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """Send dead letters once more, each with its full number of attempts.

    Name them by id, by filters, or with --all. The notification and its id stay the same, so a receiver that did
    get an earlier attempt recognises it. A notification that a rule forbids to send (its recipient has
    opted out or is suppressed, it has expired, its subscription is disabled) is left as it is.
    """
    count, batches = _chosen(letter_ids, everything, filters, requeued=False)
    requeueing = _Requeueing(dry_run=dry_run)
    if dry_run:
        count = sum(requeueing.requeue(ids) for ids in batches)
        say(f"Would have requeued {_letters(count)}.")
    else:
        _run("requeued", count, batches, requeueing.requeue)
    requeueing.tell()


@dlq.command()
@on_a_stack
@click.argument("letter_ids", nargs=-1, type=click.UUID)
@filtering
@click.option("--all", "everything", is_flag=True, help="All, requeued ones too.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@audited("letter_ids", "everything", *_FILTERS)
def purge(letter_ids: tuple[UUID, ...], everything: bool, dry_run: bool, yes: bool, **filters: Any) -> None:  # noqa: ANN401 -- as click parsed them
    """Delete dead letters for good; their notifications stay, as failed."""
    count, batches = _chosen(letter_ids, everything, filters)
    if dry_run:
        say(f"Would have purged {_letters(count)}.")
        return
    if count and not yes:
        click.confirm(f"Delete {_letters(count)} for good?", abort=True)
    _run("purged", count, batches, lambda ids: dead_letters.purge(load_wiring().engine, ids))
