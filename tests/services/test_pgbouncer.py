"""Postgres behind PgBouncer in transaction mode: no statement relies on the session that it ran in."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from notifier import migrations
from tests.breaking import all_delivered
from tests.conftest import engine_of, new_postgres
from tests.receivers import HttpReceiver
from tests.running import Running, ahead, made, reaches
from tests.services.pgbouncer import PgBouncer


@pytest.fixture
def pgbouncer() -> Iterator[PgBouncer]:
    """A PgBouncer before an empty database. Not below pytest's own folder, which is closed to other users."""
    with tempfile.TemporaryDirectory(prefix="notifier-") as folder, new_postgres("template") as server:
        server.create_database("behind")
        bouncer = PgBouncer(Path(folder), server.url("behind"))
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.stop()


def test_everything_works_behind_it_from_the_migrations_on(
    pgbouncer: PgBouncer, new_system: Callable[..., Running], http: HttpReceiver
) -> None:
    engine = engine_of(pgbouncer.url)
    migrations.upgrade(engine)
    engine.dispose()
    with new_system(DATABASE_URL=pgbouncer.url) as system:
        http.answer("/bounced", 503, 200)
        for _ in range(50):
            system.event(channel="webhook", recipient=http.url("/bounced"))
        all_delivered(system, http, "/bounced", 50, 60)
        reaches(system, made(system, channel="sms", recipient="+4915112345678", send_at=ahead(seconds=1)), "sent")
        assert system.get("/ready").json()["status"] == "ok"
