"""With a million rows behind, no search and no filtered list reads more than its own rows, rare or frequent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.app import create_app
from benchmarks.filled_days import vacuum
from benchmarks.search_cases import cases
from benchmarks.varied_days import fill
from config.settings import read_settings
from config.wiring import Wiring
from notifier.storage.engines import autocommit_of
from tests.conftest import QUICK, app_url, engine_of, new_postgres, owner_url

_DATABASE: Final = "found"
_DAYS: Final = 8
_ROWS_A_DAY: Final = 36_000
#: Pages of 8 KiB that a statement may look at: a day of notifications has 1,300, and the smallest of the tables without
#: days 400.
_PAGES: Final = 1000
_PAGES_WITHOUT_DAYS: Final = 100
_WITHOUT_DAYS: Final = ("users", "suppressions", "subscriptions")
_LARGE: Final = ("events", "notifications", "attempts", "users", "idempotency_keys", "suppressions")


@dataclass
class Large:
    """An API over a large database, and a superuser's engine over that."""

    client: FlaskClient
    engine: Engine

    def pages(self, path: str) -> tuple[Any, int]:
        """Return an answer, and the most pages that one of its statements looked at."""
        with self.engine.begin() as connection:
            connection.execute(text("SELECT pg_stat_statements_reset()"))
        answer = self.client.get(path)
        with self.engine.connect() as connection:
            pages = connection.scalar(
                text("""
                    SELECT max((shared_blks_hit + shared_blks_read) / calls)
                    FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname = 'notifier_app'
                """)
            )
        return answer, int(pages or 0)


@pytest.fixture(scope="module")
def large() -> Iterator[Large]:
    settings = {"shared_preload_libraries": "pg_stat_statements", "maintenance_work_mem": "256MB", "jit": "off"}
    with new_postgres(_DATABASE, **settings) as server:
        owner = engine_of(owner_url(server, _DATABASE))
        fill(owner, _DAYS, _ROWS_A_DAY)
        owner.dispose()
        engine = engine_of(server.url(_DATABASE))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE EXTENSION pg_stat_statements"))
        vacuum(engine)
        wires = Wiring(read_settings({**QUICK, "DATABASE_URL": app_url(server, _DATABASE)}))
        yield Large(create_app(wires).test_client(), engine)
        wires.template_process.close()
        wires.engine.dispose()
        autocommit_of(wires.engine).dispose()
        engine.dispose()


def test_there_are_a_million_rows(large: Large) -> None:
    with large.engine.connect() as connection:
        rows = [int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0) for table in _LARGE]
    assert sum(rows) > 950_000


def test_each_answer_reads_its_own_rows(large: Large) -> None:
    with large.engine.connect() as connection:
        paths = cases(connection)
    assert len(paths) > 80
    # A session makes its plans when it first searches, and reads the catalogue for that.
    large.client.get("/api/v1/search?q=nothing-yet&status=sent")
    wrong = {}
    for name, path in paths.items():
        answer, pages = large.pages(path)
        assert answer.status_code == 200, f"{name}: {answer.text}"
        if pages > _allowed(name):
            wrong[name] = pages
        is_found = not any(word in name for word in ("no-", "no.", "nobody", "no_", "nothing", "0190"))
        if is_found and not any(word in name for word in ("sms", "retrying", "sending", "skipped")):
            assert answer.get_json()["items"], name
    assert wrong == {}, "\n".join(f"{name}: {pages} pages" for name, pages in wrong.items())


def _allowed(name: str) -> int:
    return _PAGES_WITHOUT_DAYS if name.startswith(_WITHOUT_DAYS) else _PAGES


@pytest.mark.parametrize("address", ["user7@example.com", "device-7", "nobody@example.com"])
def test_few_users_are_read_for_an_address(large: Large, address: str) -> None:
    """Postgres keeps no statistics by which it knew how few have one, and a short page tempts it to read them all."""
    answer, pages = large.pages(f"/api/v1/users?address={address}&limit=1")
    assert len(answer.get_json()["items"]) == (address != "nobody@example.com")
    assert pages <= _PAGES_WITHOUT_DAYS


@pytest.mark.parametrize("provider", ["old-provider", "smtp", "rare-provider"])
def test_a_list_by_provider_has_each_row_once_on_all_its_pages(large: Large, provider: str) -> None:
    seen: list[str] = []
    path = f"/api/v1/notifications?provider={provider}&limit=200"
    for _ in range(4):
        page = large.client.get(path).get_json()
        seen += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        path = f"/api/v1/notifications?provider={provider}&limit=200&cursor={page['next_cursor']}"
    with large.engine.connect() as connection:
        expected = connection.scalars(
            text("SELECT notification_id FROM attempts WHERE provider = :provider ORDER BY id DESC LIMIT 800"),
            {"provider": provider},
        )
        assert seen == sorted(map(str, expected), reverse=True)
