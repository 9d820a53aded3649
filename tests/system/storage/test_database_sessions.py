"""Connections to Postgres are kept: a load ends none of them and makes no new ones."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

_EVENTS = 150
_AT_ONCE = 16
#: Each begins a session, and several at once may make one more than is kept.
_OUR_LOOKS = 5


def load(system: Running, http: HttpReceiver, path: str) -> int:
    """Deliver events that come at once; returns how many sessions of Postgres began meanwhile."""
    before = sessions(system)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for answer in pool.map(
            lambda _: system.post(
                "/api/v1/events", {"event_type": "kept", "channel": "webhook", "recipient": http.url(path)}
            ),
            range(_EVENTS),
        ):
            assert answer.status_code == 202, answer.text
    wait_for(lambda: len(http.received(path)) >= _EVENTS, 60, "all webhooks")
    return sessions(system) - before


def sessions(system: Running) -> int:
    """Return how many sessions this database has had, those of the last second perhaps without."""
    [(count,)] = system.sql("SELECT sessions FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


def test_a_load_makes_no_new_connections(system: Running, http: HttpReceiver) -> None:
    load(system, http, "/warm")
    assert load(system, http, "/kept") <= _OUR_LOOKS
