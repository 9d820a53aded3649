"""`manage.py relay`: move events from a service's relay table to Notifier."""

import signal
import threading
from datetime import timedelta
from typing import Final

import click
import psycopg2
import structlog
from psycopg2.extensions import parse_dsn

from config.logs import configure_logs
from config.settings import load_settings
from deploy.commands.time_options import Span
from deploy.terminal import in_words, printable, say
from notifier.storage.deadlines import BoundConnection, wait_within_deadlines
from notifier_client import Client, NotifierError
from notifier_client.relay import MOST_ROWS, Moved, Relay, Report
from notifier_client.relay_table import COUNTED, DEFAULT_NAME, Lag, RelayTable

log = structlog.get_logger()

#: Options of a connection, unless its DSN says otherwise. Keepalives notice within a minute that the server is gone.
_CONNECTION: Final = {
    "application_name": "notifier relay",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
#: Schemes of DSNs that SQLAlchemy takes and libpq does not.
_DRIVERS: Final = ("postgresql+psycopg2://", "postgresql+psycopg://", "postgres+psycopg2://")
#: The shortest and the longest --interval.
_SHORTEST: Final = timedelta(seconds=0.05)
_LONGEST: Final = timedelta(hours=1)
#: Seconds that Postgres has for an answer: more than the relay gives a statement. A connection may stay open, and never
#: answer: behind a proxy that hangs, or before a frozen server.
_ANSWER: Final = 45.0
#: Seconds to connect to Notifier, and of its silence.
_TIMEOUT: Final = 15.0


def _dsn(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check that it is Postgres' and return it as libpq takes it. No error repeats it: it has a password."""
    if not value:
        return None
    for scheme in _DRIVERS:
        if value.startswith(scheme):
            value = f"postgresql://{value.removeprefix(scheme)}"
    scheme, separator, _ = value.partition("://")
    if separator and scheme not in {"postgresql", "postgres"}:
        raise click.BadParameter("relay tables are in Postgres: postgresql://user@host:5432/database", ctx, param)
    try:
        parse_dsn(value)
    except psycopg2.ProgrammingError:
        raise click.BadParameter(
            "give postgresql://user@host:5432/database, or libpq's host=… dbname=…", ctx, param
        ) from None
    return value


def _interval(ctx: click.Context, param: click.Parameter, value: timedelta) -> timedelta:
    if not _SHORTEST <= value <= _LONGEST:
        raise click.BadParameter("it must be from 0.05 seconds to an hour", ctx, param)
    return value


def _table(ctx: click.Context, param: click.Parameter, value: str) -> RelayTable:
    try:
        return RelayTable(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command()
@click.option("--dsn", envvar="NOTIFIER_RELAY_DSN", show_envvar=True, callback=_dsn, help="The service's database.")
@click.option(
    "--table",
    envvar="NOTIFIER_RELAY_TABLE",
    show_envvar=True,
    default=DEFAULT_NAME,
    show_default=True,
    callback=_table,
    help="Its relay table, as TABLE or SCHEMA.TABLE.",
)
@click.option(
    "--api",
    envvar="NOTIFIER_API_URL",
    show_envvar=True,
    default="http://127.0.0.1:8000",
    show_default=True,
    help="Where Notifier is.",
)
@click.option(
    "--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The service's API key, with the scope 'send'."
)
@click.option("--batch", type=click.IntRange(1, MOST_ROWS), default=500, show_default=True, help="Rows of one request.")
@click.option(
    "--interval",
    type=Span(),
    default="1",
    show_default=True,
    callback=_interval,
    help="Between looks, if nothing waits.",
)
@click.option("--keep", type=Span(), default="P7D", show_default=True, help="How long rows stay that were sent.")
@click.option("--max-lag", type=Span(), default="PT5M", show_default=True, help="The age that --check allows.")
@click.option("--once", is_flag=True, help="Move what waits, and end.")
@click.option("--check", is_flag=True, help="Only say what waits, and fail where the oldest row waits too long.")
@click.option("--ddl", is_flag=True, help="Only print the statements that make the table.")
@click.option("--create-table", is_flag=True, help="Only make the table, where it does not exist.")
def relay(
    *,
    dsn: str | None,
    table: RelayTable,
    api: str,
    key: str | None,
    batch: int,
    interval: timedelta,
    keep: timedelta,
    max_lag: timedelta,
    once: bool,
    check: bool,
    ddl: bool,
    create_table: bool,
) -> None:
    """Move events from a service's own table to Notifier, each exactly once by its key.

    The service writes rows in its own transactions, so an event is sent only if they commit. Runs until it is
    stopped; several may run at once. Give --dsn and --key by the environment: other users of a machine see what stands
    on a command line.
    """
    if sum((once, check, ddl, create_table)) > 1:
        raise click.UsageError("Give one of --once, --check, --ddl and --create-table.")
    if ddl:
        say(table.ddl.rstrip(), lines=True)
        return
    if dsn is None:
        raise click.UsageError("Give --dsn, or better NOTIFIER_RELAY_DSN in the environment.")
    try:
        if create_table:
            _create(dsn, table)
        elif check:
            _check(dsn, table, max_lag)
        else:
            with _client(api, key) as client:
                mover = Relay(
                    lambda: _connected(dsn), client, table=table, batch=batch, interval=interval, keep=keep, report=_log
                )
                _once(dsn, mover) if once else _run(dsn, mover)
    except psycopg2.Error as error:
        raise click.ClickException(f"Postgres: {_first_line(error)}") from None
    except NotifierError as error:
        raise click.ClickException(printable(error)) from None


def _client(api: str, key: str | None) -> Client:
    try:
        # The relay repeats what failed, from the table: a request that is repeated keeps rows locked meanwhile.
        return Client(api, key=key or None, timeout=_TIMEOUT, retries=0)
    except ValueError as error:
        raise click.UsageError(f"--api or --key: {error}") from None


def _connected(dsn: str) -> BoundConnection:
    wait_within_deadlines()
    options = {**_CONNECTION, **parse_dsn(dsn)}
    connection: BoundConnection = psycopg2.connect(**options, connection_factory=BoundConnection)
    connection.answers_within = _ANSWER
    connection.set_client_encoding("UTF8")
    return connection


def _create(dsn: str, table: RelayTable) -> None:
    connection = _connected(dsn)
    try:
        table.create(connection)
        connection.commit()
    finally:
        connection.close()
    say(f"The table {table.name} is there.")


def _check(dsn: str, table: RelayTable, max_lag: timedelta) -> None:
    """Say what waits. Exits with 1 where it waits too long."""
    connection = _connected(dsn)
    try:
        table.check(connection)
        lag, refused = table.lag(connection), table.count_refused(connection)
    finally:
        connection.close()
    say(f"{_waiting(lag)}; refused: {refused}.")
    if lag.oldest is not None and lag.oldest > max_lag.total_seconds():
        raise SystemExit(1)


def _once(dsn: str, mover: Relay) -> None:
    """Move what waits. Exits with 1 where something still waits that this relay could not move."""
    connection = _connected(dsn)
    try:
        mover.table.check(connection)
        moved = mover.drain(connection)
        deleted = mover.delete_sent(connection)
    finally:
        connection.close()
    say(f"{_in_words(moved)}{f' Deleted {deleted} old rows.' if deleted else ''}")
    if moved.failed:
        raise SystemExit(1)


def _run(dsn: str, mover: Relay) -> None:
    """Move rows until a signal comes. What is wrong from the start is said at once, and ends it."""
    connection = _connected(dsn)
    try:
        mover.table.check(connection)
    finally:
        connection.close()
    configure_logs(load_settings(database=False))
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    log.info("relay_started", table=mover.table.name)
    mover.run(over)
    log.info("relay_stopped", table=mover.table.name)


def _log(report: Report) -> None:
    moved, lag = report.moved, report.lag
    fields = {
        "sent": moved.sent,
        "duplicates": moved.duplicates,
        "refused": moved.refused,
        "failed": moved.failed,
        "waiting": None if lag is None else lag.waiting,
        "oldest_seconds": None if lag is None or lag.oldest is None else round(lag.oldest, 1),
    }
    if report.blocked is None:
        log.info("relayed", **fields)
    else:
        log.warning("relay_blocked", error=printable(report.blocked), **fields)


def _in_words(moved: Moved) -> str:
    had = f" ({moved.duplicates} of them Notifier had already)" if moved.duplicates else ""
    failed = f", failed for now: {moved.failed}" if moved.failed else ""
    return f"Sent: {moved.sent}{had}, refused: {moved.refused}{failed}."


def _waiting(lag: Lag) -> str:
    if lag.oldest is None:
        return "Waiting: 0"
    more = " or more" if lag.waiting >= COUNTED else ""
    return f"Waiting: {lag.waiting}{more}, the oldest for {in_words(lag.oldest)}"


def _first_line(error: psycopg2.Error) -> str:
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])
