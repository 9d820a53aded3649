"""Retention: what is old goes, what anything alive still needs stays, and nobody waits for that."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from notifier.events.fan_out import replay
from notifier.storage import compaction, retention
from notifier.storage.partitions import TABLES, partition_of
from notifier.storage.retention import Retention
from notifier.vocabulary.ids import first_id_of, new_id
from tests.conftest import clean_environment
from tests.support.commands import succeed
from tests.support.old_data import OLD, SPANS, TODAY, Data, id_of, purge
from tests.support.paths import ROOT
from tests.support.running import Running, wait_for


@pytest.fixture
def data(engine: Engine) -> Data:
    return Data(engine)


@pytest.fixture
def small_days_are_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each test filled its days with a million rows."""
    monkeypatch.setattr(compaction, "_SMALLEST", 0)
    monkeypatch.setattr(compaction, "_TIMES", 0)


@pytest.fixture(params=["row by row", "anew"])
def both_ways(request: pytest.FixtureRequest) -> None:
    """A needed day loses what nobody needs by deleting, and by being made anew."""
    if request.param == "anew":
        request.getfixturevalue("small_days_are_compacted")


def test_a_day_that_nobody_needs_is_dropped_and_the_younger_ones_stay(data: Data) -> None:
    last, first = TODAY - timedelta(days=31), TODAY - timedelta(days=30)
    data.days(OLD, last, first)
    for day in (OLD, last, first):
        data.notification(id_of(day, "n"), event_id=data.event(id_of(day, "e")))
    dropped = {step.table for step in purge(data.engine) if step.rows is None}
    assert dropped == {partition_of(table, day) for table in TABLES for day in (OLD, last)}
    assert data.parts(first) == set(TABLES)
    assert {table: data.count(table) for table in TABLES} == {
        "events": 1,
        "notifications": 1,
        "attempts": 1,
        "attachments": 0,
    }
    assert not [step for step in purge(data.engine) if step.rows != 0]


@pytest.mark.usefixtures("both_ways")
def test_a_day_with_a_live_row_stays_but_its_finished_rows_go(data: Data) -> None:
    data.days(OLD)
    kept_event = data.event(id_of(OLD, "kept"))
    live = data.live(id_of(OLD, "live"), event_id=kept_event, attempts=2)
    for n in range(5):
        data.notification(id_of(OLD, n), event_id=data.event(id_of(OLD, "e", n)), attempts=n % 2)
    with data.engine.begin() as connection:  # more than a batch
        connection.execute(
            text(
                "INSERT INTO notifications (id, source, critical, priority, queue, status, created_at)"
                " SELECT id, 's', false, 'low', 'sms', 'skipped', now() FROM unnest(:ids) AS id"
            ),
            {"ids": [id_of(OLD, "more", n) for n in range(1500)]},
        )
    data.event(id_of(OLD, "lonely"))
    purge(data.engine)
    assert data.parts(OLD) == {"notifications", "attempts", "events"}
    assert data.ids("notifications") == {live}
    assert data.ids("events") == {kept_event}
    assert data.count("attempts") == 2
    with data.engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET status = 'cancelled', due_at = NULL"))
    purge(data.engine)
    assert data.parts(OLD) == set()


@pytest.mark.usefixtures("both_ways")
def test_an_event_that_waits_to_be_fanned_out_stays(data: Data) -> None:
    data.days(OLD)
    event = data.event(id_of(OLD, "e"), status="accepted", due_at=datetime.now(UTC))
    data.event(id_of(OLD, "other"))
    purge(data.engine)
    assert data.ids("events") == {event}
    assert data.parts(OLD) == {"events"}


@pytest.mark.usefixtures("both_ways")
def test_a_standing_dead_letter_keeps_its_row_and_its_event_for_its_own_time(data: Data) -> None:
    older = TODAY - timedelta(days=95)
    data.days(OLD, older)
    kept = []
    for day in (OLD, older):
        event = data.event(id_of(day, "e"))
        row = data.notification(id_of(day, "n"), event_id=event, status="failed")
        data.letter(day, notification_id=row, event_id=event)
        broken = data.event(id_of(day, "broken"), status="failed")
        data.insert(
            "dead_letters",
            id=id_of(day, "another"),
            event_id=broken,
            claims=0,
            reason="fan_out_failed",
            attempts=0,
            created_at=datetime.now(UTC),
        )
        data.notification(id_of(day, "other"), status="failed")
        data.letter(day, id=id_of(day, "requeued"), notification_id=id_of(day, "other"), requeued_at=datetime.now(UTC))
        kept.append(({row}, {event, broken}))
    purge(data.engine)
    [(rows, events), _] = kept
    assert (data.ids("notifications"), data.ids("events")) == (rows, events)
    assert data.parts(older) == set()
    assert data.ids("dead_letters") == {id_of(OLD, each) for each in ("letter", "another", "requeued")}


@pytest.mark.usefixtures("both_ways")
def test_what_a_replay_made_keeps_its_old_event(data: Data) -> None:
    data.days(OLD)
    event = data.event(id_of(OLD, "e"))
    data.event(id_of(OLD, "other"))
    data.notification(id_of(OLD, "n"), event_id=event)
    made = {data.live(new_id(), event_id=event), data.notification(new_id(), event_id=event)}
    purge(data.engine)
    assert data.parts(OLD) == {"events"}
    assert (data.ids("events"), data.ids("notifications")) == ({event}, made)


def test_a_replay_finds_out_that_its_event_was_purged(data: Data) -> None:
    with pytest.raises(Exception, match="outlived its retention"):
        replay(data.engine, {"id": id_of(OLD, "gone")}, None, None)  # type: ignore[arg-type]  # it gets no further


@pytest.mark.usefixtures("both_ways")
def test_what_a_live_row_looks_at_stays(data: Data) -> None:
    """Its siblings, when it fails; a reminder that takes its place."""
    data.days(OLD)
    sent, live, owing, beside = (id_of(OLD, each) for each in ("sent", "live", "owing", "beside"))
    later, earlier, other = (id_of(OLD, each) for each in ("later", "earlier", "other"))
    data.notification(sent, siblings=[live], next_channels=["sms"])
    data.live(live, siblings=[sent], next_channels=["sms"])
    data.notification(owing, siblings=[beside], next_channels=["sms"], status="failed")
    data.notification(beside, siblings=[owing], next_channels=["sms"])
    target = {"target_date": datetime.now(UTC), "cancellation_key": "k"}
    data.live(earlier, **target, origin_id=id_of(OLD, hour=1))
    data.notification(later, **target, origin_id=id_of(OLD, hour=2))
    data.notification(other, cancellation_key="k")
    purge(data.engine)
    assert data.ids("notifications") == {sent, live, owing, beside, later, earlier}


@pytest.mark.usefixtures("both_ways")
def test_a_day_is_kept_by_what_owes_a_channel_and_by_reminders(data: Data) -> None:
    earlier_day, owing_day = OLD - timedelta(days=1), OLD - timedelta(days=2)
    data.days(OLD, earlier_day, owing_day)
    target = {"target_date": datetime.now(UTC), "cancellation_key": "k"}
    data.live(id_of(earlier_day, "n"), **target, origin_id=id_of(earlier_day))
    later = data.notification(id_of(OLD, "n"), **target, origin_id=id_of(OLD))
    owing = data.notification(id_of(owing_day, "n"), next_channels=["sms"], status="skipped")
    keepers = {day.partition: day.keeper for day in retention.survey(data.engine, SPANS)}
    purge(data.engine)
    assert {later, owing} < data.ids("notifications")
    assert keepers[partition_of("notifications", OLD)] == "reminders"
    assert keepers[partition_of("notifications", owing_day)] == "owed channels"
    assert keepers[partition_of("notifications", earlier_day)] == "live"


@pytest.mark.usefixtures("both_ways")
def test_attachments_stay_while_a_notification_names_them(data: Data) -> None:
    eve = OLD - timedelta(days=1)
    data.days(eve, OLD)
    named, before_midnight, unnamed = id_of(OLD, "a"), id_of(eve, "b", hour=23.9999), id_of(OLD, "c")
    for each in (named, before_midnight, unnamed):
        data.insert("attachments", id=each, name="x", content_type="x/y", content=b"x")
    content = orjson.dumps({"body": "x", "attachments": [str(named), str(before_midnight)]}).decode()
    live = data.live(id_of(OLD, "n", hour=0), content=content)
    purge(data.engine)
    assert data.ids("attachments") == {named, before_midnight}
    with data.engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET status = 'cancelled', due_at = NULL"))
    purge(data.engine)
    assert data.ids("attachments") == set()
    assert live not in data.ids("notifications")


def test_old_rows_in_the_default_partition_go(data: Data) -> None:
    for n in range(3):
        data.notification(id_of(OLD, n), event_id=data.event(id_of(OLD, "e", n)))
    live = data.live(id_of(OLD, "live"))
    data.insert("attempts", id=id_of(OLD, "orphan"), notification_id=id_of(OLD, "gone"), number=1, outcome="accepted")
    young = data.notification(new_id())
    purge(data.engine)
    assert data.ids("notifications") == {live, young}
    assert (data.count("events"), data.count("attempts")) == (0, 2)


def test_what_has_a_lifetime_of_its_own_goes_by_that(data: Data) -> None:
    now = datetime.now(UTC)
    for name, delta in (("over", -timedelta(seconds=1)), ("not", timedelta(hours=1))):
        key = {"source": "s", "key": name, "fingerprint": b"x", "ids": [new_id()], "created_at": now}
        data.insert("idempotency_keys", **key, expires_at=now + delta)
        data.insert("dedup_keys", channel="email", address=name, key="k", notification_id=new_id(), until=now + delta)
        times = {"happened_at": now, "due_at": now, "keep_until": now + delta}
        data.insert("receipts", id=new_id(), notification_id=new_id(), provider="p", kind="delivered", **times)
    for days in (0, 32):
        message = {"notification_id": new_id(), "channel": "sms", "recipient": "x", "text": "x"}
        data.insert("outbox", **message, created_at=now - timedelta(days=days))
        data.insert("heartbeats", name=f"w{days}", kind="worker", queues=["sms"], seen_at=now - timedelta(days=days))
        moment = now - timedelta(days=days)
        its_id = first_id_of(moment)
        resend = {"how": "resend", "asked_by": "k", "asked_at": moment, "status": "sent", "attempts": 1}
        data.insert("resends", id=its_id, notification_id=its_id, **resend)
        said = {"provider": "p", "kind": "delivered", "happened_at": moment, "taken_at": moment, "applied": True}
        data.insert("taken_receipts", id=its_id, notification_id=its_id, **said)
        act = {"act": "drop", "filters": "{}", "place": its_id, "total": 1, "asked_by": "k", "created_at": moment}
        data.insert("dead_letter_acts", id=its_id, **act, **{"finished_at" if days else "stopped_at": moment})
        running = UUID(int=its_id.int + 1)
        data.insert("dead_letter_acts", id=running, **act)
        data.insert("suppressions", id=new_id(), channel="sms", address=f"{days}", folded=f"{days}", reason="stop",
                    created_at=now - timedelta(days=days))  # fmt: skip
        data.insert("opt_outs", channel="sms", address_hash=b"x", category=f"{days}",
                    created_at=now - timedelta(days=days))  # fmt: skip
    over = ("idempotency_keys", "dedup_keys", "receipts", "outbox", "heartbeats", "resends", "taken_receipts")
    over = (*over, "dead_letter_acts")
    none = dict.fromkeys(("dead_letters", "erasures", "stats_minutes", "stats_hours"), 0)
    assert retention.count_expired(data.engine, SPANS) == {**none, **dict.fromkeys(over, 1)}
    purge(data.engine)
    left = {**dict.fromkeys(over, 1), "dead_letter_acts": 3}
    assert {table: data.count(table) for table in over} == left, "an act that still runs is kept"
    assert (data.count("suppressions"), data.count("opt_outs")) == (2, 2)


def of_database(database_url: str, *arguments: str, **settings: str) -> str:
    return succeed(*arguments, environment={**clean_environment(), "DATABASE_URL": database_url, **settings})


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/Los_Angeles"])
def test_days_are_those_of_utc_wherever_it_runs(data: Data, database_url: str, zone: str) -> None:
    before = TODAY - timedelta(days=3)
    data.days(before - timedelta(days=1), before)
    data.notification(id_of(before - timedelta(days=1), "last", hour=23.9))
    stays = {data.notification(id_of(before, "first", hour=0)), data.notification(id_of(before, "x", hour=23.9))}
    for hour in (-0.1, 0.1):
        moment = datetime.combine(before, datetime.min.time(), UTC) + timedelta(hours=hour)
        data.insert("outbox", notification_id=new_id(), channel="sms", recipient="x", text="x", created_at=moment)
    out = of_database(database_url, "purge", TZ=zone, PGTZ=zone, NOTIFIER_RETENTION="P3D")
    assert "Dropped 4 of 4 old partitions." in out
    assert data.ids("notifications") == stays
    assert data.count("outbox") == 1


def test_the_dry_run_says_what_would_go_and_changes_nothing(data: Data, database_url: str) -> None:
    other = OLD - timedelta(days=1)
    data.days(OLD, other)
    data.notification(id_of(OLD, "n"), event_id=data.event(id_of(OLD, "e")))
    data.live(id_of(other, "n"), event_id=data.event(id_of(other, "e")))
    data.letter(TODAY - timedelta(days=91), notification_id=id_of(OLD, "n"))
    out = of_database(database_url, "purge", "--dry-run")
    lines = {line.split()[1]: line for line in out.splitlines() if "_20" in line}
    assert "kept: live" in lines[partition_of("notifications", other)]
    assert "kept: notifications" in lines[partition_of("events", other)]
    assert "Would delete 1 of dead_letters." in out
    assert (data.count("notifications"), data.count("dead_letters")) == (2, 1)
    said = {name for name, line in lines.items() if "dropped" in line}
    real = of_database(database_url, "purge")
    assert "Deleted 1 of dead_letters." in real
    assert {table for table in TABLES if partition_of(table, OLD) not in said} == set(), said
    assert data.parts(OLD) == set()


def test_for_ever_is_a_hundred_years(data: Data) -> None:
    data.notification(id_of(date(1971, 1, 2), "n"))
    for_ever = Retention(timedelta(days=36500), timedelta(days=36500))
    assert not [step for step in purge(data.engine, for_ever) if step.rows != 0]
    assert data.count("notifications") == 1


def test_the_clock_purges_beside_its_ticks(data: Data, new_system: Callable[..., Running], database_url: str) -> None:
    data.days(OLD)
    data.notification(id_of(OLD, "n"))
    system = new_system(DATABASE_URL=database_url)
    try:
        system.start(only=[system.clock])
        code = "from tasks.clock import purge; purge.apply_async(queue='clock')"
        subprocess.run([sys.executable, "-c", code], env=system.environment, cwd=ROOT, check=True)
        wait_for(lambda: not data.parts(OLD), 60, "the old day to be dropped")
    finally:
        system.stop()


def test_erasures_that_are_finished_go_and_others_stay(data: Data) -> None:
    common = {"asked_by": "x", "round": 2, "erased": 1, "left_in": [], "created_at": datetime.now(UTC)}
    data.insert("erasures", id=id_of(OLD, "finished"), finished_at=datetime.now(UTC), **common)
    running = data.insert("erasures", id=id_of(OLD, "running"), due_at=datetime.now(UTC), **common)
    recent = data.insert("erasures", id=new_id(), finished_at=datetime.now(UTC), **common)
    purge(data.engine)
    assert data.ids("erasures") == {running, recent}
