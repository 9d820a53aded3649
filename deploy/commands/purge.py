"""`manage.py purge`: drop what is old now, rather than within the hour."""

from collections import Counter

import click
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.commands.auditing import audited
from deploy.commands.group import console, on_a_stack, parts
from notifier import retention
from notifier.partitions import partitions_before


@click.command()
@on_a_stack
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what keeps the rest.")
@audited()
def purge(dry_run: bool) -> None:
    """Drop days that are older than NOTIFIER_RETENTION, and delete what else has had its time.

    The clock does it every hour. It blocks nobody, and may be stopped at any moment: the next one goes on. What is
    live or has a dead letter that stands is kept, with all that it needs.
    """
    if dry_run:
        _survey()
        return
    engine, spans = parts().engine, parts().retention
    with engine.connect() as connection:
        old = len(partitions_before(connection, spans.limits().before))
    dropped, kept, deleted = 0, list[int](), Counter[str]()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console()) as progress:
        days = progress.add_task("Old partitions dropped", total=old)
        rows = progress.add_task("Rows deleted", total=None)
        for step in retention.purge(engine, spans):
            if step.kept is not None:
                kept.append(step.kept)
            elif step.rows is None:
                dropped += 1
                progress.update(days, completed=dropped)
            else:
                deleted[step.table] += step.rows
                progress.update(rows, completed=deleted.total(), description=f"Rows deleted ({step.table})")
        progress.update(rows, total=deleted.total(), description="Rows deleted")
    click.echo(f"Dropped {dropped} of {old} old partition{'s' * (old != 1)}.")
    if kept:
        click.echo(f"Made {len(kept)} anew with the {sum(kept):,} rows of them that are still needed.")
    for table, count in deleted.items():
        if count:
            click.echo(f"Deleted {count:,} of {table}.")


def _survey() -> None:
    """What would be dropped, and what keeps the rest."""
    days = list(retention.survey(parts().engine, parts().retention))
    for name, count in retention.count_expired(parts().engine, parts().retention).items():
        if count:
            click.echo(f"Would delete {count:,} of {name}.")
    if not days:
        click.echo("There are no old partitions.")
        return
    table = Table("partition", "size", "would be")
    for day in days:
        table.add_row(day.partition, decimal(day.bytes), "dropped" if day.keeper is None else f"kept: {day.keeper}")
    console().print(table)
    going = [day for day in days if day.keeper is None]
    freed = decimal(sum(day.bytes for day in going))
    click.echo(f"Would drop {len(going)} of {len(days)}, {freed}; of the others, rows that nobody needs.")
