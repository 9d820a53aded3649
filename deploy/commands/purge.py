"""`manage.py purge`: drop what is old now, rather than within the hour."""

from collections import Counter

import click
from rich.filesize import decimal

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import progress, say, show_table
from notifier.storage import retention
from notifier.storage.partitions import partitions_before


@click.command()
@on_a_stack
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what keeps the rest.")
@audited()
def purge(dry_run: bool) -> None:
    """Drop days that are older than NOTIFIER_RETENTION, and delete what else has had its time.

    The clock does it every hour. It blocks nobody, and may be stopped at any moment: the next one goes on. Rows that
    are live, or have a dead letter that stands, are kept with all that they need.
    """
    if dry_run:
        _survey()
        return
    engine, spans = load_wiring().engine, load_wiring().retention
    with engine.connect() as connection:
        old = len(partitions_before(connection, spans.cutoffs().before))
    dropped, kept, deleted = 0, list[int](), Counter[str]()
    with progress("Old partitions dropped", old) as bar:
        for step in retention.purge(engine, spans):
            if step.kept is not None:
                kept.append(step.kept)
            elif step.rows is None:
                dropped += 1
                bar.advance(1)
            else:
                deleted[step.table] += step.rows
    say(f"Dropped {dropped} of {old} old partition{'s' * (old != 1)}.")
    if kept:
        say(f"Made {len(kept)} anew with the {sum(kept):,} rows of them that are still needed.")
    for table, count in deleted.items():
        if count:
            say(f"Deleted {count:,} of {table}.")


def _survey() -> None:
    """Print what would be dropped, and what keeps the rest."""
    days = list(retention.survey(load_wiring().engine, load_wiring().retention))
    for name, count in retention.count_expired(load_wiring().engine, load_wiring().retention).items():
        if count:
            say(f"Would delete {count:,} of {name}.")
    if not days:
        say("There are no old partitions.")
        return
    rows = [
        (day.partition, decimal(day.bytes), "dropped" if day.keeper is None else f"kept: {day.keeper}") for day in days
    ]
    show_table(("partition", "size", "would be"), rows)
    going = [day for day in days if day.keeper is None]
    freed = decimal(sum(day.bytes for day in going))
    say(f"Would drop {len(going)} of {len(days)}, {freed}; of the others, rows that nobody needs.")
