"""The clock, and channels in turn, among rows that hold the worst."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from sqlalchemy import text

from config.settings import read_settings
from config.wiring import Wiring
from notifier.scheduling import next_channel
from notifier.scheduling.due import hand_over
from notifier.storage import stored_values
from notifier.vocabulary.states import Channel
from tests.conftest import QUICK
from tests.support.poison import GOOD, NOTIFICATIONS, NUMBERS, Batch
from tests.support.receivers import SmtpReceiver
from tests.support.running import FINISHED, Running, ahead, made, reaches


@pytest.fixture(scope="module")
def wires(new_database: Any) -> Iterator[Wiring]:
    """The wiring of a worker, on a database of this file's own."""
    made = Wiring(read_settings({**QUICK, "DATABASE_URL": new_database(), "REDIS_URL": "redis://127.0.0.1:1"}))
    yield made
    made.template_process.close()
    made.engine.dispose()


#: The columns of a row that the clock reads, with their worst values.
CLOCK: Final = {
    **{name: NOTIFICATIONS[name] for name in ("claims", "attempts", "lost", "on_ambiguous", "channel")},
    "due_at": ("'-infinity'", "'0044-03-15 00:00+00 BC'"),
    "tries": NUMBERS,
}


@pytest.mark.parametrize("status", ["scheduled", "retrying", "queued", "sending"])
@pytest.mark.parametrize("column", CLOCK)
def test_the_clock_hands_over_the_others(wires: Wiring, column: str, status: str) -> None:
    policy = wires.settings.of(Channel.EMAIL).retry_policy
    batch = Batch(wires.engine, CLOCK[column], status=f"'{status}'", due_at="now() - interval '1 minute'")
    batch.spoil("notifications", column)
    batch.sql("UPDATE notifications SET silent_claim = claims")
    messages = hand_over(wires.engine, "email", 64, 3600.0, policy)
    handed = {row_id: message for message in messages for row_id in message.ids}
    assert handed.keys() >= set(batch.good)
    assert all(0 <= message.failures <= policy.max_retries for message in messages)
    for row in batch.sql("SELECT id, status, tries FROM notifications WHERE id = ANY(:ids)", ids=list(batch.bad)):
        if column == "lost" and row.id not in handed:
            continue  # of those with their last chance one goes at a time
        assert row.status == "failed" or handed[row.id].failures == row.tries, batch.bad[row.id]


#: The columns of a row that its successor depends on.
SUCCESSORS: Final = {
    name: NOTIFICATIONS[name]
    for name in (
        *("next_channels", "content", "user_id", "priority", "expires_at", "target_date", "lead_time", "timezone"),
        *("dedup_window", "template", "created_at", "siblings", "traceparent", "on_ambiguous", "origin_id"),
    )
}


@pytest.mark.parametrize("column", SUCCESSORS)
def test_the_others_get_their_next_channel(wires: Wiring, column: str) -> None:
    batch = Batch(
        wires.engine,
        SUCCESSORS[column],
        status="'failed'",
        due_at="CAST(NULL AS timestamptz)",
        next_channels="CAST('{email}' AS text[])",
        template="NULL",
    )
    batch.spoil("notifications", column)
    next_channel.take_over(wires.engine, wires.planner(lambda _: 3600.0))
    statement = "SELECT count(*) FROM notifications WHERE follows = ANY(:ids) AND status = 'queued'"
    assert batch.sql(statement, ids=batch.good)[0][0] == GOOD
    statement = "SELECT count(*) FROM notifications WHERE id = ANY(:ids) AND next_channels IS NOT NULL"
    assert batch.sql(statement, ids=batch.ids)[0][0] == 0


def test_thirty_emails_go_at_once_beside_two_that_are_bad(system: Running, smtp: SmtpReceiver) -> None:
    """The whole system: what an older release accepted behind a doubled name, and a time zone that is none any more."""
    template = {"channel": "email", "text": "{{ payload.a }}"}
    assert system.http.put(f"{system.url}/api/v1/templates/poison", json=template, timeout=20).ok
    user = {"email": "zoned@example.com", "timezone": "Europe/Berlin"}
    assert system.http.put(f"{system.url}/api/v1/users/u_zoned", json=user, timeout=20).ok
    rules = {"quiet_hours": [{"channels": ["sms"], "start": "22:00", "end": "07:00"}]}
    assert system.http.put(f"{system.url}/api/v1/users/u_zoned/preferences", json=rules, timeout=20).ok
    later = {"send_at": ahead(hours=1), "channel": "email", "on_ambiguous": "hold"}
    plain = [made(system, recipient=f"plain{number}@example.com", **later) for number in range(30)]
    answer = system.post(
        "/api/v1/notifications",
        {"recipient": "poison@example.com", "template": "poison", "data": {"a": 1}, **later},
    )
    poison = answer.json()["items"][0]["id"]
    zoned = made(system, user_id="u_zoned", **later)
    system.sql("UPDATE users SET timezone = 'right/Europe/Berlin' WHERE user_id = 'u_zoned'")
    system.sql(
        "UPDATE notifications SET content = CAST(:content AS json) WHERE id = :id",
        content='{"data": {"a": 1e999, "a": 1}}',
        id=poison,
    )
    system.sql(
        "UPDATE notifications SET due_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))", ids=[*plain, poison, zoned]
    )
    for each in (*plain, zoned):
        sent = reaches(system, each, *FINISHED)
        assert (sent["status"], sent["attempts"], len(sent["attempt_log"])) == ("sent", 1, 1)
    bad = reaches(system, poison, *FINISHED)
    assert (bad["status"], bad["reason"], bad["attempts"]) == ("failed", "permanent_error", 0)
    assert "its data cannot be used (JSONDecodeError)" in bad["explanation"]
    assert [len(smtp.mails_to(f"plain{number}@example.com")) for number in range(30)] == [1] * 30
    assert [
        row.claims
        for row in system.sql("SELECT claims FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))", ids=plain)
    ] == [1] * 30, "none waited for a lease"


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("2026-11-28 09:00:00.5+00", datetime(2026, 11, 28, 9, 0, 0, 500_000, UTC)),
        ("infinity", stored_values.LATEST),
        ("-infinity", stored_values.EARLIEST),
        ("0044-03-15 00:00:00+00 BC", stored_values.EARLIEST),
        ("0001-01-01 00:00:00+00", stored_values.EARLIEST),
        ("9999-12-31 23:59:59+00", stored_values.LATEST),
        ("294276-01-01 00:00:00+00", stored_values.LATEST),
        (None, None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns"])
def test_a_stored_moment_is_read_within_the_calendar(
    wires: Wiring, stored: str | None, read: datetime | None, zone: str
) -> None:
    with wires.engine.begin() as connection:
        connection.exec_driver_sql(f"SET LOCAL timezone = '{zone}'")
        assert connection.scalar(text("SELECT CAST(:stored AS timestamptz)"), {"stored": stored}) == read
