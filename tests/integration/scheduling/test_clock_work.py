"""The clock's look: it names each part of a tick that has work, and none of the others."""

from typing import Final

import pytest
from sqlalchemy import Engine, text

from notifier.scheduling.clock_work import ClockWork, Part, look
from notifier.vocabulary.queues import DELIVERY, FAN_OUT

_NOTIFICATION: Final = """
    INSERT INTO notifications (id, source, recipient, channel, critical, priority, queue, status, due_at, claims,
        attempts, lost, created_at, reason, next_channels)
    VALUES (gen_random_uuid(), 'test', 'ada@example.com', 'email', false, 'normal', 'email', {}, 1, 0, 0, now(), {})
"""
_EVENT: Final = """
    INSERT INTO events (id, event_type, source, payload, critical, priority, status, due_at, created_at)
    VALUES (gen_random_uuid(), 'order.paid', 'test', '{}', false, 'normal', 'accepted', DUE, now())
"""
#: A row that gives a part work, and one that does not.
_ROWS: Final = {
    Part.HOLDS: (
        _NOTIFICATION.format("'scheduled', now() + interval '1 day'", "'held', NULL"),
        _NOTIFICATION.format("'scheduled', now() + interval '1 day'", "'quiet_hours', NULL"),
    ),
    Part.NEXT_CHANNELS: (
        _NOTIFICATION.format("'failed', NULL", "'retries_exhausted', ARRAY['sms']"),
        _NOTIFICATION.format("'sent', NULL", "NULL, ARRAY['sms']"),
    ),
    Part.ENDPOINTS: (
        "INSERT INTO endpoints (id, waited_for) VALUES (gen_random_uuid(), true)",
        "INSERT INTO endpoints (id, waited_for) VALUES (gen_random_uuid(), false)",
    ),
    Part.PROVIDERS: (
        "INSERT INTO providers (channel, name, waited_for) VALUES ('email', 'smtp', true)",
        "INSERT INTO providers (channel, name, waited_for) VALUES ('email', 'ses', false)",
    ),
    Part.LINES: (
        "INSERT INTO providers (channel, name, line_until) VALUES ('sms', 'slow', now() + interval '9 s')",
        "INSERT INTO providers (channel, name, line_until) VALUES ('sms', 'idle', now() - interval '9 s')",
    ),
    Part.RECOVERIES: tuple(
        f"""
        INSERT INTO recoveries (id, subscription_id, since, place, total, recovered, created_at, finished_at)
        VALUES (gen_random_uuid(), gen_random_uuid(), now(), gen_random_uuid(), 1, 0, now(), {finished})
        """
        for finished in ("NULL", "now()")
    ),
    Part.DEAD_LETTER_ACTS: tuple(
        f"""
        INSERT INTO dead_letter_acts (id, act, filters, place, total, asked_by, created_at, stopped_at)
        VALUES (gen_random_uuid(), 'requeue', '{{}}', gen_random_uuid(), 1, 'ada', now(), {stopped})
        """
        for stopped in ("NULL", "now()")
    ),
    Part.ERASURES: tuple(
        f"""
        INSERT INTO erasures (id, asked_by, created_at, round, erased, left_in, due_at)
        VALUES (gen_random_uuid(), 'ada', now(), 0, 0, '{{}}', {due})
        """
        for due in ("now()", "now() + interval '1 hour'")
    ),
    Part.RECEIPTS: tuple(
        f"""
        INSERT INTO receipts (id, notification_id, provider, kind, happened_at, due_at, keep_until)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'ses', 'delivered', now(), {due}, now() + interval '1 day')
        """
        for due in ("now()", "now() + interval '1 hour'")
    ),
}
_QUEUES: Final = [*DELIVERY, FAN_OUT]


def _write(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_nothing_has_work_where_there_is_none(engine: Engine) -> None:
    assert look(engine, _QUEUES) == ClockWork(frozenset(), [])


@pytest.mark.parametrize("part", Part)
def test_each_part_is_named_by_its_own_rows_alone(engine: Engine, part: Part) -> None:
    with_work, without = _ROWS[part]
    _write(engine, without)
    assert look(engine, _QUEUES) == ClockWork(frozenset(), [])
    _write(engine, with_work)
    assert look(engine, _QUEUES) == ClockWork(frozenset({part}), [])


def test_queues_with_due_rows_are_named_in_their_order(engine: Engine) -> None:
    _write(engine, _EVENT.replace("DUE", "now() + interval '1 hour'"))
    _write(engine, _NOTIFICATION.format("'scheduled', now() + interval '1 hour'", "NULL, NULL"))
    assert look(engine, _QUEUES).queues == []
    _write(engine, _EVENT.replace("DUE", "now()"))
    assert look(engine, _QUEUES).queues == [FAN_OUT]
    _write(engine, _NOTIFICATION.format("'scheduled', now()", "NULL, NULL"))
    assert look(engine, _QUEUES) == ClockWork(frozenset(), ["email", FAN_OUT])
    assert look(engine, [FAN_OUT, "email", "sms"]).queues == [FAN_OUT, "email"]
    assert look(engine, ["sms"]).queues == []
