"""Faults of Postgres: restarted, crashed, refusing, read-only, frozen, full, locked, behind a wire that fails."""

import contextlib
import os
import signal
import time
from typing import Final

import psutil
import psycopg2
from sqlalchemy import text

from notifier import migrations
from tests.chaos.faults import Spell, fault, full
from tests.conftest import engine_of, owner_url
from tests.support.running import wait_for

_OURS: Final = "usename = 'notifier_app'"
_TERMINATE: Final = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {_OURS}"
#: Statements whose answers are the answers of a commit: intake's, a record's, and whole transactions'.
COMMITS: Final = (b"COMMIT", b"INSERT INTO idempotency_keys", b"INSERT INTO attempts")


@fault("postgres-restart", seconds=2, short=2)
def restart(spell: Spell) -> None:
    """Postgres stopped as its operators do, and started again."""
    spell.system.postgres.stop()
    spell.wait()
    spell.system.postgres.start()


@fault("postgres-killed", seconds=2)
def killed(spell: Spell) -> None:
    """Postgres ended at once, and started again: it recovers from its log."""
    spell.system.postgres.kill()
    spell.wait()
    spell.system.postgres.start()


@fault("postgres-crash", seconds=0)
def crash(spell: Spell) -> None:
    """SIGKILL of one backend: Postgres throws everybody out and recovers."""
    [pid, *_] = [row[0] for row in spell.system.sql(f"SELECT pid FROM pg_stat_activity WHERE {_OURS}")]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: _answers(spell), 30, "Postgres again")


def _answers(spell: Spell) -> bool:
    with contextlib.suppress(Exception):
        return bool(spell.system.sql("SELECT 1"))
    return False


@fault("postgres-sessions-cut", seconds=27, short=6)
def sessions_cut(spell: Spell) -> None:
    """All our sessions ended each second."""
    for _ in spell.every(1):
        spell.system.sql(_TERMINATE)


@fault("postgres-refuses", seconds=15)
def refuse(spell: Spell) -> None:
    """All our sessions ended each second, and new connections refused."""
    spell.system.to_postgres.refusing = True
    for _ in spell.every(1):
        spell.system.sql(_TERMINATE)
    spell.system.to_postgres.behave()


@fault("postgres-read-only", seconds=8, short=5)
def read_only(spell: Spell) -> None:
    """Postgres refuses to write, as a standby does after a failover."""
    _configure(spell, "SET default_transaction_read_only = on")
    spell.wait()
    _configure(spell, "RESET default_transaction_read_only")


def _configure(spell: Spell, how: str) -> None:
    """Change Postgres' settings; by a connection that may write whatever they say."""
    connection = psycopg2.connect(spell.system.postgres.url(), options="-c default_transaction_read_only=off")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER SYSTEM {how}")
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()


@fault("postgres-too-many", seconds=8)
def too_many(spell: Spell) -> None:
    """Others take every connection that there is, and ours are ended."""
    others: list[psycopg2.extensions.connection] = []
    system = spell.system
    url = system.environment["DATABASE_URL"].replace(f":{system.to_postgres.port}/", f":{system.postgres.port}/")
    until = time.monotonic() + spell.seconds
    while time.monotonic() < until:
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                others.append(psycopg2.connect(url, application_name="crowd"))
        spell.system.sql(f"{_TERMINATE} AND application_name <> 'crowd'")
    for connection in others:
        connection.close()


@fault("postgres-frozen", seconds=20)
def frozen(spell: Spell) -> None:
    """SIGSTOP of Postgres and all its backends, for longer than leases last."""
    postmaster = psutil.Process(spell.system.postgres.pid)
    spell.system.engine.dispose()
    stopped = [postmaster, *postmaster.children()]
    for process in stopped:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    spell.wait()
    for process in stopped:
        with contextlib.suppress(psutil.Error):
            process.resume()


@fault("postgres-locked", seconds=20)
def locked(spell: Spell) -> None:
    """Somebody holds the table of notifications locked, for longer than leases last."""
    with spell.system.engine.begin() as connection:
        connection.execute(text("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"))
        spell.wait()


@fault("postgres-silent", seconds=25)
def silent(spell: Spell) -> None:
    """All connections to Postgres go quiet for good, without an end; new ones work."""
    spell.system.to_postgres.silence()
    spell.wait()


@fault("postgres-mute", seconds=20)
def mute(spell: Spell) -> None:
    """Connections to Postgres go quiet, and new ones are taken and stay quiet too."""
    proxy = spell.system.to_postgres
    proxy.mute = True
    proxy.silence()
    spell.wait()
    proxy.behave()
    proxy.forget_silent()


@fault("postgres-wire", seconds=15)
def wire(spell: Spell) -> None:
    """Messages to and from Postgres are late, and one in two hundred is cut in its middle."""
    proxy = spell.system.to_postgres
    proxy.delay, proxy.cut_share = 0.005, 0.005
    spell.wait()
    proxy.behave()


@fault("postgres-commits-cut", seconds=15, short=6)
def commits_cut(spell: Spell) -> None:
    """One answer of a COMMIT in ten is lost, and the connection with it: nobody knows whether it was done."""
    spell.system.to_postgres.cut_answers_of = (COMMITS, 0.1)
    spell.wait()
    spell.system.to_postgres.behave()


@fault("migration", seconds=4, mixes=False)
def migration(spell: Spell) -> None:
    """A column and an index come and go again, as migrations make them."""
    owner = engine_of(owner_url(spell.system.postgres, "notifier"))
    days = "SELECT CAST(inhrelid AS regclass) FROM pg_inherits WHERE inhparent = CAST('notifications' AS regclass)"
    try:
        _with_patience(spell, owner_statement := "ALTER TABLE notifications ADD COLUMN chaos integer DEFAULT 1")
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for (day,) in connection.execute(text(days)).all():
                connection.execute(text(f"CREATE INDEX CONCURRENTLY chaos_{day} ON {day} (chaos)"))
        spell.wait()
        _with_patience(spell, owner_statement.replace("ADD", "DROP").partition(" integer")[0])
    finally:
        owner.dispose()
    assert migrations.pending(spell.system.engine) is None


def _with_patience(spell: Spell, statement: str) -> None:
    """Run a statement that waits for its lock no longer than a migration does, until it has it."""

    def done() -> bool:
        with contextlib.suppress(Exception), spell.system.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{migrations.LOCK_TIMEOUT}'"))
            connection.execute(text(statement))
            return True
        return False

    wait_for(done, 60, statement)


@fault("postgres-disk-full", seconds=10, disk="cluster")
def disk_full(spell: Spell) -> None:
    """The disk of Postgres is full; where that ends it, it is started again when there is room."""
    with full(spell.system.cluster):
        spell.wait()
    # Without room for its log it ends; whoever operates it starts it again.
    if not spell.system.postgres.alive():
        spell.system.postgres.start()
