"""A clock that cannot ask which parts of its tick have work, or waits long for the answer."""

from tests.conftest import APP
from tests.support.running import Running, ahead, made, reaches, wait_for

#: Longer than a tick may take.
SLOW = """
    ALTER FUNCTION notifier_clock_work(text[]) RENAME TO notifier_quick_work;
    CREATE FUNCTION notifier_clock_work(queues text[]) RETURNS TABLE (part text) LANGUAGE sql SECURITY DEFINER
    AS 'SELECT pg_sleep(1.2); SELECT part FROM notifier_quick_work(queues)'
"""
QUICK_AGAIN = """
    DROP FUNCTION notifier_clock_work(text[]);
    ALTER FUNCTION notifier_quick_work(text[]) RENAME TO notifier_clock_work
"""


def test_where_nobody_can_look_every_part_is_done(breakable: Running) -> None:
    """As where somebody restored the database without its grants."""
    system = breakable
    system.sql(f"REVOKE EXECUTE ON FUNCTION notifier_clock_work FROM {APP.name}")
    try:
        assert system.http.put(f"{system.url}/api/v1/holds/email", timeout=20).ok
        waits = made(system, channel="email", recipient="ada@example.com")
        wait_for(lambda: system.notification(waits)["reason"] == "held")
        later = made(system, channel="sms", recipient="+4915100000001", send_at=ahead(seconds=1))
        assert system.http.delete(f"{system.url}/api/v1/holds/email", timeout=20).ok
        for each in (waits, later):
            reaches(system, each, "sent")
    finally:
        system.sql(f"GRANT EXECUTE ON FUNCTION notifier_clock_work TO {APP.name}")


def test_a_look_that_takes_all_of_a_tick_stops_nothing(breakable: Running) -> None:
    system = breakable
    system.sql(SLOW)
    try:
        reaches(system, made(system, channel="sms", recipient="+4915100000001", send_at=ahead(seconds=1)), "sent")
    finally:
        system.sql(QUICK_AGAIN)
