"""The audit log from the shell."""

import csv
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import click
import orjson

from deploy.commands.audited_commands import audited
from deploy.commands.group import load_wiring, on_a_stack
from deploy.commands.time_options import When
from deploy.terminal import progress, say, show_table
from notifier.models import AuditLine
from notifier.security.audit_log import Verdict
from notifier.vocabulary.timestamps import rfc3339
from notifier.vocabulary.untrusted_text import printable, printable_json

_FIELDS: Final = ("id", "at", "actor", "action", "target", "outcome", "request_id", "peer", "times", "number")
#: Names in targets whose values the log keeps as fingerprints.
_HASHED: Final = frozenset({"user_id", "address", "about", "cancellation_key"})
#: Beginnings that a spreadsheet would take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@click.group(invoke_without_command=True)
@on_a_stack
@click.option("--since", type=When(back=True), help="Only from then on: PT1H (an hour ago), 2026-11-21, or a time.")
@click.option("--actor", help="Only this key's name, or shell:USER.")
@click.option("--target", help="Only what was done to this: NAME=VALUE. A user's id is looked for as the log keeps it.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.pass_context
def audit(context: click.Context, since: datetime | None, actor: str | None, target: str | None, limit: int) -> None:
    """Show who did what, newest first; or verify that the log is as it was written, or export it."""
    if context.invoked_subcommand is not None:
        return
    log = load_wiring().audit
    if target is not None and target.partition("=")[0] in _HASHED:
        name, _, value = target.partition("=")
        target = f"{name}={log.fingerprint(value)}"
    lines = log.lines(since=since, actor=actor, target=target, limit=limit + 1)
    if not lines:
        say("The audit log has no such line." if since or actor or target else "The audit log is empty.")
        return
    rows = [
        (
            rfc3339(line.at.replace(microsecond=0)),
            *(line.actor, line.action, line.target or ""),
            line.outcome if line.times == 1 else f"{line.outcome} ({line.times} times)",
            *(line.peer or "", line.request_id or ""),
        )
        for line in lines[:limit]
    ]
    show_table(("at", "actor", "action", "target", "outcome", "from", "request id"), rows)
    if len(lines) > limit:
        say(f"There are more: --limit shows more than {limit}.")


@audit.command()
@on_a_stack
@click.option("--expect", metavar="HASH", help="A hash that this command showed once: its line must still be there.")
def verify(expect: str | None) -> None:
    """Check that no line was changed, added or taken out since it was written.

    Keep the hash that it shows somewhere else, and give it with --expect the next time: that shows too whether the
    newest lines were cut off. Exits with 1 where something is wrong, and names the first line.
    """
    log = load_wiring().audit
    verdict = Verdict(0, 0, "")
    with progress("Lines verified", log.count()) as bar:
        for step in log.verify(expect and expect.strip().lower()):
            if isinstance(step, Verdict):
                verdict = step
            else:
                bar.advance(step)
    if verdict.fault is not None:
        raise click.ClickException(f"The audit log was tampered with: {verdict.fault}.")
    say(f"All {verdict.chained:,} lines are as they were written.")
    if verdict.unchained:
        say(
            f"{verdict.unchained:,} more are outside of the chain: of a release before, or of a process without"
            " NOTIFIER_SECRET_KEY. Nothing is known of those."
        )
    if verdict.newest:
        say(f"The newest hash: {verdict.newest}")


@audit.command()
@on_a_stack
@click.option("--since", type=When(back=True), help="Only from then on: P30D (thirty days ago), 2026-11-21, or a time.")
@click.option("--until", type=When(back=True), help="Only before then.")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@audited("since", "until", "form")
def export(since: datetime | None, until: datetime | None, form: str) -> None:
    """Write lines to the standard output, the oldest first. The export itself is on record."""
    lines = load_wiring().audit.export(since, until)
    if form == "csv":
        _write_csv(lines)
    else:
        for line in lines:
            sys.stdout.buffer.write(f"{printable_json(orjson.dumps(_fields(line)).decode())}\n".encode())


def _fields(line: AuditLine) -> dict[str, Any]:
    values = {name: getattr(line, name) for name in _FIELDS}
    return {**values, "at": rfc3339(line.at), "hash": line.hash.hex() if line.hash else None}


def _write_csv(lines: Iterable[AuditLine]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow((*_FIELDS, "hash"))
    for line in lines:
        texts = ["" if value is None else printable(value) for value in _fields(line).values()]
        writer.writerow(f"'{text}" if text.startswith(_FORMULA) else text for text in texts)
