"""Postgres behind PgBouncer in transaction mode: no statement relies on the session that it ran in."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.pgbouncer import PgBouncer
from notifier import migrations
from tests.conftest import APP, OWNER, as_login, engine_of, new_postgres, owner_url, set_up_roles
from tests.support.breaking import all_delivered
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, ahead, made, reaches


@pytest.fixture
def pgbouncer() -> Iterator[PgBouncer]:
    """A PgBouncer before an empty database. Not below pytest's own folder, which is closed to other users."""
    with tempfile.TemporaryDirectory(prefix="notifier-") as folder, new_postgres("template") as server:
        server.create_database("behind")
        set_up_roles(server, "behind")
        bouncer = PgBouncer(Path(folder), owner_url(server, "behind"), [OWNER, APP], pool=10)
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.stop()


def test_everything_works_behind_it_from_the_migrations_on(
    pgbouncer: PgBouncer, new_system: Callable[..., Running], http: HttpReceiver
) -> None:
    engine = engine_of(as_login(pgbouncer.url, OWNER))
    migrations.upgrade(engine)
    engine.dispose()
    with new_system(DATABASE_URL=as_login(pgbouncer.url, APP)) as system:
        http.answer("/bounced", 503, 200)
        for _ in range(50):
            system.event(channel="webhook", recipient=http.url("/bounced"))
        all_delivered(system, http, "/bounced", 50, 60)
        reaches(system, made(system, channel="sms", recipient="+4915112345678", send_at=ahead(seconds=1)), "sent")
        assert system.get("/ready").json()["status"] == "ok"
