"""Models, migrations and partitions agree, from empty to full and back."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from deploy.embedded import EmbeddedPostgres
from notifier import migrations
from notifier.migrations import _config, online
from notifier.migrations.revisions import all_revisions
from notifier.models import Attempt, Base, attempt_id
from notifier.storage.partitions import DAYS_AHEAD, TABLES, make_partitions, partition_of
from notifier.vocabulary.errors import Unavailable
from notifier.vocabulary.ids import derived_id
from tests.conftest import engine_of
from tests.support.paths import ROOT
from tests.support.running import wait_for

#: The newest revision.
NEWEST = max(file.name[:4] for file in (ROOT / "notifier/migrations/versions").glob("[0-9]*.py"))


@pytest.fixture
def new_empty(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """An empty database."""
    name = f"empty_{uuid4().hex}"
    postgres.create_database(name)
    engine = engine_of(postgres.url(name))
    yield engine
    engine.dispose()


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_upgrade_and_downgrade_from_empty(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("up_and_down")
    engine = engine_of(postgres.url("up_and_down"))
    assert migrations.pending(engine) == NEWEST
    migrations.upgrade(engine)
    assert migrations.pending(engine) is None
    full = _tables(engine)
    assert set(Base.metadata.tables) < full
    migrations.upgrade(engine)  # again, without harm
    migrations.downgrade(engine, "base")
    assert _tables(engine) == {"alembic_version"}
    migrations.upgrade(engine)
    assert _tables(engine) == full
    engine.dispose()


def test_keys_that_exist_may_still_be_critical(new_empty: Engine) -> None:
    migrations.upgrade(new_empty, "0015")
    with new_empty.begin() as connection:
        insert = "INSERT INTO api_keys (id, name, key_hash, scopes, created_at)"
        columns = "gen_random_uuid(), name, CAST(name AS bytea), CAST(scopes AS text[]), now()"
        given = "(VALUES ('sends', '{read,send}'), ('reads', '{read}'), ('has', '{critical,send}'))"
        connection.execute(text(f"{insert} SELECT {columns} FROM {given} AS given(name, scopes)"))
    migrations.upgrade(new_empty)
    with new_empty.connect() as connection:
        found = {row.name: row.scopes for row in connection.execute(text("SELECT name, scopes FROM api_keys"))}
    assert found == {"sends": ["read", "send", "critical"], "reads": ["read"], "has": ["critical", "send"]}


def test_a_migration_lets_others_go_on_while_it_waits(new_empty: Engine) -> None:
    migrations.upgrade(new_empty, "0003")
    with new_empty.connect() as reader:
        reader.execute(text("SELECT count(*) FROM events"))  # a long transaction holds the table
        with ThreadPoolExecutor(1) as pool:
            migration = pool.submit(migrations.upgrade, new_empty)
            wait_for(lambda: _waits_for_a_lock(new_empty), what="a migration that waits")
            # A caller that comes now waits behind it, until it makes way.
            assert _rows_in(new_empty, "events") == 0
            assert not migration.done()
            reader.rollback()
            migration.result(30)
    assert migrations.pending(new_empty) is None


def test_a_migration_that_gets_no_lock_says_so_and_leaves_nothing_half_done(new_empty: Engine) -> None:
    migrations.upgrade(new_empty, "0003")
    before = _tables(new_empty)
    with new_empty.connect() as reader:
        reader.execute(text("SELECT count(*) FROM attempts"))
        with pytest.raises(Unavailable, match="a long transaction"):
            migrations.upgrade(new_empty, patience=0)
    assert (_tables(new_empty), migrations.pending(new_empty)) == (before, NEWEST)
    migrations.upgrade(new_empty)
    assert migrations.pending(new_empty) is None


def test_several_migrate_at_once(new_empty: Engine) -> None:
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(migrations.upgrade, new_empty) for _ in range(3)]:
            done.result(60)
    assert migrations.pending(new_empty) is None


def test_a_database_of_a_later_release_is_left_as_it_is(super_engine: Engine) -> None:
    with super_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrations.pending(super_engine) is None
    migrations.upgrade(super_engine)
    with super_engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_an_index_is_made_on_every_day(super_engine: Engine) -> None:
    engine = super_engine
    with engine.connect() as connection:
        _add_attempt(engine, datetime.now(UTC))
        with Operations.context(MigrationContext.configure(connection)):
            # A first try was interrupted: its index is there, and broken.
            day = partition_of("attempts", datetime.now(UTC).date())
            _break_an_index(engine, f"{day}_fault_idx", day)
            online.create_index_on_partitions("attempts_fault_idx", "attempts", "(fault)")
            online.create_index_on_partitions("attempts_fault_idx", "attempts", "(fault)")  # again, without harm
            # A day that was made meanwhile brings its part, under a name that Postgres chose.
            with engine.begin() as other:
                other.execute(text(f"ALTER INDEX {day}_fault_idx RENAME TO {day}_kept_fault_idx"))
            online.create_index_on_partitions("attempts_fault_idx", "attempts", "(fault)")
            online.create_index("users_locale_idx", "users", "(locale)")
    made = make_partitions(engine, DAYS_AHEAD + 1)
    indexes = {
        index["name"] for table in made if table.startswith("attempts") for index in inspect(engine).get_indexes(table)
    }
    assert any("fault" in str(name) for name in indexes)
    with engine.connect() as connection:
        assert connection.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'attempts_fault_idx'::regclass")
        )
        assert connection.scalar(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")) == 0
        assert connection.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'users_locale_idx'::regclass")
        )


def _break_an_index(engine: Engine, name: str, table: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE INDEX {name} ON {table} (outcome)"))
        connection.execute(text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass"))


def _waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(
            connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"))
        )


def test_the_revisions_are_those_of_alembic_in_its_order() -> None:
    script = ScriptDirectory.from_config(_config())
    assert len(script.get_heads()) == 1
    assert all_revisions() == [each.revision for each in script.walk_revisions()][::-1]


def test_processes_that_do_not_migrate_load_no_alembic() -> None:
    looks = "import sys, api.app, tasks.clock, deploy.commands.status; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", looks], check=True, cwd=ROOT, timeout=60)


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {
            "include_object": lambda _o, name, kind, _r, _c: not (kind == "table" and _is_partition(connection, name)),
            "compare_type": True,
        }
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    assert [d for d in differences if not (isinstance(d, tuple) and d[0] == "remove_table")] == []


def _is_partition(connection: object, name: str) -> bool:
    del connection
    return any(name.startswith(f"{table}_") for table in TABLES)


def _rows_in(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def _add_attempt(engine: Engine, day: datetime) -> None:
    milliseconds = int(day.timestamp() * 1000)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO attempts (id, notification_id, number, outcome) VALUES (:id, :id, 1, 'accepted')"),
            {"id": derived_id(milliseconds, day)},
        )


def test_days_are_made_ahead_and_rows_find_theirs(engine: Engine) -> None:
    today = datetime.now(UTC)
    days = [today.date() + timedelta(days=n) for n in range(-1, DAYS_AHEAD + 1)]
    assert {partition_of(table, day) for table in TABLES for day in days} <= _tables(engine)
    assert make_partitions(engine) == []
    _add_attempt(engine, today)
    assert _rows_in(engine, partition_of("attempts", today.date())) == 1


def test_a_day_made_late_takes_its_rows_from_the_default_partition(engine: Engine) -> None:
    late = datetime.now(UTC) + timedelta(days=DAYS_AHEAD + 1)
    for hour in (0, 5):
        _add_attempt(engine, late.replace(hour=hour, minute=0, second=0, microsecond=0))
    _add_attempt(engine, late + timedelta(days=5))
    assert _rows_in(engine, "attempts_default") == 3
    made = make_partitions(engine, DAYS_AHEAD + 1)
    assert set(made) == {partition_of(table, late.date()) for table in TABLES}
    assert _rows_in(engine, partition_of("attempts", late.date())) == 2
    assert _rows_in(engine, "attempts_default") == 1


def test_making_a_day_waits_for_nobody(engine: Engine) -> None:
    with engine.begin() as blocker:
        blocker.execute(text("LOCK TABLE events_default IN ACCESS SHARE MODE"))
        assert make_partitions(engine, DAYS_AHEAD + 1) == []
    assert make_partitions(engine, DAYS_AHEAD + 1)


def test_an_attempt_stands_in_its_notifications_partition() -> None:
    notification = derived_id(1_763_700_000_000, "x")
    assert attempt_id(notification, 1).int >> 80 == notification.int >> 80
    assert attempt_id(notification, 1) != attempt_id(notification, 2)
    assert attempt_id(notification, 1) == attempt_id(notification, 1)
    assert Attempt.__tablename__ == "attempts"


def test_the_hot_queries_prune_partitions_and_use_the_index_of_due_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(
            connection.scalars(
                text(
                    "EXPLAIN SELECT id FROM notifications WHERE queue = 'email' AND due_at <= now()"
                    " ORDER BY due_at LIMIT 500 FOR UPDATE SKIP LOCKED"
                )
            )
        )
    assert "queue_due_at_idx" in plan or "notifications_due_idx" in plan
    assert "Sort" not in plan.replace("Sort Key", "")


@pytest.mark.parametrize("status", ["queued", "sent"])
def test_postgres_itself_holds_live_rows_to_a_due_at(engine: Engine, status: str) -> None:
    due = "NULL" if status == "queued" else "now()"
    statement = text(
        "INSERT INTO notifications (id, source, critical, priority, queue, status, due_at, created_at)"
        f" VALUES (gen_random_uuid(), 'x', false, 'normal', 'email', '{status}', {due}, now())"
    )
    with pytest.raises(Exception, match="live_rows_are_due"), engine.begin() as connection:
        connection.execute(statement)


@pytest.mark.parametrize("status", ["scheduled", "sending", "cancelled"])
def test_a_sent_notification_stays_sent(engine: Engine, status: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO notifications (id, source, critical, priority, queue, status, created_at)"
                " VALUES (gen_random_uuid(), 'x', false, 'normal', 'email', 'sent', now())"
            )
        )
    due = "NULL" if status == "cancelled" else "now()"
    with pytest.raises(Exception, match=f"no transition from sent to {status}"), engine.begin() as connection:
        connection.execute(text(f"UPDATE notifications SET status = '{status}', due_at = {due}"))
