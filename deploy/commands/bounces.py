"""`manage.py bounces`: read what mail servers send back of emails, from a mailbox or a pipe."""

import signal
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import BinaryIO

import click
import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.settings import SettingsError
from config.wiring import Wiring
from deploy.commands.group import load_wiring, on_a_stack
from deploy.terminal import say
from notifier.notifications import delivery_receipts
from notifier.providers.receipts import Report
from notifier.providers.vendors import imap_mailbox, smtp_receipts
from notifier.providers.vendors.smtp_return_paths import ReturnPaths
from notifier.runtime.isolation import MIGRATE, is_unmigrated

log = structlog.get_logger()

#: EX_TEMPFAIL, the exit status that tells a mail server to try again later (sysexits.h).
TRY_LATER = 75


@click.command()
@on_a_stack
@click.argument("message", type=click.File("rb"), required=False)
@click.option("--watch", is_flag=True, help="Go on until interrupted.")
@click.option("--every", type=click.IntRange(1, 86400), default=60, show_default=True, help="Seconds between looks.")
def bounces(message: BinaryIO | None, watch: bool, every: int) -> None:
    """Take bounces and complaints of emails, which come to the address that `bounces` in an SMTP DSN names.

    Reads what is new in the mailbox of NOTIFIER_BOUNCES, or one MESSAGE, - for a pipe: a mail server can hand each mail
    to `manage.py bounces -`. A mail that reports on none of our emails changes nothing.
    """
    wires = load_wiring()
    paths = wires.return_paths
    if not paths:
        raise SettingsError("NOTIFIER_EMAIL names no SMTP server with bounces=bounce@example.com")
    if message is not None:
        try:
            said = _take(wires, paths, [message.read(smtp_receipts.READ_AT_MOST)])
        except SQLAlchemyError as error:
            why = MIGRATE if is_unmigrated(error) else f"Postgres cannot be reached: {type(error).__name__}"
            say(f"Error: {why}", err=True)
            raise SystemExit(TRY_LATER) from None
        say(_in_words(said))
        return
    if wires.settings.bounces is None:
        raise SettingsError("NOTIFIER_BOUNCES is not set; it names the mailbox, imaps://user:password@host/INBOX")
    if not watch:
        try:
            say(_in_words(_look(wires, paths)))
        except imap_mailbox.MailboxError as error:
            raise click.ClickException(str(error)) from None
        return
    _watch(wires, paths, every)


def _watch(wires: Wiring, paths: list[ReturnPaths], every: int) -> None:
    """Read the mailbox repeatedly, even after errors, until a signal comes."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    while not over.is_set():
        try:
            said = _look(wires, paths)
            if said.total():
                log.info("bounces_read", **said)
        except (imap_mailbox.MailboxError, SQLAlchemyError) as error:
            log.warning("bounces_not_read", error=type(error).__name__)
        over.wait(every)


def _look(wires: Wiring, paths: list[ReturnPaths]) -> Counter[str]:
    said: Counter[str] = Counter()
    address = wires.settings.bounces
    if address is not None:
        imap_mailbox.read_new(address, lambda mails: said.update(_take(wires, paths, mails)))
    return said


def _take(wires: Wiring, paths: list[ReturnPaths], mails: list[bytes]) -> Counter[str]:
    """Record the reports of some mails, each on its own; return their number by kind."""
    now, said = datetime.now(UTC), Counter({"mails": len(mails)})
    for mail in mails:
        read = (smtp_receipts.read(mail, each, now) for each in paths)
        report = next((each for each in read if each != Report()), Report())
        delivery_receipts.take(wires.engine, report, wires.senders, source=smtp_receipts.NAME)
        said.update(receipt.kind.value for receipt in report.receipts)
        said.update(standing.reason.value for standing in report.standings)
    return said


def _in_words(said: Counter[str]) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in said.items() if name != "mails")
    return f"Read {said['mails']} mail{'s' * (said['mails'] != 1)}: {counts or 'nothing of ours'}."
