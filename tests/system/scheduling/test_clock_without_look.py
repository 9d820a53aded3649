"""A clock that cannot ask which parts of its tick have work."""

from tests.support.running import Running, ahead, made, reaches, wait_for


def test_what_cannot_be_asked_is_done(breakable: Running) -> None:
    """As where somebody restored the database without its grants."""
    system = breakable
    role = system.sql("SELECT usename FROM pg_stat_activity WHERE usename LIKE '%app%' LIMIT 1")[0].usename
    system.sql(f"REVOKE EXECUTE ON FUNCTION notifier_clock_work FROM {role}")
    try:
        assert system.http.put(f"{system.url}/api/v1/holds/email", timeout=20).ok
        waits = made(system, channel="email", recipient="ada@example.com")
        wait_for(lambda: system.notification(waits)["reason"] == "held")
        later = made(system, channel="sms", recipient="+4915100000001", send_at=ahead(seconds=1))
        assert system.http.delete(f"{system.url}/api/v1/holds/email", timeout=20).ok
        for each in (waits, later):
            reaches(system, each, "sent")
    finally:
        system.sql(f"GRANT EXECUTE ON FUNCTION notifier_clock_work TO {role}")
