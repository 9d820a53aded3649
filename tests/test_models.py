"""Models, migrations and partitions agree, from empty to full and back."""

from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from deploy.embedded import EmbeddedPostgres
from notifier import migrations
from notifier.ids import derived_id
from notifier.migrations import _config
from notifier.models import Attempt, Base, attempt_id
from notifier.partitions import DAYS_AHEAD, TABLES, make_partitions, partition_of
from tests.conftest import engine_of


def _tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_upgrade_and_downgrade_from_empty(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("up_and_down")
    engine = engine_of(postgres.url("up_and_down"))
    assert migrations.pending(engine) == "0005"
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


def test_there_is_one_head() -> None:
    assert len(ScriptDirectory.from_config(_config()).get_heads()) == 1


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


@pytest.mark.parametrize("status", ["retrying", "sending", "cancelled"])
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
